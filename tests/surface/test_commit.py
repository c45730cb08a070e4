"""Commit: acks, replies and sends happen all or not at all, and the outbox brings what was sent, once and in order."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from backchannel import BackchannelError, LocalProtocolError, PeerAbsent, Refused, Stage
from backchannel.testing import World

from .helpers import Refusal, collect, configure, connection, control, kill, left, status, texts, until

YEAR_S = 365 * 86400


@contextmanager
def frozen(world: World, name: str) -> Iterator[None]:
    """Meanwhile NAME's daemon takes connections and does nothing."""
    pid = world.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def lease(world: World, name: str, count: int = 1) -> list[dict[str, Any]]:
    """Deliveries that nobody's death gives back."""
    messages: list[dict[str, Any]] = control(world, name, "take", max=count, detached=True, wait=5)["messages"]
    assert len(messages) == count
    return messages


def stage(world: World, name: str, message_id: str) -> str:
    return str(control(world, name, "receipt", id=message_id)["stage"])


# --- all or nothing ---------------------------------------------------------------------------------------------------


def test_acks_replies_and_sends_happen_together(shared: World) -> None:
    analyst, executor, writer = (shared.agent(name) for name in ("analyst", "executor", "writer"))
    task, question = analyst.send("executor", "do it"), writer.send("executor", "how?")
    stream = executor.receive(wait=5, prefetch=2)
    first, second = next(stream), next(stream)
    receipts = executor.commit(acks=[first], replies=[(second, "so")], sends=[("writer", "it is done")])
    assert [(receipt.to, receipt.stage) for receipt in receipts] == [("writer", "queued"), ("writer", "queued")]
    assert sorted(texts(collect(writer, 2))) == ["it is done", "so"]
    assert (task.refresh().stage, question.refresh().stage) == ("acked", "done")
    assert [receipt.wait("acked", 20).stage for receipt in receipts] == ["acked", "acked"]


GOOD: dict[str, Any] = {"to": "writer", "text": "hello"}
IMPOSSIBLE: dict[str, tuple[dict[str, list[dict[str, Any]]], str]] = {
    "another agent's message": ({"acks": [{"id": "FOREIGN", "delivery": 1}]}, "no_such_message"),
    "a stale delivery": ({"acks": [{"id": "STALE", "delivery": 1}]}, "stale"),
    "a delivery never made": ({"acks": [{"id": "STALE", "delivery": 9}]}, "stale"),
    "a message never handed out": ({"acks": [{"id": "WAITING", "delivery": 1}]}, "stale"),
    "an unknown message": ({"acks": [{"id": "m-0", "delivery": 1}]}, "no_such_message"),
    "an unknown question": ({"replies": [{"id": "m-0", "delivery": 1, "text": "so"}]}, "no_such_message"),
    "a stale question": ({"replies": [{"id": "STALE", "delivery": 1, "text": "so"}]}, "stale"),
    "one message twice": ({"acks": [{"id": "STALE", "delivery": 2}] * 2}, "bad_params"),
    "an ack and a reply": (
        {"acks": [{"id": "STALE", "delivery": 2}], "replies": [{"id": "STALE", "delivery": 2, "text": "so"}]},
        "bad_params",
    ),
    "an unknown evidence": ({"acks": [{"id": "STALE", "delivery": 2, "evidence": "hope"}]}, "bad_params"),
    "a reply without text": ({"replies": [{"id": "STALE", "delivery": 2}]}, "bad_params"),
    "a reply with headers of numbers": (
        {"replies": [{"id": "STALE", "delivery": 2, "text": "so", "headers": {"n": 1}}]},
        "bad_params",
    ),
    "a reply under a bad id": (
        {"replies": [{"id": "STALE", "delivery": 2, "text": "so", "reply_id": ""}]},
        "bad_id",
    ),
    "an unknown target": ({"sends": [{"to": "writers", "text": "hello"}]}, "unknown_agent"),
    "no name": ({"sends": [{"to": "../writer", "text": "hello"}]}, "bad_name"),
    "no text": ({"sends": [{"to": "writer"}]}, "bad_params"),
    "a number for a text": ({"sends": [GOOD | {"text": 5}]}, "bad_params"),
    "half a character": ({"sends": [GOOD | {"text": "\ud800"}]}, "malformed"),
    "headers of numbers": ({"sends": [GOOD | {"headers": {"n": 1}}]}, "bad_params"),
    "an unknown priority": ({"sends": [GOOD | {"priority": "high"}]}, "bad_params"),
    "no time to live": ({"sends": [GOOD | {"ttl": 0}]}, "bad_params"),
    "a hundred years": ({"sends": [GOOD | {"ttl": 100 * YEAR_S}]}, "bad_params"),
    "an unknown durability": ({"sends": [GOOD | {"durability": "granite"}]}, "bad_params"),
    "a bad id": ({"sends": [GOOD | {"id": "x" * 129}]}, "bad_id"),
    "a bad reference": ({"sends": [GOOD | {"reply_to": ""}]}, "bad_id"),
    "a bad trace": ({"sends": [GOOD | {"trace_id": "a\nb"}]}, "bad_id"),
    "hops below none": ({"sends": [GOOD | {"hops": -1}]}, "bad_params"),
    "a path of no names": ({"sends": [GOOD | {"path": ["../etc"]}]}, "bad_name"),
    "a path without end": ({"sends": [GOOD | {"path": ["writer"] * 100}]}, "bad_params"),
    "one id for two texts": (
        {"sends": [GOOD | {"id": "twice"}, GOOD | {"id": "twice", "text": "goodbye"}]},
        "key_reused",
    ),
}


