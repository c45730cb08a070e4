"""`AsyncAgent` over real daemons: the same story as `Agent`, told by tasks."""

import asyncio
import inspect
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from backchannel import Agent, AsyncAgent, LocalProtocolError, OverLimit, PeerAbsent, Refused, TimedOut

from ..world import World

Story = Callable[[World], Coroutine[Any, Any, None]]


def told(story: Story) -> Callable[[World], None]:
    """A test written as a coroutine, on a loop of its own."""

    def test(world: World) -> None:
        asyncio.run(asyncio.wait_for(story(world), 40))

    test.__name__ = story.__name__
    return test


@asynccontextmanager
async def agents(world: World, *names: str) -> AsyncIterator[list[AsyncAgent]]:
    found = [AsyncAgent(name, places=world.places) for name in names]
    yield found
    for agent in found:
        await agent.close()


async def until(condition: Callable[[], object], within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def texts(agent: AsyncAgent, **how: Any) -> list[str]:
    found = []
    async with aclosing(agent.receive(**how)) as deliveries:  # type: ignore[type-var]
        async for delivery in deliveries:
            found.append(delivery.text)
            await delivery.ack()
    return found


def test_both_clients_have_the_same_names_with_the_same_parameters() -> None:
    def face(kind: type) -> dict[str, list[str]]:
        return {
            name: [
                str(parameter).replace("aio.Async", "blocking.").replace("aiosessions.Async", "sessions.")
                for parameter in inspect.signature(member).parameters.values()
            ]
            for name, member in vars(kind).items()
            if not name.startswith("_") and callable(member)
        }

    assert face(Agent) == face(AsyncAgent)


@told
async def test_what_is_sent_arrives_and_its_receipt_follows_it(world: World) -> None:
    async with agents(world, "alice", "bob") as (alice, bob):
        await bob.agents()
        await bob.send("bob", "begin")
        receipt = await alice.send("bob", "caf\u00e9", headers={"k": "v"}, key="mine")
        assert (receipt.stage, receipt.id) == ("stored", "mine")
        waiting = asyncio.create_task(receipt.wait("acked", timeout=10))
        assert await texts(bob) == ["begin", "caf\u00e9"]
        assert (await waiting).stage == "acked"
        assert (await alice.status("mine")).stage == "acked"


@told
async def test_many_are_sent_in_order(world: World) -> None:
    async with agents(world, "alice") as (alice,):
        sent = [f"message {number}" for number in range(250)]
        receipts = await alice.send_many("alice", sent)
        assert [receipt.msg_no for receipt in receipts] == list(range(1, 251))
        assert await texts(alice, prefetch=50) == sent


@told
async def test_one_agent_may_be_used_from_many_tasks(world: World) -> None:
    async with agents(world, "alice", "bob") as (alice, bob):
        await bob.send("bob", "start")

        async def send(who: int) -> None:
            for number in range(10):
                await alice.send("bob", f"{who}:{number}")

        async with asyncio.TaskGroup() as group:
            receivers = [group.create_task(texts(bob, wait=2)) for _ in range(3)]
            for who in range(20):
                group.create_task(send(who))
        got = [text for receiver in receivers for text in receiver.result()]
        assert sorted(got) == sorted(["start", *(f"{who}:{number}" for who in range(20) for number in range(10))])


@told
async def test_each_settling_and_each_refusal_is_the_same_error(world: World) -> None:
    async with agents(world, "alice", "bob") as (alice, bob):
        await bob.send("bob", "first")
        receipt = await alice.send("bob", "no, thank you")
        async with aclosing(bob.receive()) as deliveries:  # type: ignore[type-var]
            async for delivery in deliveries:
                await delivery.reject("busy")
        with pytest.raises(Refused) as refused:
            await receipt.wait("acked", timeout=5)
        assert refused.value.reason == "busy"
        with pytest.raises(PeerAbsent) as absent:
            await alice.send("bbo", "hello")
        assert "did you mean bob?" in str(absent.value)
        with pytest.raises(OverLimit):
            await alice.send("bob", "x" * (2 << 20))
        with pytest.raises(LocalProtocolError):
            await alice.send("../bob", "hello")
        with pytest.raises(LocalProtocolError):
            await alice.cancel("m-nobody")
        held = await alice.send("bob", "never mind")
        assert (await alice.cancel(held.id)).stage == "cancelled"
        with pytest.raises(TimedOut):
            await (await alice.send("bob", "later")).wait("acked", timeout=0.2)


@told
async def test_a_loop_that_is_left_gives_back_what_was_not_settled(world: World) -> None:
    async with agents(world, "bob") as (bob,):
        ids = [(await bob.send("bob", str(number))).id for number in range(3)]
        async with aclosing(bob.receive(prefetch=3)) as deliveries:  # type: ignore[type-var]
            async for _ in deliveries:
                break
        assert [str((await bob.status(key)).stage) for key in ids] == ["stored"] * 3
        assert [(await bob.status(key)).delivery for key in ids] == [1, 1, 1]


@told
async def test_a_cancelled_task_costs_its_call_and_nothing_else(world: World) -> None:
    async with agents(world, "alice", "bob") as (alice, bob):
        await bob.send("bob", "one")
        assert await texts(bob) == ["one"]
        waiting = asyncio.create_task(texts(bob, wait=30))
        await until(lambda: world.call("bob", "ping")["receiving"])
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: not world.call("bob", "ping")["receiving"])
        await alice.send("bob", "two")
        assert await texts(bob) == ["two"]


