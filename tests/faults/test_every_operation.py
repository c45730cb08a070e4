"""Thirty transactions, and the disk fails at the n-th operation, for every n there is.

An answer that came out is true afterwards; one that did not come is unknown; a disk that is full refuses and goes on;
one that fails ends the daemon (the server turns `StorageFailed` into status 74), and the next start finds it all.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backchannel.daemon.host import StorageFailed
from backchannel.errors import BackchannelError
from backchannel.mailbox.database import is_full

from ..inside import Bench, after_a_kill, close_all, rows_of
from .vfs import Guard, guarded, is_possible

pytestmark = [
    pytest.mark.proof,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not is_possible(), reason="this interpreter's SQLite does not show its functions"),
]

SETTLING = (("ack", "acked"), ("reject", "rejected"), ("release", ""), ("commit", "done"))


class Story:
    """What the daemon is asked, one request a pass, until its disk fails it. `told`: what each answer promised."""

    def __init__(self, path: Path, guard: Guard) -> None:
        self.path = path
        self._guard = guard
        self.served = 0  # operations until the daemon was told to end; 0: it never was
        self.told: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.has_failed = False

    def run(self) -> None:
        try:
            self._serve(Bench(self.path, deliveries_max=100))
        except StorageFailed:
            self.has_failed = True
        except BackchannelError as error:
            if error.code != "storage":
                raise  # a disk that fails is no damage
            self.has_failed = True

    def _serve(self, bench: Bench) -> None:
        control = bench.control()
        for round_ in range(5):
            for number in range(4):
                key = f"k{round_}-{number}"
                self._ask(bench, bench.connect(), "push", key, "stored", to="executor", id=key, text=key * 50)
            answer = bench.ask(control, "take", max=4)
            held = [message["id"] for message in answer["result"]["messages"]] if "result" in answer else []
            for key, (method, stage) in zip(held, SETTLING, strict=False):
                self._ask(bench, control, method, key, stage, **params(method, key))
            self._ask(bench, bench.connect(), "push", f"t{round_}", "stored", to="executor", id=f"t{round_}", text="x")
            self._ask(bench, bench.connect(), "cancel", f"t{round_}", "cancelled", id=f"t{round_}")
            self._checkpoint(bench)
            bench.advance(2)
        self.served = self._guard.count
        try:
            bench.close()
        except sqlite3.Error:
            pass

    def _ask(self, bench: Bench, caller: Any, method: str, key: str, stage: str, **params: Any) -> None:
        answer = bench.ask(caller, method, **params)
        if "error" in answer:
            code = answer["error"]["data"]["code"]
            assert code in ("full", "no_such_message", "stale"), answer
            self.refused[key] = code
        elif stage:
            self.told[key] = stage

    def _checkpoint(self, bench: Bench) -> None:
        try:
            bench.mailbox.checkpoint()
        except sqlite3.Error as error:  # as the server does it
            if not is_full(error):
                raise StorageFailed(str(error)) from error


def params(method: str, key: str) -> dict[str, Any]:
    match method:
        case "reject":
            return {"id": key, "reason": "no"}
        case "commit":
            return {"replies": [{"id": key, "text": "yes"}]}
        case _:
            return {"id": key}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


def count_operations(folder: Path) -> int:
    guard = Guard()
    with guarded(guard):
        story = Story(folder / "mailbox.db", guard)
        story.run()
    assert len(story.told) >= 25
    assert not story.refused
    return guard.count


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for_good"])
@pytest.mark.parametrize("kind", ["fails", "is_full"])
def test_no_answer_is_untrue_wherever_the_disk_fails(tmp_path: Path, kind: str, for_good: bool) -> None:
    operations = count_operations(folder_of(tmp_path, 0))
    failures = 0
    for number in range(1, operations + 1):
        folder = folder_of(tmp_path, number)
        guard = Guard(number, is_full=kind == "is_full", for_good=for_good)
        with guarded(guard):
            story = Story(folder / "mailbox.db", guard)
            story.run()
        failures += bool(guard.failed)
        if kind == "fails" and guard.failed:
            # What fails when the daemon has said everything harms nobody: the log holds it, and SQLite keeps silent.
            is_at_end = 0 < story.served < number
            assert story.has_failed or is_at_end, f"{number} ({guard.failed[0].name}) failed, and the daemon went on"
        check(story, folder, number)
        close_all()
    print(f"{failures} failures in {operations} runs ({kind}, {'for good' if for_good else 'once'})")
    assert failures > operations * 0.5


def folder_of(tmp_path: Path, number: int) -> Path:
    folder = tmp_path / str(number)
    folder.mkdir()
    return folder


def check(story: Story, folder: Path, number: int) -> None:
    """The next start, on a disk that works again."""
    bench = Bench(after_a_kill(story.path, folder / "after"), deliveries_max=100)
    stages = {row.envelope.id: row.stage for row in rows_of(bench.mailbox)}
    assert bench.mailbox.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for key, stage in story.told.items():
        assert key in stages, f"operation {number}: {key} was {stage}, and is gone"
        assert stage in ("stored", stages[key]), f"operation {number}: {key} is {stages[key]}, not {stage}"
    for key, code in story.refused.items():
        if code == "full" and key not in story.told:
            assert key not in stages, f"operation {number}: {key} was refused, and is there"
    assert bench.push("afterwards")["stage"] == "stored"
    bench.close()
