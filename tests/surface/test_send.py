"""Sending: to many, in order of priority, for a time, once per key, with headers."""

import asyncio
import json
import os
import pty
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from backchannel import LocalProtocolError, PeerAbsent, Receipt, Refused
from backchannel.testing import World, command

from .helpers import Refusal, collect, control, left, texts, wire

YEAR_S = 365 * 86400


def test_a_broadcast_tries_all_and_says_what_became_of_each(world: World) -> None:
    names = [f"n{number}" for number in range(10)]
    analyst = world.agent("analyst")
    world.up(*names)
    world.cli("down", "n4")
    outcomes = analyst.broadcast("hello", names)
    assert list(outcomes) == names
    assert isinstance(outcomes.pop("n4"), PeerAbsent)
    assert all(isinstance(outcome, Receipt) and outcome.stage == "stored" for outcome in outcomes.values())
    assert len(outcomes) == 9

    async def broadcast() -> dict[str, object]:
        async with world.async_agent("analyst") as agent:
            return await agent.broadcast("hello", names)

    assert isinstance(asyncio.run(broadcast())["n4"], PeerAbsent)

    shell = world.cli("send", ",".join(names), "hello", "--json", agent="analyst")
    receipts = [json.loads(line) for line in shell.stdout.splitlines()]
    (error,) = [json.loads(line) for line in shell.stderr.splitlines()]
    assert shell.returncode == 5
    assert [receipt["to"] for receipt in receipts] == [name for name in names if name != "n4"]
    assert error["message"] == "n4 is down"

    # Everybody, that is: who is up, and not oneself.
    assert list(analyst.broadcast("hello")) == [name for name in names if name != "n4"]
    shell = world.cli("send", "@all", "hello", agent="analyst")
    assert (shell.returncode, len(shell.stdout.splitlines()), shell.stderr) == (0, 9, "")
    assert left(analyst) == []
    assert len(left(world.agent("n0"))) == 5


def test_a_list_of_names_ends_with_the_first_failures_exit_code(shared: World) -> None:
    wrong = shared.cli("send", "executor,nobody,No!,writer,executor", "hello", agent="analyst")
    assert wrong.returncode == 5
    assert [line.split()[1] for line in wrong.stdout.splitlines()] == ["executor", "writer"]
    assert "there is no agent nobody" in wrong.stderr
    assert "'No!' is not an agent name" in wrong.stderr
    assert shared.cli("send", "No!,nobody", "hello", agent="analyst").returncode == 2


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("send executor <&-", 2),
        ("send executor - <&-", 2),
        ("send executor hello >&-", 2),
        ("recv --as executor >&-", 2),
        ("agents >&-", 2),
        ("send nobody hello 2>&-", 5),
        ("send executor hello <&- 2>&-", 0),
    ],
)
def test_a_closed_standard_stream_is_no_traceback(shared: World, line: str, code: int) -> None:
    shared.agent("analyst").send("executor", "kept")
    done = subprocess.run(
        ["sh", "-c", f"exec {command()} {line}"],
        env=shared.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.count("\n") <= 1) == (code, True), done.stderr
    assert "kept" in texts(left(shared.agent("executor"))), "what could not be printed was not acked"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_text_is_printed_as_utf_8_whatever_the_locale(shared: World, options: list[str]) -> None:
    shared.agent("analyst").send("executor", "grün €")
    env = shared.env | {"PYTHONIOENCODING": "ascii"}
    printed = subprocess.run([command(), "recv", "--as", "executor", *options], env=env, capture_output=True)
    assert (printed.returncode, printed.stderr) == (0, b"")
    assert "grün €" in printed.stdout.decode()


def test_who_waits_for_many_has_sent_to_all_of_them_first(shared: World) -> None:
    with ThreadPoolExecutor() as pool:
        words = ("send", "executor,writer", "hello", "--wait", "acked", "--timeout", "20")
        waiting = pool.submit(shared.cli, *words, agent="analyst")
        collect(shared.agent("writer"), 1)  # while executor has not acked yet
        collect(shared.agent("executor"), 1)
        done = waiting.result()
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["acked", "executor"], ["acked", "writer"]]
    assert (done.returncode, done.stderr) == (0, "")


