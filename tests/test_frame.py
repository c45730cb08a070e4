"""Frames: what is a request, what is not, and how answers look."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.errors import BackchannelError, LocalProtocolError, OverLimit, Refused
from backchannel.protocol import codec, frame
from backchannel.protocol.codes import CODES, error_for, exit_code

PUSH = b'{"jsonrpc":"2.0","id":1,"method":"push","params":%b}'


def refusal(line: bytes) -> str:
    with pytest.raises(LocalProtocolError) as caught:
        frame.parse_request(line)
    return caught.value.code


def push_refusal(params: bytes) -> str:
    with pytest.raises(LocalProtocolError) as caught:
        frame.parse_push(frame.parse_request(PUSH % params))
    return caught.value.code


@pytest.mark.parametrize("text", [rb'"\ud800"', rb'"\udc00"', rb'"\ud800\ud800"', rb'"\u12"', rb'"\q"', b'"a\x01"'])
def test_a_text_is_looked_at_when_its_push_is_read(text: bytes) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        frame.parse_push(frame.parse_request(PUSH % b'{"to":"a","text":%b}' % text))
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("request_id", [b"1", b"0", b"-7", b"9007199254740991", b'"a"', b'""', '"é"'.encode()])
def test_an_id_comes_back_byte_for_byte(request_id: bytes) -> None:
    request = frame.parse_request(b'{"jsonrpc":"2.0","id":%b,"method":"ping"}' % request_id)
    assert bytes(request.id) == request_id  # type: ignore[arg-type]
    assert frame.answer(request_id, {}) == b'{"jsonrpc":"2.0","id":%b,"result":{}}\n' % request_id


@pytest.mark.parametrize(
    "request_id",
    [b"null", b"true", b"1.5", b"1e3", b"[1]", b'{"a":1}', b'"\xff"', b"9007199254740992", b"-9007199254740992"],
)
def test_what_could_not_be_echoed_to_everybody_is_no_id(request_id: bytes) -> None:
    assert refusal(b'{"jsonrpc":"2.0","id":%b,"method":"ping"}' % request_id) == "bad_request"


def test_a_request_without_an_id_is_refused_for_nobody_could_be_answered() -> None:
    assert refusal(b'{"jsonrpc":"2.0","method":"ping"}') == "bad_request"


@pytest.mark.parametrize(
    "line",
    [
        b"7",
        b'"ping"',
        b"null",
        b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
        b"{}",
        b'{"id":1,"method":"ping"}',
        b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
        b'{"jsonrpc":2.0,"id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"method":7}',
    ],
)
def test_json_that_is_no_request_is_a_bad_request(line: bytes) -> None:
    assert refusal(line) == "bad_request"


@pytest.mark.parametrize(
    "line", [b"", b"hello", b"{", b'{"jsonrpc":"2.0",}', b'{"jsonrpc":"2.0","id":NaN}', b'{"a":' * 99999]
)
def test_what_is_no_json_is_malformed(line: bytes) -> None:
    assert refusal(line) == "malformed"


def test_of_duplicate_keys_the_last_counts() -> None:
    request = frame.parse_request(b'{"jsonrpc":"2.0","id":1,"id":2,"method":"a","method":"b"}')
    assert (bytes(request.id), request.method) == (b"2", "b")  # type: ignore[arg-type]
    push, _ = frame.parse_push(frame.parse_request(PUSH % b'{"to":"a","text":"x","to":"b","text":"y"}'))
    assert (push.to, bytes(push.text)) == ("b", b'"y"')


def test_fields_of_a_newer_protocol_are_kept() -> None:
    push, extra = frame.parse_push(frame.parse_request(PUSH % b'{"to":"a","text":"x","mood":{"is":["good"]},"n":1}'))
    assert push.to == "a"
    assert extra == {"mood": {"is": ["good"]}, "n": 1}


def test_a_push_of_known_fields_keeps_nothing_beside_them() -> None:
    _, extra = frame.parse_push(frame.parse_request(PUSH % b'{"to":"a","text":"x","from":"b","auth":"k","hops":3}'))
    assert extra is None


@pytest.mark.parametrize(
    "params",
    [
        b"[]",
        b"null",
        b"{}",
        b'{"to":"a"}',
        b'{"text":"x"}',
        b'{"to":7,"text":"x"}',
        b'{"to":"a","text":"x","headers":{"k":1}}',
        b'{"to":"a","text":"x","headers":["k"]}',
        b'{"to":"a","text":"x","ttl":"60"}',
        b'{"to":"a","text":"x","hops":1.5}',
    ],
)
def test_params_of_another_shape_are_refused(params: bytes) -> None:
    assert push_refusal(params) == "bad_params"


@pytest.mark.parametrize(
    "params",
    [
        b'{"to":"a","text":"x","ttl":1e999}',
        b'{"to":"a","text":"x","hops":%b}' % (b"9" * 5000),
        b'{"to":"\xff","text":"x"}',
        b'{"to":"a","text":"x","headers":{"\\ud800":"v"}}',
        b'{"to":"a","text":"x","mood":1e999}',
        b'{"to":"a","text":"x","mood":9007199254740992}',
        b'{"to":"a","text":"x","mood":"\xff"}',
        b'{"to":"a","text":"x","mood":%b}' % (b"[" * 40 + b"]" * 40),
    ],
)
def test_params_that_are_no_json_of_ours_are_malformed(params: bytes) -> None:
    assert push_refusal(params) == "malformed"


def test_an_unknown_field_elsewhere_is_no_reason_to_refuse() -> None:
    request = frame.parse_request(
        b'{"jsonrpc":"2.0","id":1,"method":"take","params":{"max":3,"colour":"red"},"via":"x"}'
    )
    take: frame.Take = frame.parse(frame.Take, request)
    assert (take.max, take.wait, take.detached) == (3, 0.0, False)


def test_a_wait_of_null_has_no_end() -> None:
    request = frame.parse_request(b'{"jsonrpc":"2.0","id":1,"method":"take","params":{"wait":null}}')
    assert frame.parse(frame.Take, request).wait is None


def test_an_error_answer_carries_the_word_beside_the_number() -> None:
    error = OverLimit("the mailbox is full", code="full", hint="try again later", retry=True)
    answer = codec.decode(frame.answer_error(b'"x"', error))
    assert answer == {
        "jsonrpc": "2.0",
        "id": "x",
        "error": {
            "code": -32002,
            "message": "the mailbox is full",
            "data": {"code": "full", "hint": "try again later", "retry": True},
        },
    }


def test_a_refusals_own_reason_travels_with_it() -> None:
    answer = codec.decode(frame.answer_error(b"1", Refused("m-1 was rejected", code="ended", reason="busy")))
    assert answer["error"]["data"]["reason"] == "busy"


@pytest.mark.parametrize("code", CODES)
def test_a_code_is_the_same_error_at_both_ends(code: str) -> None:
    number, kind, status = CODES[code]
    error = error_for(code, "no", hint="then", retry=True)
    assert type(error) is kind
    assert exit_code(error) == status
    assert codec.decode(frame.answer_error(b"1", error))["error"]["code"] == number


def test_numbers_of_codes_are_never_shared() -> None:
    numbers = [number for number, _, _ in CODES.values()]
    assert len(numbers) == len(set(numbers))
    assert all(-32768 <= number <= -32000 for number in numbers)


def test_a_newer_daemons_code_is_still_a_clear_error() -> None:
    error = error_for("no_such_code_yet", "something new", hint="upgrade")
    assert type(error) is BackchannelError
    assert (error.code, str(error)) == ("no_such_code_yet", "something new: upgrade")


requests = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", 2]),
        "id": st.sampled_from([1, "a", None, 1.5, [1], 2**53 - 1]),
        "method": st.sampled_from(["ping", "push", "", 7]),
        "params": st.sampled_from([{}, {"to": "a", "text": "x"}, {"to": 1}, [], None, 7, {"text": []}]),
        "other": st.none(),
    },
)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(requests, st.binary(max_size=3), st.integers(0, 80))
def test_any_line_is_a_request_or_a_local_error(request: dict[str, Any], splinter: bytes, at: int) -> None:
    line = codec.encode(request).encode()
    line = line[:at] + splinter + line[at:]
    try:
        frame.parse_push(frame.parse_request(line))
        code = "none"
    except LocalProtocolError as error:
        code = error.code
    assert code in ("none", "malformed", "bad_request", "bad_params")
