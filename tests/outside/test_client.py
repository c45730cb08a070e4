"""The public client over real daemons: what it sends arrives, what it says is true, and it keeps its time."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from backchannel import (
    Agent,
    BackchannelError,
    LocalProtocolError,
    NotPermitted,
    OverLimit,
    PeerAbsent,
    Refused,
    Stage,
    TimedOut,
)
from backchannel.transport.paths import Places

from ..world import STRANGER, World, eventually

# --- sending ----------------------------------------------------------------------------------------------------------


def test_what_is_sent_arrives_with_all_that_was_said_of_it(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    text = 'line one\nline "two" \u2028 \u00e9 \U0001f600 \\ \0 end'
    before = time.time()
    receipt = alice.send("bob", text, headers={"k": "v"}, priority="urgent", reply_to="m-1", key="mine")
    assert (receipt.stage, receipt.to, receipt.id, receipt.duplicate) == (Stage.STORED, "bob", "mine", False)
    (delivery,) = bob.receive()
    assert delivery.text == text
    assert (delivery.id, delivery.sender, delivery.to, delivery.kind) == ("mine", "alice", "bob", "message")
    assert (delivery.headers, delivery.priority, delivery.reply_to) == ({"k": "v"}, "urgent", "m-1")
    assert (delivery.delivery, delivery.msg_no, delivery.uid) == (1, 1, os.geteuid())
    assert delivery.mailbox_id == receipt.mailbox_id
    assert before - 1 < delivery.sent_at < time.time() + 1


def test_many_are_sent_in_order_and_each_has_its_receipt(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    texts = [f"message {number}" for number in range(250)]
    receipts = alice.send_many("bob", texts)
    assert [receipt.msg_no for receipt in receipts] == list(range(1, 251))
    assert [acked(delivery) for delivery in bob.receive(prefetch=50)] == texts


def acked(delivery: object) -> str:
    delivery.ack()  # type: ignore[attr-defined]
    return str(delivery.text)  # type: ignore[attr-defined]


def test_one_text_too_long_among_many_costs_only_itself(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    with pytest.raises(OverLimit) as failed:
        alice.send_many("bob", ["before", "x" * (2 << 20), "after"])
    assert failed.value.code == "oversize"
    outcomes = failed.value.receipts  # type: ignore[attr-defined]
    assert [isinstance(outcome, BackchannelError) for outcome in outcomes] == [False, True, False]
    assert [acked(delivery) for delivery in bob.receive()] == ["before", "after"]


def test_the_same_key_is_one_message(world: World) -> None:
    alice = world.agent("alice")
    world.agent("bob")
    assert not alice.send("bob", "once", key="k").duplicate
    assert alice.send("bob", "once", key="k").duplicate
    with pytest.raises(Refused) as failed:
        alice.send("bob", "twice", key="k")
    assert failed.value.code == "key_reused"


@pytest.mark.parametrize("key", ["", "k" * 129, "a\nb"])
def test_what_is_no_key_is_refused_and_not_replaced_by_a_new_one(world: World, key: str) -> None:
    bob = world.agent("bob")
    for call in (bob.send, bob.ask):
        with pytest.raises(LocalProtocolError) as refused:
            call("bob", "hello", key=key)
        assert refused.value.code == "bad_id"
    assert world.texts("bob") == []


@pytest.mark.parametrize("text", ["x" * (1 << 20), "\n" * (1 << 19), "\u20ac" * (350_000)])
def test_a_text_beyond_the_limit_is_over_the_limit(world: World, text: str) -> None:
    alice = world.agent("alice")
    with pytest.raises(OverLimit) as failed:
        alice.send("alice", text)
    assert failed.value.code == "oversize"
    assert alice.send("alice", "small").stage == "stored"


@pytest.mark.parametrize("text", ["\ud800", b"bytes", 42, None])
def test_what_is_no_text_is_the_callers_mistake(world: World, text: str) -> None:
    with pytest.raises(LocalProtocolError):
        world.agent("alice").send("alice", text)


@pytest.mark.parametrize("name", ["Bob", "../bob", "", "@user", "b" * 64, "bob\n", "b\0b"])
def test_what_is_no_name_is_the_callers_mistake_and_makes_nothing(world: World, name: str) -> None:
    with pytest.raises(LocalProtocolError) as failed:
        Agent(name, places=world.places)
    assert failed.value.code == "bad_name"
    alice = world.agent("alice")
    with pytest.raises(LocalProtocolError):
        alice.send(name, "hello")
    assert sorted(path.name for path in world.state.iterdir()) == ["alice"]


def test_an_unknown_name_is_an_error_at_once_with_the_name_meant(world: World) -> None:
    alice = world.agent("alice")
    world.agent("executor")
    begin = time.monotonic()
    with pytest.raises(PeerAbsent) as failed:
        alice.send("exectuor", "hello")
    assert failed.value.code == "unknown_agent"
    assert "did you mean executor?" in str(failed.value)
    with pytest.raises(PeerAbsent) as failed:
        alice.send("nobody-like-this", "hello")
    assert "did you mean" not in str(failed.value)
    assert time.monotonic() - begin < 2
    assert not (world.state / "exectuor").exists()


# --- receiving --------------------------------------------------------------------------------------------------------


def test_waiting_ends_with_the_message_or_with_the_time(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    begin = time.monotonic()
    assert list(bob.receive(wait=0.2)) == []
    assert 0.19 < time.monotonic() - begin < 2
    later = threading.Timer(0.1, lambda: alice.send("bob", "late"))
    later.start()
    assert [acked(delivery) for delivery in take_one(bob)] == ["late"]
    later.join()


@pytest.mark.parametrize("stage", ["accked", "queued", "rejected"])
def test_a_stage_that_cannot_be_waited_for_is_the_callers_mistake(world: World, stage: str) -> None:
    receipt = world.agent("bob").send("bob", "hello")
    with pytest.raises(LocalProtocolError) as wrong:
        receipt.wait(stage, timeout=0)
    assert "use stored, taken, acked, done" in str(wrong.value)


def take_one(agent: Agent) -> list[object]:
    for delivery in agent.receive(wait=20):
        delivery.ack()
        return [delivery]
    return []


def test_each_settling_is_told_to_the_sender(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    receipts = {word: alice.send("bob", word) for word in ("ack", "reject", "release")}
    for delivery in bob.receive(prefetch=3):
        if delivery.text == "ack":
            assert delivery.ack().stage == "acked"
        elif delivery.text == "reject":
            assert delivery.reject("busy").stage == "rejected"
        elif delivery.delivery == 1:
            assert delivery.release().stage == "stored"
        else:
            bob.ack(delivery.id)
    assert receipts["ack"].wait("acked", timeout=5).stage == "acked"
    with pytest.raises(Refused) as failed:
        receipts["reject"].wait("acked", timeout=5)
    assert (failed.value.code, failed.value.reason) == ("rejected", "busy")
    assert receipts["release"].refresh().delivery == 2


def test_leaving_the_loop_gives_back_what_was_not_settled(world: World) -> None:
    bob = world.agent("bob")
    ids = [bob.send("bob", str(number)).id for number in range(3)]
    for delivery in bob.receive(prefetch=3):
        assert delivery.id == ids[0]
        break
    stages = eventually(lambda: [bob.status(key).stage for key in ids] == ["stored"] * 3)
    assert stages
    assert [(delivery.id, delivery.delivery) for delivery in bob.receive()][1:] == [(ids[1], 2), (ids[2], 2)]


def test_a_wait_for_a_stage_that_does_not_come_says_how_long_it_waited(world: World) -> None:
    alice = world.agent("alice")
    receipt = alice.send("alice", "hello")
    begin = time.monotonic()
    with pytest.raises(TimedOut) as failed:
        receipt.wait("acked", timeout=0.3)
    assert 0.29 < time.monotonic() - begin < 3
    assert failed.value.waited == 0.3
    assert "is stored, not acked" in str(failed.value)


def test_a_message_can_be_found_and_cancelled_without_naming_its_target(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    receipt = alice.send("bob", "never mind")
    assert alice.status(receipt.id).to == "bob"
    assert alice.cancel(receipt.id).stage == "cancelled"
    assert list(bob.receive()) == []
    with pytest.raises(LocalProtocolError) as failed:
        alice.status("m-nobody")
    assert failed.value.code == "no_such_message"


def test_a_message_is_found_though_another_daemon_is_frozen(world: World) -> None:
    frozen = world.start("alice")
    bob = world.agent("bob")
    receipt = bob.send("bob", "hello")
    frozen.freeze()
    try:
        assert bob.status(receipt.id).stage is Stage.STORED
        assert bob.cancel(receipt.id).stage is Stage.CANCELLED
    finally:
        frozen.thaw()


def test_agents_tells_who_is_there(world: World) -> None:
    alice = world.agent("alice")
    daemon = world.start("bob")
    (world.state / "no-agent").mkdir()
    alice.send("bob", "hello")
    assert [(a.name, a.online, a.backlog, a.receiving, a.down) for a in alice.agents()] == [
        ("alice", True, 0, False, False),
        ("bob", True, 1, False, False),
    ]
    daemon.kill()
    assert [(a.name, a.online, a.backlog) for a in alice.agents()] == [("alice", True, 0), ("bob", False, None)]


def test_agents_does_not_start_anybody(world: World) -> None:
    alice = world.agent("alice")
    world.start("bob").stop()
    alice.agents()
    assert world.processes("bob") == []


# --- threads, forks, closing ------------------------------------------------------------------------------------------


def test_one_agent_may_be_used_from_many_threads(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    got: list[str] = []
    errors: list[BaseException] = []

    def send(who: int) -> None:
        try:
            for number in range(25):
                alice.send("bob", f"{who}:{number}")
        except BaseException as error:
            errors.append(error)

    def receive() -> None:
        try:
            for delivery in bob.receive(wait=2, prefetch=5):
                got.append(delivery.text)
                delivery.ack()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=send, args=(who,)) for who in range(6)]
    threads += [threading.Thread(target=receive) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(got) == sorted(f"{who}:{number}" for who in range(6) for number in range(25))


FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads; that is the subject
from backchannel import Agent
me = Agent("alice")
me.send("bob", "parent 0")
stream = me.receive(wait=5)
held = next(stream)
child = os.fork()
if child == 0:
    for number in range(20):
        me.send("bob", f"child {number}")
    print([delivery.text for delivery in me.receive()], flush=True)
    me.close()
    os._exit(0)
for number in range(1, 21):
    me.send("bob", f"parent {number}")
assert os.waitpid(child, 0)[1] == 0
print(held.ack().stage, held.delivery)
stream.close()
me.close()
"""


