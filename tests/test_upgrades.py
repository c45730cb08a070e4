"""A newer Backchannel finds all that an older one left; an older one leaves a newer one's mailbox alone.

What the daemons of earlier steps wrote is in `tests/upgrades/`, with what has to be found in it.
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import backchannel
from backchannel.client.wire import numbered
from backchannel.errors import PeerAbsent
from backchannel.mailbox.database import STEPS as SCHEMA_STEPS
from backchannel.mailbox.database import VERSION, MailboxUnusable

from . import upgrades
from .inside import NOW, Bench, close_all, open_mailbox
from .world import World, eventually


@pytest.fixture(params=upgrades.STEPS)
def step(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


def reopened(path: Path, step: int) -> Bench:
    """Today's daemon on the mailbox of that time, some time later."""
    bench = Bench(path.with_name("unused.db"))
    bench.close()
    upgrades.rebuild(step, path)
    bench.path = path
    bench.now = NOW + upgrades.LATER_S
    bench.open()
    return bench


def test_every_step_of_the_schema_has_a_mailbox_of_its_time() -> None:
    assert list(range(1, len(SCHEMA_STEPS) + 1)) == upgrades.STEPS, "python -m tests.upgrades writes the newest"


def test_nothing_of_an_older_mailbox_is_lost(tmp_path: Path, step: int) -> None:
    bench = reopened(tmp_path / "mailbox.db", step)
    assert bench.mailbox.db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert upgrades.found(bench) == upgrades.expected(step)
    close_all()


def test_it_goes_on_where_the_older_one_stopped(tmp_path: Path, step: int) -> None:
    """Mail is taken in order, a repeated id is a duplicate, a lease goes on, the outbox and the sessions set out."""
    bench = reopened(tmp_path / "mailbox.db", step)
    expected = upgrades.expected(step)
    agent = bench.control()
    analyst = {"from": "analyst", "auth": bench.keys["analyst"]}
    for message_id in ("urgent", "acked", "question"):
        text = {"urgent": "now!"}.get(message_id, f"text of {message_id}")
        more: dict[str, Any] = {"priority": "urgent", "headers": {"colour": "red"}} if message_id == "urgent" else {}
        more |= {"session": "tag"} if message_id != "urgent" else {}
        assert bench.push(message_id, text, **more, **analyst)["duplicate"]
    assert bench.call(agent, "ack", id="taken", delivery=1)["stage"] == "acked"
    assert len(list(bench.host.courier.due(bench.now))) >= 2, "to analyst, to writer, and each session's"
    number = bench.push("new", "the newest")["msg_no"]
    assert number > max(receipt["msg_no"] for receipt in expected["receipts"])
    texts = [message["text"] for message in bench.call(agent, "take", max=1000)["messages"]]
    assert texts[0] == "now!"
    assert texts[-1] == "can wait"
    assert set(texts) >= {message["text"] for message in expected["waiting"] if message["id"] != "taken"} - {"begun"}
    if expected["sessions"]:
        said = bench.call(agent, "say", session=upgrades.S + "1", text="still here")
        assert said["seq"] == 2
        assert bench.call(agent, "accept", session=upgrades.S + "2")["state"] == "ESTABLISHED"
    close_all()


def test_only_the_owners_start_changes_an_older_mailbox(tmp_path: Path, step: int) -> None:
    if step == VERSION:
        pytest.skip("it is not older")
    path = tmp_path / "mailbox.db"
    upgrades.rebuild(step, path)
    before = path.read_bytes()
    with pytest.raises(MailboxUnusable) as failed:
        open_mailbox(path, migrate=False)
    assert "backchannel up" in failed.value.hint
    assert path.read_bytes() == before


def test_a_kill_in_the_middle_of_an_upgrade_leaves_the_old_or_the_new(tmp_path: Path, step: int) -> None:
    """Each step is one transaction: what was copied before its commit opens as the older one, and goes on."""
    path = tmp_path / "mailbox.db"
    upgrades.rebuild(step, path)
    copies: list[Path] = []
    bench = Bench(tmp_path / "unused.db")
    bench.close()
    bench.path = path
    bench.now = NOW + upgrades.LATER_S
    shutil.copy(path, tmp_path / "before.db")
    bench.open()
    for name in ("mailbox.db", "mailbox.db-wal"):
        if (tmp_path / name).exists():
            shutil.copy(tmp_path / name, tmp_path / name.replace("mailbox", "after"))
    copies += [tmp_path / "before.db", tmp_path / "after.db"]
    close_all()
    for copy in copies:
        again = Bench(tmp_path / f"unused-{copy.stem}.db")
        again.close()
        again.path = copy
        again.now = NOW + upgrades.LATER_S
        again.open()
        assert upgrades.found(again) == upgrades.expected(step)
        close_all()


