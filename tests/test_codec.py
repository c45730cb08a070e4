"""Both codecs read the same JSON: every vector of `conformance/codec.json`, and whatever bytes come to mind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.errors import LocalProtocolError
from backchannel.protocol import codec, fastcodec, frame
from backchannel.protocol.codec import INTEGER_MAX, Malformed

VECTORS_FILE = Path(__file__).parent.parent / "conformance" / "codec.json"
VECTORS = [v for v in json.loads(VECTORS_FILE.read_text())["vectors"] if "name" in v]
CODECS: dict[str, Callable[[bytes], Any]] = {"codec": codec.decode, "fastcodec": fastcodec.decode}

moderate = settings(max_examples=300, deadline=None, derandomize=True, database=None)


def line_of(vector: dict[str, Any]) -> bytes:
    if "hex" in vector:
        return bytes.fromhex(vector["hex"])
    if "parts" in vector:
        return "".join(text * times for text, times in vector["parts"]).encode()
    line: str = vector["line"]
    return line.encode()


def verdict(decode: Callable[[bytes], Any], line: bytes) -> tuple[str, str]:
    """What a codec says of a line, comparable: 1 and 1.0 and true are three things, -0.0 and 0.0 two."""
    try:
        return "ok", repr(decode(line))
    except Malformed:
        return "refused", ""


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("vector", VECTORS, ids=[v["name"] for v in VECTORS])
def test_a_vector_is_read_as_it_says(vector: dict[str, Any], name: str) -> None:
    said, value = verdict(CODECS[name], line_of(vector))
    assert said == vector["verdict"]
    if "value" in vector:
        assert value == repr(vector["value"])


def test_every_vector_has_a_name_of_its_own() -> None:
    names = [v["name"] for v in VECTORS]
    assert len(names) == len(set(names))


def test_the_clients_codec_refuses_the_same_in_a_process_that_never_imported_json() -> None:
    # The C scanner looks for the exception's class in the `json` package, which the fast path does not import.
    lines = [line_of(v) for v in VECTORS if v["verdict"] == "refused"]
    program = (
        "import sys\n"
        "from backchannel.protocol.codec import Malformed, decode\n"
        "for line in map(bytes.fromhex, sys.stdin.read().split(',')):\n"
        "    try:\n"
        "        decode(line)\n"
        "    except Malformed:\n"
        "        continue\n"
        "    sys.exit(f'took {line[:40]!r}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        input=",".join(line.hex() for line in lines),
        text=True,
        capture_output=True,
        timeout=30,
        env={"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_says_what_is_wrong_and_never_the_content() -> None:
    for decode in CODECS.values():
        for line in (b'{"secret": "hunter2"', b'"hunter2\x01"', b'"hunter2\\ud800"', b'["hunter2",1e999]', b"hunter2"):
            with pytest.raises(Malformed) as caught:
                decode(line)
            assert "hunter" not in str(caught.value)


def test_the_clients_codec_says_in_words_what_is_wrong() -> None:
    with pytest.raises(Malformed, match=r"^invalid control character"):
        codec.decode(b'"a\x01"')


def test_on_another_python_the_clients_codec_finds_its_parts_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_json", None)
    quote, *scanners = codec._find()
    assert quote('a"\u00e9') == '"a\\"\u00e9"'
    for scan in scanners:
        assert scan('{"a":[1]}', 0) == ({"a": [1]}, 9)
        for refused in ("NaN", "1e999"):
            with pytest.raises(ValueError):
                scan(refused, 0)


texts = st.text(st.characters(codec="utf-8"))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-INTEGER_MAX, INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(texts, v, max_size=4), max_leaves=12)
# What is worth putting into valid JSON to break it.
SPLINTERS = [
    b'"',
    b"\\",
    b"\\u",
    b"\\ud800",
    b"\\udc00",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b"-",
    b"0",
    b"1e999",
    b"9" * 17,
    b".",
    b"e",
    b"NaN",
    b"Infinity",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\x00",
    b"\x1f",
    b"\n",
    b" ",
    b"[" * 31,
]


@moderate
@given(st.binary(max_size=40))
def test_both_codecs_agree_on_arbitrary_bytes(line: bytes) -> None:
    assert verdict(codec.decode, line) == verdict(fastcodec.decode, line)


@moderate
@given(st.text(alphabet='[]{}",:0123456789.eE+-\\untrfalsé \ud800', max_size=30))
def test_both_codecs_agree_on_heaps_of_tokens(text: str) -> None:
    line = text.encode(errors="surrogatepass")
    assert verdict(codec.decode, line) == verdict(fastcodec.decode, line)


@moderate
@given(values, st.data())
def test_both_codecs_agree_on_valid_json_with_a_few_bytes_changed(value: Any, data: st.DataObject) -> None:
    line = bytearray(json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(line)))
        end = start + data.draw(st.integers(0, 2))
        line[start:end] = data.draw(st.sampled_from(SPLINTERS) | st.binary(max_size=2))
    assert verdict(codec.decode, bytes(line)) == verdict(fastcodec.decode, bytes(line))


@moderate
@given(values)
def test_what_one_codec_writes_both_read_as_it_was(value: Any) -> None:
    for line in (codec.encode(value).encode(), fastcodec.encode(value)):
        for decode in CODECS.values():
            assert repr(decode(line)) == repr(value)


@moderate
@given(values)
def test_a_request_is_one_line_whatever_it_carries(value: Any) -> None:
    line = codec.encode_request(7, "push", {"to": "executor", "text": value, "nothing": None})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    params = {"to": "executor"} | ({} if value is None else {"text": value})
    expected = {"jsonrpc": "2.0", "id": 7, "method": "push", "params": params}
    assert repr(fastcodec.decode(line)) == repr(expected)


@moderate
@given(values, values)
def test_both_codecs_write_the_same_request(value: Any, other: Any) -> None:
    params = {"to": "executor", "text": value, "headers": other, "nothing": None}
    before = codec.encode_params({"from": "analyst", "auth": "secret"}) + ","
    lines = [encode(7, "push", params, before) for encode in (codec.encode_request, fastcodec.encode_request)]
    assert repr(fastcodec.decode(lines[0])) == repr(fastcodec.decode(lines[1]))
    assert lines[0] == codec.encode_request(7, "push", {"from": "analyst", "auth": "secret", **params})
    assert lines[1].endswith(b"\n")
    assert lines[1].count(b"\n") == 1


@moderate
@given(values)
def test_a_result_is_read_as_the_answer_it_stands_in(value: Any) -> None:
    line = codec.RESULT + codec.encode(value).encode() + b"}\n"
    assert repr(codec.decode_result(line)) == repr(codec.decode_answer(line)["result"])
    for broken in (line[:-2], line[:-2] + b"}}", line[:-2] + b',"error":{}}'):
        with pytest.raises(Malformed):
            codec.decode_result(broken)


def test_long_texts_are_left_to_the_faster_codec_once_a_process_has_met_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_long_texts", 0)
    asked: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(fastcodec, name)

        def call(*args: Any) -> Any:
            asked.append(name)
            return real(*args)

        return call

    for name in ("encode_request", "decode_answer"):
        monkeypatch.setattr(fastcodec, name, watched(name))
    text = 'one "line"\n' * codec.LONG
    for _ in range(codec.LONG_TEXTS_BEFORE_IMPORT + 2):
        line = codec.encode_request(1, "push", {"to": "executor", "text": text})
        assert codec.decode_answer(line)["params"]["text"] == text
        codec.decode_answer(codec.encode_request(1, "push", {"text": "short"}))
    assert asked == ["encode_request", "decode_answer"] * (codec.LONG_TEXTS_BEFORE_IMPORT // 2 + 2)


@pytest.mark.parametrize("params", [{"headers": b"bytes"}, {"headers": {"a": {1}}}, {"text": "\ud800"}])
def test_a_long_request_refuses_what_a_short_one_does(params: dict[str, Any]) -> None:
    errors = []
    for encode in (codec.encode_request, fastcodec.encode_request):
        with pytest.raises((TypeError, UnicodeEncodeError)) as caught:
            encode(1, "push", params)
        errors.append((type(caught.value), str(caught.value)) if caught.type is TypeError else caught.type)
    assert errors[0] == errors[1]


PIECES = [
    *(rb"\ud83d", rb"\ude00", rb"\udc00", rb"\u0000", rb"\u12", rb"\n", rb"\q", b"\\", rb"\"", rb"\/", b'"'),
    *(b"a", b"\x01", b"\x1f", b"\x7f", b"\xc3\xa9", b"\xff", b"\xed\xa0\x80"),
]


@moderate
@given(st.lists(st.sampled_from(PIECES), max_size=8))
def test_a_text_that_nobody_decodes_is_looked_at_all_the_same(pieces: list[bytes]) -> None:
    line = b'{"jsonrpc":"2.0","id":1,"method":"push","params":{"to":"executor","text":"%b"}}' % b"".join(pieces)
    try:
        frame.parse_text(frame.parse_push(frame.parse_request(line))[0].text)
        said = "ok"
    except LocalProtocolError:
        said = "refused"
    assert said == verdict(codec.decode, line)[0]


def test_what_another_program_says_may_have_half_a_surrogate_pair_in_it() -> None:
    line = rb'{"tool_output":"cut in the middle: \ud83d"}'
    assert codec.decode_foreign(line) == {"tool_output": "cut in the middle: \ud83d"}
    with pytest.raises(Malformed):
        codec.decode(line)


def test_tuples_are_arrays_and_words_of_our_own_are_strings() -> None:
    from backchannel.protocol.names import AgentName
    from backchannel.protocol.receipt import Stage

    assert codec.encode((AgentName("analyst"), Stage.ACKED)) == '["analyst","acked"]'


def test_what_has_no_place_in_a_frame_is_a_type_error() -> None:
    for thing in (b"bytes", {1, 2}, object()):
        with pytest.raises(TypeError):
            codec.encode(thing)


def test_a_line_may_come_as_text_too() -> None:
    assert codec.decode('{"a": "é"}') == {"a": "é"}
    with pytest.raises(Malformed):
        codec.decode('"\ud800"')
