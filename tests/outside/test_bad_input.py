"""Whatever comes in, the daemon lives on, answers with one clear error of a stable code, and serves the next one.

Sixteen of eighteen such inputs ended the predecessor of this daemon.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..world import Daemon, Failed, Link, World, eventually, request

LIMIT = 1 << 20  # bytes of one line, by default
DEEP = 100_000


@pytest.fixture(scope="module")
def daemon(shared_world: World) -> Iterator[Daemon]:
    """One daemon for all of it: it has to survive the whole file."""
    daemon = shared_world.start("bob")
    yield daemon
    assert daemon.is_running, daemon.said()
    assert "Traceback" not in daemon.said(), daemon.said()


def push(**params: object) -> bytes:
    return request("push", {"to": "bob", "text": "x"} | params)


def raw_push(field: bytes) -> bytes:
    """A push with one more field, written by hand."""
    return b'{"jsonrpc":"2.0","id":1,"method":"push","params":{"to":"bob","text":"x",%b}}\n' % field


def raw_text(text: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"push","params":{"to":"bob","text":%b}}\n' % text


NO_REQUEST: dict[str, bytes] = {
    "a number": b"42\n",
    "a string": b'"hello"\n',
    "null": b"null\n",
    "a list": b"[1,2]\n",
    "an empty object": b"{}\n",
    "a batch": b"[" + request("ping", {}).strip() + b"]\n",
    "a SYN without a session": b'{"type":"SYN"}\n',
    "a SYN of the predecessor": b'{"type":"SYN","session_id":"s1","from":"alice","to":"bob","task":"x"}\n',
    "a FIN without a sender": b'{"type":"FIN","session_id":"s1"}\n',
    "a type that is a list": b'{"type":[]}\n',
    "a session id that is a list": b'{"type":"DATA","session_id":["s"],"content":1}\n',
    "JSON-RPC 1": b'{"jsonrpc":"1.0","id":1,"method":"ping"}\n',
    "no method": b'{"jsonrpc":"2.0","id":1}\n',
    "a method that is a number": b'{"jsonrpc":"2.0","id":1,"method":7}\n',
    "no id": b'{"jsonrpc":"2.0","method":"ping"}\n',
    "an id that is null": request("ping", {}, None),
    "an id that is a fraction": request("ping", {}, 1.5),
    "an id that is a list": request("ping", {}, [1]),
    "an id that is true": request("ping", {}, True),
    "an id beyond all integers": b'{"jsonrpc":"2.0","id":99999999999999999999,"method":"ping"}\n',
    "brackets that never close": b"[" * DEEP + b"\n",
}

MALFORMED: dict[str, bytes] = {
    "hops of 5,000 digits": raw_push(b'"hops":' + b"9" * 5000),
    "words": b"hello bob\n",
    "half an object": b'{"jsonrpc":"2.0"\n',
    "two values": b'{"jsonrpc":"2.0","id":1,"method":"ping"}{}\n',
    "a NUL": b"\0\n",
    "a byte order mark": b"\xef\xbb\xbf" + request("ping", {}),
    "a raw control character in a string": raw_text(b'"a\tb"'),
    "a text that is not UTF-8": raw_text(b'"\xff"'),
    "an overlong encoding": raw_text(b'"\xc0\xaf"'),
    "an encoded surrogate": raw_text(b'"\xed\xa0\x80"'),
    "an unknown field that is not UTF-8": raw_push(b'"x":"\xff"'),
    "a lone surrogate as text": raw_text(b'"\\ud800"'),
    "a lone surrogate as sender": raw_push(b'"from":"\\ud800"'),
    "a lone surrogate as key": raw_push(b'"from":"bob","auth":"\\udfff"'),
    "a lone surrogate as message id": raw_push(b'"id":"\\ud800"'),
    "a lone surrogate as request id": b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}\n',
    "a lone surrogate as method": b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}\n',
    "a lone surrogate in a header": raw_push(b'"headers":{"k":"\\ud800"}'),
    "a lone surrogate as a header's name": raw_push(b'"headers":{"\\ud800":"v"}'),
    "a lone surrogate as a field's name": raw_push(b'"\\ud800":1'),
    "NaN": raw_push(b'"ttl":NaN'),
    "NaN in an unknown field": raw_push(b'"x":NaN'),
    "Infinity": raw_push(b'"ttl":Infinity'),
    "a number beyond a double": raw_push(b'"ttl":1e999'),
    "a number beyond a double in an unknown field": raw_push(b'"x":1e999'),
    "an integer beyond 2^53 in an unknown field": raw_push(b'"x":9007199254740992'),
    "33 levels": raw_push(b'"x":' + b"[" * 33 + b"]" * 33),
    "a text of 100,000 brackets": raw_text(b"[" * DEEP + b"]" * DEEP),
    "an unknown field of 100,000 brackets": raw_push(b'"x":' + b"[" * DEEP + b"]" * DEEP),
    "100,000 objects": raw_push(b'"x":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP),
}

BAD_PARAMS: dict[str, bytes] = {
    "a text that is 42": push(text=42),
    "a text that is null": push(text=None),
    "a text that is true": push(text=True),
    "a text that is a list": push(text=[1, 2]),
    "a text that is an object": push(text={"type": "SYN", "session_id": "s"}),
    "no text": request("push", {"to": "bob"}),
    "no target": request("push", {"text": "x"}),
    "a target that is a number": push(to=7),
    "a target that is a list": push(to=["bob"]),
    "another's name as target": push(to="carol"),
    "a sender that is a number": push(**{"from": 7}),
    "a message id that is a number": push(id=7),
    "params that are a list": request("push", [1]),
    "params that are null": request("push", None),
    "no params": b'{"jsonrpc":"2.0","id":1,"method":"push"}\n',
    "a ttl of 0": push(ttl=0),
    "a ttl below 0": push(ttl=-1),
    "a ttl of a million years": push(ttl=1e13),
    "an unknown priority": push(priority="asap"),
    "an unknown durability": push(durability="forever"),
    "hops below 0": push(hops=-1),
    "hops beyond 2^53": push(hops=1 << 53),
    "hops beyond 2^63": push(hops=1 << 63),
    "a header that is a number": push(headers={"a": 1}),
    "a session that is a list": push(session=[]),
    "a stage that cannot be waited for": request("wait", {"id": "x", "stage": "read"}),
    "a wait of an age": request("wait", {"id": "x", "stage": "acked", "timeout": 1e308}),
}

BAD_NAMES: dict[str, bytes] = {
    "a slash": push(to="a/b"),
    "two dots": push(to=".."),
    "a path": push(to="../../etc/passwd"),
    "an at sign": push(to="@user"),
    "a NUL": push(to="bob\0"),
    "a newline": push(to="bob\n"),
    "64 characters": push(to="a" * 64),
    "nothing": push(to=""),
    "capitals": push(to="Bob"),
    "a dash first": push(to="-bob"),
    "another alphabet": push(to="b\u043eb"),
    "a path as sender": push(**{"from": "../bob", "auth": "x"}),
    "@user as sender": push(**{"from": "@user"}),
}

BAD_IDS: dict[str, bytes] = {
    "empty": push(id=""),
    "129 characters": push(id="a" * 129),
    "a newline": push(id="a\nb"),
    "an escape": push(id="\x1b[2J"),
    "a right-to-left mark": push(id="\u202eabc"),
    "a reference of 200 characters": push(reply_to="x" * 200),
}

UNKNOWN: dict[str, bytes] = {
    "a method of nobody's": request("frobnicate", {}),
    "a method of the control socket": request("take", {}),
    "a method that is an attribute": request("__init__", {}),
    "no word at all": request("", {}),
}

CASES = [
    pytest.param(data, code, id=f"{code}: {what}")
    for code, group in (
        ("bad_request", NO_REQUEST),
        ("malformed", MALFORMED),
        ("bad_params", BAD_PARAMS),
        ("bad_name", BAD_NAMES),
        ("bad_id", BAD_IDS),
        ("unknown_method", UNKNOWN),
    )
    for what, data in group.items()
]


@pytest.mark.parametrize(("data", "code"), CASES)
def test_bad_input_is_refused_with_a_code_and_the_next_push_is_answered(
    shared_world: World, daemon: Daemon, data: bytes, code: str
) -> None:
    before = shared_world.call("bob", "status", which="control")
    with Link(shared_world.path("bob")) as link:
        link.send(data)
        error = link.answer()["error"]
    assert error["data"]["code"] == code
    assert isinstance(error["code"], int)
    assert error["message"]
    assert len(error["message"]) < 300
    assert "\n" not in error["message"]
    after = shared_world.call("bob", "status", which="control")
    assert after["counters"] == before["counters"], "nothing was stored"
    assert after["refused"] == before["refused"] + 1
    assert shared_world.push("bob")["stage"] == "stored"
    assert daemon.is_running


TEXTS = [
    "42",
    "null",
    "[1,2]",
    "NaN",
    '{"type":"SYN","session_id":"s","from":"alice"}',
    "[" * DEEP,
    "",
    "\0",
    "\u202e\x1b",
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda t: ascii(t[:12]))
def test_a_text_that_looks_like_something_else_is_a_text(shared_world: World, daemon: Daemon, text: str) -> None:
    shared_world.texts("bob")
    shared_world.push("bob", text)
    assert shared_world.texts("bob") == [text]


def test_of_duplicate_keys_the_last_counts(shared_world: World, daemon: Daemon) -> None:
    shared_world.texts("bob")
    with Link(shared_world.path("bob")) as link:
        link.send(b'{"jsonrpc":"2.0","id":1,"method":"push","params":{"to":"bob","text":"a","text":"b"}}\n')
        assert "result" in link.answer()
    assert shared_world.texts("bob") == ["b"]


def test_fields_of_a_newer_protocol_are_kept_with_the_message(shared_world: World, daemon: Daemon) -> None:
    shared_world.texts("bob")
    shared_world.push("bob", "x", colour="green", nested={"deep": [1, 2.5, None]})
    with Link(shared_world.path("bob", "control")) as link:
        (message,) = link.call("take")["messages"]
    assert message["extra"] == {"colour": "green", "nested": {"deep": [1, 2.5, None]}}
    shared_world.texts("bob")


def test_what_can_be_stored_can_be_read_by_every_client(shared_world: World, daemon: Daemon) -> None:
    """A number that a receiver's decoder refuses would lie in its mailbox as poison."""
    shared_world.texts("bob")
    extremes: dict[str, Any] = {"hops": 16, "ttl": 366 * 86400.0, "sent_at": -1e308}
    shared_world.push("bob", "x", **extremes)
    with Link(shared_world.path("bob", "control")) as link:
        (message,) = link.call("take")["messages"]
    assert message["hops"] == 16
    assert 0 <= message["sent_at"] < 1e11, "a time that a clock can show"
    shared_world.texts("bob")


