"""What a receipt says survives: SIGKILL of the daemon at any moment, a full disk, a damaged file."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from ..world import Daemon, Failed, World, eventually, request

EXIT_DATA = 65
EXIT_IO = 74
MIB = 1 << 20


# --- SIGKILL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["process", "power"])
def test_what_has_a_receipt_survives_a_kill_at_once_after_it(world: World, durability: str) -> None:
    daemon = world.start("bob")
    receipts = []
    for number in range(5):
        receipts.append(world.push("bob", f"message {number}", durability=durability))
        daemon.process.send_signal(signal.SIGKILL)
        daemon.ended()
        daemon = world.restart(daemon)
    assert [receipt["msg_no"] for receipt in receipts] == [1, 2, 3, 4, 5]
    assert len({receipt["mailbox_id"] for receipt in receipts}) == 1
    assert world.texts("bob") == [f"message {number}" for number in range(5)]


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_in_a_stream_of_pushes_loses_no_receipt_and_doubles_nothing(world: World, seed: int) -> None:
    daemon = world.start("bob")
    link = world.link("bob")
    ids = [f"k{number:03}" for number in range(300)]
    pushes = b"".join(request("push", {"to": "bob", "text": key, "id": key}) for key in ids)
    link.send(pushes)
    receipted = [link.answer()["result"]["id"] for _ in range(random.Random(seed).randrange(1, 300))]
    daemon.kill()
    while line := link.line():  # what was on its way when it died
        if line.endswith(b"}"):
            receipted.append("?")
    known = {key for key in receipted if key != "?"}
    world.restart(daemon)
    link = world.link("bob")
    link.send(pushes)  # no answer means unknown: say it again
    answers = {(found := link.answer()["result"])["id"]: found["duplicate"] for _ in ids}
    assert all(answers[key] for key in known), "what had a receipt was there"
    assert sum(answers.values()) >= len(receipted)
    assert sorted(world.texts("bob")) == ids


def test_an_ack_survives_a_kill_at_once_after_it(world: World) -> None:
    daemon = world.start("bob")
    control = world.control("bob")
    for number in range(3):
        world.push("bob", str(number), id=f"k{number}")
        (message,) = control.call("take")["messages"]
        assert control.call("ack", {"id": message["id"], "delivery": 1})["stage"] == "acked"
        daemon.kill()
        daemon = world.restart(daemon)
        control = world.control("bob")
        assert world.receipt("bob", f"k{number}")["stage"] == "acked"
    assert world.texts("bob") == []


def test_every_end_survives_a_restart(world: World) -> None:
    daemon = world.start("bob")
    for key in ("cancelled", "rejected", "acked", "stored"):
        world.push("bob", key, id=key)
    world.call("bob", "cancel", {"id": "cancelled"})
    (first, second) = world.take("bob", 2)
    world.call("bob", "reject", {"id": first["id"], "reason": "busy"}, "control")
    world.call("bob", "ack", {"id": second["id"], "evidence": "turn"}, "control")
    world.push("bob", "expired", id="expired", ttl=0.05)
    eventually(lambda: world.receipt("bob", "expired")["stage"] == "expired")
    before = {key: world.receipt("bob", key) for key in ("cancelled", "rejected", "acked", "stored", "expired")}
    assert {key: receipt["stage"] for key, receipt in before.items()} == {key: key for key in before}
    assert before["rejected"]["reason"] == "busy"
    assert before["acked"]["evidence"] == "turn"
    counters = world.call("bob", "status", which="control")["counters"]
    daemon.kill()
    world.restart(daemon)
    assert {key: world.receipt("bob", key) for key in before} == before
    assert world.call("bob", "status", which="control")["counters"] == counters


def test_a_ttl_goes_on_counting_while_the_daemon_is_dead(world: World) -> None:
    daemon = world.start("bob")
    world.push("bob", "soon over", id="k1", ttl=0.2)
    daemon.kill()
    world.restart(daemon)
    eventually(lambda: world.receipt("bob", "k1")["stage"] == "expired", within=3)
    assert world.texts("bob") == []


def test_numbers_are_never_used_twice_over_restarts(world: World) -> None:
    daemon = world.start("bob")
    numbers = []
    for _ in range(3):
        numbers.append(world.push("bob")["msg_no"])
        world.texts("bob")
        daemon.stop()
        daemon = world.restart(daemon)
    assert numbers == [1, 2, 3]


def test_a_receipt_says_which_durability_it_had(world: World) -> None:
    world.configure("carol", "durability = 'power'\n")
    world.start("bob", "carol")
    assert world.push("bob")["durability"] == "process"
    assert world.push("bob", durability="power")["durability"] == "power"
    assert world.push("carol")["durability"] == "power"


def test_a_receipt_of_power_comes_after_the_flush(world: World) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not here")
    trace = world.root / "trace"
    calls = "trace=fdatasync,sendto,sendmsg"
    world.start("bob", wrap=["strace", "-D", "-f", "-qq", "-s", "200", "-e", calls, "-o", str(trace)])
    world.push("bob", id="precious", durability="power")
    eventually(lambda: "precious" in trace.read_text())
    lines = [line for line in trace.read_text().splitlines() if "fdatasync" in line or "precious" in line]
    assert "precious" in lines[-1] or "fdatasync" in lines[-1]
    first = next(number for number, line in enumerate(lines) if "precious" in line)
    flushed = [line for line in lines[:first] if "fdatasync" in line and "= 0" in line]
    assert flushed, lines


def test_flushes_of_a_slow_disk_go_beside_the_loop(world: World) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not here")
    trace = world.root / "trace"
    slow = ["-e", "trace=fdatasync,sendto", "-e", "inject=fdatasync:delay_exit=20000"]
    world.start("bob", wrap=["strace", "-D", "-f", "-qq", *slow, "-o", str(trace)])
    for _ in range(8):
        assert world.push("bob", durability="power")["durability"] == "power"
    called_by: dict[str, list[str]] = {"fdatasync": [], "sendto": []}
    for line in trace.read_text().splitlines():
        thread, _, call = line.partition(" ")
        for name, threads in called_by.items():
            if call.strip().startswith(name):
                threads.append(thread)
    assert called_by["fdatasync"][-1] != called_by["sendto"][-1]


def failing_disk(world: World, when: str) -> Daemon:
    """A daemon whose fdatasync fails with EIO from the n-th on."""
    if not shutil.which("strace"):
        pytest.skip("strace is not here")
    strace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"]
    return world.spawn("bob", wrap=[*strace, "-e", f"inject=fdatasync:error=EIO:when={when}"])


def test_an_error_of_the_disk_gives_no_receipt_and_ends_with_74(world: World) -> None:
    """Never "fsync again and go on": what became of the pages is unknown."""
    world.start("bob").stop()
    daemon = failing_disk(world, "20+")
    world.await_answer(daemon)
    stored = []
    for number in range(100):
        link = world.link("bob")
        link.ask("push", {"to": "bob", "text": str(number), "durability": "power"})
        if b'"stored"' not in link.line():
            break
        stored.append(str(number))
    assert daemon.ended() == EXIT_IO
    assert "the disk failed" in daemon.said()
    assert "Traceback" not in daemon.said()
    world.restart(daemon)
    assert world.texts("bob")[: len(stored)] == stored


def test_an_error_of_the_disk_at_start_is_not_called_damage(world: World) -> None:
    daemon = failing_disk(world, "1+")
    assert daemon.ended() == EXIT_IO
    assert "damaged" not in daemon.said()
    assert "Traceback" not in daemon.said()
    world.start("bob")


# --- the file and who may open it -------------------------------------------------------------------------------------

OPEN = """
import sqlite3, sys
try:
    db = sqlite3.connect(sys.argv[1], timeout=0)
    db.execute("SELECT * FROM messages").fetchall()
