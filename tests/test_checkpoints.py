"""When the loop puts the log into the file: an ordinary disk lets it grow, a nearly full one does not."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from backchannel.daemon import server
from backchannel.daemon.server import (
    CHECKPOINT_IDLE_S,
    CHECKPOINT_RECEIVED_BYTES,
    CHECKPOINT_WAL_BYTES,
    Link,
    Seat,
    Server,
)
from backchannel.protocol.envelope import Peer
from backchannel.transport.notify import ServiceManager
from backchannel.transport.paths import Places

from .inside import Bench, close_all

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Server]:
    loop = Server(ServiceManager(), Places(str(tmp_path), str(tmp_path)))
    yield loop
    loop.close()
    for end in (loop._wake_in, loop._wake_out):
        end.close()
    close_all()


def a_seat(loop: Server, folder: Path, **settings: Any) -> tuple[Bench, Seat]:
    bench = Bench(folder / "mailbox.db", **settings)
    nobody: Any = SimpleNamespace()
    return bench, Seat(bench.host, nobody, nobody, loop.make_log(bench.mailbox.path + "-wal"), nobody)


def log_of(loop: Server, bench: Bench, seat: Seat, size: int) -> int:
    """Messages come without a pause until `size` bytes went through the log; how long it was at most."""
    written = longest = 0
    while written < size:
        loop.now += server.WAL_LOOK_S
        bench.call(bench.connect(), "push", to="executor", text="x" * (64 * KIB))
        seat.last_commit = loop.now
        seat.unchecked_since = loop.now - 1.0
        written += 64 * KIB
        longest = max(longest, bench.mailbox.wal_bytes)
        loop._maybe_checkpoint(seat)
    return longest


def test_with_the_settings_as_they_come_the_log_may_grow_long(loop: Server, tmp_path: Path) -> None:
    bench, seat = a_seat(loop, tmp_path)
    assert log_of(loop, bench, seat, 24 * MIB) > 24 * MIB
    assert bench.mailbox.wal_bytes > 24 * MIB, "no checkpoint came"


def test_on_a_nearly_full_disk_half_the_reserve_holds_the_log(loop: Server, tmp_path: Path) -> None:
    bench, seat = a_seat(loop, tmp_path)
    reserve = bench.config.reserve_bytes
    bench.free_bytes = 2 * reserve
    assert log_of(loop, bench, seat, 12 * MIB) < (reserve >> 1) + MIB
    bench.free_bytes = reserve + 2 * CHECKPOINT_WAL_BYTES
    assert log_of(loop, bench, seat, 12 * MIB) > 12 * MIB, "there is room again"


def test_who_is_idle_gives_a_long_log_back_to_the_disk_and_keeps_a_short_one(loop: Server, tmp_path: Path) -> None:
    bench, seat = a_seat(loop, tmp_path)
    for size, left in ((2 * MIB, 2 * MIB), (12 * MIB, 0)):
        log_of(loop, bench, seat, size)
        loop.now += CHECKPOINT_IDLE_S
        loop._maybe_checkpoint(seat)
        assert seat.unchecked_since is None
        assert left <= bench.mailbox.wal_bytes < left + MIB


def test_a_log_that_has_its_length_is_written_anew_and_not_checkpointed_before_it_is_full_again(
    loop: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CHECKPOINT_WAL_BYTES", MIB)
    bench, seat = a_seat(loop, tmp_path)
    assert log_of(loop, bench, seat, 8 * MIB) < 2 * MIB
    (checkpoints,) = bench.mailbox.db.execute("SELECT value FROM meta WHERE key = 'checkpoints'").fetchone()
    assert 7 <= checkpoints <= 12, "once for each MiB, not at each look"


def test_long_texts_go_into_the_file_in_small_steps(loop: Server, tmp_path: Path) -> None:
    bench, seat = a_seat(loop, tmp_path)
    log_of(loop, bench, seat, MIB)
    for received, is_due in ((CHECKPOINT_RECEIVED_BYTES - 1, False), (CHECKPOINT_RECEIVED_BYTES, True)):
        seat.received_bytes = received
        loop.now += server.WAL_LOOK_S
        loop._maybe_checkpoint(seat)
        assert (seat.unchecked_since is None) == is_due
    assert seat.received_bytes == 0


def test_a_long_line_is_read_in_few_passes_and_no_connection_holds_up_the_others(loop: Server, tmp_path: Path) -> None:
    _, seat = a_seat(loop, tmp_path, line_bytes_max=4 * MIB)
    sent: list[int] = []

    class Flood:
        """A connection that always has more."""

        def recv(self, size: int) -> bytes:
            sent.append(size)
            return b" " * size

    link = Link(cast(Any, Flood()), Peer(0, 0, 0), seat, None, is_control=False)
    loop._read(link)
    assert sum(sent) == seat.received_bytes == link.size == server.READ_ON_BYTES
