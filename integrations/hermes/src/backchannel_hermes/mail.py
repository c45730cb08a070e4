"""From the agent's daemon to turns of Hermes and back: takes mail, has a turn taken for it, settles it.

The rules, each against something that went wrong with naive bridges:

* A delivery is acknowledged in the commit that sends what the turn said, and not before the turn ended. Killed in
  between, it is handed out again, and nothing was answered yet. An offered task is held by its notice (`offer`) in the
  same way: accepted at once, acknowledged with the first answer.
* One answer is owed for a task, for a text in a session that a peer opened, and for a message that is no answer
  itself. Nothing else owes one, so two polite agents fall silent by themselves.
* Who opened a session hears its peer in the chat that asked. What is said there goes to that chat; more goes to the
  peer only by a tool.
* A turn that failed says nothing. It is tried again, slower each time; who gave the task is told how it stands, and in
  the end that it failed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Protocol

from backchannel import BackchannelError, LocalProtocolError, OverLimit, PeerAbsent, Refused
from backchannel.client import AsyncAgent, AsyncDelivery, AsyncRequest, SessionRecord

from . import words
from .chats import Askers, Chat
from .settings import RETRY_S_MAX, Settings
from .turns import Awaited, Outcome

log = logging.getLogger(__name__)

SESSION_MAIL = ("offer", "accepted", "rejected", "data", "finished", "reset")
MESSAGES = ("message", "bounce", "loop")
MESSAGES_HELD = 32  # leased and waiting for their peer's chat to be free; the rest waits in the daemon
TAKE_AGAIN_S = 2.0  # after the daemon could not be reached, or said "not now"
ANSWER_CHARS_MAX = 200_000  # a line of the wire is 1 MiB, and a character up to 4 bytes
REASON_CHARS_MAX = 900
NOTE_CHARS_MAX = 200
TOLD_MAX = 1000  # a notice comes within moments of the tool's error

Kept = Coroutine[Any, Any, None]


class Gateway(Protocol):
    """What has turns taken: the adapter."""

    def own_chat(self, peer: str, session: str = "") -> Chat: ...

    async def take_turn(self, chat: Chat, heading: str, text: str, delivery: AsyncDelivery) -> Outcome: ...

    async def turn_under_way(self, chat: Chat, session_id: str) -> Outcome: ...


class Stopping(Exception):
    """The gateway ends: what is under way is for the next one."""


class Mail:
    """The mail of one agent, as long as its gateway runs."""

    def __init__(self, me: AsyncAgent, gateway: Gateway, settings: Settings, askers: Askers) -> None:
        self._me = me
        self._gateway = gateway
        self._settings = settings
        self._askers = askers
        self._tasks: set[asyncio.Task[None]] = set()
        self._held = asyncio.Semaphore(MESSAGES_HELD)
        self._working: set[str] = set()  # sessions of peers in which a turn is under way
        self.told: deque[str] = deque(maxlen=TOLD_MAX)  # messages of which a tool has said that they came to nothing
        self.awaited: dict[str, Awaited] = {}  # by the id of the question

    def start(self) -> None:
        self._keep(self._take(SESSION_MAIL, self._session_mail))
        self._keep(self._take(MESSAGES, self._message_or_notice))

    async def stop(self) -> None:
        """What is not settled is given back, for the next gateway."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._me.close()

    def _keep(self, work: Kept) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- taking -------------------------------------------------------------------------------------------------------

    async def _take(self, kinds: tuple[str, ...], handle: Callable[[AsyncDelivery], Awaitable[None]]) -> None:
        while True:
            try:
                async with aclosing(self._me.receive(wait=None, kinds=kinds)) as mail:  # type: ignore[type-var]
                    async for delivery in mail:
                        if kinds is MESSAGES:
                            await self._held.acquire()
                        self._keep(self._handled(delivery, handle))
            except BackchannelError as error:
                log.warning("backchannel: cannot take mail: %s", error)
            await asyncio.sleep(TAKE_AGAIN_S)

    async def _handled(self, delivery: AsyncDelivery, handle: Callable[[AsyncDelivery], Awaitable[None]]) -> None:
        try:
            await handle(delivery)
        except Stopping:
            pass  # not settled: handed to the next gateway
        except Exception:
            log.exception("backchannel: %s %s", delivery.kind, delivery.id)
            await self._give_back(delivery)
        finally:
            self._working.discard(delivery.session or "")
            if delivery.kind in MESSAGES:
                self._held.release()

    async def _give_back(self, delivery: AsyncDelivery) -> None:
        """Not at once: the fifth time it is dead."""
        await asyncio.sleep(RETRY_S_MAX / 10)
        try:
            await delivery.release()
        except BackchannelError as error:
            log.warning("backchannel: %s", error)

    async def _session_mail(self, delivery: AsyncDelivery) -> None:
        record = await self._me.look(str(delivery.session))
        is_ours = record.role == "initiator"
        match delivery.kind:
            case "offer":
                await self._task(delivery, record)
            case "data" if is_ours:
                await self._to_asker(delivery, "text of agent", words.TO_ASKER)
                await self._ack(delivery)
            case "data" if record.is_open:
                self._working.add(record.id)
                await self._work(delivery, "text of agent", delivery.text)
            case "finished":
                if is_ours and (delivery.text or delivery.headers.get("status") == "failed"):
                    word = "failed" if delivery.headers.get("status") == "failed" else "result"
                    await self._to_asker(delivery, f"{word} of agent", words.OVER)
                await self._settle(delivery, closes=[(str(delivery.session), "", "ok")])
            case "rejected" if is_ours:
                await self._to_asker(delivery, "rejected by agent", words.OVER)
                await self._ack(delivery)
            case "reset" if record.reason != "idle_timeout":
                await self._tell(delivery, is_ours=is_ours)
            case _:
                await self._ack(delivery)

    async def _message_or_notice(self, delivery: AsyncDelivery) -> None:
        asked = delivery.reply_to
        if delivery.kind == "message" and not self._settings.may_write(delivery.sender):
            await delivery.reject(f"{self._me.name} takes no messages from {delivery.sender}")
        elif self._is_awaited(delivery):
            await self._to_waiting_tool(delivery, self.awaited.pop(str(asked)))
        elif delivery.kind != "message":
            await self._notice(delivery)
        elif asked is not None:
            await self._to_asker(delivery, "answer of agent", words.REPLY_TO_ASKER)
            await self._ack(delivery)
        else:
            await self._request(delivery)

    # --- tasks: sessions that a peer opened ---------------------------------------------------------------------------

    async def _task(self, offer: AsyncDelivery, record: SessionRecord) -> None:
        if not record.is_open:
            await self._ack(offer)
            return
        is_offered = record.state == "SYN-RECEIVED"
        refusal = self._refusal(offer.sender) if is_offered else None
        if refusal is not None:
            await self._answer_offer(record.id, lambda request: request.reject(*refusal))
            await self._ack(offer)
            return
        self._working.add(record.id)  # at once: the next offer is judged while we wait
        if is_offered and self._settings.accept == "all":
            await self.accept(record.id)
            is_offered = False
        await self._work(offer, "task of agent", record.task, words.OFFER if is_offered else "")

    def _refusal(self, peer: str) -> tuple[str, float | None] | None:
        """Why not, and when again; None: welcome."""
        if not self._settings.may_write(peer):
            return f"{self._me.name} takes no tasks from {peer}", None
        if len(self._working) >= self._settings.at_once:
            return f"busy: {len(self._working)} tasks are being worked on", self._settings.busy_retry_s
        return None

    async def accept(self, session_id: str) -> None:
        """Accepts an offer, if it is one still."""

        async def answer(request: AsyncRequest) -> None:
            session = await request.accept(max_messages=self._settings.texts_max)
            await session.detach()  # its mail comes to us with that of all the others

        await self._answer_offer(session_id, answer)

    async def _answer_offer(self, session_id: str, answer: Callable[[AsyncRequest], Awaitable[Any]]) -> None:
        async with aclosing(self._me.requests(wait=0)) as requests:  # type: ignore[type-var]
            async for request in requests:
                if request.id == session_id:
                    try:
                        await answer(request)
                    except LocalProtocolError as gone:
                        log.info("backchannel: %s", gone)
                    return

    async def _work(self, delivery: AsyncDelivery, kind: str, text: str, note: str = "") -> None:
        """A turn for a peer's text in a session it opened, and the answer."""
        session_id = str(delivery.session)
        chat = self._gateway.own_chat(delivery.sender, session_id)
        outcome = await self._turn(chat, delivery, kind, text, note, self._settings.attempts)
        if note and outcome.kind in ("answered", "silent"):
            await self.accept(session_id)  # the model did not refuse it
        if outcome.kind == "answered":
            await self._settle(delivery, says=[(session_id, outcome.text)])
        elif outcome.kind == "silent":
            await self._ack(delivery)
        else:
            await self._settle(delivery, closes=[(session_id, _reason(outcome), "failed")])

    # --- messages -----------------------------------------------------------------------------------------------------

    async def _request(self, delivery: AsyncDelivery) -> None:
        """A message that is owed an answer."""
        chat = self._gateway.own_chat(delivery.sender)
        outcome = await self._turn(chat, delivery, "message of", delivery.text, "", self._settings.attempts)
        try:
            if outcome.kind == "answered":
                await self._patiently(lambda: delivery.reply(outcome.text))
            elif outcome.kind == "silent":
                await self._ack(delivery)
            else:
                await delivery.reject(_reason(outcome))
        except PeerAbsent as error:  # who asked was removed meanwhile
            log.info("backchannel: nobody to answer: %s", error)
            await self._ack(delivery)

    def _is_awaited(self, delivery: AsyncDelivery) -> bool:
        """Whether it is the answer, or the notice that none will come; not somebody else's who calls it so."""
        awaited = self.awaited.get(delivery.reply_to or "")
        return awaited is not None and (delivery.kind != "message" or delivery.sender == awaited.peer)

    async def _to_waiting_tool(self, delivery: AsyncDelivery, waiting: Awaited) -> None:
        """The answer is part of a turn under way; if that does not end well, the chat is woken with it."""
        if delivery.kind == "message":
            waiting.answer.set_result(delivery.text)
        else:
            waiting.answer.set_exception(Refused(delivery.text, reason=delivery.text))
        outcome = await self._gateway.turn_under_way(waiting.chat, waiting.session_id)
        if outcome.kind == "stopping":
            raise Stopping
        if not outcome.has_ended:
            await self._to_asker(delivery, "answer of agent", words.REPLY_TO_ASKER)
        await self._ack(delivery)

    async def _notice(self, delivery: AsyncDelivery) -> None:
        """A daemon's word: a message of ours came to nothing, or somebody talks too much."""
        if delivery.reply_to in self.told:
            await self._ack(delivery)
            return
        peer = delivery.headers.get("to") or delivery.sender
        what = "undeliverable to agent" if delivery.kind == "bounce" else "loop stopped by the daemon of"
        await self._to_asker(delivery, what, words.NO_ANSWER_OWED, peer=peer)
        await self._ack(delivery)

    # --- the chat that asked ------------------------------------------------------------------------------------------

    async def _to_asker(self, delivery: AsyncDelivery, kind: str, note: str, peer: str = "") -> None:
        """Wakes the chat that asked, and comes back when its turn ended. An unknown one is the peer's own chat."""
        peer = peer or delivery.sender
        chat = self._askers.of(delivery.session or delivery.reply_to or "")
        if chat is None:
            chat, note = self._gateway.own_chat(peer, delivery.session or ""), words.NO_ANSWER_OWED
        note = note.format(peer=peer, session=delivery.session)
        outcome = await self._turn(chat, delivery, kind, delivery.text, note, None, peer=peer)
        if outcome.kind == "answered" and chat.platform == "backchannel":
            await self._pass_on(delivery, chat, outcome.text)

    async def _pass_on(self, delivery: AsyncDelivery, chat: Chat, text: str) -> None:
        """The chat that asked belongs to another agent, which waits for what we found out."""
        asker = self._askers.of(delivery.session or delivery.reply_to or "")
        if asker is None or chat.key != asker.key:
            return
        if chat.thread_id:
            await self._settle(delivery, says=[(chat.thread_id, text)])
        elif chat.chat_id != "@user":
            await self._patiently(
                lambda: self._me.send(chat.chat_id, text, reply_to=chat.message_id or None, key=f"{delivery.id}/on")
            )

    async def _tell(self, delivery: AsyncDelivery, *, is_ours: bool) -> None:
        """The session ended otherwise than by both closing it."""
        if is_ours:
            await self._to_asker(delivery, "session ended with agent", words.OVER)
        else:
            chat = self._gateway.own_chat(delivery.sender, str(delivery.session))
            note = words.OVER.format(peer=delivery.sender)
            await self._turn(chat, delivery, "session ended with agent", delivery.text, note, 1)
        await self._ack(delivery)

    # --- a turn, and what comes of it ---------------------------------------------------------------------------------

    async def _turn(
        self,
        chat: Chat,
        delivery: AsyncDelivery,
        kind: str,
        text: str,
        note: str,
        attempts: int | None,
        *,
        peer: str = "",
    ) -> Outcome:
        """Tries until a turn ended; at most `attempts` times (None: without end). Raises `Stopping`."""
        heading = words.heading(kind, peer or delivery.sender, delivery.id)
        whole = words.composed(heading, text, note, is_again=delivery.delivery > 1)
        pause, attempt = self._settings.retry_s, 1
        while True:
            outcome = await self._gateway.take_turn(chat, heading, whole, delivery)
            if outcome.kind == "stopping":
                raise Stopping
            if len(outcome.text) > ANSWER_CHARS_MAX:
                return Outcome("incomplete", f"the answer has {len(outcome.text)} characters: too many for one message")
            if outcome.kind != "failed" or attempt == attempts:
                return outcome
            log.warning("backchannel: the turn for %s failed (%s); again in %g s", delivery.id, outcome.text, pause)
            if delivery.session is not None:
                await self._progress(delivery.session, f"a turn failed; trying again in {pause:g} s")
            await asyncio.sleep(pause)
            pause, attempt = min(pause * 2, RETRY_S_MAX), attempt + 1

    async def volunteer(self, chat: Chat, text: str) -> None:
        """What Hermes said in a peer's session by itself: a background process has ended, say."""
        if not chat.thread_id:
            return
        try:
            record = await self._me.look(chat.thread_id)
            if record.role == "acceptor":
                await self._me.commit(sends=[(record, text)])
        except BackchannelError as error:
            log.info("backchannel: not said to %s: %s", chat.chat_id, error)

    async def _settle(
        self,
        delivery: AsyncDelivery,
        says: list[tuple[str, str]] | None = None,
        closes: list[tuple[str, str, str]] | None = None,
    ) -> None:
        """The ack and what the turn said, in one commit. Where the session is over it is the ack alone."""
        sends = [(await self._me.look(session_id), text) for session_id, text in says or ()]
        ends = [(await self._me.look(session_id), text, status) for session_id, text, status in closes or ()]
        try:
            await self._patiently(lambda: self._me.commit(acks=[delivery], sends=sends, closes=ends, evidence="turn"))
        except (LocalProtocolError, Refused) as error:
            if error.code not in ("session_state", "budget"):
                raise
            log.info("backchannel: not said, the session is over: %s", error)
            await self._ack(delivery)

    async def _ack(self, delivery: AsyncDelivery) -> None:
        if not delivery.is_settled:
            await delivery.ack(evidence="turn")

    async def _patiently(self, call: Callable[[], Awaitable[Any]]) -> None:
        """An answer is not lost because the peer's mailbox is full, or ours too fast."""
        while True:
            try:
                await call()
                return
            except OverLimit as error:
                if error.code == "oversize":
                    raise
                log.warning("backchannel: %s", error)
            await asyncio.sleep(TAKE_AGAIN_S)

    async def _progress(self, session_id: str, note: str) -> None:
        try:
            session = await self._me.session(session_id)
            await session.progress(note[:NOTE_CHARS_MAX])
            await session.detach()
        except BackchannelError:
            pass  # it is a courtesy


def _reason(outcome: Outcome) -> str:
    return (outcome.text or "the turn failed")[:REASON_CHARS_MAX]