except sqlite3.OperationalError as error:
    print(error)
db.close()
"""


def test_nobody_else_can_open_the_mailbox_whatever_was_called(world: World) -> None:
    world.start("bob")
    control = world.control("bob")
    path = str(world.state / "bob" / "mailbox.db")

    def locked() -> bool:
        return "locked" in world.run(OPEN, path)

    assert locked()
    for number in range(5):
        world.push("bob", id=f"k{number}", durability="power")
    assert locked()
    messages = control.call("take", {"max": 4})["messages"]
    control.call("ack", {"id": messages[0]["id"]})
    control.call("reject", {"id": messages[1]["id"], "reason": "no"})
    control.call("release", {"id": messages[2]["id"]})
    control.call("renew", {"id": messages[3]["id"]})
    assert locked()
    for method, params in (("cancel", {"id": "k4"}), ("receipt", {"id": "k1"}), ("ping", {}), ("status", {})):
        control.call(method, params)
    control.close()
    assert locked()


HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA locking_mode=EXCLUSIVE")
db.execute("BEGIN EXCLUSIVE")
print(flush=True)
input()
db.close()
"""


def refuses(world: World, path: Path, *words: str) -> None:
    """The daemon does not start, says why, and every time again."""
    daemon = world.spawn("bob")
    assert daemon.ended() == EXIT_DATA
    last = daemon.said().splitlines()[-1]
    assert str(path) in last
    for word in words:
        assert word in last
    assert "Traceback" not in daemon.said()
    with pytest.raises(OSError, match=r"refused|No such file"):
        world.push("bob")