def line_of(size: int) -> bytes:
    """A push whose line is exactly so long, without the newline."""
    frame = len(push(text="")) - 1
    return push(text="a" * (size - frame))


def test_a_line_of_exactly_the_limit_is_stored_and_one_byte_more_is_not(shared_world: World, daemon: Daemon) -> None:
    shared_world.texts("bob")
    with Link(shared_world.path("bob")) as link:
        link.send(line_of(LIMIT))
        assert link.answer()["result"]["stage"] == "stored"
    with Link(shared_world.path("bob")) as link:
        try:
            link.send(line_of(LIMIT + 1))
        except BrokenPipeError:
            pass  # it had seen enough
        assert link.answer()["error"]["data"]["code"] == "oversize"
        assert link.line() == b"", "and the connection is over"
    (text,) = shared_world.texts("bob")
    assert len(text) > LIMIT - 200


def test_an_oversized_line_is_refused_before_it_is_read_whole(shared_world: World, daemon: Daemon) -> None:
    before = daemon.memory_bytes()
    sent = 0
    with Link(shared_world.path("bob")) as link:
        try:
            while sent < 256 << 20:
                link.send(b"a" * 65536)
                sent += 65536
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent < 8 * LIMIT
        assert link.answer()["error"]["data"]["code"] == "oversize"
    assert daemon.memory_bytes() - before < 16 << 20


