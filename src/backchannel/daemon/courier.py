"""The courier: when what goes to whom. It decides; the server carries.

What must keep its order is a lane: the messages to one target, or the frames of one session. A lane has one errand
under way at a time; refused for now, it waits and is not overtaken, and no lane waits for another. A target that cannot
be reached is knocked at by one errand at a time: after 0.05 s, doubling to 30 s, with jitter. Nothing is ever dropped.
No sockets and no clock in here.
"""

from collections.abc import Callable, Iterator
from math import inf
from typing import Any

from ..errors import BackchannelError
from ..mailbox.frames import FrameRow, Frames
from ..mailbox.outbox import Outbox, Row
from ..protocol import fastcodec
from ..protocol.codec import Malformed

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 30.0
REPORT_AFTER_S = 30.0  # then an unreachable target is worth a line in the log, and its sessions a PROBE once it is back
ERRANDS_A_TARGET = 16  # under way at once: a part of the places an inbox has

LANES_SPARE = 1000  # of sessions that ended while theirs waited; then they are looked through

MESSAGES = ""  # the lane of a target's messages; every other lane is called by its session


class Errand:
    """One trip: one line to its target. `row` is what it carries, None for a PROBE, which is in no outbox."""

    __slots__ = ("lane", "line", "row", "target")

    def __init__(self, target: str, lane: str, row: Row | FrameRow | None, line: bytes) -> None:
        self.target = target
        self.lane = lane
        self.row = row
        self.line = line


class Reply:
    """What a target's daemon answered: a result, or a refusal, which may be one for now (`retry`)."""

    __slots__ = ("code", "message", "result", "retry")

    def __init__(self, result: Any = None, *, code: str = "", message: str = "", retry: bool = False) -> None:
        self.result = result
        self.code = code
        self.message = message
        self.retry = retry

    @property
    def is_result(self) -> bool:
        return not self.code


class _Lane:
    __slots__ = ("delay", "is_under_way", "next_try", "stalled_since", "why")

    def __init__(self) -> None:
        self.is_under_way = False
        self.next_try = 0.0
        self.delay = RETRY_FIRST_S
        self.stalled_since: float | None = None  # its target refused for now
        self.why = ""


class _Target:
    __slots__ = ("delay", "failing_since", "is_reported", "next_try", "under_way", "why")

    def __init__(self) -> None:
        self.under_way = 0
        self.next_try = 0.0
        self.delay = RETRY_FIRST_S
        self.failing_since: float | None = None
        self.is_reported = False
        self.why = ""

    def is_closed(self, now: float) -> bool:
        """Whether no errand may set out for it now."""
        if self.failing_since is None:
            return self.under_way >= ERRANDS_A_TARGET
        return self.under_way > 0 or self.next_try > now


