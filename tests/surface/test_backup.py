"""Backup and restore: a copy that is whole whatever goes on, and what it means to go back to one."""

import errno
import json
import os
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backchannel import BackchannelError, NotPermitted
from backchannel.cli import safekeeping
from backchannel.cli.commands import run_command
from backchannel.mailbox.backup import Copying
from backchannel.mailbox.backup import restore as put_back
from backchannel.mailbox.database import newest_backup, open_database
from backchannel.testing import World

from .helpers import Refusal, collect, control, established, left, reached, status, texts, until

MOUNT_BYTES = 256 << 10


def backup(world: World, *words: str, code: int = 0) -> Any:
    done = world.cli("backup", *words, "--json")
    assert done.returncode == code, (done.stdout, done.stderr)
    return decoded(done.stdout) if code == 0 else done.stderr


def restore(world: World, *words: str, code: int = 0) -> Any:
    done = world.cli("restore", *words, "--json")
    assert done.returncode == code, (done.stdout, done.stderr)
    return decoded(done.stdout) if code == 0 else done.stderr


def decoded(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def rows(path: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return db.execute("SELECT id, text, stage FROM messages ORDER BY msg_no").fetchall()
    finally:
        db.close()


def directory(world: World, name: str) -> list[str]:
    return sorted(os.listdir(world.paths.state(name)))


# --- backup -----------------------------------------------------------------------------------------------------------


def test_a_backup_of_a_busy_mailbox_has_all_that_was_receipted_before_it(world: World, tmp_path: Path) -> None:
    world.up("bob")
    over = threading.Event()
    receipted: list[str] = []

    def write(number: int) -> None:
        me = world.agent(f"writer{number}")
        while not over.is_set():
            receipted.append(me.send("bob", "x" * 2000).id)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    try:
        until(lambda: len(receipted) > 300, "some traffic")
        before = list(receipted)
        done = backup(world, "bob", str(tmp_path / "bob.db"))
        assert len(receipted) > len(before), "nothing was stored meanwhile"
    finally:
        over.set()
        for writer in writers:
            writer.join()
    found = rows(done["path"])
    assert {row[0] for row in found} >= set(before)
    assert stat.S_IMODE(os.stat(done["path"]).st_mode) == 0o600
    assert os.listdir(tmp_path) == ["bob.db"]
    assert done["bytes"] == os.path.getsize(done["path"])
    assert done["mailbox_id"] == status(world, "bob")["mailbox_id"]
    with pytest.raises(sqlite3.OperationalError, match="locked"):  # the daemon still is the only one
        sqlite3.connect(world.paths.state("bob", "mailbox.db"), timeout=0).execute("SELECT * FROM meta")


def test_a_stopped_agent_is_backed_up_too_and_stays_stopped(world: World) -> None:
    world.up("bob")
    world.agent("alice").send("bob", "hello")
    world.stop("bob")
    done = backup(world, "bob")
    assert os.path.dirname(done["path"]) == world.paths.state("bob", "backups")
    assert [row[1:] for row in rows(done["path"])] == [(b'"hello"', "stored")]
    assert not world.stop("bob"), "it was started"
    assert stat.S_IMODE(os.stat(os.path.dirname(done["path"])).st_mode) == 0o700


def test_a_backup_replaces_no_file_and_says_where_it_cannot_go(world: World, tmp_path: Path) -> None:
    world.up("bob")
    there = tmp_path / "there.db"
    there.write_text("mine")
    assert "exists already" in backup(world, "bob", str(there), code=2)
    assert there.read_text() == "mine"
    assert "does not exist" in backup(world, "bob", str(tmp_path / "nowhere" / "x.db"), code=2)
    assert "there is no agent" in backup(world, "bbo", code=5)
    for path in ("relative.db", "", "/tmp/"):
        with pytest.raises(Refusal) as refused:
            control(world, "bob", "backup", path=path)
        assert refused.value.code == "bad_params"
    world.stop("bob")
    assert "exists already" in backup(world, "bob", str(there), code=2)


def test_a_backup_in_a_directory_that_only_the_daemon_sees_is_no_success(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.up("bob")
    for key in ("BACKCHANNEL_STATE", "BACKCHANNEL_DIR"):
        monkeypatch.setenv(key, world.env[key])
    path = tmp_path / "bob.db"  # as a service with PrivateTmp=yes answers for a file in /tmp
    monkeypatch.setattr(safekeeping, "run", lambda _: {"agent": "bob", "path": str(path), "bytes": 1})
    with pytest.raises(NotPermitted, match="is seen by the daemon of bob alone"):
        run_command(["backup", "bob", str(path)])


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only disk can be mounted by root only")
def test_a_place_that_a_daemon_may_only_read_is_told_with_what_to_do(world: World, small_disk: Path) -> None:
    world.up("bob")
    subprocess.run(["mount", "-o", "remount,ro,size=8m", str(small_disk)], check=True)
    told = backup(world, "bob", str(small_disk / "bob.db"), code=7)
    assert "Read-only file system" in told
    assert "name no file" in told


def test_a_disk_without_links_takes_a_backup_too_and_loses_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    mailbox, path = tmp_path / "mailbox.db", tmp_path / "stick.db"
    db = open_database(str(mailbox))
    assert Copying(db, str(path), reserve_bytes=0).run().bytes == path.stat().st_size
    with pytest.raises(BackchannelError, match="exists already"):
        Copying(db, str(path), reserve_bytes=0).run()
    db.close()
    assert rows(str(path)) == []
    assert sorted(os.listdir(tmp_path)) == ["mailbox.db", "stick.db"]


@pytest.mark.parametrize("is_running", [True, False])
def test_a_file_where_its_own_backups_should_lie_is_named(world: World, is_running: bool) -> None:
    world.up("bob")
    Path(world.paths.state("bob", "backups")).write_text("")
    if not is_running:
        world.stop("bob")
    told = backup(world, "bob", code=1)
    assert f"{world.paths.state('bob', 'backups')} is no directory" in told


def test_what_a_kill_left_half_is_no_backup_and_goes_with_the_next(world: World) -> None:
    world.up("bob")
    path = backup(world, "bob")["path"]
    half = Path(f"{path}.1.new")
    half.write_bytes(b"half")
    assert newest_backup(world.paths.state("bob", "mailbox.db")) == path
    os.unlink(path)
    backup(world, "bob")
    assert not half.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small disk can be mounted by root only")
    options = f"size={MOUNT_BYTES},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("is_running", [True, False])
def test_a_full_disk_leaves_nothing_half(world: World, small_disk: Path, is_running: bool) -> None:
    world.up("bob")
    world.agent("alice").send_many("bob", ["x" * 4000] * 100)
    if not is_running:
        world.stop("bob")
    assert "has no room" in backup(world, "bob", str(small_disk / "bob.db"), code=6)
    assert os.listdir(small_disk) == []
    assert len(left(world.agent("bob"))) == 100


def test_a_stop_breaks_a_backup_off_and_leaves_nothing(world: World, tmp_path: Path) -> None:
    world.up("bob")
    world.agent("alice").send_many("bob", ["x" * 50000] * 300)
    refused: list[BaseException] = []

    def ask() -> None:
        try:
            control(world, "bob", "backup", path=str(tmp_path / "bob.db"))
        except (OSError, Refusal) as error:
            refused.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: os.listdir(tmp_path), "it to begin")
    world.stop("bob")
    asking.join()
    if refused:  # else it was faster than we
        assert os.listdir(tmp_path) == []
    assert len(left(world.agent("bob"))) == 300


# --- restore ----------------------------------------------------------------------------------------------------------


def test_what_was_done_since_is_handed_out_again_and_the_mailbox_is_another(world: World, tmp_path: Path) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    for text in ("one", "two", "three"):
        alice.send("bob", text)
    assert texts(collect(bob, 1)) == ["one"]
    before = status(world, "bob")["mailbox_id"]
    path = backup(world, "bob", str(tmp_path / "bob.db"))["path"]
    assert texts(collect(bob, 1)) == ["two"]
    later = alice.send("bob", "four")
    world.stop("bob")
    done = restore(world, "bob", path)
    assert (done["waiting"], done["messages"], done["open_sessions"]) == (2, 3, 0)
    assert texts(left(bob)) == ["two", "three"]
    assert status(world, "bob")["mailbox_id"] == done["mailbox_id"] != before
    with pytest.raises(BackchannelError) as unknown:
        later.refresh()
    assert unknown.value.code == "no_such_message"
    assert "four" in str(rows(done["kept"]))
    assert alice.send("bob", "four", key=later.id).duplicate is False


def test_a_daemon_that_runs_is_stopped_only_if_told_and_runs_again(world: World, tmp_path: Path) -> None:
    world.up("bob")
    path = backup(world, "bob", str(tmp_path / "bob.db"))["path"]
    before = status(world, "bob")["mailbox_id"]
    assert "--stop" in restore(world, "bob", path, code=3)
    assert status(world, "bob")["mailbox_id"] == before
    done = restore(world, "bob", path, "--stop")
    assert control(world, "bob", "status")["mailbox_id"] == done["mailbox_id"]
    assert "down" not in directory(world, "bob")
    assert world.cli("down", "bob").returncode == 0
    restore(world, "bob", path)
    assert "down" in directory(world, "bob"), "who was down by a person's wish stays so"


def test_what_was_restored_is_told_even_if_the_daemon_then_does_not_start(world: World, tmp_path: Path) -> None:
    world.up("bob")
    path = backup(world, "bob", str(tmp_path / "bob.db"))["path"]
    Path(world.paths.state("bob", "config.toml")).write_text("nonsense = 1\n")
    done = world.cli("restore", "bob", path, "--stop")
    assert done.returncode == 5
    assert done.stdout.startswith("bob  restored: 0 messages wait; the one before is kept as ")
    assert "nonsense" in done.stderr
    failed = world.cli("restore", "bob", str(tmp_path / "missing"))
    assert "missing does not exist" in failed.stderr


def test_open_sessions_of_a_restored_mailbox_are_reset_at_both_ends(world: World, tmp_path: Path) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    opened, accepted = established(alice, bob)
    path = backup(world, "bob", str(tmp_path / "bob.db"))["path"]
    assert restore(world, "bob", path, "--stop")["open_sessions"] == 1
    reached(accepted, "CLOSED")
    opened.send("are you there?")  # or ten minutes of silence: then it asks by itself
    reached(opened, "CLOSED")
    assert opened.record.cause == accepted.record.cause == "reset"
    again, _ = established(alice, bob)
    assert again.state == "ESTABLISHED"


def test_an_answer_that_was_on_its_way_is_pushed_again_and_stored_once(world: World, tmp_path: Path) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    world.stop("alice")
    assert world.cli("down", "alice").returncode == 0
    bob.commit(sends=[("alice", "once")])
    path = backup(world, "bob", str(tmp_path / "bob.db"))["path"]
    assert world.cli("up", "alice").returncode == 0
    assert texts(collect(alice, 1)) == ["once"]
    assert restore(world, "bob", path, "--stop")["outbox"] == 1
    until(lambda: status(world, "bob")["outbox"] == 0, "it to be pushed again")
    assert left(alice) == []


@pytest.mark.parametrize("what", ["garbage", "truncated", "other", "live", "missing", "flipped"])
def test_what_is_no_good_backup_changes_nothing(world: World, tmp_path: Path, what: str) -> None:
    world.up("bob")
    world.agent("alice").send_many("bob", ["x" * 3000] * 50)
    good = Path(backup(world, "bob", str(tmp_path / "good.db"))["path"])
    path = tmp_path / f"{what}.db"
    content = bytearray(good.read_bytes())
    if what == "garbage":
        path.write_bytes(os.urandom(5000))
    elif what == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif what == "flipped":
        for position in range(len(content) // 2, len(content), 2048):
            content[position : position + 16] = b"\xff" * 16
        path.write_bytes(content)
    elif what == "other":
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE t (x)")
        db.execute("CREATE TABLE u (x)")
        db.commit()
        db.close()
    elif what == "live":
        path = Path(world.paths.state("bob", "mailbox.db"))
    before = status(world, "bob")["mailbox_id"]
    code = 2 if what == "missing" else 1
    if what == "live":
        refused = world.cli("restore", "bob", str(path), "--stop")
        assert refused.returncode in (0, 1)  # a log that was emptied by the stop leaves a whole file
    else:
        told = restore(world, "bob", str(path), "--stop", code=code)
        assert str(path) in told
        assert status(world, "bob")["mailbox_id"] == before
        assert not [file for file in directory(world, "bob") if "restoring" in file or "before" in file]
    assert status(world, "bob")["backlog"] == 50


@pytest.mark.parametrize("what", ["text", "empty", "directory", "device"])
def test_a_file_that_never_was_a_backup_is_called_so_and_advice_for_a_mailbox_is_not_given(
    world: World, tmp_path: Path, what: str
) -> None:
    world.up("bob")
    world.stop("bob")
    path = tmp_path / what
    if what == "directory":
        path.mkdir()
    elif what == "device":
        path = Path("/dev/null")
    else:
        path.write_text("root:x:0:0\n" * 100 if what == "text" else "")
    told = json.loads(restore(world, "bob", str(path), code=2 if what in ("directory", "device") else 1))
    assert told["message"].startswith(f"{path} is no ")
    assert "backup" in told["hint"]
    assert "move the file away" not in told["hint"]


def test_a_backup_may_be_named_by_a_link_and_one_that_cannot_be_read_is_the_one_that_is_named(
    world: World, tmp_path: Path
) -> None:
    world.up("bob")
    path = Path(backup(world, "bob", str(tmp_path / "bob.db"))["path"])
    world.stop("bob")
    link = tmp_path / "newest.db"
    link.symlink_to(path)
    assert restore(world, "bob", str(link))["kept"]
    link.unlink()
    link.symlink_to(link)
    assert f"{link} cannot be read (Too many levels of symbolic links)" in restore(world, "bob", str(link), code=7)


def test_two_restores_in_one_second_keep_both_mailboxes_before_them(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    mailbox, copy = tmp_path / "mailbox.db", tmp_path / "copy.db"
    for path in (mailbox, copy):
        open_database(str(path)).close()
    kept = [put_back(str(mailbox), str(copy), random=os.urandom, wall=now).kept for _ in range(2)]
    assert len(set(kept)) == 2
    assert all(os.path.exists(str(path)) for path in kept)


def test_a_damaged_mailbox_is_put_right_from_the_backup_that_its_error_names(world: World) -> None:
    world.up("bob")
    world.agent("alice").send("bob", "kept")
    path = backup(world, "bob")["path"]
    world.stop("bob")
    mailbox = Path(world.paths.state("bob", "mailbox.db"))
    mailbox.write_bytes(b"nothing that SQLite would know" * 100)
    failed = world.cli("up", "bob")
    assert failed.returncode == 5
    assert f"backchannel restore bob {path}" in failed.stderr
    kept = restore(world, "bob", path)["kept"]
    assert Path(kept).read_bytes().startswith(b"nothing that SQLite")
    assert world.cli("up", "bob").returncode == 0
    assert texts(left(world.agent("bob"))) == ["kept"]


def test_of_a_damaged_mailbox_no_backup_is_made_and_the_mailbox_is_named(world: World, tmp_path: Path) -> None:
    world.up("bob")
    mailbox = Path(world.paths.state("bob", "mailbox.db"))
    world.agent("alice").send_many("bob", ["x" * 1000] * 300)
    world.stop("bob")
    world.up("bob")
    with mailbox.open("r+b") as file:
        for page in range(20, 60):
            file.seek(page * 2048)
            file.write(os.urandom(1500))
    told = json.loads(backup(world, "bob", str(tmp_path / "bob.db"), code=1))
    assert told["message"].startswith(f"the mailbox {mailbox} is damaged (")
    assert "***" not in told["message"]
    assert os.listdir(tmp_path) == []


def test_a_restore_outlives_a_kill_in_the_moment_after_it(world: World, tmp_path: Path) -> None:
    alice = world.agent("alice")
    world.up("bob")
    alice.send("bob", "kept")
    path = backup(world, "bob", str(tmp_path / "bob.db"))["path"]
    done = restore(world, "bob", path, "--stop")
    world.kill("bob")
    world.up("bob")
    assert status(world, "bob")["mailbox_id"] == done["mailbox_id"]