@pytest.mark.parametrize("why", IMPOSSIBLE)
def test_nothing_of_a_commit_happens_if_one_part_cannot(shared: World, why: str) -> None:
    analyst, executor, writer = (shared.agent(name) for name in ("analyst", "executor", "writer"))
    good, stale = analyst.send("executor", "do it"), analyst.send("executor", "do that")
    lease(shared, "executor", 2)
    executor.release(stale.id, 1)
    lease(shared, "executor")
    foreign, waiting = executor.send("writer", "yours"), analyst.send("executor", "not yet")
    lease(shared, "writer")
    wrong, code = IMPOSSIBLE[why]
    ids = {"FOREIGN": foreign.id, "STALE": stale.id, "WAITING": waiting.id}
    commit: dict[str, Any] = {"acks": [{"id": good.id, "delivery": 1}], "replies": [], "sends": [dict(GOOD)]}
    for part, items in wrong.items():
        commit[part] = commit[part] + [i | {"id": ids.get(i["id"], i["id"])} if "id" in i else i for i in items]
    with pytest.raises(Refusal) as refusal:
        control(shared, "executor", "commit", **commit)
    assert refusal.value.code == code
    assert (good.refresh().stage, stale.refresh().stage, stale.delivery) == ("taken", "taken", 2)
    assert (foreign.refresh().stage, waiting.refresh().stage) == ("taken", "stored")
    assert status(shared, "executor")["outbox"] == 0
    assert left(writer) == []
    for message_id in (good.id, stale.id):
        executor.ack(message_id)
    writer.ack(foreign.id)


def test_a_commit_that_cannot_happen_raises_and_leaves_the_deliveries_open(shared: World) -> None:
    analyst, executor = shared.agent("analyst"), shared.agent("executor")
    receipt = analyst.send("executor", "do it")
    stream = executor.receive(wait=5)
    delivery = next(stream)
    with pytest.raises(PeerAbsent) as absent:
        executor.commit(acks=[delivery], sends=[("writter", "done")])
    assert absent.value.hint == "did you mean writer?"
    assert [delivery.is_settled] == [False]
    executor.commit(acks=[delivery], sends=[("writer", "done")])
    assert [delivery.is_settled] == [True]
    assert receipt.refresh().stage == "acked"
    assert texts(collect(shared.agent("writer"), 1)) == ["done"]


