"""When SQLite itself waits for the disk: never while somebody waits for an answer."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..inside import Bench, close_all
from .vfs import Guard, Operation, guarded, is_possible

pytestmark = pytest.mark.skipif(not is_possible(), reason="this interpreter's SQLite does not show its functions")


class Counting(Guard):
    """Lets everything happen, and counts it by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.done: Counter[Operation] = Counter()

    def error(self, operation: Operation) -> int:
        self.done[operation] += 1
        return 0


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


def test_no_commit_waits_for_the_disk_not_even_the_first_after_a_checkpoint(tmp_path: Path) -> None:
    guard = Counting()
    with guarded(guard):
        bench = Bench(tmp_path / "mailbox.db")
        bench.push("first")
        bench.mailbox.checkpoint()
        assert guard.done[Operation.SYNC], "a checkpoint waits for the disk"
        guard.done.clear()
        for number in range(20):
            bench.push(f"k{number}")
        assert guard.done[Operation.WRITE] > 20
        assert not guard.done[Operation.SYNC]
