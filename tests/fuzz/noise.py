"""Lines from a seed: true requests of every method, bent, broken, cut, glued together, and plain garbage."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

SESSION = "s-" + "0" * 32
OWN_MAILBOX = f"{1:032x}"  # what a host on the bench is called
PEER = {"to": "executor", "session": SESSION, "from_mailbox": "f" * 32, "epoch": 1, "from": "analyst", "auth": "a" * 64}
BOUND = PEER | {"to_mailbox": OWN_MAILBOX, "to_epoch": 1}

# One good request of each kind; its fields are what the bending begins with.
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("push", {"to": "executor", "text": "hello", "id": "k1"}),
    (
        "push",
        {
            "to": "executor",
            "text": "hello",
            "from": "analyst",
            "auth": "a" * 64,
            "headers": {"a": "b"},
            "priority": "urgent",
            "ttl": 1.5,
            "durability": "power",
            "reply_to": "k1",
            "trace_id": "t",
            "hops": 1,
            "session": SESSION,
            "sent_at": 1.0,
            "kind": "bounce",
            "bounce": True,
            "path": ["writer"],
            "outbox": True,
            "colour": {"of": ["a", "newer", "protocol"]},
        },
    ),
    ("receipt", {"id": "k1", "from": "@user"}),
    ("wait", {"id": "k1", "stage": "acked", "timeout": 0.01}),
    ("cancel", {"id": "k1"}),
    ("ping", {}),
    ("take", {"take_id": "t-1", "max": 3, "wait": 0.01, "kinds": ["message"], "detached": True, "resume": False}),
    ("take", {"session": SESSION, "reply_to": "k1"}),
    ("ack", {"id": "k1", "delivery": 1, "evidence": "turn"}),
    ("reject", {"id": "k1", "reason": "no", "retry_after": 5.0}),
    ("release", {"id": "k1", "unseen": True}),
    ("renew", {"session": SESSION, "note": "half"}),
    (
        "commit",
        {
            "acks": [{"id": "k1", "delivery": 1}],
            "replies": [{"id": "k2", "text": "yes", "reply_id": "r1", "headers": {"a": "b"}}],
            "sends": [{"to": "writer", "text": "go", "id": "o1", "ttl": 5.0, "bounce": False}],
            "says": [{"session": SESSION, "text": "so", "id": "y1"}],
            "closes": [{"session": SESSION, "status": "ok", "text": "done"}],
        },
    ),
    ("claim", {"session": SESSION}),
    ("sessions", {"session": SESSION, "max": 10}),
    ("open", {"to": "analyst", "text": "write", "session": SESSION, "max_messages": 30, "accept_timeout": 5.0}),
    ("accept", {"session": SESSION}),
    ("say", {"session": SESSION, "text": "so", "input_required": True}),
    ("close", {"session": SESSION, "status": "ok", "text": "done"}),
    ("abort", {"session": SESSION, "reason": "no"}),
    ("trace", {"session": SESSION}),
    ("pause", {}),
    ("resume", {}),
    ("peek", {"after": 0, "max": 10, "text": True}),
    ("log", {"before": 0, "max": 10, "peer": "analyst", "since": 0.0, "until": 1e9}),
    ("tap", {"after": 0, "wait": 0.01}),
    ("config", {}),
    ("status", {}),
    ("frame", PEER | {"kind": "SYN", "number": [1, 1], "text": "write", "max_messages": 5}),
    ("frame", BOUND | {"kind": "SYN-ACK"}),
    ("frame", BOUND | {"kind": "REJ", "reason": "no", "retry_after": 1.0}),
    ("frame", BOUND | {"kind": "DATA", "seq": 1, "text": "text"}),
    ("frame", BOUND | {"kind": "FIN", "seq": 1, "status": "ok", "text": "result"}),
    ("frame", BOUND | {"kind": "ACK", "ack": 1}),
    ("frame", BOUND | {"kind": "RST", "reason": "no", "number": [1, 1]}),
    ("probe", BOUND | {"rcv_nxt": 1, "acked": 1, "receipted": 1, "began": 1}),
]

SPLINTERS = [
    b'"', b"\\", b"\\u", b"\\ud800", b"\\udc00", b"[", b"]", b"{", b"}", b",", b":", b"-", b"0", b"1e999", b"-0.0",
    b"9" * 17, b".", b"e", b"NaN", b"Infinity", b"-Infinity", b"null", b"true", b"\xff", b"\xed\xa0\x80", b"\xc0\xaf",
    b"\xef\xbb\xbf", b"\0", b"\t", b" ", b"\r", b"\x7f", b"\x1b[2J", b"[" * 40, b"[" * 2000, b'{"a":' * 40,
]  # fmt: skip

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, 5e-324, "", "a",
    "k1", "@user", "@0", "executor", "analyst", "../x", "a" * 64, "a" * 129, "\0", "\u202e", "\U0001f600", "s-",
    SESSION,
    [], [[]], ["k1"], [None], {}, {"a": 1}, {"": ""}, {"a": {"b": {"c": []}}}, "power", "urgent", "acked", "SYN",
]  # fmt: skip

VECTORS_FILE = Path(__file__).parents[2] / "conformance" / "codec.json"


def vectors() -> list[bytes]:
    """What the conformance suite already holds against a codec, as first words of noise."""
    found = []
    for vector in json.loads(VECTORS_FILE.read_text())["vectors"]:
        if "line" in vector:
            found.append(str(vector["line"]).encode())
        elif "hex" in vector:
            found.append(bytes.fromhex(vector["hex"]))
    return found


class Noise:
    """Lines without their newline, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.dice = self._dice = random.Random(seed)
        self._vectors = vectors()
        self._kinds: list[Callable[[], bytes]] = [
            self._bent, self._bent, self._bent, self._broken, self._broken, self._vector, self._garbage, self._true,
        ]  # fmt: skip

    def line(self) -> bytes:
        dice = self._dice
        return self._kinds[int(dice.random() * len(self._kinds))]().replace(b"\n", b"")

    def _true(self) -> bytes:
        method, params = self._pick(REQUESTS)
        return self._about(encode(self._id(), method, params))

    def _bent(self) -> bytes:
        """JSON still, but fields have other values, are missing, or are new."""
        method, fields = self._pick(REQUESTS)
        params = dict(fields)
        for _ in range(1 + int(self._dice.random() * 2)):
            choice = self._dice.random()
            if choice < 0.15 and params:
                del params[self._pick(list(params))]
            elif choice < 0.3:
                params[self._pick(["text", "id", "from", "x", "", "session", "kind", "max", "\u00e9"])] = self._value()
            elif params:
                params[self._pick(list(params))] = self._value()
        if self._dice.random() < 0.1:
            method = self._pick([other for other, _ in REQUESTS])
        return self._about(encode(self._id(), method, params))

    def _about(self, line: bytes) -> bytes:
        """Of some messages and some sessions, so that one request finds what another left."""
        number = int(self._dice.random() * 10)
        return (
            line.replace(b'"k1"', b'"k%d"' % number)
            .replace(SESSION.encode(), b"s-%032x" % number)
            .replace(b'"number":[1,1]', b'"number":[1,%d]' % number)
            .replace(b'"seq":1', b'"seq":%d' % (number % 3))
            .replace(b'"ack":1', b'"ack":%d' % (number % 3))
        )

    def _broken(self) -> bytes:
        """A line that was JSON, until somebody bit it."""
        line = bytearray(self._bent() if self._dice.random() < 0.7 else self._vector())
        for _ in range(1 + int(self._dice.random() * 3)):
            place = int(self._dice.random() * (len(line) + 1))
            match int(self._dice.random() * 6):
                case 0:
                    line[place : place + 1] = bytes([int(self._dice.random() * 256)])
                case 1:
                    line[place:place] = self._pick(SPLINTERS)
                case 2:
                    del line[place : place + int(self._dice.random() * 8)]
                case 3:
                    del line[place:]
                case 4:
                    other = self._true()
                    line[place:] = other[int(self._dice.random() * len(other)) :]
                case _:
                    end = min(len(line), place + int(self._dice.random() * 30))
                    line[place:place] = line[place:end] * (1 + int(self._dice.random() * 3))
        return bytes(line)

    def _vector(self) -> bytes:
        vector: bytes = self._pick(self._vectors)
        return vector

    def _garbage(self) -> bytes:
        return self._dice.randbytes(int(self._dice.random() * 60))

    def _value(self) -> Any:
        choice = self._dice.random()
        if choice < 0.9:
            return self._pick(VALUES)
        return [self._pick(VALUES), {self._pick(["a", "id", "text"]): self._pick(VALUES)}]

    def _id(self) -> Any:
        return self._pick(VALUES) if self._dice.random() < 0.05 else int(self._dice.random() * 1000)

    def _pick(self, choices: list[Any]) -> Any:
        return choices[int(self._dice.random() * len(choices))]


def encode(request_id: Any, method: str, params: Any) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