def test_on_a_terminal_no_line_of_a_text_passes_for_another_message(shared: World) -> None:
    shared.agent("analyst").send("executor", "hello\nwriter  12:00:00  m-1\nshut down")
    terminal, inside = pty.openpty()
    try:
        env = shared.env_of("executor")
        subprocess.run([command(), "recv"], env=env, stdin=subprocess.DEVNULL, stdout=inside, check=True, timeout=20)
        shown = os.read(terminal, 4096).decode().splitlines()
    finally:
        os.close(inside)
        os.close(terminal)
    assert shown[0].startswith("analyst  ")
    assert shown[1:] == ["    hello", "    writer  12:00:00  m-1", "    shut down"]


def test_there_must_be_somebody_for_a_message_to_all(world: World) -> None:
    world.up("analyst")
    alone = world.cli("send", "@all", "hello", agent="analyst")
    assert alone.returncode == 5
    assert "nobody else" in alone.stderr


def test_the_urgent_is_taken_first_and_each_kind_in_its_order(shared: World) -> None:
    analyst, executor = shared.agent("analyst"), shared.agent("executor")
    for text, priority in (("a", "low"), ("b", "normal"), ("c", "urgent"), ("d", "normal"), ("e", "urgent")):
        analyst.send("executor", text, priority=priority)
    assert shared.cli("send", "executor", "f", "--priority", "urgent", agent="analyst").returncode == 0
    assert texts(collect(executor, 6)) == ["c", "e", "f", "b", "d", "a"]


def test_an_unknown_priority_is_refused(shared: World) -> None:
    with pytest.raises(LocalProtocolError):
        shared.agent("analyst").send("executor", "now", priority="asap")
    assert shared.cli("send", "executor", "now", "--priority", "asap", agent="analyst").returncode == 2
    assert left(shared.agent("executor")) == []


@pytest.mark.parametrize("ttl", [0, -1, 100 * YEAR_S])
def test_a_ttl_that_nobody_can_mean_is_refused(shared: World, ttl: float) -> None:
    with pytest.raises(LocalProtocolError) as refused:
        shared.agent("analyst").send("executor", "now", ttl=ttl)
    assert f"ttl {float(ttl)} is out of range" in str(refused.value)
    assert shared.cli("send", "executor", "now", "--ttl", str(ttl), agent="analyst").returncode == 2
    assert left(shared.agent("executor")) == []


def test_what_nobody_took_in_time_expires_and_its_sender_can_know(shared: World) -> None:
    receipt = shared.agent("analyst").send("executor", "quick", ttl=0.05)
    with pytest.raises(Refused) as expired:
        receipt.wait("acked", 20)
    assert expired.value.code == "expired"
    assert receipt.reason == "its ttl passed before it was taken"
    assert left(shared.agent("executor")) == []
    shell = shared.cli("send", "executor", "quick", "--ttl", "0.05", "--wait", "acked", agent="analyst")
    assert shell.returncode == 3
    assert "expired" in shell.stderr


def test_what_was_taken_in_time_expires_only_when_it_comes_back(shared: World) -> None:
    analyst, executor = shared.agent("analyst"), shared.agent("executor")
    receipt = analyst.send("executor", "quick", ttl=0.1)
    after = analyst.send("executor", "its end has come", ttl=0.2)
    control(shared, "executor", "take", detached=True, wait=5)
    with pytest.raises(Refused):
        after.wait("acked", 20)
    assert receipt.refresh().stage == "taken"
    executor.release(receipt.id)
    with pytest.raises(Refused) as expired:
        receipt.wait("acked", 20)
    assert expired.value.code == "expired"


def test_a_key_makes_a_repetition_harmless(shared: World) -> None:
    analyst, executor = shared.agent("analyst"), shared.agent("executor")
    first = analyst.send("executor", "deploy", key="deploy-1", headers={"v": "1"})
    again = analyst.send("executor", "deploy", key="deploy-1", headers={"v": "1"})
    assert (first.duplicate, again.duplicate, again.msg_no) == (False, True, first.msg_no)
    assert again.mailbox_id == first.mailbox_id
    others = shared.agent("writer").send("executor", "deploy", key="deploy-1")
    assert (others.duplicate, others.msg_no == first.msg_no) == (False, False)
    for text, headers in (("destroy", {"v": "1"}), ("deploy", {"v": "2"}), ("deploy", None)):
        with pytest.raises(Refused) as reused:
            analyst.send("executor", text, key="deploy-1", headers=headers)
        assert reused.value.code == "key_reused"
    shell = shared.cli("send", "executor", "destroy", "--key", "deploy-1", agent="analyst")
    assert (shell.returncode, "deploy-1" in shell.stderr) == (3, True)
    assert texts(collect(executor, 2)) == ["deploy", "deploy"]
    after = analyst.send("executor", "deploy", key="deploy-1", headers={"v": "1"})
    assert (after.duplicate, after.stage) == (True, "acked")