def test_an_id_used_for_another_text_is_refused_while_the_first_is_under_way(world: World) -> None:
    world.up("analyst", "executor")
    with frozen(world, "executor"):
        control(world, "analyst", "commit", sends=[{"to": "executor", "text": "one", "id": "k"}])
        with pytest.raises(Refusal) as refusal:
            control(world, "analyst", "commit", sends=[{"to": "executor", "text": "two", "id": "k"}])
        assert refusal.value.code == "key_reused"
        control(world, "analyst", "commit", sends=[{"to": "executor", "text": "one", "id": "k"}])
        assert status(world, "analyst")["outbox"] == 1
    assert texts(collect(world.agent("executor"), 1)) == ["one"]


# --- killed in the middle ---------------------------------------------------------------------------------------------


def a_commit(world: World, number: int) -> dict[str, Any]:
    """A task to ack, a question to answer, something to say: one commit of the executor."""
    with world.agent("analyst") as analyst:
        task, question = analyst.send("executor", f"task {number}"), analyst.send("executor", f"question {number}")
    lease(world, "executor", 2)
    return {
        "acks": [{"id": task.id, "delivery": 1}],
        "replies": [{"id": question.id, "delivery": 1, "text": f"answer {number}", "reply_id": f"a{number}"}],
        "sends": [{"to": "writer", "text": f"news {number}", "id": f"n{number}"}],
    }


def check_all_or_nothing(world: World, commit: dict[str, Any], number: int, *, was_answered: bool) -> bool:
    """Whether it happened; and that saying it again makes it happen exactly once."""
    world.up("executor")
    happened = stage(world, "executor", commit["acks"][0]["id"]) == "acked"
    assert happened or not was_answered
    assert stage(world, "executor", commit["replies"][0]["id"]) == ("done" if happened else "taken")
    assert happened or status(world, "executor")["outbox"] == 0
    answers = control(world, "executor", "commit", **commit)["sends"]
    assert [(receipt["id"], receipt["to"]) for receipt in answers] == [
        (f"a{number}", "analyst"),
        (f"n{number}", "writer"),
    ]
    until(lambda: status(world, "executor")["outbox"] == 0, "an empty outbox")
    for name, text in (("analyst", f"answer {number}"), ("writer", f"news {number}")):
        with world.agent(name) as agent:
            assert texts(left(agent, None)) == [text]
    return happened


def said(world: World, commit: dict[str, Any]) -> socket.socket:
    sock = connection(world, "executor", "control")
    sock.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "commit", "params": commit}).encode() + b"\n")
    return sock


def is_answered(sock: socket.socket) -> bool:
    with sock:
        try:
            return sock.recv(1 << 16).endswith(b"\n")
        except OSError:
            return False


@contextmanager
def death_at(pid: int, number: int, log: str) -> Iterator[None]:
    """The process is killed when it is about to write to a file for the number-th time."""
    inject = f"inject=pwrite64:signal=SIGKILL:when={number}"
    command = ["strace", "-f", "-p", str(pid), "-e", "trace=pwrite64", "-e", inject, "-o", log]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        attached = tracer.stderr.readline()
        if "attached" not in attached:
            pytest.skip(f"strace may not trace here: {attached}")
        try:
            yield
        finally:
            tracer.kill()  # the kernel lets its tracees go


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_a_commit_killed_at_any_write_happened_whole_or_not_at_all(world: World) -> None:
    world.up("analyst", "executor", "writer")
    happened = []
    for number in range(1, 100):
        commit = a_commit(world, number)
        pid = world.pid("executor")
        with death_at(pid, number, world.directory + "/strace"):
            answered = is_answered(said(world, commit))
            died = has_died(world, pid, answered)
        happened.append(check_all_or_nothing(world, commit, number, was_answered=answered))
        if not died:
            break
    else:
        pytest.fail("it died each time: who writes so often?")
    assert not happened[0]
    assert happened[-1]
    assert len(happened) > 5  # so many writes it takes at least


def has_died(world: World, pid: int, answered: bool) -> bool:
    """False once everything was delivered instead."""

    def end() -> str:
        try:
            return "dead" if is_dead(pid) else "done" if answered and status(world, "executor")["outbox"] == 0 else ""
        except OSError:
            return ""

    return until(end, "death, or delivery") == "dead"


