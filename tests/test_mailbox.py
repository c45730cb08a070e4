"""The mailbox by itself: opening and recovering, leases and ttls, and counters that always add up."""

import functools
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backchannel.errors import LocalProtocolError, OverLimit, Refused
from backchannel.mailbox import mailbox as mailbox_module
from backchannel.mailbox import standing
from backchannel.mailbox.backup import default_path, restore
from backchannel.mailbox.database import APPLICATION_ID, VERSION, MailboxUnusable, open_database
from backchannel.mailbox.mailbox import HELD_GRACE_S, Lease, Mailbox
from backchannel.protocol.frame import Log
from backchannel.protocol.receipt import Stage

from .inside import NOW, WALL, a_lease, after_a_kill, close_all, envelope, open_mailbox

STAGES = [stage.value for stage in Stage if stage is not Stage.QUEUED]


@pytest.fixture(autouse=True)
def everything_is_closed() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mailbox.db"


def put(mailbox: Mailbox, message_id: str, text: str = "hello", **fields: Any) -> None:
    mailbox.put(envelope(message_id, text, **fields), now=NOW, wall=WALL)
    mailbox.commit()


def take(mailbox: Mailbox, lease: Lease, count: int = 10) -> list[str]:
    handed = mailbox.lease(lease, count, bytes_max=1 << 20)
    return [h.envelope.id for h in handed]


def stage_of(mailbox: Mailbox, message_id: str) -> str:
    return mailbox.get(message_id, None).stage.value


# --- opening ----------------------------------------------------------------------------------------------------------


def test_a_new_mailbox_is_private_marked_as_ours_and_has_an_identity(path: Path) -> None:
    mailbox = open_mailbox(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert mailbox.db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert mailbox.db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert len(bytes.fromhex(mailbox.mailbox_id)) == 16
    assert mailbox.epoch == 1


def test_a_mailbox_is_the_same_when_opened_again(path: Path) -> None:
    mailbox = open_mailbox(path)
    put(mailbox, "m-1")
    before = mailbox.mailbox_id
    mailbox.close(WALL, NOW)
    mailbox = open_mailbox(path)
    assert mailbox.mailbox_id == before
    assert stage_of(mailbox, "m-1") == "stored"


def test_what_is_looked_up_is_found_by_an_index(path: Path) -> None:
    db = open_mailbox(path).db
    for query in (
        "SELECT * FROM messages WHERE id = ? AND sender = ?",
        "SELECT msg_no FROM messages WHERE stage = 'stored' AND reply_to = ? ORDER BY priority, msg_no",
        "SELECT min(expires) FROM messages WHERE expires IS NOT NULL AND stage = 'stored'",
    ):
        plan = str(db.execute("EXPLAIN QUERY PLAN " + query, ("a", "b")[: query.count("?")]).fetchall())
        assert "INDEX" in plan
        assert "TEMP B-TREE" not in plan


def test_another_process_cannot_open_the_file_while_it_is_ours(path: Path) -> None:
    mailbox = open_mailbox(path)
    put(mailbox, "m-1")
    mailbox.checkpoint()
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM messages')"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, str(path)], capture_output=True, text=True, check=False, timeout=30
    )
    assert "database is locked" in done.stderr
    put(mailbox, "m-2")


def test_a_file_that_is_open_elsewhere_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, timeout=0))
    open_mailbox(path).close(WALL, NOW)
    program = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('PRAGMA locking_mode=EXCLUSIVE');"
        "db.execute('BEGIN EXCLUSIVE'); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(MailboxUnusable, match="open in another program"):
            open_mailbox(path)
        other.stdin.close()
    open_mailbox(path).close(WALL, NOW)


def test_a_newer_file_is_refused_and_stays_as_it_was_byte_for_byte(path: Path) -> None:
    mailbox = open_mailbox(path)
    put(mailbox, "m-1")
    mailbox.db.execute(f"PRAGMA user_version={VERSION + 1}")
    mailbox.close(WALL, NOW)
    before = path.read_bytes()
    with pytest.raises(MailboxUnusable, match="newer") as caught:
        open_mailbox(path)
    assert str(path) in caught.value.message
    assert "upgrade" in caught.value.hint
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]