# --- real daemons -----------------------------------------------------------------------------------------------------


@pytest.mark.proof
def test_a_real_daemon_starts_on_it_and_hands_out_what_waited(world: World, step: int) -> None:
    world.start("executor", "analyst", "writer").stop()
    mailbox = world.state / "executor" / "mailbox.db"
    for old in mailbox.parent.glob("mailbox.db*"):
        old.unlink()
    upgrades.rebuild(step, mailbox)
    mailbox.chmod(0o600)
    world.start("executor", "writer")
    texts = world.texts("executor")
    waiting = [message["text"] for message in upgrades.expected(step)["waiting"] if message["id"] != "taken"]
    assert set(waiting) <= set(texts)
    eventually(lambda: world.texts("writer") == ["on its way"], "what stood in the outbox")


def test_a_newer_mailbox_is_refused_by_name_and_left_alone(world: World) -> None:
    daemon = world.start("executor")
    receipt = world.push("executor", "of tomorrow")
    assert daemon.stop() == 0
    mailbox = world.state / "executor" / "mailbox.db"
    data = bytearray(mailbox.read_bytes())
    data[60:64] = (VERSION + 1).to_bytes(4, "big")  # user_version, as a newer daemon would have left it
    mailbox.write_bytes(data)
    before = mailbox.read_bytes()
    refused = world.spawn("executor")
    assert refused.ended() == 65
    assert f"newer Backchannel (schema {VERSION + 1}, this one knows {VERSION})" in refused.said()
    assert "upgrade backchannel" in refused.said()
    assert mailbox.read_bytes() == before
    with pytest.raises(PeerAbsent):
        world.agent("analyst").send("executor", "x", timeout=5)
    assert mailbox.read_bytes() == before
    data[60:64] = VERSION.to_bytes(4, "big")
    mailbox.write_bytes(data)
    os.sync()
    world.start("executor")
    assert world.receipt("executor", receipt["id"])["stage"] == "stored"


# --- versions that meet on the wire -----------------------------------------------------------------------------------


OLDER = [sys.executable, "-P", "-c", "import backchannel, sys; backchannel.__version__ = '0.0.9'; "]
RUN = "from backchannel.daemon.run import main; main(sys.argv[1:])"


@pytest.mark.proof
def test_a_daemon_that_an_upgrade_left_running_serves_until_up_replaces_it(world: World) -> None:
    """Clients of today speak with it; `up` says which version ran, and no mail is lost between the two."""
    record = world.state / "executor" / "run"
    world.start("executor").stop()
    older = [*OLDER[:-1], OLDER[-1] + RUN, "executor", "--state", str(world.state)]
    record.write_text(json.dumps(older) + "\n")
    alice = world.agent("alice")
    assert alice.send("executor", "to the older one").stage == "stored"
    assert world.call("executor", "ping")["version"] == "0.0.9"
    executor = world.agent("executor")
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(alice.open, "executor", "review it", timeout=30)
        session = next(iter(executor.requests(wait=30))).accept()
        opened = opening.result(30)
    opened.send("before")
    said = [up(world)]
    while said[-1].returncode == 4:  # on a busy machine it may take longer to end than `up` waits
        said.append(up(world))
    if len(said) == 1:
        assert said[0].stdout == "executor  restarted (version 0.0.9 ran)\n", said
    assert world.call("executor", "ping")["version"] == backchannel.__version__, said
    opened.send("after")
    opened.close()
    assert [data.text for data in session] == ["before", "after"]
    session.close()
    assert "to the older one" in world.texts("executor")


def up(world: World) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-c", "import sys; from backchannel.cli.main import main; sys.exit(main())"]
    return subprocess.run(
        [*command, "up", "executor"], env=world.environment(), capture_output=True, text=True, timeout=60
    )


def test_what_is_not_known_yet_is_refused_by_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db")
    assert bench.refusal(bench.connect(), "telepathy", to="executor") == "unknown_method"
    assert bench.call(bench.connect(), "ping")["protocol"] == 1
    close_all()


def test_an_older_client_ignores_what_a_newer_daemon_adds() -> None:
    line = b'{"jsonrpc":"2.0","id":1,"result":{"id":"m-1","stage":"stored","aura":"blue"},"meta":{"v":9}}'
    assert numbered(line) == (1, {"id": "m-1", "stage": "stored", "aura": "blue"})
