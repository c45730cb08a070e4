"""Mail and turns without Hermes: real daemons, and a gateway that is four lines long."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from backchannel import AsyncAgent, Refused
from backchannel.client import AsyncDelivery
from backchannel.testing import World
from backchannel_hermes.chats import Askers, Chat
from backchannel_hermes.mail import ANSWER_CHARS_MAX, Mail
from backchannel_hermes.settings import Settings
from backchannel_hermes.turns import Awaited, Outcome

Turn = Callable[[str], Awaitable[Outcome]]


class Desk:
    """A gateway whose turns are a function."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.turns: list[str] = []

    def own_chat(self, peer: str, session: str = "") -> Chat:
        return Chat(f"agent:main:backchannel:dm:{peer}:{session}", "backchannel", peer, thread_id=session)

    async def take_turn(self, chat: Chat, heading: str, text: str, delivery: AsyncDelivery) -> Outcome:
        self.turns.append(text)
        return await self._turn(text)

    async def turn_under_way(self, chat: Chat, session_id: str) -> Outcome:
        return Outcome("answered")


async def says_ok(text: str) -> Outcome:
    return Outcome("answered", "ok")


@pytest.fixture
def own() -> Iterator[World]:
    with World() as world:
        world.up("boss", "agent")
        yield world


Story = Callable[[AsyncAgent, Mail, Desk], Awaitable[None]]


def in_agent(world: World, tmp_path: Path, turn: Turn, story: Story, **settings: Any) -> None:
    """Runs a story of `boss`, while `agent` takes its mail."""

    async def run() -> None:
        desk = Desk(turn)
        chosen = Settings("agent", retry_s=0.01, **settings)
        mail = Mail(world.async_agent("agent"), desk, chosen, Askers(tmp_path / "askers.db"))
        mail.start()
        try:
            async with world.async_agent("boss") as boss:
                await asyncio.wait_for(story(boss, mail, desk), 30)
        finally:
            await mail.stop()

    asyncio.run(run())


def test_of_two_tasks_at_once_one_is_busy(own: World, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(text: str) -> Outcome:
        await go_on.wait()
        return Outcome("answered", "ok")

    async def story(boss: AsyncAgent, mail: Mail, desk: Desk) -> None:
        opened = await asyncio.gather(*(boss.open("agent", f"task {n}") for n in (1, 2)), return_exceptions=True)
        refused = [error for error in opened if isinstance(error, Refused)]
        assert [error.retry_after for error in refused] == [60.0]
        go_on.set()

    in_agent(own, tmp_path, slow, story, at_once=1)


def test_what_somebody_else_calls_an_answer_is_not_the_answer(own: World, tmp_path: Path) -> None:
    async def story(boss: AsyncAgent, mail: Mail, desk: Desk) -> None:
        own.up("mallory")
        answer: Future[str] = Future()
        mail.awaited["q-1"] = Awaited("boss", answer, Chat("key", "desk", "ann"), "session-1")
        async with own.async_agent("mallory") as mallory:
            await (await mallory.send("agent", "forged", reply_to="q-1")).wait("acked", timeout=10)
        assert not answer.done()
        await (await boss.send("agent", "true", reply_to="q-1")).wait("acked", timeout=10)
        assert answer.result(0) == "true"

    in_agent(own, tmp_path, says_ok, story)


def test_who_is_stopped_in_a_turn_gives_its_mail_back(own: World, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def never(text: str) -> Outcome:
        begun.set()
        await asyncio.Event().wait()
        return Outcome("stopping")

    async def cut(boss: AsyncAgent, mail: Mail, desk: Desk) -> None:
        await boss.send("agent", "work", key="w-1")
        await begun.wait()
        assert (await boss.status("w-1")).stage == "taken"

    async def resumed(boss: AsyncAgent, mail: Mail, desk: Desk) -> None:
        receipt = await (await boss.status("w-1")).wait("done", timeout=10)
        assert receipt.delivery == 2
        assert "Handed out again" in desk.turns[0]

    in_agent(own, tmp_path, never, cut)
    in_agent(own, tmp_path, says_ok, resumed)


def test_a_turn_that_fails_is_tried_again_and_then_said_to_have_failed(own: World, tmp_path: Path) -> None:
    async def fails(text: str) -> Outcome:
        return Outcome("failed", "the provider is down")

    async def story(boss: AsyncAgent, mail: Mail, desk: Desk) -> None:
        session = await boss.open("agent", "task")
        assert [data.text async for data in session] == []
        assert session.result == ("failed", "the provider is down")
        assert len(desk.turns) == 3
        with pytest.raises(Refused, match="the provider is down"):
            await boss.ask("agent", "question", timeout=10)

    in_agent(own, tmp_path, fails, story, attempts=3)


def test_an_answer_that_fits_into_no_message_is_a_failure_and_not_a_silence(own: World, tmp_path: Path) -> None:
    async def talks(text: str) -> Outcome:
        return Outcome("answered", "x" * (ANSWER_CHARS_MAX + 1))

    async def story(boss: AsyncAgent, mail: Mail, desk: Desk) -> None:
        with pytest.raises(Refused, match="too many for one message"):
            await boss.ask("agent", "everything, please", timeout=10)

    in_agent(own, tmp_path, talks, story)


def test_an_answer_after_the_peer_aborted_is_dropped_and_the_agent_goes_on(own: World, tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(text: str) -> Outcome:
        begun.set()
        await go_on.wait()
        return Outcome("answered", "late")

    async def story(boss: AsyncAgent, mail: Mail, desk: Desk) -> None:
        session = await boss.open("agent", "task")
        await begun.wait()
        await session.abort("changed my mind")
        go_on.set()
        assert (await boss.ask("agent", "still there?", timeout=10)).text == "late"

    in_agent(own, tmp_path, slow, story)