class Courier:
    """Plans the errands of one agent. `key(target)` gives the agent's secret, None for a target that must not see it;
    `jitter` a number in [0, 1).

    `prepare(row)` gives the params of a queued frame as they are to be pushed today; None: it must wait until `wake`.
    """

    def __init__(
        self,
        name: str,
        outbox: Outbox,
        frames: Frames,
        *,
        key: Callable[[str], str | None],
        jitter: Callable[[], float],
        prepare: Callable[[FrameRow], bytes | None],
    ) -> None:
        self._name = name
        self._outbox = outbox
        self._frames = frames
        self._key = key
        self._jitter = jitter
        self._prepare = prepare
        self._targets: dict[str, _Target] = {}
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._probes: dict[str, tuple[str, bytes]] = {}  # by session: its target, and the params
        self.returned: list[str] = []  # targets that are back after a while; whoever reads it empties it

    def probe(self, session: str, target: str, params: bytes) -> None:
        """Asks a session's peer for its counts, once; a newer PROBE takes the place of one that has not set out."""
        self._probes[session] = (target, params)

    def wake(self, session: str, target: str) -> None:
        """Something changed in the session: what had to wait may go."""
        lane = self._lanes.get((target, session))
        if lane is not None and lane.next_try == inf:
            lane.next_try = 0.0

    def heard_from(self, target: str) -> None:
        """Its daemon speaks to us, so it is there: what waits for it need not wait out its pause."""
        found = self._targets.get(target)
        if found is not None and found.failing_since is not None:
            found.next_try = 0.0

    @property
    def deadline(self) -> float | None:
        """When the next errand may begin, seconds since boot."""
        if not (self._outbox.waiting or self._frames.waiting or self._probes):
            return None
        times = []
        for name, lane_name in self._waiting():
            target = self._targets.get(name)
            lane = self._lanes.get((name, lane_name))
            at = 0.0 if lane is None else inf if lane.is_under_way else lane.next_try
            if target is not None and target.failing_since is not None:
                at = inf if target.under_way else max(at, target.next_try)
            elif target is not None and target.under_way >= ERRANDS_A_TARGET:
                at = inf
            if at == 0.0:
                return 0.0
            times.append(at)
        earliest = min(times, default=inf)
        return None if earliest == inf else earliest

    def due(self, now: float) -> list[Errand]:
        """The errands that begin now. Each must end in `answered`, `failed` or `gone`."""
        errands = []
        waiting = list(self._waiting())
        if len(self._lanes) > len(waiting) + LANES_SPARE:
            wanted = set(waiting)
            self._lanes = {key: lane for key, lane in self._lanes.items() if lane.is_under_way or key in wanted}
        for name, lane_name in waiting:
            target = self._targets.setdefault(name, _Target())
            lane = self._lanes.setdefault((name, lane_name), _Lane())
            if lane.is_under_way or lane.next_try > now or target.is_closed(now):
                continue
            try:
                errand = self._errand(name, lane_name)
            except BackchannelError as error:  # our key cannot be read now
                self._unreachable(target, now, error.message)
                continue
            if errand is None:
                lane.next_try = inf
                continue
            lane.is_under_way = True
            target.under_way += 1
            errands.append(errand)
        return errands

    def answered(self, errand: Errand, line: bytes, now: float) -> Reply:
        """Its target's daemon answered. Whether the row may leave decides who asked; then comes `settled`."""
        target = self._targets[errand.target]
        target.under_way -= 1
        if target.failing_since is not None:
            if now - target.failing_since >= REPORT_AFTER_S:
                self.returned.append(errand.target)
            under_way = target.under_way
            self._targets[errand.target] = target = _Target()
            target.under_way = under_way
        self._lanes[errand.target, errand.lane].is_under_way = False
        return _read(line)

    def settled(self, errand: Errand, now: float, *, has_left: bool, why: str = "") -> None:
        """What was answered is written down. A row that has not left goes again, a little later."""
        if has_left or errand.row is None:
            del self._lanes[errand.target, errand.lane]  # the next of the lane may go at once
            return
        lane = self._lanes[errand.target, errand.lane]
        lane.why = why
        lane.stalled_since = now if lane.stalled_since is None else lane.stalled_since
        lane.next_try, lane.delay = self._later(lane.delay, now)

    def undone(self, errand: Errand, until: float) -> None:
        """What was answered could not be written down: its row goes again, and not before `until`."""
        if errand.row is not None:
            self._lanes.setdefault((errand.target, errand.lane), _Lane()).next_try = until

    def failed(self, errand: Errand, now: float, why: str) -> None:
        """Nobody was there."""
        target = self._targets[errand.target]
        target.under_way -= 1
        self._lanes[errand.target, errand.lane].is_under_way = False
        self._unreachable(target, now, why)
        if errand.row is None:
            del self._lanes[errand.target, errand.lane]

    def gone(self, errand: Errand) -> None:
        """There is no such agent any more: that is an answer too."""
        self._targets[errand.target].under_way -= 1
        self._lanes[errand.target, errand.lane].is_under_way = False

    def unreachable(self, now: float) -> dict[str, tuple[float, str]]:
        """Targets that could not be reached, or took no message for now: for how long (seconds), and why."""
        found = {}
        for name, target in self._targets.items():
            lane = self._lanes.get((name, MESSAGES))
            if target.failing_since is not None:
                found[name] = (now - target.failing_since, target.why)
            elif lane is not None and lane.stalled_since is not None:
                found[name] = (now - lane.stalled_since, lane.why)
        return found

    def stalled(self, session: str, target: str) -> str:
        """Why a session's frames do not get on, or ""."""
        lane = self._lanes.get((target, session))
        whole = self._targets.get(target)
        if whole is not None and whole.failing_since is not None and session in self._frames.waiting:
            return whole.why
        return lane.why if lane is not None else ""

    def to_report(self, now: float) -> list[tuple[str, str]]:
        """Targets that have been unreachable for half a minute and were not reported yet, with the reason."""
        found = []
        for name, (seconds, why) in self.unreachable(now).items():
            target = self._targets[name]
            if seconds >= REPORT_AFTER_S and not target.is_reported:
                target.is_reported = True
                found.append((name, why))
        return found

    def _waiting(self) -> Iterator[tuple[str, str]]:
        """(target, lane) of everything that wants to go. A PROBE goes in a lane beside its session's frames."""
        for name in self._outbox.waiting:
            yield name, MESSAGES
        for session, (name, _) in self._frames.waiting.items():
            yield name, session
        for session, (name, _) in self._probes.items():
            yield name, _probe_lane(session)

    def _errand(self, name: str, lane: str) -> Errand | None:
        row: Row | FrameRow | None
        if lane == MESSAGES:
            row = self._outbox.first(name)
            return Errand(name, lane, row, self._line(name, b"push", row.params, outbox=True))
        if (session := probed(lane)) is not None:
            line = self._line(name, b"probe", self._probes[session][1])
            del self._probes[session]
            return Errand(name, lane, None, line)
        row = self._frames.first(lane)
        params = self._prepare(row)
        return None if params is None else Errand(name, lane, row, self._line(name, b"frame", params))

    def _line(self, target: str, method: bytes, params: bytes, *, outbox: bool = False) -> bytes:
        # The key is shown anew each time and never stored.
        proof: dict[str, Any] = {"from": self._name, "outbox": True} if outbox else {"from": self._name}
        if (key := self._key(target)) is not None:
            proof["auth"] = key
        shown = fastcodec.encode(proof)
        return b'{"jsonrpc":"2.0","id":1,"method":"%b","params":%b,%b}\n' % (method, shown[:-1], params[1:])

    def _unreachable(self, target: _Target, now: float, why: str) -> None:
        target.failing_since = now if target.failing_since is None else target.failing_since
        target.why = why
        target.next_try, target.delay = self._later(target.delay, now)

    def _later(self, delay: float, now: float) -> tuple[float, float]:
        """When to try again after a pause of about `delay`, and the pause after that."""
        return now + delay * (0.5 + self._jitter()), min(delay * 2, RETRY_MAX_S)


def _probe_lane(session: str) -> str:
    return "?" + session


def probed(lane: str) -> str | None:
    """The session whose PROBEs go in this lane, if it is such a one."""
    return lane[1:] if lane.startswith("?") else None


def _read(line: bytes) -> Reply:
    try:
        answer = fastcodec.decode(line)
        if "result" in answer:
            return Reply(answer["result"])
        data = answer["error"]["data"]
        return Reply(code=data["code"], message=str(answer["error"]["message"]), retry=bool(data["retry"]))
    except (Malformed, KeyError, TypeError):
        return Reply(code="protocol", message="it answered something that is no answer", retry=True)