def test_an_older_file_is_brought_up_by_its_owner_only(path: Path) -> None:
    mailbox = open_mailbox(path)
    mailbox.db.execute("PRAGMA user_version=0")
    mailbox.close(WALL, NOW)
    with pytest.raises(MailboxUnusable, match="older schema"):
        Mailbox.open(str(path), now=NOW, wall=WALL, boot_id="boot-1", random=bytes, migrate=False)


@pytest.mark.parametrize("content", [b"hello", b"hello" * 1000, b"\0" * 8192, b"SQLite format 3\0"])
def test_a_file_that_is_no_database_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(MailboxUnusable, match="damaged") as caught:
        open_mailbox(path)
    assert str(path) in caught.value.message
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_mailbox(path: Path) -> None:
    path.touch()
    put(open_mailbox(path), "m-1")


@pytest.mark.parametrize("application_id", [0, 0x12345678])
def test_another_programs_database_is_refused_and_kept(path: Path, application_id: int) -> None:
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA application_id={application_id}")
    other.execute("CREATE TABLE theirs (a)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(MailboxUnusable, match="another program"):
        open_mailbox(path)
    assert path.read_bytes() == before


def test_a_mailbox_whose_maker_was_killed_at_once_is_ours_all_the_same(path: Path, tmp_path: Path) -> None:
    made = open_mailbox(path)
    again = open_mailbox(after_a_kill(path, tmp_path / "killed"))
    assert again.mailbox_id == made.mailbox_id


def full_of_messages(path: Path) -> None:
    mailbox = open_mailbox(path)
    for i in range(200):
        mailbox.put(envelope(f"m-{i}", "x" * 500), now=NOW, wall=WALL)
    mailbox.commit()
    mailbox.checkpoint()
    mailbox.close(WALL, NOW)


def scribble(path: Path, start: int) -> bytes:
    data = bytearray(path.read_bytes())
    data[start:] = b"\xa5" * (len(data) - start)
    path.write_bytes(data)
    return bytes(data)


def test_a_file_damaged_after_its_first_page_is_refused_and_kept_and_the_newest_backup_named(path: Path) -> None:
    full_of_messages(path)
    content = scribble(path, 4096)
    backups = path.parent / "backups"
    backups.mkdir()
    (backups / "mailbox-1.db").write_bytes(b"")
    with pytest.raises(MailboxUnusable, match="damaged") as caught:
        open_mailbox(path)
    assert str(backups / "mailbox-1.db") in caught.value.hint
    assert path.read_bytes() == content


def test_after_an_unclean_stop_the_file_is_checked_before_it_is_used(path: Path) -> None:
    full_of_messages(path)
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = 0 WHERE key = 'clean'")
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    content = scribble(path, 20 * 4096)  # far behind what opening reads
    with pytest.raises(MailboxUnusable, match="damaged"):
        open_mailbox(path)
    assert path.read_bytes() == content


def test_a_file_that_has_forgotten_what_it_is_is_called_damaged(path: Path) -> None:
    full_of_messages(path)
    db = sqlite3.connect(path)
    db.execute("DELETE FROM meta WHERE key = 'clean'")
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    with pytest.raises(MailboxUnusable, match="damaged"):
        open_mailbox(path)


def test_a_power_cut_while_the_first_page_was_made_leaves_no_damage(path: Path) -> None:
    # SQLite's journal of a change to an empty file, as it is on the disk before the first page is written.
    header = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(4) + b"once" + struct.pack(">III", 0, 512, 2048)
    path.with_name(path.name + "-journal").write_bytes(header.ljust(512, b"\0"))
    path.write_bytes(bytes(2048))  # the page's other sectors came first
    open_mailbox(path).close(WALL, NOW)
    assert open_mailbox(path).epoch == 1


def test_a_file_of_zeros_is_damaged_if_nothing_says_that_it_was_just_being_made(path: Path) -> None:
    path.write_bytes(bytes(2048))
    with pytest.raises(MailboxUnusable, match="damaged"):
        open_mailbox(path)


# --- the log ----------------------------------------------------------------------------------------------------------


def test_the_log_goes_into_the_file_when_told_and_never_by_itself(path: Path) -> None:
    mailbox = open_mailbox(path)
    mailbox.checkpoint()
    before = path.stat().st_size
    for i in range(50):
        for j in range(40):
            mailbox.put(envelope(f"m-{i}-{j}", "x" * 2000), now=NOW, wall=WALL)
        mailbox.commit()
    assert mailbox.wal_bytes > 4 << 20  # SQLite itself would have done it after 1,000 pages
    assert path.stat().st_size == before
    mailbox.checkpoint()
    assert path.stat().st_size > 4 << 20


def test_a_checkpoint_in_the_middle_of_a_transaction_is_left_for_later(path: Path) -> None:
    mailbox = open_mailbox(path)
    mailbox.put(envelope("m-1"), now=NOW, wall=WALL)
    mailbox.checkpoint()
    mailbox.commit()
    mailbox.checkpoint()
    assert stage_of(mailbox, "m-1") == "stored"


def test_what_was_committed_survives_a_kill_and_what_was_not_does_not(path: Path, tmp_path: Path) -> None:
    mailbox = open_mailbox(path)
    put(mailbox, "m-1")
    mailbox.put(envelope("m-2"), now=NOW, wall=WALL)
    again = open_mailbox(after_a_kill(path, tmp_path / "killed"))
    assert stage_of(again, "m-1") == "stored"
    with pytest.raises(LocalProtocolError):
        again.get("m-2", None)


# --- boots and epochs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("killed", "boot_id", "epoch"),
    [(False, "boot-1", 1), (False, "boot-2", 1), (True, "boot-1", 1), (True, "boot-2", 2)],
)
def test_only_an_unclean_stop_and_another_boot_together_make_a_new_epoch(
    path: Path, tmp_path: Path, killed: bool, boot_id: str, epoch: int
) -> None:
    mailbox = open_mailbox(path)
    if killed:
        path = after_a_kill(path, tmp_path / "killed")
    else:
        mailbox.close(WALL, NOW)
    again = open_mailbox(path, boot_id=boot_id)
    assert again.epoch == epoch
    assert again.mailbox_id == mailbox.mailbox_id