@pytest.fixture
def mailbox(world: World) -> Path:
    """A mailbox with mail in it, after an orderly end."""
    daemon = world.start("bob")
    for _ in range(50):
        world.push("bob", "a" * 2000)
    assert daemon.stop() == 0
    return world.state / "bob" / "mailbox.db"


def test_a_file_that_is_no_database_is_refused_and_kept(world: World, mailbox: Path) -> None:
    mailbox.write_bytes(b"these are my notes\n" * 20)
    content = mailbox.read_bytes()
    refuses(world, mailbox, "damaged", "left as it is")
    assert mailbox.read_bytes() == content


def test_a_database_of_another_program_is_refused_and_kept(world: World, mailbox: Path) -> None:
    mailbox.unlink()
    with sqlite3.connect(mailbox) as db:
        db.execute("PRAGMA application_id = 7")
        db.execute("CREATE TABLE notes (text)")
    db.close()
    content = mailbox.read_bytes()
    refuses(world, mailbox, "another program")
    assert mailbox.read_bytes() == content


def test_a_mailbox_of_a_newer_version_is_refused_and_kept(world: World, mailbox: Path) -> None:
    db = sqlite3.connect(mailbox)
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA user_version = 99")
    db.close()
    content = mailbox.read_bytes()
    refuses(world, mailbox, "newer Backchannel", "99")
    assert mailbox.read_bytes() == content


def test_a_damaged_mailbox_is_refused_and_kept_never_replaced_by_an_empty_one(world: World, mailbox: Path) -> None:
    world.start("bob").kill()  # after an orderly end nobody looks for damage
    backups = mailbox.parent / "backups"
    backups.mkdir()
    (backups / "yesterday.db").touch()
    noise = random.Random(1).randbytes(50_000)
    with mailbox.open("r+b") as file:
        file.seek(8192)
        file.write(noise)
    refuses(world, mailbox, "damaged", "left as it is", "yesterday.db")
    assert noise in mailbox.read_bytes()


def test_a_truncated_mailbox_is_refused_and_kept(world: World, mailbox: Path) -> None:
    os.truncate(mailbox, 50)
    content = mailbox.read_bytes()
    refuses(world, mailbox, "damaged")
    assert mailbox.read_bytes() == content


def test_a_mailbox_that_is_a_link_is_not_followed(world: World, mailbox: Path) -> None:
    elsewhere = world.root / "elsewhere.db"
    mailbox.rename(elsewhere)
    mailbox.symlink_to(elsewhere)
    content = elsewhere.read_bytes()
    daemon = world.spawn("bob")
    assert daemon.ended() not in (0, 75)
    assert "mailbox.db" in daemon.said()
    assert "Traceback" not in daemon.said()
    assert elsewhere.read_bytes() == content


def test_a_mailbox_that_another_program_holds_is_a_clear_error(world: World, mailbox: Path) -> None:
    with world.python(HOLD, str(mailbox)) as program:
        assert program.stdout
        program.stdout.readline()
        daemon = world.spawn("bob")
        assert daemon.ended() == EXIT_DATA
        assert "open in another program" in daemon.said()
        program.communicate("\n", timeout=10)
    world.start("bob")
    assert len(world.texts("bob")) == 50


# --- a full disk ------------------------------------------------------------------------------------------------------

TEXT = "a" * 200_000


@pytest.fixture
def disk(small_disk: World) -> World:
    """A world on a small disk, its settings as they come."""
    small_disk.state = small_disk.root / "disk" / "state"
    small_disk.mount(small_disk.root / "disk", "40m")
    return small_disk


def fill(world: World, leave: int = 0) -> Path:
    """Somebody else's file that leaves only so many bytes."""
    path = world.root / "disk" / "film.mkv"
    status = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - leave)
    return path


def push_until_refused(world: World, text: str = TEXT) -> tuple[list[str], Failed]:
    """Ids that were stored, and the refusal."""
    stored: list[str] = []
    link = world.link("bob")
    while True:
        try:
            stored.append(link.call("push", {"to": "bob", "text": text, "id": f"k{len(stored)}"})["id"])
        except Failed as failed:
            return stored, failed
        assert len(stored) < 10_000


def stores(world: World) -> bool:
    link = world.link("bob")
    link.ask("push", {"to": "bob", "text": "hello"})
    answer = link.answer()
    assert "result" in answer or answer["error"]["data"]["code"] == "full"
    return "result" in answer


