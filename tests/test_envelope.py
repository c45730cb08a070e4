"""Envelopes: what a push becomes when it is stored, and a delivery when it is handed out."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from backchannel.errors import LocalProtocolError
from backchannel.protocol import fastcodec
from backchannel.protocol.envelope import Envelope, Peer, from_push, same_content, sender_key, shown_sender, to_delivery
from backchannel.protocol.frame import TTL_S_MAX, Push

PEER = Peer(1000, 100, 4711)
WALL = 1_700_000_000.0


def envelope(text: bytes = b'"hello"', extra: dict[str, Any] | None = None, **fields: Any) -> Envelope:
    return from_push(Push("executor", Raw(text), **fields), extra, "analyst", PEER, "m-1", WALL, "process")


def test_a_push_becomes_an_envelope_with_the_kernels_word_on_its_sender() -> None:
    e = envelope()
    assert (e.id, e.sender, e.kind, e.text) == ("m-1", "analyst", "message", b'"hello"')
    assert (e.uid, e.gid, e.pid) == (1000, 100, 4711)
    assert (e.sent_at, e.priority, e.ttl, e.durability) == (WALL, 1, None, "process")


def test_the_text_stays_as_it_was_escaped() -> None:
    assert envelope(rb'"caf\u00e9"').text == rb'"caf\u00e9"'


@pytest.mark.parametrize(("word", "number"), [("urgent", 0), ("normal", 1), ("low", 2)])
def test_priority_is_a_word_outside_and_a_number_inside(word: str, number: int) -> None:
    e = envelope(priority=word)
    assert e.priority == number
    assert to_delivery(e, "executor", 1, 1, "box").priority == word


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", "high"),
        ("priority", ""),
        ("ttl", 0.0),
        ("ttl", -1.0),
        ("ttl", TTL_S_MAX + 1),
        ("durability", "disk"),
        ("hops", -1),
        ("hops", 2**53),
        ("hops", 2**64),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        envelope(b'"x"', None, **{field: value})
    assert caught.value.code == "bad_params"
    assert field in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("field", ["reply_to", "trace_id", "session"])
def test_a_reference_must_be_an_id(field: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        envelope(b'"x"', None, **{field: "a\nb"})
    assert caught.value.code == "bad_id"


@pytest.mark.parametrize("text", [b"null", b"7", b'["hello"]', b'{"text":"hello"}'])
def test_a_text_is_a_string(text: bytes) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        envelope(text)
    assert caught.value.code == "bad_params"
    assert "$.text" in caught.value.message


@pytest.mark.parametrize("text", [b'"\xff"', b'"\xed\xa0\x80"', b'"a\xc3"'])
def test_a_text_that_is_no_utf8_is_malformed(text: bytes) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        envelope(text)
    assert caught.value.code == "malformed"


def test_nobody_can_have_sent_in_the_future() -> None:
    assert envelope(sent_at=WALL - 60).sent_at == WALL - 60
    assert envelope(sent_at=WALL + 60).sent_at == WALL


def test_a_message_asks_for_more_durability_or_has_its_daemons() -> None:
    assert envelope(durability="power").durability == "power"
    assert envelope().durability == "process"


def test_headers_and_unknown_fields_count_like_text() -> None:
    e = envelope(headers={"k": "v"}, extra={"mood": "good"})
    assert e.body_bytes == len(b'"hello"') + len(b'{"k":"v"}') + len(b'{"mood":"good"}')
    assert envelope(headers={}).headers is None


def test_a_process_that_is_no_agent_is_known_by_its_uid_and_shown_as_user() -> None:
    assert sender_key(None, PEER) == "@1000"
    assert shown_sender("@1000") == "@user"
    assert sender_key("analyst", PEER) == "analyst"
    assert shown_sender("analyst") == "analyst"


def test_content_is_the_same_however_it_was_escaped() -> None:
    e = envelope(rb'"caf\u00e9"', headers={"a": "1", "b": "2"})
    assert same_content(e, '"café"'.encode(), b'{"b":"2","a":"1"}')
    assert not same_content(e, b'"cafe"', e.headers)
    assert not same_content(e, e.text, b'{"a":"1"}')
    assert not same_content(e, e.text, None)


def test_a_delivery_has_the_keys_of_the_contract_first_and_in_order() -> None:
    e = envelope(headers={"k": "v"}, extra={"mood": "good"}, reply_to="m-0", hops=2)
    delivered = fastcodec.decode(fastcodec.encode(to_delivery(e, "executor", 3, 17, "box")))
    assert list(delivered)[:13] == [
        "kind", "id", "from", "to", "text", "sent_at", "session", "delivery", "reply_to", "trace_id", "hops",
        "priority", "headers",
    ]  # fmt: skip
    assert delivered["extra"] == {"mood": "good"}
    assert (delivered["delivery"], delivered["msg_no"], delivered["mailbox_id"]) == (3, 17, "box")
    assert "extra" not in fastcodec.decode(fastcodec.encode(to_delivery(envelope(), "executor", 1, 1, "box")))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.text(st.characters(codec="utf-8")), st.dictionaries(st.text(st.characters(codec="utf-8")), st.just("v")))
def test_text_and_headers_arrive_as_they_were_sent(text: str, headers: dict[str, str]) -> None:
    e = envelope(fastcodec.encode(text), headers=headers)
    delivered = fastcodec.decode(msgspec.json.encode(to_delivery(e, "executor", 1, 1, "box")))
    assert (delivered["text"], delivered["headers"]) == (text, headers)
