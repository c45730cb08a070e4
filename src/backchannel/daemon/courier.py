"""The courier: when which rows of the outbox go to whom. It decides; the server carries.

In order per target, one errand a target at a time; a row leaves when it was receipted, or refused for good. A target
that cannot be reached is tried again after 0.05 s, doubling to 30 s, with jitter; nothing is ever dropped. No sockets
and no clock in here.
"""

from collections.abc import Callable
from typing import Any

from ..errors import BackchannelError
from ..mailbox.outbox import Outbox, Row
from ..protocol import fastcodec
from ..protocol.codec import Malformed

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 30.0
REPORT_AFTER_S = 30.0  # then an unreachable target is worth a line in the log


class Errand:
    """One trip: one row to its target, the oldest. Those behind it wait: refused for now, it must not be overtaken."""

    __slots__ = ("line", "row", "target")

    def __init__(self, row: Row, line: bytes) -> None:
        self.target = row.target
        self.row = row
        self.line = line


class Outcome:
    """What became of one row: a receipt, or a refusal that is final."""

    __slots__ = ("code", "receipt", "row", "why")

    def __init__(self, row: Row, receipt: dict[str, Any] | None, code: str = "", why: str = "") -> None:
        self.row = row
        self.receipt = receipt
        self.code = code
        self.why = why


class _Target:
    __slots__ = ("delay", "failing_since", "is_reported", "is_under_way", "next_try", "why")

    def __init__(self) -> None:
        self.is_under_way = False
        self.next_try = 0.0
        self.delay = RETRY_FIRST_S
        self.failing_since: float | None = None
        self.is_reported = False
        self.why = ""


class Courier:
    """Plans the errands of one agent. `key` gives the agent's secret, `jitter` a number in [0, 1)."""

    def __init__(
        self, name: str, outbox: Outbox, *, key: Callable[[], str | None], jitter: Callable[[], float]
    ) -> None:
        self._name = name
        self._outbox = outbox
        self._key = key
        self._jitter = jitter
        self._targets: dict[str, _Target] = {}

    @property
    def deadline(self) -> float | None:
        """When the next errand may begin, seconds since boot."""
        times = []
        for name in self._outbox.waiting:
            target = self._targets.get(name)
            if target is None:
                return 0.0
            if not target.is_under_way:
                times.append(target.next_try)
        return min(times, default=None)

    def due(self, now: float) -> list[Errand]:
        """The errands that begin now. Each must end in `answered` or `failed`."""
        errands = []
        for name in self._outbox.waiting:
            target = self._targets.setdefault(name, _Target())
            if target.is_under_way or target.next_try > now:
                continue
            try:
                errands.append(self._errand(name))
            except BackchannelError as error:  # our key cannot be read now
                self._back_off(target, now, error.message)
            else:
                target.is_under_way = True
        return errands

    def answered(self, errand: Errand, answer: bytes, now: float) -> Outcome | None:
        """What the answer means for the row. None: refused for now, it stays and goes again."""
        outcome = _read(errand.row, answer)
        if outcome is None:
            self.failed(errand, now, _why(answer))
        else:
            self._targets[errand.target] = _Target()  # reached: the next may go at once
        return outcome

    def failed(self, errand: Errand, now: float, why: str) -> None:
        """Nobody was there."""
        target = self._targets[errand.target]
        target.is_under_way = False
        self._back_off(target, now, why)

    def gone(self, errand: Errand, why: str) -> Outcome:
        """There is no such agent any more: a final refusal."""
        self._targets[errand.target] = _Target()
        return Outcome(errand.row, None, "unknown_agent", why)

    def unreachable(self, now: float) -> dict[str, tuple[float, str]]:
        """Targets that could not be reached: for how long (seconds), and why."""
        return {
            name: (now - target.failing_since, target.why)
            for name, target in self._targets.items()
            if target.failing_since is not None
        }

    def to_report(self, now: float) -> list[tuple[str, str]]:
        """Targets that have been unreachable for half a minute and were not reported yet, with the reason."""
        found = []
        for name, target in self._targets.items():
            is_old = target.failing_since is not None and now - target.failing_since >= REPORT_AFTER_S
            if is_old and not target.is_reported:
                target.is_reported = True
                found.append((name, target.why))
        return found

    def _errand(self, name: str) -> Errand:
        row = self._outbox.first(name)
        # The key is shown anew each time and never stored.
        proof = fastcodec.encode({"from": self._name, "auth": self._key(), "outbox": True})
        line = b'{"jsonrpc":"2.0","id":1,"method":"push","params":%b,%b}\n' % (proof[:-1], row.params[1:])
        return Errand(row, line)

    def _back_off(self, target: _Target, now: float, why: str) -> None:
        target.failing_since = now if target.failing_since is None else target.failing_since
        target.why = why
        target.next_try = now + target.delay * (0.5 + self._jitter())
        target.delay = min(target.delay * 2, RETRY_MAX_S)


def _read(row: Row, line: bytes) -> Outcome | None:
    try:
        answer = fastcodec.decode(line)
        if "result" in answer:
            return Outcome(row, answer["result"])
        data = answer["error"]["data"]
        return None if data["retry"] else Outcome(row, None, data["code"], answer["error"]["message"])
    except (Malformed, KeyError, TypeError):
        return None


def _why(line: bytes) -> str:
    try:
        return str(fastcodec.decode(line)["error"]["message"])
    except (Malformed, KeyError, TypeError):
        return "it answered something that is no answer"
