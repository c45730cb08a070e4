"""How much of everything: the sizes of a run that shall be believed, and the tiny ones that only show that it runs."""

from dataclasses import dataclass

TEXT = "x" * 256
BIG_TEXT = "x" * (1 << 20)
WARM_UP = 50  # messages before the clock counts, at most as many as are measured
IDLE_S = 0.002  # between one-way messages: everybody sleeps when the next one comes
COLD_S = 0.015  # beyond the daemon's log flush, and long enough for the caches to be somebody else's
BATCH = 100  # texts in a batch


@dataclass(frozen=True)
class Sizes:
    """Counts are for one case in one round."""

    messages: int = 3000  # of a latency; the p99.9 of a round needs this many
    slow_messages: int = 1000  # where one takes a good part of a millisecond
    one_way: int = 300  # each waits until everybody sleeps
    flood: int = 4000  # of each sender of a throughput
    big: int = 100  # bodies of 1 MiB
    batches: int = 100
    commands: int = 20  # whole processes
    agents: tuple[int, int] = (100, 1000)  # in one process
    waiting: tuple[int, int] = (10_000, 1_000_000)  # messages in a mailbox
    settle_s: float = 6.5  # beyond the last thing a daemon does by itself, which is closing kept connections after 5 s
    idle_s: float = 5.0  # how long an idle process is watched


TINY = Sizes(
    messages=20,
    slow_messages=5,
    one_way=3,
    flood=40,
    big=3,
    batches=3,
    commands=2,
    agents=(2, 4),
    waiting=(100, 300),
    settle_s=0.05,
    idle_s=0.1,
)