def test_an_epoch_is_counted_once_for_each_power_cut(path: Path, tmp_path: Path) -> None:
    for cut in range(4):
        mailbox = open_mailbox(path, boot_id=f"boot-{cut}")
        assert mailbox.epoch == 1 + cut
        path = after_a_kill(path, tmp_path / f"cut-{cut}")


@pytest.mark.parametrize("killed", [False, True])
def test_a_ttl_goes_on_over_a_reboot(path: Path, tmp_path: Path, killed: bool) -> None:
    mailbox = open_mailbox(path, now=5000.0, wall=WALL)
    mailbox.put(envelope("m-1", ttl=60.0), now=5000.0, wall=WALL)
    mailbox.put(envelope("m-2", ttl=3600.0), now=5000.0, wall=WALL)
    mailbox.commit()
    if killed:
        path = after_a_kill(path, tmp_path / "killed")
    else:
        mailbox.close(WALL + 1, 5001.0)
    # Half a minute later the machine is up again, and counts from zero.
    mailbox = open_mailbox(path, now=10.0, wall=WALL + 30, boot_id="boot-2")
    assert mailbox.next_expiry == 40.0
    mailbox.expire(39.9, WALL + 59)
    assert stage_of(mailbox, "m-1") == "stored"
    mailbox.expire(40.0, WALL + 60)
    assert stage_of(mailbox, "m-1") == "expired"
    assert mailbox.next_expiry == 3580.0


def test_a_ttl_does_not_notice_that_the_clock_was_set(path: Path) -> None:
    mailbox = open_mailbox(path)
    mailbox.put(envelope("m-1", ttl=60.0), now=NOW, wall=WALL)
    mailbox.commit()
    mailbox.expire(NOW + 59, WALL + 10 * 365 * 86400)
    assert stage_of(mailbox, "m-1") == "stored"
    mailbox.close(WALL + 10 * 365 * 86400, NOW + 59)
    mailbox = open_mailbox(path, now=NOW + 59)
    assert mailbox.next_expiry == NOW + 60


