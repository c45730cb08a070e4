"""Envelopes: one message with all that is known of it. Pure values; the mailbox stores, the wire carries them.

The text stays the JSON string it arrived as, from the sender's socket to the receiver's: it is checked once and never
decoded and encoded again. Who sent it stands in `sender` and the kernel's three numbers, never in the text.
"""

from typing import Any

import msgspec
from msgspec import Raw

from ..errors import LocalProtocolError
from . import fastcodec
from .codec import INTEGER_MAX
from .frame import TTL_S_MAX, Push, parse_text
from .hashing import sha256
from .names import USER, AgentName, check_id

PRIORITIES = {"urgent": 0, "normal": 1, "low": 2}  # orders taking, nothing else
_PRIORITY_WORDS = {number: word for word, number in PRIORITIES.items()}
DURABILITIES = ("process", "power")
KINDS = ("message", "bounce", "loop")  # what may be pushed; the last two are daemons' notices
SESSION_DATA = ("data", "finished")  # what the peer said in a session: the agent's ack is told to it
SESSION_KINDS = (*SESSION_DATA, "offer", "accepted", "rejected", "reset")  # written by the own daemon; see sessions
PATH_MAX = 32


class Peer(msgspec.Struct, frozen=True, gc=False):
    """The kernel's word on who holds the other end of a connection. The pid is shown, never decided on."""

    uid: int
    gid: int
    pid: int


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """What is stored of a message. `sender` is an agent's name, or `@UID` for a process that is no agent."""

    id: str
    sender: str
    kind: str
    text: bytes  # a JSON string
    uid: int
    gid: int
    pid: int
    sent_at: float  # Unix time, seconds; for display
    priority: int = 1
    ttl: float | None = None  # seconds from stored
    headers: bytes | None = None  # a JSON object of strings
    session: str | None = None
    reply_to: str | None = None
    trace_id: str | None = None
    hops: int = 0
    durability: str = "process"
    extra: bytes | None = None  # a JSON object: fields of a newer protocol, kept
    path: str | None = None  # the agents it went through, oldest first, with commas
    bounce: bool = False  # the sender's daemon wants to know if it ends undone

    @property
    def body_bytes(self) -> int:
        """What it counts for in quotas: the text and what rides with it."""
        return len(self.text) + len(self.headers or b"") + len(self.extra or b"")


def sender_key(name: str | None, peer: Peer) -> str:
    """The sender as stored and deduplicated by: the agent's name, or the uid of a process that is none."""
    return name if name is not None else f"@{peer.uid}"


def shown_sender(key: str) -> str:
    return USER if key.startswith("@") else key


def from_push(
    push: Push, extra: dict[str, Any] | None, sender: str, peer: Peer, message_id: str, wall: float, durability: str
) -> Envelope:
    """The envelope of a push whose sender was proved. Raises `LocalProtocolError` for values out of range."""
    if push.priority not in PRIORITIES:
        raise _bad("priority", push.priority, "urgent, normal or low")
    if push.ttl is not None and not 0 < push.ttl <= TTL_S_MAX:
        raise _bad("ttl", push.ttl, f"more than 0 and at most {TTL_S_MAX:.0f} seconds (366 days)")
    if (push.durability or durability) not in DURABILITIES:
        raise _bad("durability", push.durability, "process or power")
    if not 0 <= push.hops <= INTEGER_MAX:
        raise _bad("hops", push.hops, "0 or more, below 2^53")
    if push.kind not in KINDS:
        raise _bad("kind", push.kind, ", ".join(KINDS))
    if push.path is not None and len(push.path) > PATH_MAX:
        raise _bad("path", len(push.path), f"at most {PATH_MAX} names")
    for reference in (push.reply_to, push.trace_id, push.session):
        if reference is not None:
            check_id(reference)
    return Envelope(
        message_id,
        sender,
        push.kind,
        parse_text(push.text),
        peer.uid,
        peer.gid,
        peer.pid,
        # A daemon's outbox says when its agent sent; nobody can have sent in the future, or before 1970.
        wall if push.sent_at is None else max(0.0, min(push.sent_at, wall)),
        PRIORITIES[push.priority],
        push.ttl,
        fastcodec.encode(push.headers) if push.headers else None,
        push.session,
        push.reply_to,
        push.trace_id,
        push.hops,
        push.durability or durability,
        fastcodec.encode(extra) if extra else None,
        ",".join(AgentName(name) for name in push.path) if push.path else None,
        push.bounce,
    )


def same_content(a: Envelope, text: bytes, headers: bytes | None) -> bool:
    """Whether a repeated id carries what was stored under it. Compares what was parsed, not how it was escaped."""
    return (a.text == text or _decoded(a.text) == _decoded(text)) and (
        a.headers == headers or _decoded(a.headers) == _decoded(headers)
    )


def digest_of(text: bytes, headers: bytes | None) -> bytes:
    """What is left of a purged content: the same for all that `same_content` calls the same."""
    decoded = _decoded(headers)
    ordered = None if decoded is None else dict(sorted(decoded.items()))
    digest: bytes = sha256(fastcodec.encode([_decoded(text), ordered])).digest()
    return digest


def _decoded(data: bytes | None) -> Any:
    return fastcodec.decode(data) if data else None


class Delivery(msgspec.Struct, rename={"sender": "from"}, gc=False):
    """A message as it is handed out: the keys of `recv --json`, in their order."""

    kind: str
    id: str
    sender: str
    to: str
    text: Raw
    sent_at: float
    session: str | None
    delivery: int
    reply_to: str | None
    trace_id: str | None
    hops: int
    priority: str
    headers: Raw
    msg_no: int
    mailbox_id: str
    uid: int
    gid: int
    pid: int
    path: list[str]
    extra: Raw | msgspec.UnsetType = msgspec.UNSET


def to_delivery(envelope: Envelope, to: str, delivery: int, msg_no: int, mailbox_id: str) -> Delivery:
    e = envelope
    return Delivery(
        e.kind,
        e.id,
        shown_sender(e.sender),
        to,
        Raw(e.text),
        e.sent_at,
        e.session,
        delivery,
        e.reply_to,
        e.trace_id,
        e.hops,
        _PRIORITY_WORDS[e.priority],
        Raw(e.headers or b"{}"),
        msg_no,
        mailbox_id,
        e.uid,
        e.gid,
        e.pid,
        e.path.split(",") if e.path else [],
        Raw(e.extra) if e.extra else msgspec.UNSET,
    )


def _bad(field: str, value: object, allowed: str) -> LocalProtocolError:
    return LocalProtocolError(f"{field} {value!r} is out of range", code="bad_params", hint=f"use {allowed}")
