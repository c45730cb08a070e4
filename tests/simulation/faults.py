"""What goes wrong, how often, and how often it did.

Every place where the world may be unkind asks `strikes(POINT)`. Each seed mutes some of the points and turns the others
up or down ("swarm testing"): what always rains never shows what only the sun brings out.
"""

from collections import Counter
from random import Random

MUTED = 0.35  # of the points, in each seed
LOUDNESS = (0.3, 1.0, 1.0, 3.0)

# The chance each time it could happen, and what it is.
POINTS: dict[str, tuple[float, str]] = {
    # links
    "connection refused": (0.04, "nobody takes the connection"),
    "busy": (0.03, "the target's daemon has no place free"),
    "request lost": (0.05, "the connection breaks before the daemon reads"),
    "request hangs": (0.02, "nothing comes back until the errand's patience ends"),
    "request late": (0.03, "read long after it was sent, maybe after the sender gave up"),
    "request repeated": (0.06, "an old copy of it arrives again, up to ten minutes later"),
    "answer lost": (0.06, "it was done, and nobody knows"),
    "answer late": (0.03, "it takes seconds"),
    # daemons
    "killed in a pass": (0.02, "at any statement, before the commit"),
    "killed at the commit": (0.01, "when all is written and nothing is true"),
    "killed while committing": (0.01, "a part of the commit reached the log"),
    "killed after the commit": (0.01, "and before the answers"),
    "killed between answers": (0.04, "some have left"),
    "killed on the way up": (0.05, "while a start recovers"),
    "stopped": (0.004, "orderly, and started again"),
    "disk full": (0.02, "one statement finds no room"),
    "disk full, rolled back": (0.015, "and SQLite undoes the transaction by itself"),
    "disk full for all": (0.015, "every write of a pass finds no room"),
    "disk full for real": (0.004, "no page more, by SQLite's own count, for some seconds"),
    "reserve used up": (0.004, "little is free, for some seconds"),
    "disk fails": (0.015, "an I/O error at any statement: the daemon ends with 74"),
    "log moved into the file": (0.01, "a checkpoint"),
    # the machine
    "reboot": (0.002, "everybody stopped orderly; another boot, another clock"),
    "power cut": (0.003, "nothing was lost, but nobody knows"),
    "power cut, commits lost": (0.004, "the log's end never reached the disk"),
    "wall clock jumps": (0.005, "somebody set it"),
    "database lost": (0.003, "the file is gone: another mailbox_id"),
    "agent removed": (0.01, "a name ceases to exist while others write to it"),
    # agents
    "process dies": (0.02, "its connection closes, what it held falls"),
    "process dies with a call under way": (0.01, "done or not, nobody hears the answer"),
    "gives a call up": (0.15, "after the daemon went away in the middle of it"),
    "resumes a take": (0.5, "the same take_id over a new connection, after the daemon went away"),
    "takes the same again": (0.02, "the same take_id on another connection, while the first waits"),
    "zombie acks": (0.04, "a token of a process that is dead"),
    "stale token": (0.04, "a delivery before the current one"),
    "acks late": (0.05, "after its lease fell, or nearly"),
    "calls at the wrong time": (0.05, "says after its FIN, accepts what is over, an id that never was"),
    "commits what cannot be": (0.12, "one part is refused, so all of it must be"),
}  # fmt: skip


class Faults:
    """One seed's misfortunes. `is_on` ends with the safety phase."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.is_on = True
        self.counts: Counter[str] = Counter()
        self._rates = {
            point: 0.0 if random.random() < MUTED else chance * random.choice(LOUDNESS)
            for point, (chance, _) in POINTS.items()
        }

    def strikes(self, point: str) -> bool:
        """Whether it happens now; then it is counted."""
        if not self.is_on or self._random.random() >= self._rates[point]:
            return False
        self.counts[point] += 1
        return True

    def may(self, point: str) -> bool:
        """As `strikes`, but it counts only once the caller says `fired`."""
        return self.is_on and self._random.random() < self._rates[point]

    def fired(self, point: str) -> None:
        self.counts[point] += 1