def test_only_a_file_that_nobody_closed_is_checked(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    monkeypatch.setattr(mailbox_module, "quick_check", lambda _, checked_path: checked.append(checked_path))
    open_mailbox(path).close(WALL, NOW)
    open_mailbox(path)
    assert not checked
    killed = after_a_kill(path, tmp_path / "killed")
    mailbox = open_mailbox(killed)
    assert checked == [str(killed)]
    assert mailbox.db.execute("PRAGMA synchronous").fetchone() == (1,), "NORMAL: `power` is flushed beside SQLite"


def test_the_clock_of_a_session_is_shifted_by_all_boots_since_it_was_written(path: Path, tmp_path: Path) -> None:
    mailbox = open_mailbox(path, now=5000.0, wall=WALL)
    assert mailbox.clock_shift == 0.0
    path = after_a_kill(path, tmp_path / "one")
    mailbox = open_mailbox(path, now=10.0, wall=WALL + 30, boot_id="boot-2")
    assert mailbox.clock_shift == 10.0 - 5030.0
    path = after_a_kill(path, tmp_path / "two")
    mailbox = open_mailbox(path, now=20.0, wall=WALL + 100, boot_id="boot-3")
    assert mailbox.clock_shift == (10.0 - 5030.0) + (20.0 - 80.0)


def test_a_taken_messages_ttl_goes_on_over_a_reboot_too(path: Path, tmp_path: Path) -> None:
    mailbox = open_mailbox(path, now=5000.0, wall=WALL)
    mailbox.put(envelope("m-1", ttl=60.0), now=5000.0, wall=WALL)
    take(mailbox, a_lease())
    mailbox.commit()
    path = after_a_kill(path, tmp_path / "killed")
    mailbox = open_mailbox(path, now=10.0, wall=WALL + 30, boot_id="boot-2")
    assert mailbox.db.execute("SELECT expires FROM messages").fetchone() == (40.0,)


# --- leases -----------------------------------------------------------------------------------------------------------


def test_a_leased_message_expires_only_when_it_comes_back(path: Path) -> None:
    mailbox = open_mailbox(path)
    mailbox.put(envelope("m-1", ttl=60.0), now=NOW, wall=WALL)
    lease = a_lease()
    assert take(mailbox, lease) == ["m-1"]
    mailbox.expire(NOW + 100, WALL)
    assert stage_of(mailbox, "m-1") == "taken"
    mailbox.drop(lease, WALL)
    assert mailbox.next_expiry == NOW + 60
    mailbox.expire(NOW + 100, WALL)
    assert stage_of(mailbox, "m-1") == "expired"


def test_after_a_restart_a_held_lease_waits_five_seconds_and_a_detached_one_begins_anew(path: Path) -> None:
    mailbox = open_mailbox(path, detached_s=300)
    put(mailbox, "m-1")
    put(mailbox, "m-2")
    take(mailbox, a_lease("t-held"), 1)
    take(mailbox, a_lease("t-detached", deadline=NOW + 300), 1)
    mailbox.commit()
    mailbox.close(WALL, NOW)
    mailbox = open_mailbox(path, now=NOW + 200, detached_s=300)
    assert mailbox.leases["t-held"].deadline == NOW + 200 + HELD_GRACE_S
    assert mailbox.leases["t-detached"].deadline == NOW + 500
    mailbox.release_expired(NOW + 204.9, WALL)
    assert set(mailbox.leases) == {"t-held", "t-detached"}
    mailbox.release_expired(NOW + 205, WALL)
    assert set(mailbox.leases) == {"t-detached"}
    assert (stage_of(mailbox, "m-1"), stage_of(mailbox, "m-2")) == ("stored", "taken")


def test_a_lease_whose_ack_was_rolled_back_is_still_the_same_lease(path: Path) -> None:
    mailbox = open_mailbox(path)
    put(mailbox, "m-1")
    lease = a_lease()
    holder = lease.holder
    take(mailbox, lease)
    mailbox.commit()
    state = mailbox.get("m-1", None)
    state.check_current(1)
    mailbox.ack(state, "ack", WALL)
    mailbox.rollback()
    assert mailbox.leases == {"t-1": lease}
    assert (lease.holder, lease.deadline) == (holder, None)
    mailbox.release_expired(NOW + 3600, WALL)
    assert stage_of(mailbox, "m-1") == "taken"


def test_a_lease_forgets_what_it_got_in_a_transaction_that_failed(path: Path) -> None:
    mailbox = open_mailbox(path)
    put(mailbox, "m-1")
    put(mailbox, "m-2")
    unlucky, other = a_lease("t-1"), a_lease("t-2")
    assert take(mailbox, unlucky) == ["m-1", "m-2"]
    mailbox.rollback()
    assert take(mailbox, unlucky, 1) == ["m-1"]
    assert take(mailbox, other, 1) == ["m-2"]
    mailbox.commit()
    mailbox.drop(unlucky, WALL)
    assert (stage_of(mailbox, "m-1"), stage_of(mailbox, "m-2")) == ("stored", "taken")


# --- long texts, and what follows from the rows -----------------------------------------------------------------------


def test_a_long_text_stands_by_itself_and_is_the_same_text(path: Path) -> None:
    mailbox = open_mailbox(path)
    text = "x" * (standing.INLINE_MAX + 1)
    put(mailbox, "m-long", text, session="s-1")
    put(mailbox, "m-short", "x" * (standing.INLINE_MAX - 2))
    assert mailbox.db.execute("SELECT msg_no, length(text) FROM texts").fetchall() == [(1, len(text) + 2)]
    assert mailbox.counters.unacked_bytes == len(text) + 2 + standing.INLINE_MAX
    with pytest.raises(Refused, match="another text"):
        put(mailbox, "m-long", text + "y")
    put(mailbox, "m-long", text)  # a repetition
    lease = a_lease("t-1")
    handed = mailbox.lease(lease, 1, bytes_max=1)
    assert [h.envelope.text for h in (*handed, *mailbox.handed_again(lease))] == [f'"{text}"'.encode()] * 2
    (waiting,) = mailbox.waiting(1, 2, 1).fetchall()
    (known,) = mailbox.history(Log(max=1), 1, 2, newest_first=False).fetchall()
    assert mailbox.text(1) == waiting[6] == known[10]
    mailbox.ack(mailbox.get("m-long", None), "ack", WALL)
    mailbox.commit()
    assert mailbox.counters.unacked_bytes == standing.INLINE_MAX
    mailbox.db.execute("DELETE FROM messages WHERE id = 'm-long'")
    assert mailbox.db.execute("SELECT count(*) FROM texts").fetchone() == (0,)


def test_purged_messages_stay_counted_and_their_numbers_used(path: Path) -> None:
    mailbox = open_mailbox(path)
    for number in (1, 2, 3):
        put(mailbox, f"m-{number}")
        take(mailbox, a_lease("t-1"), 1)
        mailbox.ack(mailbox.get(f"m-{number}", None), "ack", WALL)
    mailbox.commit()
    mailbox.begin()
    mailbox.db.execute("DELETE FROM messages WHERE msg_no <> 2")
    standing.note_purged(mailbox.db, "analyst", "acked", 2, highest=3)
    mailbox.commit()
    before = mailbox.counters.by_sender["analyst"].values()
    assert standing.count(mailbox.db).counts["analyst"].values() == before
    assert standing.highest_no(mailbox.db) == mailbox.counters.total == 3
    killed = open_mailbox(after_a_kill(path, path.parent / "killed"))
    assert killed.counters.by_sender["analyst"].values() == before
    put(killed, "m-4")
    assert killed.get("m-4", None).msg_no == 4


def test_an_orderly_close_leaves_behind_what_the_next_start_need_not_count(path: Path) -> None:
    mailbox = open_mailbox(path)
    for number, priority in ((1, 1), (2, 0), (3, 2), (4, 1)):
        put(mailbox, f"m-{number}", priority=priority, session="s-1" if number > 2 else None)
    take(mailbox, a_lease("t-1"), 1)
    mailbox.commit()
    mailbox.close(WALL, NOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standing, "count", None)
        mailbox = open_mailbox(path)
    assert list(mailbox.ready) == [1, 4, 3]
    assert mailbox.ready.in_session("s-1") == [4, 3]
    assert [leased.id for leased in mailbox.leased.values()] == ["m-2"]
    assert mailbox.counters.by_sender["analyst"].values() == standing.count(mailbox.db).counts["analyst"].values()
    take(mailbox, a_lease("t-2"), 1)
    mailbox.commit()
    killed = open_mailbox(after_a_kill(path, path.parent / "killed"))
    assert list(killed.ready) == [4, 3]  # what an earlier close left is not believed


def test_a_close_for_which_the_disk_has_no_room_is_an_end_too(path: Path) -> None:
    mailbox = open_mailbox(path)
    for number in range(2000):  # their numbers take more than the pages that are there
        mailbox.put(envelope(f"m-{number}"), now=NOW, wall=WALL)
    mailbox.commit()
    mailbox.checkpoint()
    (pages,) = mailbox.db.execute("PRAGMA page_count").fetchone()
    mailbox.db.execute(f"PRAGMA max_page_count={pages}")
    mailbox.close(WALL, NOW)
    mailbox = open_mailbox(path)
    assert len(list(mailbox.ready)) == mailbox.counters.stored == 2000
    assert mailbox.epoch == 1


def test_two_restores_and_two_backups_of_one_second_do_not_meet(path: Path, tmp_path: Path) -> None:
    open_mailbox(path).close(WALL, NOW)
    source = str(tmp_path / "source.db")
    shutil.copy(path, source)
    kept = {restore(str(path), source, random=os.urandom, wall=WALL).kept for _ in range(3)}
    assert len(kept) == 3
    assert all(name is not None and os.path.exists(name) for name in kept)
    first = Path(default_path(str(path), "bob", WALL))
    first.touch()
    assert default_path(str(path), "bob", WALL) != str(first)


# --- counters ---------------------------------------------------------------------------------------------------------


class Known:
    """What the model knows of one message."""

    def __init__(self, message_id: str, sender: str, text: str, priority: int, expires: float | None) -> None:
        self.id = message_id
        self.sender = sender
        self.text = text
        self.priority = priority
        self.expires = expires
        self.size = len(text) + 2
        self.stage = "stored"
        self.delivery = 0
        self.unseen = 0
        self.take_id: str | None = None

    def copy(self) -> "Known":
        twin = Known(self.id, self.sender, self.text, self.priority, self.expires)
        twin.stage, twin.delivery, twin.unseen, twin.take_id = self.stage, self.delivery, self.unseen, self.take_id
        return twin

    @property
    def is_unacked(self) -> bool:
        return self.stage in ("stored", "taken")


MESSAGES_MAX = 12
BYTES_MAX = 160
DELIVERIES_MAX = 3
DETACHED_S = 20.0
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of files, none of them worth a disk
senders = st.sampled_from(["analyst", "writer", "@1000"])
ids = st.sampled_from([f"m-{i}" for i in range(14)])


class MailboxMachine(RuleBasedStateMachine):
    """The mailbox beside a model of it: a list of messages, in order, and a copy of the list at each commit."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.path = self.folder / "mailbox.db"
        self.now = NOW
        self.boot = 1
        self.kills = 0
        self.takes = 0
        self.deadlines: dict[str, float | None] = {}  # of leases; a rollback does not change them
        self.messages: list[Known] = []
        self.committed: list[Known] = []
        self.open()

    def open(self) -> None:
        self.mailbox = open_mailbox(
            self.path,
            now=self.now,
            boot_id=f"boot-{self.boot}",
            messages_max=MESSAGES_MAX,
            bytes_max=BYTES_MAX,
            deliveries_max=DELIVERIES_MAX,
            detached_s=DETACHED_S,
        )
        self.messages = [m.copy() for m in self.committed]
        for take_id in self.deadlines:
            grace = HELD_GRACE_S if take_id.startswith("held") else DETACHED_S
            self.deadlines[take_id] = self.now + grace

    def teardown(self) -> None:
        self.mailbox.db.close()
        shutil.rmtree(self.folder)

    # --- what may happen

    @rule(sender=senders, message_id=ids, text=st.sampled_from(["", "hello", "x" * 30]), priority=st.integers(0, 2),
          ttl=st.sampled_from([None, None, 5.0, 50.0]), with_lease=st.booleans())  # fmt: skip
    def put(self, sender: str, message_id: str, text: str, priority: int, ttl: float | None, with_lease: bool) -> None:
        offered = envelope(message_id, text, sender, priority=priority, ttl=ttl)
        known = next((m for m in self.messages if (m.id, m.sender) == (message_id, sender)), None)
        lease = self.a_new_lease(held=True) if with_lease else None
        expected = self.verdict(sender, len(text) + 2, known, text)
        try:
            state, duplicate, handed = self.mailbox.put(offered, now=self.now, wall=WALL, lease=lease)
        except (OverLimit, Refused) as error:
            got = error.code
        else:
            got = "duplicate" if duplicate else "stored"
        assert got == expected
        if got not in ("duplicate", "stored"):
            return
        if known is not None:
            assert (state.stage, state.delivery, handed) == (known.stage, known.delivery, None)
            return
        message = Known(message_id, sender, text, priority, None if ttl is None else self.now + ttl)
        if lease is not None:
            message.stage, message.delivery, message.take_id = "taken", 1, lease.take_id
        self.messages.append(message)

    def verdict(self, sender: str, size: int, known: Known | None, text: str) -> str:
        if known is not None:
            return "duplicate" if known.text == text else "key_reused"
        waiting = [m for m in self.messages if m.is_unacked]
        if len(waiting) >= MESSAGES_MAX or sum(m.size for m in waiting) + size > BYTES_MAX:
            return "full"
        mine = [m for m in waiting if m.sender == sender]
        share = len({m.sender for m in waiting} | {sender}) + 1
        others = [m for m in waiting if m.sender != sender]
        if len(mine) * share >= MESSAGES_MAX - len(others):
            return "quota"
        if (sum(m.size for m in mine) + size) * share > BYTES_MAX - sum(m.size for m in others):
            return "quota"
        return "stored"

    def a_new_lease(self, *, held: bool) -> Lease:
        self.takes += 1
        take_id = f"{'held' if held else 'detached'}-{self.takes}"
        self.deadlines[take_id] = None if held else self.now + DETACHED_S
        return a_lease(take_id, deadline=self.deadlines[take_id])

    @rule(count=st.integers(1, 4), held=st.booleans())
    def take(self, count: int, held: bool) -> None:
        lease = self.a_new_lease(held=held)
        waiting = sorted((m.priority, i) for i, m in enumerate(self.messages) if m.stage == "stored")
        wanted = [self.messages[i] for _, i in waiting[:count]]
        handed = self.mailbox.lease(lease, count, bytes_max=1 << 20)
        for message in wanted:
            message.stage, message.take_id = "taken", lease.take_id
            message.delivery += 1
        assert [(h.envelope.id, h.envelope.sender, h.delivery) for h in handed] == [
            (m.id, m.sender, m.delivery) for m in wanted
        ]

    @precondition(lambda self: self.messages)
    @rule(data=st.data(), how=st.sampled_from(["ack", "reject", "release", "unseen", "stale"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        message = data.draw(st.sampled_from(self.messages), label="message")
        delivery = message.delivery + 1 if how == "stale" else message.delivery
        shown = "@user" if message.sender.startswith("@") else message.sender
        expected = "ended" if not message.is_unacked else "stale" if how == "stale" or not message.delivery else ""
        state = self.mailbox.get(message.id, shown)
        if expected:
            with pytest.raises(Refused) as caught:
                state.check_current(delivery)
            assert caught.value.code == expected
            return
        state.check_current(delivery)
        if how == "ack":
            self.mailbox.ack(state, "ack", WALL)
            message.stage = "acked"
        elif how == "reject":
            self.mailbox.reject(state, "no", WALL)
            message.stage = "rejected"
        else:
            self.mailbox.release(state, WALL, unseen=how == "unseen")
            self.released(message, unseen=how == "unseen")

    def released(self, message: Known, *, unseen: bool = False) -> None:
        if message.stage != "taken":
            return
        dead = not unseen and message.delivery - message.unseen >= DELIVERIES_MAX
        message.stage = "dead" if dead else "stored"
        message.unseen += unseen
        message.take_id = None

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.messages), label="message")
        state = self.mailbox.get(message.id, "@user" if message.sender.startswith("@") else message.sender)
        if message.stage not in ("stored", "cancelled"):
            with pytest.raises(Refused) as caught:
                self.mailbox.cancel(state, WALL)
            assert caught.value.code == ("taken" if message.stage == "taken" else "ended")
            return
        self.mailbox.cancel(state, WALL)
        message.stage = "cancelled"

    @precondition(lambda self: self.mailbox.leases)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        take_id = data.draw(st.sampled_from(sorted(self.mailbox.leases)), label="lease")
        self.mailbox.drop(self.mailbox.leases[take_id], WALL)
        self.fell(take_id)

    def fell(self, take_id: str) -> None:
        for message in self.messages:
            if message.stage == "taken" and message.take_id == take_id:
                self.released(message)

    @rule(seconds=st.sampled_from([0.0, 1.0, 6.0, 30.0]))
    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.mailbox.expire(self.now, WALL)
        for message in self.messages:
            if message.stage == "stored" and message.expires is not None and message.expires <= self.now:
                message.stage = "expired"
        self.mailbox.release_expired(self.now, WALL)
        for take_id, deadline in self.deadlines.items():
            if deadline is not None and deadline <= self.now:
                self.fell(take_id)

    @rule()
    def commit(self) -> None:
        if self.mailbox.in_transaction:
            self.mailbox.commit()
        self.committed = [m.copy() for m in self.messages]

    @rule()
    def rollback(self) -> None:
        self.mailbox.rollback()
        self.messages = [m.copy() for m in self.committed]

    @rule(reboot=st.booleans())
    def restart(self, reboot: bool) -> None:
        self.mailbox.close(WALL, self.now)
        self.boot += reboot
        self.open()

    @rule()
    def kill(self) -> None:
        self.kills += 1
        self.path = after_a_kill(self.path, self.folder / f"kill-{self.kills}")
        self.mailbox.db.close()
        self.open()

    # --- what must hold

    @invariant()
    def everything_stands_where_the_model_says(self) -> None:
        rows = self.mailbox.db.execute("SELECT id, sender, stage, delivery, take_id FROM messages ORDER BY msg_no")
        expected = [
            (m.id, m.sender, m.stage, m.delivery, m.take_id if m.stage == "taken" else None) for m in self.messages
        ]
        assert rows.fetchall() == expected

    @invariant()
    def counters_add_up(self) -> None:
        counters = self.mailbox.counters
        for sender, count in counters.by_sender.items():
            mine = [m for m in self.messages if m.sender == sender]
            assert count.total == len(mine) == sum(getattr(count, stage) for stage in STAGES)
            for stage in STAGES:
                assert getattr(count, stage) == sum(m.stage == stage for m in mine)
            assert count.bytes == sum(m.size for m in mine if m.is_unacked)
        waiting = [m for m in self.messages if m.is_unacked]
        assert counters.unacked == len(waiting)
        assert counters.unacked_bytes == sum(m.size for m in waiting)
        assert counters.stored == sum(m.stage == "stored" for m in waiting)
        assert counters.senders == len({m.sender for m in waiting})

    @invariant()
    def memory_is_what_the_rows_say(self) -> None:
        found, mailbox = standing.count(self.mailbox.db), self.mailbox
        assert {k: v.values() for k, v in found.counts.items()} == {
            k: v.values() for k, v in mailbox.counters.by_sender.items()
        }
        assert list(found.ready) == list(mailbox.ready)
        assert found.ready.of_session == mailbox.ready.of_session
        assert found.taken == sorted(mailbox.leased)
        assert standing.highest_no(mailbox.db) == mailbox.counters.total

    @invariant()
    def leases_hold_exactly_what_is_taken(self) -> None:
        held = {
            (leased.id, leased.sender, leased.delivery, take_id)
            for take_id, lease in self.mailbox.leases.items()
            for leased in lease.messages.values()
        }
        assert held == {(m.id, m.sender, m.delivery, m.take_id) for m in self.messages if m.stage == "taken"}
        assert len(self.mailbox.leased) == len(held)
        for take_id, lease in self.mailbox.leases.items():
            assert lease.messages
            assert lease.deadline == self.deadlines[take_id]


MailboxMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
test_the_mailbox_does_what_its_model_does_and_its_counters_always_add_up = MailboxMachine.TestCase


@pytest.mark.parametrize("boot_id", ["boot-1", "boot-2"])
def test_no_start_looks_at_every_message(path: Path, monkeypatch: pytest.MonkeyPatch, boot_id: str) -> None:
    """A million may wait. After a boot their ttls are by another clock, and those few are found without it."""
    mailbox = open_mailbox(path)
    put(mailbox, "m-1", ttl=100.0)
    mailbox.close(WALL, NOW)
    said: list[str] = []

    def traced(path: str, *, migrate: bool) -> sqlite3.Connection:
        db = open_database(path, migrate=migrate)
        db.set_trace_callback(said.append)
        return db

    monkeypatch.setattr("backchannel.mailbox.mailbox.open_database", traced)
    mailbox = open_mailbox(path, boot_id=boot_id)
    mailbox.db.set_trace_callback(None)
    looks = [statement for statement in said if "messages" in statement]
    assert looks
    for statement in looks:
        plan = [row[3] for row in mailbox.db.execute("EXPLAIN QUERY PLAN " + statement)]
        assert "SCAN messages" not in plan, statement
