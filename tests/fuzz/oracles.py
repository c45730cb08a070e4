"""What must hold for every line there is. A line that breaks it is named in hex, to be kept as a test."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from backchannel.daemon.callers import Caller
from backchannel.errors import BackchannelError
from backchannel.protocol import codec, fastcodec, frame, sessionwire
from backchannel.protocol.codec import Malformed
from backchannel.protocol.codes import CODES
from backchannel.protocol.envelope import Peer, from_push
from backchannel.protocol.names import check_own_id

from ..inside import UID, WALL, Bench, close_all
from .noise import Noise

PEER = Peer(UID, UID, 4711)
LINES_A_HOST = 20_000  # then another: what its mailbox holds would slow the rest
PARAMS: dict[str, type[msgspec.Struct]] = {
    "receipt": frame.Find,
    "wait": frame.Wait,
    "cancel": frame.Find,
    "take": frame.Take,
    "ack": frame.Ack,
    "reject": frame.Reject,
    "release": frame.Release,
    "renew": frame.Renew,
    "commit": frame.Commit,
    "claim": frame.Claim,
    "peek": frame.Peek,
    "log": frame.Log,
    "tap": frame.Tap,
    "open": sessionwire.Open,
    "accept": sessionwire.Accept,
    "say": frame.Say,
    "close": frame.Close,
    "abort": sessionwire.Abort,
    "sessions": sessionwire.Sessions,
    "trace": sessionwire.Trace,
}


class Broken(AssertionError):
    """A line that shows a mistake of ours."""

    def __str__(self) -> str:
        what, line = self.args
        return f"{what}: bytes.fromhex({line.hex()!r}) which is {line[:200]!r}"


def read(line: bytes) -> str:
    """Reads a line as both ends do. The code of its refusal, or "". Raises `Broken`."""
    ours, twins = verdict(codec.decode, line), verdict(fastcodec.decode, line)
    if ours != twins:
        raise Broken(f"the two codecs differ ({ours[:80]} and {twins[:80]})", line)
    try:
        request = frame.parse_request(line)
        understand(request)
    except BackchannelError as error:
        if error.code not in CODES:
            raise Broken(f"a refusal with the unknown code {error.code}", line) from None
        if not error.message or not error.hint:
            raise Broken(f"a refusal ({error.code}) without words", line) from None
        return error.code
    except Broken:
        raise
    except Exception as error:
        raise Broken(f"{type(error).__name__}: {error}", line) from error
    return ""


def understand(request: frame.Request) -> None:
    """The request's params, as its handler begins."""
    if request.method == "push":
        push, extra = frame.parse_push(request)
        message_id = check_own_id(push.id) if push.id is not None else "m-1"
        envelope = from_push(push, extra, "analyst", PEER, message_id, WALL, "process")
        json.loads(envelope.text)  # whatever is stored can be read
    elif request.method in PARAMS:
        frame.parse(PARAMS[request.method], request)
    elif request.method == "frame":
        sessionwire.parse_frame(request)
    elif request.method == "probe":
        sessionwire.parse_probe(request)


def verdict(decode: Any, line: bytes) -> str:
    try:
        return repr(decode(line))
    except Malformed:
        return "malformed"
    except Exception as error:
        raise Broken(f"{decode.__module__}: {type(error).__name__}: {error}", line) from error


class Hosts:
    """Hosts that are told noise, in passes of a few lines each, from callers that come and go."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._noise = Noise(seed)
        self._dice = self._noise.dice
        self._number = 0
        self.codes: Counter[str] = Counter()

    def tell(self, lines: int) -> None:
        while lines > 0:
            self._one(min(lines, LINES_A_HOST))
            lines -= LINES_A_HOST

    def _one(self, lines: int) -> None:
        self._number += 1
        bench = Bench(self._folder / f"{self._number}.db", messages_max=2000)
        callers = [bench.connect(is_control=bool(n % 2)) for n in range(6)]
        while lines > 0:
            told = [self._noise.line() for _ in range(1 + int(self._dice.random() * 12))]
            lines -= len(told)
            for line in told:
                bench.receive_line(callers[int(self._dice.random() * 6)], line)
            self._finish(bench, told)
            if self._dice.random() < 0.05:
                self._finish_all(bench, callers)
                callers = [bench.connect(is_control=bool(n % 2)) for n in range(6)]
        self._finish_all(bench, callers)
        assert bench.push("afterwards")["stage"] == "stored", "the next good push is answered"
        close_all()

    def _finish(self, bench: Bench, told: list[bytes]) -> None:
        for answer in bench.host.finish(bench.now, bench.wall):
            answer.caller.pending -= 1
            self._look(answer.line, told)
        if bench.host.stopping:
            raise Broken("told to stop by noise", told[-1])

    def _finish_all(self, bench: Bench, callers: list[Caller]) -> None:
        bench.advance(1)
        for caller in callers:
            bench.host.closed(caller, bench.now, bench.wall)
        self._finish(bench, [b"(closing)"])
        if bench.mailbox.paused:
            bench.call(bench.control(), "resume")

    def _look(self, line: bytes, told: list[bytes]) -> None:
        answer = json.loads(line)
        if ("result" in answer) == ("error" in answer) or not line.endswith(b"\n"):
            raise Broken("an answer that is none", line)
        code = answer["error"]["data"]["code"] if "error" in answer else "ok"
        if (code not in CODES and code != "ok") or code == "internal":
            raise Broken(f"answered {code}", b"\n".join(told))
        self.codes[code] += 1