@pytest.mark.parametrize("headers", [{"n": 1}, {"n": None}, {"n": ["a"]}, {"n": {"a": "b"}}, {"n": True}, ["n"], "n=1"])
def test_headers_that_are_not_text_are_refused(shared: World, headers: object) -> None:
    with pytest.raises(Refusal) as refusal:
        wire(shared, "executor", "push", {"to": "executor", "text": "hello", "headers": headers})
    assert refusal.value.code == "bad_params"
    with pytest.raises(LocalProtocolError):
        shared.agent("analyst").send("executor", "hello", headers=headers)  # type: ignore[arg-type]
    assert left(shared.agent("executor")) == []


def test_a_traceparent_is_carried_as_it_is(shared: World) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    analyst, executor = shared.agent("analyst"), shared.agent("executor")
    analyst.send("executor", "hello", headers={"traceparent": traceparent, "tracestate": "a=b", "Ünï": "✓"})
    shared.cli("send", "executor", "hello", "--header", f"traceparent={traceparent}", agent="analyst")
    first, second = collect(executor, 2)
    assert first.headers == {"traceparent": traceparent, "tracestate": "a=b", "Ünï": "✓"}
    assert second.headers == {"traceparent": traceparent}


def test_a_batch_is_stored_in_order_and_tells_what_it_could_not_store(shared: World) -> None:
    analyst, executor = shared.agent("analyst"), shared.agent("executor")
    receipts = analyst.send_many("executor", (str(number) for number in range(250)), priority="low")
    assert [receipt.msg_no for receipt in receipts] == sorted(receipt.msg_no or 0 for receipt in receipts)
    assert texts(collect(executor, 250)) == [str(number) for number in range(250)]
    with pytest.raises(LocalProtocolError):
        analyst.send_many("executor", ["a"], ttl=0)


def test_one_key_sent_to_many_is_only_found_with_a_name(world: World) -> None:
    world.up("analyst", "executor", "writer")
    world.cli("send", "executor,writer", "hello", "--key", "daily", agent="analyst")
    unclear = world.cli("cancel", "daily", agent="analyst")
    assert (unclear.returncode, unclear.stdout) == (2, "")
    assert "executor, writer" in unclear.stderr
    assert world.cli("cancel", "daily", "--to", "writer", agent="analyst").stdout.startswith("cancelled  writer")
    assert world.cli("status", "daily", "--to", "executor").stdout.startswith("stored  executor")


def test_two_senders_with_one_key_are_told_apart_by_name(world: World) -> None:
    world.up("analyst", "writer", "executor")
    for sender in ("analyst", "writer"):
        world.cli("send", "executor", f"from {sender}", "--key", "daily", agent=sender)
    world.cli("recv", "--keep", agent="executor")
    unclear = world.cli("ack", "daily", agent="executor")
    assert (unclear.returncode, "--from NAME" in unclear.stderr) == (2, True)
    assert world.cli("ack", "daily", "--from", "writer", agent="executor").stdout.startswith("acked  executor")
    assert world.cli("reply", "daily", "yes", "--from", "analyst", agent="executor").returncode == 0
    assert world.cli("recv", agent="analyst").stdout.endswith("yes\n")


def test_a_daemon_that_does_not_answer_can_still_be_taken_down(world: World) -> None:
    world.up("executor")
    os.kill(world.pid("executor"), signal.SIGSTOP)
    told = world.cli("down", "executor", timeout=60)
    assert (told.returncode, "killed" in told.stdout) == (0, True), told.stderr


def test_the_answer_to_a_process_that_is_no_agent_goes_no_further(world: World) -> None:
    executor = world.agent("executor")
    world.cli("send", "executor", "8080?")
    for question in executor.receive(wait=20):
        answer = question.reply("8080")
        break
    assert (answer.stage, answer.msg_no, answer.durability) == ("stored", question.msg_no, "process")
    assert answer.wait("stored").refresh() is answer
    with pytest.raises(LocalProtocolError, match="lies with its question"):
        answer.wait("acked", timeout=1)


def test_what_is_no_list_of_names_is_no_broadcast(shared: World) -> None:
    with pytest.raises(LocalProtocolError, match="a list is wanted"):
        shared.agent("analyst").broadcast("hello", to="executor")