def test_what_came_whole_before_an_oversized_line_is_answered_first(world: World) -> None:
    world.configure("bob", "line_bytes_max = 4096\n")
    world.start("bob")
    link = world.link("bob")
    link.send(request("ping", {}, 1) + push(id="good") + b"a" * 5000 + b"\n" + request("ping", {}, 2))
    assert link.answer()["result"]["agent"] == "bob"
    assert link.answer()["result"]["id"] == "good"
    assert link.answer()["error"]["data"]["code"] == "oversize"
    assert link.line() == b""


def test_a_request_that_arrives_byte_by_byte_is_one_request(shared_world: World, daemon: Daemon) -> None:
    with Link(shared_world.path("bob")) as link:
        for byte in request("ping", {}):
            link.send(bytes([byte]))
        assert link.answer()["result"]["agent"] == "bob"


def test_empty_lines_carriage_returns_and_spaces_do_no_harm(shared_world: World, daemon: Daemon) -> None:
    with Link(shared_world.path("bob")) as link:
        link.send(b"\n\r\n   \n" + request("ping", {}).replace(b"\n", b" \r\n"))
        assert link.answer()["result"]["agent"] == "bob"


def test_an_unfinished_line_at_the_end_is_refused_and_stores_nothing(shared_world: World, daemon: Daemon) -> None:
    shared_world.texts("bob")
    with Link(shared_world.path("bob")) as link:
        link.send(push().rstrip(b"\n"))
        link.half_close()
        assert link.answer()["error"]["data"]["code"] == "malformed"
        assert link.line() == b""
    assert shared_world.texts("bob") == []


def test_behind_a_malformed_line_nothing_is_read_and_what_came_before_stands(
    shared_world: World, daemon: Daemon
) -> None:
    shared_world.texts("bob")
    with Link(shared_world.path("bob")) as link:
        link.send(push(text="one") + b"{\n" + push(text="two"))
        answers = [link.answer() for _ in range(2)]
        assert link.line() == b""
    assert ["result" in answer for answer in answers] == [True, False]
    assert shared_world.texts("bob") == ["one"]