def test_a_disk_that_own_mail_fills_refuses_with_full_and_acks_still_work(disk: World) -> None:
    daemon = disk.start("bob")
    stored, failed = push_until_refused(disk)
    assert (failed.code, failed.retry) == ("full", True)
    assert len(stored) > 20
    assert disk.push("bob", TEXT, id="k0")["duplicate"], "what is there is still told truly"
    assert disk.texts("bob") == [TEXT] * len(stored), "each taken and acked"
    assert {disk.receipt("bob", key)["stage"] for key in stored} == {"acked"}
    assert daemon.is_running


def test_a_disk_that_somebody_else_fills_refuses_until_there_is_room_again(disk: World) -> None:
    daemon = disk.start("bob")
    disk.push("bob", id="before")
    film = fill(disk, leave=8 * MIB)
    eventually(lambda: not stores(disk), "it looks at the disk", within=3)
    assert "hello" in disk.texts("bob"), "taking and acking go on"
    film.unlink()
    assert disk.push("bob")["stage"] == "stored", "without a restart"
    assert daemon.is_running


def test_a_disk_without_a_single_byte_loses_nothing_and_kills_nobody(disk: World) -> None:
    disk.configure("bob", "reserve_bytes = 0\n")
    daemon = disk.start("bob")
    disk.push("bob", TEXT, id="before")
    film = fill(disk)
    eventually(lambda: not stores(disk), "the last page is used")
    backlog = disk.call("bob", "ping")["backlog"]
    eventually(lambda: "the log stays as it is" in daemon.said(), "not even its log can be put away")
    assert not stores(disk)
    control = disk.control("bob")
    with pytest.raises(Failed) as failed:
        control.call("take")
    assert failed.value.code == "full", "not: there is nothing for you"
    assert control.call("ping")["backlog"] == backlog
    waiting = control.ask("take", {"wait": 30})
    film.unlink()
    answer = control.answer()
    assert answer["id"] == waiting
    assert answer["result"]["messages"][0]["id"] == "before", "who waited gets it as soon as there is room"
    assert stores(disk)
    assert daemon.is_running
    assert "Traceback" not in daemon.said()


def test_a_start_on_a_full_disk_is_not_called_damage_and_loses_nothing(disk: World) -> None:
    daemon = disk.start("bob")
    disk.push("bob", id="before")
    daemon.kill()
    film = fill(disk)
    daemon = disk.spawn("bob")
    eventually(lambda: not daemon.is_running or serves(disk))
    if not daemon.is_running:
        assert daemon.ended() == EXIT_IO
    assert "damaged" not in daemon.said()
    assert "Traceback" not in daemon.said()
    daemon.kill()
    film.unlink()
    disk.restart(daemon)
    assert disk.receipt("bob", "before")["stage"] == "stored"


def serves(world: World) -> bool:
    try:
        return bool(world.call("bob", "ping"))
    except OSError:
        return False


def test_a_disk_that_fills_in_the_middle_of_a_batch_answers_each_truly(disk: World) -> None:
    disk.configure("bob", "reserve_bytes = 0\n")
    disk.start("bob")
    fill(disk, leave=MIB)
    link = disk.link("bob")
    for number in range(60):
        link.send(request("push", {"to": "bob", "text": "a" * 50_000, "id": f"k{number}"}, number))
    answers = [link.answer() for _ in range(60)]
    assert [answer["id"] for answer in answers] == list(range(60))
    stored = [f"k{answer['id']}" for answer in answers if "result" in answer]
    assert 0 < len(stored) < 60
    assert {answer["error"]["data"]["code"] for answer in answers if "error" in answer} == {"full"}
    assert disk.call("bob", "ping")["backlog"] == len(stored)
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk.root / "disk")], check=True)
    assert len(disk.texts("bob")) == len(stored)
    assert [disk.receipt("bob", key)["stage"] for key in stored] == ["acked"] * len(stored)


# --- a full mailbox ---------------------------------------------------------------------------------------------------


def test_a_full_mailbox_refuses_and_never_drops(world: World) -> None:
    world.configure("bob", "messages_max = 10\n")
    world.start("bob", "alice")
    link = world.link("bob")
    for number in range(20):
        link.send(request("push", world.push_params("bob", str(number), sender="alice"), number))
    answers = [link.answer() for _ in range(20)]
    stored = [answer["id"] for answer in answers if "result" in answer]
    assert stored == list(range(len(stored)))
    refusals = [answer["error"]["data"] for answer in answers[len(stored) :]]
    assert all(error["code"] in ("full", "quota") and error["retry"] for error in refusals)
    assert 0 < len(stored) < 10
    assert world.push("bob", "from another")["stage"] == "stored", "one sender does not lock out the others"
    assert world.texts("bob") == [*map(str, range(len(stored))), "from another"]
    assert world.push("bob", "room again", sender="alice")["stage"] == "stored"