def test_after_a_fork_both_go_on_and_the_parent_keeps_what_it_held(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    alice.send("alice", "for the parent")
    assert world.run(FORK).splitlines() == ["[]", "acked 1"]
    texts = [acked(delivery) for delivery in bob.receive()]
    assert [text for text in texts if text.startswith("parent")] == [f"parent {number}" for number in range(21)]
    assert [text for text in texts if text.startswith("child")] == [f"child {number}" for number in range(20)]


def test_a_fork_and_its_parent_make_different_ids(world: World) -> None:
    program = """
import os
from backchannel.client.wire import new_id
new_id("m")
child = os.fork()
print(*[new_id("m")[-20:] for _ in range(5)], sep="\\n", flush=True)
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    assert len(set(world.run(program).splitlines())) == 10


def test_closing_lets_go_of_everything(world: World) -> None:
    world.start("bob")
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    with Agent("bob", places=world.places) as bob:
        key = bob.send("bob", "hello").id
        stream = bob.receive()
        next(iter(stream))
    eventually(lambda: world.receipt("bob", key)["stage"] == "stored")
    del stream
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads


# --- the daemon comes and goes ----------------------------------------------------------------------------------------


def test_an_agent_starts_its_own_daemon_and_a_push_anothers(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    pid = world.only_process("bob")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: world.processes("bob") == [])
    receipt = alice.send("bob", "wake up")
    assert receipt.stage == "stored"
    assert world.only_process("bob")
    assert [acked(delivery) for delivery in bob.receive()] == ["wake up"]


def test_a_daemon_started_on_demand_inherits_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    with open("/dev/null") as null:
        os.set_inheritable(null.fileno(), True)
        world.agent("bob")
        pid = world.only_process("bob")
        targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"A_SECRET" not in environment
    assert b"PYTHON" not in environment
    log = str(world.state / "bob" / "log")
    assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)] == ["/dev/null", log, log]
    assert targets.count("/dev/null") <= 2, "its own, and one it keeps in reserve"
    assert os.getsid(pid) not in (os.getsid(0), pid), "no terminal, and never one again"
    assert int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) != os.getpid()


def test_many_who_push_to_a_stopped_agent_at_once_start_one_daemon(world: World) -> None:
    world.agent("alice")
    world.agent("bob").close()
    pid = world.only_process("bob")
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: world.processes("bob") == [])
    script = (
        "import sys\nfrom backchannel import Agent\nwith Agent('alice') as me: print(me.send('bob', sys.argv[1]).stage)"
    )
    pushers = [world.python(script, str(number)) for number in range(6)]
    assert [pusher.communicate(timeout=30)[0] for pusher in pushers] == ["stored\n"] * 6
    eventually(lambda: len(world.processes("bob")) == 1, "the losers of the race are gone")
    assert sorted(world.texts("bob")) == [str(number) for number in range(6)]


def test_an_agent_that_a_person_took_down_stays_down(world: World) -> None:
    alice = world.agent("alice")
    world.agent("bob")
    pid = world.only_process("bob")
    (world.state / "bob" / "down").touch()
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: world.processes("bob") == [])
    for attempt in (lambda: alice.send("bob", "hello"), lambda: Agent("bob", places=world.places)):
        with pytest.raises(PeerAbsent) as failed:
            attempt()
        assert "bob is down" in str(failed.value)
        assert "backchannel up bob" in failed.value.hint
    assert world.processes("bob") == []
    assert [agent.down for agent in alice.agents()] == [False, True]


def test_a_daemon_that_cannot_start_says_why(world: World) -> None:
    alice = world.agent("alice")
    world.agent("bob")
    pid = world.only_process("bob")
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: world.processes("bob") == [])
    (world.state / "bob" / "config.toml").write_text("colour = 'green'\n")
    begin = time.monotonic()
    with pytest.raises(PeerAbsent) as failed:
        alice.send("bob", "hello")
    assert "unknown setting 'colour'" in str(failed.value)
    assert time.monotonic() - begin < 8


READ_ONLY = """
from backchannel import Agent, NotPermitted
from backchannel.cli.main import run
try:
    Agent("bob")
except NotPermitted as error:
    print(error)
print(run(["down", "bob"]), run(["remove", "bob"]))
"""


def test_a_state_directory_that_cannot_be_written_is_not_permitted(world: World) -> None:
    world.agent("bob").close()
    folder = world.state / "bob"
    (folder / "run").write_text("[]")  # so that the agent has something to write
    folder.chmod(0o500)
    wrap: list[str] = []
    if os.geteuid() == 0:  # root may write everywhere, unless it gives that up
        if not shutil.which("setpriv"):
            pytest.skip("needs setpriv")
        rights = "-dac_override,-dac_read_search"
        wrap = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    try:
        said = world.run(READ_ONLY, wrap=wrap).splitlines()
    finally:
        folder.chmod(0o700)
    assert said == [f"{folder} cannot be written (Permission denied): look at it: ls -ld {folder}", "7 7"]
    assert not list(folder.glob("*.new"))


@pytest.mark.parametrize("run", [None, "", "[]", "[1]", "{}", "nonsense", '["/gone/python"]'])
def test_nobody_knows_how_to_start_it_is_a_clear_error(world: World, run: str | None) -> None:
    alice = world.agent("alice")
    world.start("bob").stop()
    if run is not None:
        (world.state / "bob" / "run").write_text(run)
    with pytest.raises(PeerAbsent) as failed:
        alice.send("bob", "hello")
    assert "backchannel up bob" in str(failed.value)


def test_a_daemon_served_elsewhere_is_found(world: World) -> None:
    """A service begun at boot and a shell after login may differ about the socket directory."""
    alice = world.agent("alice")
    here = world.dir
    world.dir = world.root / "elsewhere"
    world.start("bob")
    world.dir = here
    assert alice.send("bob", "found you").stage == "stored"
    assert world.processes("bob", str(here)) == []


def test_a_daemon_that_dies_under_a_busy_agent_costs_it_nothing(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    receipt = alice.send("bob", "a long task")
    for delivery in bob.receive(wait=5):
        pid = world.only_process("bob")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda old=pid: world.processes("bob") not in ([], [old]), "it is started again")  # type: ignore[misc]
        assert bob.status(delivery.id).stage == "taken"
        assert list(bob.receive()) == [], "nobody else gets it meanwhile"
        delivery.ack()
        break
    assert (receipt.refresh().stage, receipt.delivery) == ("acked", 1)


def test_a_receiver_who_waits_survives_a_restart_of_the_daemon(world: World) -> None:
    bob = world.agent("bob")
    got: list[str] = []
    waiter = threading.Thread(target=lambda: got.extend(d.text for d in take_one(bob)))  # type: ignore[attr-defined]
    waiter.start()
    eventually(lambda: world.call("bob", "ping")["receiving"])
    pid = world.only_process("bob")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: world.processes("bob") not in ([], [pid]), "the receiver starts it again")
    world.agent("alice").send("bob", "still there?")
    waiter.join(20)
    assert got == ["still there?"]


# --- a daemon that does not answer ------------------------------------------------------------------------------------


def test_a_frozen_daemon_is_a_timeout_in_time_and_the_same_key_stores_once(world: World) -> None:
    alice = world.agent("alice")
    daemon = world.start("bob")
    daemon.freeze()
    begin = time.monotonic()
    with pytest.raises(TimedOut) as failed:
        alice.send("bob", "hello?", key="k1", timeout=0.5)
    assert 0.4 < time.monotonic() - begin < 2
    assert "may be stored or not" in str(failed.value)
    assert failed.value.waited == 0.5
    daemon.thaw()
    assert alice.send("bob", "hello?", key="k1").stage == "stored"
    assert world.texts("bob") == ["hello?"]


def test_a_full_backlog_is_a_timeout_and_never_a_success(world: World) -> None:
    """A frozen daemon with more callers than the kernel keeps for it."""
    alice = world.agent("alice")
    daemon = world.start("bob")
    daemon.freeze()
    crowd = [world.link("bob") for _ in range(513)]
    begin = time.monotonic()
    with pytest.raises(TimedOut):
        alice.send("bob", "hello?", key="k1", timeout=0.5)
    assert time.monotonic() - begin < 3
    daemon.thaw()
    for link in crowd:
        link.close()
    world.await_answer(daemon)
    with pytest.raises(LocalProtocolError):
        alice.status("k1", "bob")
    assert alice.send("bob", "hello?", key="k1").duplicate is False


def test_a_listing_is_not_held_up_by_a_frozen_daemon(world: World) -> None:
    alice = world.agent("alice")
    daemon = world.start("bob")
    daemon.freeze()
    begin = time.monotonic()
    assert [(agent.name, agent.online, agent.backlog) for agent in alice.agents()] == [
        ("alice", True, 0),
        ("bob", True, None),
    ]
    assert time.monotonic() - begin < 4
    daemon.thaw()


FAKE = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("listening", flush=True)
server.settimeout(20)
with server.accept()[0] as link:
    link.settimeout(20)
    heard = link.recv(65536)
    if heard:
        link.sendall(sys.argv[2].encode())
print("heard", len(heard), flush=True)
server.close()
"""


def test_a_server_under_another_uid_hears_no_key(world: World, other_uid: list[str]) -> None:
    alice = world.agent("alice")
    world.start("bob").stop()
    for folder in (world.root, world.dir):
        folder.chmod(0o711)
    os.chown(world.dir / "bob", STRANGER, STRANGER)
    with world.python(FAKE, world.path("bob"), "", wrap=other_uid) as impostor:
        assert impostor.stdout
        assert impostor.stdout.readline() == "listening\n"
        with pytest.raises(NotPermitted) as failed:
            alice.send("bob", "for bob's eyes")
        assert str(STRANGER) in str(failed.value)
        assert impostor.stdout.readline() == "heard 0\n"


def test_a_name_that_was_ours_takes_no_key_along_to_another_uid(
    world: World, other_uid: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = world.agent("alice")
    daemon = world.start("bob")
    alice.send("bob", "hello")  # what is said to bob, our key with it, is kept from here on
    daemon.stop()
    os.unlink(world.places.state("bob", "key"))
    for folder in (world.root, world.dir):
        folder.chmod(0o711)
    os.chown(world.dir / "bob", STRANGER, STRANGER)
    monkeypatch.setattr(Places, "may_serve", lambda *_: True)  # as if the policy gave the name away
    with world.python(FAKE, world.path("bob"), "", wrap=other_uid) as other:
        assert other.stdout
        assert other.stdout.readline() == "listening\n"
        with pytest.raises(NotPermitted):
            alice.send("bob", "for bob's eyes")
        assert other.stdout.readline() == "heard 0\n"


@pytest.mark.parametrize(
    "answer",
    [
        "nonsense\n",
        '{"jsonrpc":"2.0","id":1,"result":}\n',
        '{"jsonrpc":"2.0","id":1,"result":{}\n',
        '{"jsonrpc":"2.0","id":1,"result":{},"error":{}}\n',
        "42\n",
        "{}\n",
        '{"jsonrpc":"2.0","id":1,"error":7}\n',
        '{"jsonrpc":"2.0","id":1,"error":{"message":"x","data":{}}}\n',
        "[" * 5000 + "\n",
        '{"result":NaN}\n',
    ],
)
def test_an_answer_that_is_none_is_the_peers_mistake(world: World, answer: str) -> None:
    alice = world.agent("alice")
    world.start("bob").stop()
    with world.python(FAKE, world.path("bob"), answer) as impostor:
        assert impostor.stdout
        impostor.stdout.readline()
        with pytest.raises(BackchannelError) as failed:
            alice.send("bob", "hello", timeout=5)
        assert failed.value.code == "protocol"


def test_a_sandbox_without_unix_sockets_is_told_so(world: World) -> None:
    """Errors of connect are told apart: no such agent, nobody serving, not permitted."""
    alice = world.agent("alice")
    world.start("bob").stop()
    (world.dir / "bob").chmod(0o755)
    world.dir.chmod(0o755)
    with pytest.raises(NotPermitted) as failed:
        alice.send("bob", "hello")
    assert "chmod 700" in str(failed.value)
    world.dir.chmod(0o700)
    (world.dir / "bob").chmod(0o700)


# --- a client without msgspec -----------------------------------------------------------------------------------------


def test_a_client_needs_nothing_but_the_standard_library(world: World) -> None:
    world.agent("alice")
    script = (
        "import sys\nsys.modules['msgspec'] = None\n"
        "from backchannel.client.calls import push\nfrom backchannel.client.drive import run\n"
        "from backchannel.client.wire import Caller\n"
        "caller = Caller('alice')\nprint(run(push(caller, 'alice', 'hello'))['stage'])\ncaller.close()"
    )
    assert world.run(script) == "stored\n"
    ran = subprocess.run([sys.executable, "-c", "import backchannel"], env=world.environment(), timeout=10)
    assert ran.returncode == 0
