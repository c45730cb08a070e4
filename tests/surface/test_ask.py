"""Ask and reply: the answer finds its asker, whoever dies meanwhile."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from backchannel import Agent, AsyncAgent, Delivery, LocalProtocolError, PeerAbsent, Refused, TimedOut
from backchannel.cli.commands import build_parser
from backchannel.testing import World, command

from .helpers import answering, collect, configure, control, kill, left, status, texts, until

ASKING = """
import sys
from backchannel import Agent
me = Agent("analyst")
for number in range(8):
    text = f"{sys.argv[1]}-{number}"
    answer = me.ask("executor", text, timeout=20).text
    assert answer == "re: " + text, (answer, text)
"""


def echo(delivery: Delivery) -> None:
    delivery.reply("re: " + delivery.text)


@contextmanager
def asking(world: World, text: str, *options: str, agent: str | None = "analyst") -> Iterator["subprocess.Popen[str]"]:
    """`backchannel ask executor TEXT`, under way."""
    with subprocess.Popen(
        [command(), "ask", "executor", text, *options],
        env=world.env_of(agent),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def taken(agent: Agent) -> Delivery:
    """The next delivery, leased for good: it survives leaving the loop."""
    stream = agent.receive(wait=20)
    delivery = next(stream)
    KEPT.append(stream)
    return delivery


KEPT: list[object] = []


@pytest.fixture(autouse=True)
def let_go() -> object:
    yield
    KEPT.clear()


# --- the answer finds its asker ---------------------------------------------------------------------------------------


def test_askers_in_threads_of_one_agent_never_take_each_others_answers(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")

    def ask(name: str) -> None:
        for number in range(5):
            assert analyst.ask("executor", f"{name}{number}", timeout=20).text == f"re: {name}{number}"

    with answering(executor, echo, threads=2), ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, "abcdef"))
    assert left(analyst) == []


def test_askers_in_processes_of_one_agent_never_take_each_others_answers(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    stolen: list[Delivery] = []
    with answering(executor, echo, threads=2), answering(analyst, stolen.append):
        askers = [subprocess.Popen([sys.executable, "-c", ASKING, name], env=world.env) for name in "xyz"]
        assert [asker.wait(50) for asker in askers] == [0, 0, 0]
    assert stolen == []


def test_tasks_of_an_async_agent_ask_side_by_side(world: World) -> None:
    executor = world.agent("executor")

    async def ask_all() -> list[str]:
        async with world.async_agent("analyst") as analyst:
            answers = await asyncio.gather(*(analyst.ask("executor", f"q{n}", timeout=20) for n in range(20)))
        return [answer.text for answer in answers]

    with answering(executor, echo, threads=2):
        assert asyncio.run(ask_all()) == [f"re: q{n}" for n in range(20)]


def test_an_async_agent_answers(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")

    async def answer_one() -> None:
        async with world.async_agent("executor") as executor:
            async for delivery in executor.receive(wait=20):
                receipt = await delivery.reply("re: " + delivery.text)
                await receipt.wait("acked", 20)
                return

    thread = threading.Thread(target=lambda: asyncio.run(answer_one()))
    thread.start()
    assert analyst.ask("executor", "8080?", timeout=20).text == "re: 8080?"
    thread.join()


def test_the_shell_asks_and_the_shell_answers(world: World) -> None:
    world.up("analyst", "executor")
    with asking(world, "8080 or 3000?") as asker:
        question = json.loads(world.cli("recv", "--keep", "--wait", "20", "--json", agent="executor").stdout)
        assert (question["from"], question["text"]) == ("analyst", "8080 or 3000?")
        replied = world.cli("reply", question["id"], "8080", agent="executor")
        assert (replied.returncode, asker.wait(20)) == (0, 0)
        assert asker.communicate() == ("8080\n", "")
    assert world.cli("recv", agent="analyst").stdout == ""


def test_options_may_stand_between_the_words(world: World) -> None:
    world.up("analyst", "executor")
    asked = world.cli("ask", "executor", "--timeout", "0.1", "8080 or 3000?", agent="analyst")
    assert asked.returncode == 4, asked.stderr
    question = json.loads(world.cli("recv", "--keep", "--json", agent="executor").stdout)
    assert question["text"] == "8080 or 3000?"
    replied = world.cli("reply", question["id"], "--as", "executor", "--", "-1")
    assert (replied.returncode, replied.stderr) == (0, "")
    assert texts(collect(world.agent("analyst"), 1)) == ["-1"]
    several = world.cli("ack", "one", "--as", "executor", "two")
    assert (several.returncode, several.stderr.count("there is no message")) == (5, 2)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("reply --as bob -- --id --text", {"id": "--id", "text": "--text", "agent": "bob"}),
        ("reply one --as bob -- --text", {"id": "one", "text": "--text", "agent": "bob"}),
        ("ack -- --one two", {"ids": ["--one", "two"]}),
        ("serve bob --exec run -- --x", {"name": "bob", "program": ["run", "--", "--x"]}),
        ("serve bob --max 2 --exec sh -c x --", {"max": 2, "program": ["sh", "-c", "x", "--"]}),
    ],
)
def test_what_comes_after_two_dashes_is_no_option(words: str, found: dict[str, Any]) -> None:
    options = vars(build_parser().parse_args(words.split()))
    assert {key: options.get(key) for key in found} == found


def test_the_answer_to_a_process_that_is_no_agent_comes_with_the_receipt(world: World) -> None:
    executor = world.agent("executor")
    with asking(world, "who am I?", agent=None) as asker:
        delivery = taken(executor)
        assert delivery.sender == "@user"
        assert delivery.reply("nobody in particular").stage == "stored"
        assert asker.communicate(timeout=20) == ("nobody in particular\n", "")
    receipt = json.loads(world.cli("status", delivery.id, "--json").stdout)
    assert (receipt["stage"], receipt["reply_text"]) == ("done", "nobody in particular")
    # The hint of an `ask` that ran out of time leads here.
    assert world.cli("status", delivery.id).stdout.splitlines()[1:] == ["nobody in particular"]


def test_an_answer_as_json_has_the_keys_of_a_message_whoever_asked(world: World) -> None:
    executor = world.agent("executor")
    world.up("analyst")
    keys = {"id", "kind", "from", "to", "text", "sent_at", "session", "delivery", "reply_to", "trace_id", "hops"}
    for agent in (None, "analyst"):
        with asking(world, "8080?", "--json", agent=agent) as asker:
            taken(executor).reply("8080")
            answer = json.loads(asker.communicate(timeout=20)[0])
        assert keys | {"priority", "headers"} <= set(answer)
        assert (answer["from"], answer["to"], answer["text"]) == ("executor", agent or "@user", "8080")


def test_an_answer_carries_headers_and_the_question_it_answers(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    receipt = analyst.send("executor", "8080 or 3000?")
    taken(executor).reply("8080", headers={"sure": "yes"})
    (answer,) = collect(analyst, 1)
    assert (answer.reply_to, answer.headers, answer.trace_id) == (receipt.id, {"sure": "yes"}, receipt.id)
    assert (answer.hops, answer.path) == (1, ["executor"])
    assert receipt.wait("done", 20).reply_id == answer.id


# --- no answer --------------------------------------------------------------------------------------------------------


def test_a_rejected_question_is_refused_with_the_reason(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    with answering(executor, lambda delivery: delivery.reject("busy until noon")):
        with pytest.raises(Refused) as refused:
            analyst.ask("executor", "now?", timeout=20)
        with pytest.raises(Refused) as refused_async:
            asyncio.run(ask_once(world, "now?", 20))
        shell = world.cli("ask", "executor", "now?", agent="analyst")
        nobody = world.cli("ask", "executor", "now?")
    assert refused.value.reason == refused_async.value.reason == "busy until noon"
    assert (shell.returncode, nobody.returncode) == (3, 3)
    assert "busy until noon" in shell.stderr
    assert "busy until noon" in nobody.stderr
    assert left(analyst, None) == []  # no bounce on top of it


def test_an_expired_question_is_refused(world: World) -> None:
    analyst = world.agent("analyst")
    world.up("executor")
    with pytest.raises(Refused) as refused:
        analyst.ask("executor", "quick!", timeout=20, ttl=0.05)
    assert refused.value.code == "expired"


def test_an_asker_whose_time_is_over_finds_the_late_answer_in_its_mailbox(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    with pytest.raises(TimedOut) as timed_out:
        analyst.ask("executor", "sync", timeout=0.1)
    assert timed_out.value.waited == 0.1
    with pytest.raises(TimedOut):
        asyncio.run(ask_once(world, "async", 0.1))
    assert world.cli("ask", "executor", "shell", "--timeout", "0.1", agent="analyst").returncode == 4
    with answering(executor, echo):
        assert texts(collect(analyst, 3)) == ["re: sync", "re: async", "re: shell"]


def test_asking_nobody_fails_at_once(world: World) -> None:
    analyst = world.agent("analyst")
    with pytest.raises(PeerAbsent) as absent:
        analyst.ask("analist", "are you there?")
    assert absent.value.hint == "did you mean analyst?"


async def ask_once(world: World, text: str, timeout: float) -> str:
    async with world.async_agent("analyst") as analyst:
        return (await analyst.ask("executor", text, timeout=timeout)).text


# --- somebody dies meanwhile ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stopped", [False, True], ids=["asking", "with the answer unread"])
def test_the_answer_to_a_killed_asker_lies_in_its_mailbox(world: World, is_stopped: bool) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    with asking(world, "8080?") as asker:
        delivery = taken(executor)
        if is_stopped:  # then the answer reaches its connection, but nobody reads it
            until(lambda: status(world, "analyst")["receiving"], "the asker to wait for its answer")
            os.kill(asker.pid, signal.SIGSTOP)
            receipt = delivery.reply("8080")
            receipt.wait("taken", 20)
        asker.kill()
        asker.wait()
        if not is_stopped:
            delivery.reply("8080")
    (answer,) = collect(analyst, 1)
    assert (answer.text, answer.reply_to) == ("8080", delivery.id)
    assert answer.delivery == (2 if is_stopped else 1)


@pytest.mark.parametrize("victim", ["analyst", "executor"])
@pytest.mark.parametrize("moment", ["before it is taken", "while it is taken", "after the answer"])
def test_a_question_is_answered_though_a_daemon_is_killed(world: World, victim: str, moment: str) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(analyst.ask, "executor", "8080?", timeout=20)
        until(lambda: control(world, "executor", "peek")["messages"], "the question to be stored")
        if moment == "before it is taken":
            world.kill(victim)
        delivery = taken(executor)
        if moment == "while it is taken":
            world.kill(victim)
        delivery.reply("8080")
        if moment == "after the answer":
            world.kill(victim)
        assert asked.result(20).text == "8080"
    assert left(analyst) == []


def test_a_question_is_answered_though_daemons_are_killed_all_the_time(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    with answering(executor, echo), ThreadPoolExecutor(1) as pool:
        for number in range(8):
            asked = pool.submit(analyst.ask, "executor", f"q{number}", timeout=30)
            for name in ("analyst", "executor"):
                kill(world, name)
            assert asked.result(30).text == f"re: q{number}"


# --- replies that come to nothing -------------------------------------------------------------------------------------


def test_a_reply_to_what_has_ended_is_refused_and_changes_nothing(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    answered = analyst.send("executor", "one")
    taken(executor).reply("first")
    rejected = analyst.send("executor", "two")
    taken(executor).reject("no")
    expired = analyst.send("executor", "three", ttl=0.05)
    with pytest.raises(Refused):
        expired.wait("acked", 20)
    collect(analyst, 1)
    for receipt, stage in ((answered, "done"), (rejected, "rejected"), (expired, "expired")):
        with pytest.raises(Refused) as refused:
            reply(world, receipt.id)
        assert refused.value.code == "ended"
        shell = world.cli("reply", receipt.id, "again", agent="executor")
        assert (shell.returncode, receipt.id in shell.stderr) == (3, True)
        assert receipt.refresh().stage == stage
    assert status(world, "executor")["outbox"] == 0
    assert left(analyst) == []


def test_a_reply_to_a_message_that_never_was_says_so(world: World) -> None:
    world.up("executor")
    with pytest.raises(LocalProtocolError) as unknown:
        reply(world, "m-1")
    assert unknown.value.code == "no_such_message"
    assert world.cli("reply", "m-1", "hello", agent="executor").returncode == 5


def test_a_reply_to_a_message_nobody_took_is_refused(world: World) -> None:
    world.up("executor")
    receipt = world.agent("analyst").send("executor", "8080?")
    with pytest.raises(Refused) as refused:
        reply(world, receipt.id)
    assert refused.value.code == "stale"
    assert receipt.refresh().stage == "stored"


def test_a_reply_to_an_agent_that_was_removed_fails_and_the_question_stays(world: World) -> None:
    executor = world.agent("executor")
    world.agent("analyst").send("executor", "8080?")
    delivery = taken(executor)
    assert world.cli("remove", "analyst").returncode == 0
    with pytest.raises(PeerAbsent):
        delivery.reply("8080")
    assert executor.status(delivery.id, "executor").stage == "taken"


def test_an_ack_first_and_the_reply_later(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(analyst.ask, "executor", "how many?", timeout=20)
        delivery = taken(executor)
        assert delivery.ack().stage == "acked"
        delivery.reply("many")
        assert asked.result(20).text == "many"
    assert executor.status(delivery.id, "executor").stage == "done"


def test_a_reply_said_again_is_answered_again_and_sent_once(world: World) -> None:
    """A client whose connection broke repeats its commit, with the same ids."""
    analyst, executor = world.agent("analyst"), world.agent("executor")
    analyst.send("executor", "8080?")
    delivery = taken(executor)
    commit = {"replies": [{"id": delivery.id, "delivery": 1, "text": "8080", "reply_id": "r1"}]}
    first = control(world, "executor", "commit", **commit)
    world.kill("executor")
    executor.receive(wait=0)
    world.up("executor")
    again = control(world, "executor", "commit", **commit)
    assert [receipt["id"] for receipt in again["sends"]] == [receipt["id"] for receipt in first["sends"]] == ["r1"]
    assert texts(collect(analyst, 1)) == ["8080"]
    assert left(analyst) == []


def reply(world: World, message_id: str) -> None:
    """As a program that kept only the id."""
    agent = world.agent("executor")
    raw = {"id": message_id, "delivery": None, "from": "analyst", "to": "executor", "kind": "message"}
    Delivery(agent, raw | {"delivery": 1}).reply("too late")


# --- crowds -----------------------------------------------------------------------------------------------------------


def test_more_askers_than_a_daemon_lets_wait_are_all_answered(world: World) -> None:
    """A daemon answers `again` to the 129th wait for a stage; that is no reason to give up a question."""
    executor = world.agent("executor")
    executor.send("executor", "the counters begin")
    world.up("a1", "a2")

    async def ask_all() -> list[str]:
        async with world.async_agent("a1") as one, world.async_agent("a2") as two:
            asked = [asyncio.create_task(ask(agent, n)) for agent in (one, two) for n in range(70)]
            await asyncio.sleep(0)
            return await asyncio.gather(*asked)

    async def ask(agent: AsyncAgent, number: int) -> str:
        return (await agent.ask("executor", f"{agent.name}-{number}", timeout=40)).text

    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(asyncio.run, ask_all())
        until(lambda: status(world, "executor")["counters"]["stored"] == 141 or answers.done(), "140 questions")
        with answering(executor, echo):
            assert sorted(answers.result(40)) == sorted(f"re: {a}-{n}" for a in ("a1", "a2") for n in range(70))


def test_an_agent_that_a_model_drives_asks_through_its_own_daemon(world: World) -> None:
    configure(world, "analyst", 'driven_by = "model"\n')
    analyst, executor = world.agent("analyst"), world.agent("executor")
    with answering(executor, echo):
        assert analyst.ask("executor", "8080?", timeout=20).text == "re: 8080?"
        assert world.cli("ask", "executor", "3000?", agent="analyst").stdout == "re: 3000?\n"


# --- an answer that is leased -----------------------------------------------------------------------------------------


def test_an_answer_may_be_leased_and_is_acked_when_its_asker_says_so(shared: World) -> None:
    with shared.agent("analyst") as analyst, shared.agent("executor") as executor, answering(executor, echo):
        for answer in analyst.answers("executor", "8080 or 3000?", timeout=20):
            assert answer.text == "re: 8080 or 3000?"
            assert analyst.status(answer.id).stage == "taken"
            answer.ack("turn")
            assert analyst.status(answer.id).evidence == "turn"
        assert left(analyst) == []


def test_an_asker_that_leaves_before_it_settled_the_answer_gets_it_again(shared: World) -> None:
    with shared.agent("analyst") as analyst, shared.agent("executor") as executor, answering(executor, echo):
        for answer in analyst.answers("executor", "8080 or 3000?", timeout=20):
            first = answer.id
        (again,) = collect(analyst, 1)
        assert (again.id, again.delivery) == (first, 2)


def test_an_answer_is_leased_over_a_restart_of_the_own_daemon(world: World) -> None:
    async def story() -> None:
        async with world.async_agent("analyst") as analyst:
            answers = analyst.answers("executor", "8080?", timeout=20)
            answer = await anext(answers)
            await asyncio.to_thread(world.kill, "analyst")
            receipt = await answer.ack()
            assert (receipt.stage, receipt.delivery) == ("acked", 1)
            assert [late async for late in answers] == []

    world.up("analyst", "executor")
    with world.agent("executor") as executor, answering(executor, echo):
        asyncio.run(story())


def test_what_was_leased_together_is_known_to_be(shared: World) -> None:
    with shared.agent("analyst") as analyst, shared.agent("executor") as executor:
        analyst.send_many("executor", ["one", "two", "three"])
        assert [(d.text, d.ahead) for d in executor.receive(prefetch=2)][:2] == [("one", 1), ("two", 0)]
        assert len(left(executor)) == 3