@told
async def test_a_daemon_that_dies_under_a_busy_agent_costs_it_nothing(world: World) -> None:
    async with agents(world, "alice", "bob") as (alice, bob):
        await bob.send("bob", "a long task")
        async with aclosing(bob.receive(wait=5)) as deliveries:  # type: ignore[type-var]
            async for delivery in deliveries:
                pid = world.only_process("bob")
                os.kill(pid, signal.SIGKILL)
                await until(lambda old=pid: world.processes("bob") not in ([], [old]))  # type: ignore[misc]
                assert (await alice.status(delivery.id, "bob")).stage == "taken"
                await delivery.ack()
                break
        receipt = await alice.status(delivery.id, "bob")
        assert (receipt.stage, receipt.delivery) == ("acked", 1)


@told
async def test_a_frozen_daemon_is_a_timeout_in_time_and_holds_up_nobody_else(world: World) -> None:
    async with agents(world, "alice", "carol") as (alice, carol):
        await carol.send("carol", "here")
        daemon = world.start("bob")
        daemon.freeze()
        begin = time.monotonic()
        frozen = asyncio.create_task(alice.send("bob", "hello?", key="k1", timeout=0.5))
        assert (await alice.send("carol", "quick")).stage == "stored"
        assert not frozen.done()
        with pytest.raises(TimedOut):
            await frozen
        assert 0.4 < time.monotonic() - begin < 3
        crowd = [world.link("bob") for _ in range(512)]
        with pytest.raises(TimedOut):
            await alice.send("bob", "hello?", key="k2", timeout=0.3)
        daemon.thaw()
        for link in crowd:
            link.close()
        assert (await alice.send("bob", "hello?", key="k1")).stage == "stored"
        with pytest.raises(LocalProtocolError):
            await alice.status("k2", "bob")
        assert world.texts("bob") == ["hello?"]


@told
async def test_closing_leaves_no_descriptor_and_no_task(world: World) -> None:
    world.start("bob")
    before, tasks = len(os.listdir("/proc/self/fd")), asyncio.all_tasks()
    async with AsyncAgent("bob", places=world.places) as bob:
        await bob.send("bob", "hello")
        deliveries = bob.receive()
        await anext(deliveries)
        await deliveries.aclose()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before
    assert asyncio.all_tasks() == tasks