def is_dead(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_commit_killed_at_any_moment_happened_whole_or_not_at_all(world: World) -> None:
    world.up("analyst", "executor", "writer")
    for number in range(10):
        commit = a_commit(world, number)
        pid = world.pid("executor")
        sock = said(world, commit)
        begun = time.perf_counter()
        while time.perf_counter() - begun < number * 0.0001:
            pass
        os.kill(pid, signal.SIGKILL)
        check_all_or_nothing(world, commit, number, was_answered=is_answered(sock))


def test_the_library_says_a_commit_again_when_the_daemon_dies(world: World) -> None:
    executor = world.agent("executor")
    analyst = world.agent("analyst")
    with ThreadPoolExecutor(1) as pool:
        for number in range(12):
            committed = pool.submit(executor.commit, sends=[("analyst", str(number))], timeout=20)
            kill(world, "executor")
            assert committed.result(20)[0].stage == "queued"
    world.up("executor")
    assert texts(collect(analyst, 12)) == [str(number) for number in range(12)]
    assert left(analyst, None) == []


# --- the outbox -------------------------------------------------------------------------------------------------------


def test_the_outbox_outlives_its_daemon(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    with frozen(world, "executor"):
        receipts = analyst.commit(sends=[("executor", str(number)) for number in range(5)])
        world.kill("analyst")
    assert [receipt.stage for receipt in receipts] == ["queued"] * 5
    world.up("analyst")
    assert texts(collect(world.agent("executor"), 5)) == ["0", "1", "2", "3", "4"]
    assert status(world, "analyst")["outbox"] == 0


def test_a_target_that_is_down_gets_everything_in_order_when_it_is_up(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    world.cli("down", "executor")
    for hundred in (0, 50):
        analyst.commit(sends=[("executor", str(number)) for number in range(hundred, hundred + 50)])
    shown = until(lambda: status(world, "analyst")["unreachable"], "the outbox to have tried")
    assert shown["executor"]["why"] == "it is down"
    assert status(world, "analyst")["outbox"] == 100
    told = world.cli("status", agent="analyst").stdout
    assert "executor" in told
    assert "it is down" in told
    world.kill("analyst")
    world.up("analyst", "executor")
    world.cli("up", "executor")
    assert texts(collect(world.agent("executor"), 100)) == [str(number) for number in range(100)]
    assert status(world, "analyst")["unreachable"] == {}


def test_a_direct_send_does_not_overtake_a_commit(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    with ThreadPoolExecutor(1) as pool, frozen(world, "executor"):
        analyst.commit(sends=[("executor", "one"), ("executor", "two")])
        sent = pool.submit(analyst.send, "executor", "three", timeout=20)
        until(lambda: status(world, "analyst")["outbox"] == 3 or sent.done(), "the third to be queued")
    assert sent.result(20).stage == "stored"
    assert texts(collect(world.agent("executor"), 3)) == ["one", "two", "three"]


def test_a_batch_does_not_overtake_a_commit_either(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    with ThreadPoolExecutor(1) as pool, frozen(world, "executor"):
        analyst.commit(sends=[("executor", "one"), ("executor", "two")])
        sent = pool.submit(analyst.send_many, "executor", ["three", "four"], timeout=20)
        until(lambda: status(world, "analyst")["outbox"] == 4 or sent.done(), "the batch to be queued")
    assert [receipt.to for receipt in sent.result(20)] == ["executor", "executor"]
    assert texts(collect(world.agent("executor"), 4)) == ["one", "two", "three", "four"]


def test_the_first_of_a_commit_being_there_does_not_mean_the_last_is(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    receipts = analyst.commit(sends=[("executor", str(number)) for number in range(400)])
    receipts[0].wait("stored", 20)
    analyst.send("executor", "last", timeout=20)
    assert texts(collect(world.agent("executor"), 401)) == [*map(str, range(400)), "last"]


def test_a_queued_message_says_so_until_its_target_is_there(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    world.cli("down", "executor")
    (receipt,) = analyst.commit(sends=[("executor", "hello")])
    assert receipt.refresh().stage is Stage.QUEUED
    assert (receipt.msg_no, receipt.mailbox_id, receipt.durability) == (None, None, None)
    with pytest.raises(BackchannelError) as waited:
        receipt.wait("stored", 0.05)
    assert waited.value.code == "timeout"
    shown = json.loads(world.cli("status", receipt.id, "--json", agent="analyst").stdout)
    assert shown["stage"] == "queued"
    world.cli("up", "executor")
    assert receipt.wait("stored", 20).stage == "stored"
    assert receipt.refresh().durability == "process"


# --- what comes back --------------------------------------------------------------------------------------------------


def test_what_was_sent_to_a_removed_agent_comes_back(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    world.cli("down", "executor")
    receipts = analyst.commit(sends=[("executor", "one"), ("executor", "two")])
    assert world.cli("remove", "executor").returncode == 0
    bounces = collect(analyst, 2, ("bounce",))
    assert [bounce.reply_to for bounce in bounces] == [receipt.id for receipt in receipts]
    assert {bounce.text for bounce in bounces} == {"there is no agent executor"}
    assert bounces[0].headers == {"to": "executor", "code": "unknown_agent", "stage": "rejected"}
    assert status(world, "analyst")["outbox"] == 0


def test_what_ends_undone_in_the_mailbox_of_another_comes_back(world: World) -> None:
    configure(world, "executor", "deliveries_max = 1\n")
    analyst, executor = world.agent("analyst"), world.agent("executor")
    (rejected,) = analyst.commit(sends=[("executor", "no")])
    lease(world, "executor")
    executor.reject(rejected.id, "busy")
    (dead,) = analyst.commit(sends=[("executor", "poison")])
    lease(world, "executor")
    executor.release(dead.id)
    (sent,) = control(world, "analyst", "commit", sends=[{"to": "executor", "text": "late", "ttl": 0.05}])["sends"]
    bounces = {bounce.reply_to: bounce for bounce in collect(analyst, 3, ("bounce",))}
    assert {key: bounce.headers["stage"] for key, bounce in bounces.items()} == {
        rejected.id: "rejected", dead.id: "dead", sent["id"]: "expired"
    }  # fmt: skip
    assert bounces[rejected.id].text == "busy"
    assert bounces[dead.id].text == "1 deliveries without an ack"
    assert all(bounce.headers["to"] == "executor" for bounce in bounces.values())


def test_a_direct_push_does_not_bounce_its_receipt_tells(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    receipt = analyst.send("executor", "no")
    lease(world, "executor")
    executor.reject(receipt.id, "busy")
    with pytest.raises(Refused):
        receipt.wait("acked", 20)
    assert status(world, "executor")["outbox"] == 0
    assert left(analyst, None) == []


def test_of_several_messages_under_way_only_the_refused_comes_back(world: World) -> None:
    """A refusal overtakes the receipts that wait for the disk, and one for a line too long has no number."""
    configure(world, "executor", "line_bytes_max = 4096\n")
    analyst, executor = world.agent("analyst"), world.agent("executor")
    analyst.send("executor", "first", key="used")
    collect(executor, 1)
    with frozen(world, "executor"):
        control(
            world, "analyst", "commit",
            sends=[
                {"to": "executor", "id": "1", "text": "one", "durability": "power"},
                {"to": "executor", "id": "used", "text": "another text"},
                {"to": "executor", "id": "2", "text": "two", "durability": "power"},
                {"to": "executor", "id": "long", "text": "x" * 5000},
                {"to": "executor", "id": "3", "text": "three"},
            ],
        )  # fmt: skip
    assert texts(collect(executor, 3)) == ["one", "two", "three"]
    bounces = collect(analyst, 2, ("bounce",))
    assert {bounce.reply_to: bounce.headers["code"] for bounce in bounces} == {"used": "key_reused", "long": "oversize"}
    assert left(analyst, None) == []
    assert left(executor, None) == []


def test_an_ack_of_another_agents_delivery_is_refused_in_the_library(shared: World) -> None:
    analyst, executor, writer = (shared.agent(name) for name in ("analyst", "executor", "writer"))
    analyst.send("writer", "yours")
    for delivery in writer.receive(wait=5):
        with pytest.raises(LocalProtocolError) as wrong:
            executor.commit(acks=[delivery])
        assert wrong.value.code == "no_such_message"
        delivery.ack()
        break
