"""Flushes: when one begins, where it runs, and what the zeros behind the log are to SQLite."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backchannel.daemon.flush import AHEAD, FLUSH_AFTER_S, QUICK_S, SLOW_MAX, Flusher, Log


class Disk:
    """Takes as long for a flush as it is told."""

    def __init__(self) -> None:
        self.takes_s = 0.0
        self.fails = False
        self.flushed_by: list[threading.Thread] = []

    def sync(self, fd: int) -> None:
        self.flushed_by.append(threading.current_thread())
        time.sleep(self.takes_s)
        if self.fails:
            raise OSError(5, "Input/output error")


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def flusher(disk: Disk) -> Iterator[Flusher]:
    flusher = Flusher(disk.sync)
    yield flusher
    flusher.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    path = tmp_path / "log"
    path.touch()
    log = Log(str(path))
    yield log
    log.close()


def test_a_flush_begins_some_milliseconds_after_the_oldest_commit(log: Log) -> None:
    assert log.begin(1.0) is None
    log.committed(1.0)
    log.committed(1.0 + FLUSH_AFTER_S / 2)
    assert log.begin(1.0 + FLUSH_AFTER_S / 2) is None
    assert log.begin(1.0 + FLUSH_AFTER_S) == 2
    log.committed(2.0)
    assert log.begin(3.0) is None, "one is under way"
    log.flushed(2, 3.0)
    assert log.begin(3.0) == 3


def test_what_waits_happens_after_the_flush_that_covers_it(log: Log) -> None:
    done: list[str] = []
    log.committed(1.0)
    log.after_flush(lambda: done.append("first"))
    upto = log.begin(1.0)
    log.committed(1.0)
    log.after_flush(lambda: done.append("second"))
    assert upto == 1
    assert not done
    log.flushed(upto, 1.0)
    assert done == ["first"]
    assert log.is_awaited
    assert log.begin(1.0) == 2, "at once"
    log.flushed(2, 1.0)
    assert done == ["first", "second"]
    assert not log.is_awaited


def test_a_disk_is_slow_when_some_of_its_last_flushes_were(disk: Disk, flusher: Flusher, log: Log) -> None:
    disk.takes_s = QUICK_S * 2
    was_quick = []
    for _ in range(SLOW_MAX + 1):
        flusher.flush(log, 0)
        was_quick.append(flusher.is_quick)
    assert was_quick == [True] * SLOW_MAX + [False], "one that is slow now and then is not a slow disk"
    disk.takes_s = 0.0
    while not flusher.is_quick:
        flusher.flush(log, 0)


def test_the_thread_tells_what_came_of_a_flush(disk: Disk, flusher: Flusher, log: Log) -> None:
    disk.fails = True
    flusher.ask(log, 7)
    while not (ended := flusher.done()):
        time.sleep(0.001)
    (flush,) = ended
    assert (flush.log, flush.upto) == (log, 7)
    assert flush.error is not None
    assert disk.flushed_by[0] is not threading.current_thread()


def test_zeros_behind_the_log_are_its_end_for_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("CREATE TABLE numbers (n)")
        log = Log(f"{path}-wal")
        for n in range(200):
            db.execute("INSERT INTO numbers VALUES (?)", (n,))
            log.make_room()
            if n % 50 == 20:  # killed now, this is what the next start finds
                assert found(copied(path, tmp_path / f"at{n}")) == list(range(n + 1))
            if n == 120:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        log.close()


def test_a_log_is_made_longer_only_when_it_has_grown(log: Log) -> None:
    os.write(log.fd, b"a header and a frame")
    log.make_room()
    size = os.fstat(log.fd).st_size
    assert size == 20 + len(AHEAD)
    os.pwrite(log.fd, b"a frame", 20)
    log.make_room()
    assert os.fstat(log.fd).st_size == size
    os.pwrite(log.fd, b"a frame", size)
    log.make_room()
    assert os.fstat(log.fd).st_size == size + 7 + len(AHEAD)
    assert os.pread(log.fd, 20, 0) == b"a header and a frame"


def copied(path: Path, to: Path) -> Path:
    for end in ("", "-wal"):
        Path(f"{to}{end}").write_bytes(Path(f"{path}{end}").read_bytes())
    return to


def found(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as db:
        return [n for (n,) in db.execute("SELECT n FROM numbers ORDER BY n")]