def test_a_bad_request_between_two_good_ones_spoils_neither(shared_world: World, daemon: Daemon) -> None:
    shared_world.texts("bob")
    with Link(shared_world.path("bob")) as link:
        link.send(push(text="one") + b"{}\n" + push(text="two"))
        answers = [link.answer() for _ in range(3)]
    assert ["result" in answer for answer in answers] == [True, False, True]
    assert shared_world.texts("bob") == ["one", "two"]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("take", {"max": 0}, "bad_params"),
        ("take", {"max": 1001}, "bad_params"),
        ("take", {"wait": -1}, "bad_params"),
        ("take", {"wait": 1e300}, "bad_params"),
        ("take", {"take_id": "a\n"}, "bad_id"),
        ("take", {"kinds": "message"}, "bad_params"),
        ("ack", {}, "bad_params"),
        ("ack", {"id": "nobody"}, "no_such_message"),
        ("ack", {"id": 5}, "bad_params"),
        ("ack", {"id": "x", "evidence": "faith"}, "bad_params"),
        ("ack", {"id": "x", "delivery": 1 << 70}, "no_such_message"),
        ("reject", {"id": "x"}, "bad_params"),
        ("reject", {"id": "x", "reason": "y" * 1001}, "bad_params"),
        ("release", {"id": "nobody"}, "no_such_message"),
        ("renew", {"id": "nobody"}, "no_such_message"),
        ("receipt", {"id": "nobody"}, "no_such_message"),
        ("receipt", {"id": "a\0b"}, "no_such_message"),
        ("cancel", {"id": "nobody"}, "no_such_message"),
        ("wait", {"id": "nobody", "stage": "acked"}, "no_such_message"),
    ],
)
def test_the_control_socket_refuses_as_clearly(
    shared_world: World, daemon: Daemon, method: str, params: dict[str, Any], code: str
) -> None:
    with Link(shared_world.path("bob", "control")) as link:
        with pytest.raises(Failed) as refused:
            link.call(method, params)
        assert refused.value.code == code
        assert link.call("ping")["agent"] == "bob"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["to", "text", "id", "from", "auth", "headers", "ttl", "hops", "session", "sent_at", "priority"]
)
LINES = st.one_of(
    st.binary(max_size=200).map(lambda data: data.replace(b"\n", b"")),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda method, params: request(method, params).strip(),
        st.sampled_from(["push", "receipt", "wait", "cancel", "ping", "take", "ack", "release", "reject", "renew"]),
        st.dictionaries(FIELDS, JSON, max_size=6).map(lambda params: {"to": "bob", "text": "x"} | params),
    ),
    st.builds(
        lambda position, byte: push()[:position] + bytes([byte]).replace(b"\n", b"") + push()[position + 1 : -1],
        st.integers(0, 60),
        st.integers(0, 255),
    ),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, min_size=1, max_size=30))
def test_every_line_of_any_noise_gets_one_answer_up_to_a_malformed_one(
    shared_world: World, daemon: Daemon, lines: list[bytes]
) -> None:
    lines = [line for line in lines if line.strip(b" \t\r\n\v\f")]
    with Link(shared_world.path("bob", "control")) as link:
        link.send(b"".join(line + b"\n" for line in lines) + request("ping", {}, "last"))
        link.half_close()
        answers = [json.loads(line) for line in iter(link.line, b"")]
    codes = [answer["error"]["data"]["code"] if "error" in answer else "" for answer in answers]
    # Answers come in any order: a take's waits for its commit.
    if "malformed" in codes:
        assert "last" not in [answer["id"] for answer in answers], "nothing is read behind it"
    else:
        assert len(answers) == len(lines) + 1
        assert "last" in [answer["id"] for answer in answers]
    assert all(("result" in answer) != ("error" in answer) for answer in answers)
    assert "internal" not in codes


def test_ten_thousand_refusals_leave_no_trace_but_a_count(shared_world: World, daemon: Daemon) -> None:
    shared_world.push("bob")
    descriptors, memory, log = daemon.descriptors(), daemon.memory_bytes(), len(daemon.said())
    for _ in range(100):
        with Link(shared_world.path("bob")) as link:
            link.send(b"{}\n" * 99 + b"{\n")
            assert all(link.answer()["error"]["data"]["code"] == "bad_request" for _ in range(99))
            assert link.answer()["error"]["data"]["code"] == "malformed"
    eventually(lambda: daemon.descriptors() <= descriptors, "its descriptors come back")
    assert daemon.memory_bytes() - memory < 16 << 20
    assert len(daemon.said()) - log < 10_000, "a flood is not written down line by line"
