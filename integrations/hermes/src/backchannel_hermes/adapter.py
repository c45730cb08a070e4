"""The gateway platform `backchannel`: has turns taken, and never lets anything but their answers out.

Hermes sends a lot of text that is no answer (errors, progress, notices of a shutdown, what it found again after a
crash), and it may send it late. So `send` sends nothing: it only keeps, for the turn under way, what is marked as
final; `mail` says it when the turn has ended well.
"""

import asyncio
import logging
from typing import Any
from weakref import WeakValueDictionary

from gateway.config import Platform
from gateway.platforms.base import BasePlatformAdapter, MessageEvent, MessageType, ProcessingOutcome, SendResult

from backchannel import BackchannelError
from backchannel.client import Adapter, AsyncAgent, AsyncDelivery

from . import hermes, live
from .chats import Askers, Chat
from .mail import Mail
from .settings import read_settings
from .turns import Outcome, Turn, TurnLog

log = logging.getLogger(__name__)

POLL_S = 0.05  # Hermes has no signal for "this chat is free"
DENY_S_MAX = 10.0  # after Hermes asked for an approval, until its queue has it
DECLARED = Adapter("hermes", wakes=True, mid_turn=False, evidence="turn")
NOBODY = "nobody can approve or answer here: another agent is asking, not a human"


class BackchannelAdapter(BasePlatformAdapter):
    """One agent's gateway end. Several may live in one process (multiplexed profiles): nothing is kept outside."""

    interactive_resume = False  # nobody is there to be asked what next

    def __init__(self, config: Any, turns: TurnLog) -> None:
        super().__init__(config, Platform(hermes.PLATFORM))
        self.profile = hermes.profile_name()
        self.settings = read_settings(config.extra or {}, self.profile)
        self.askers = Askers(hermes.askers_file())
        self.mail: Mail | None = None
        self._turn_log = turns
        self._chat_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._turns_by_chat: dict[tuple[str, str], Turn] = {}  # by (chat_id, thread_id)
        self._causes: dict[str, AsyncDelivery] = {}  # by chat key
        self._denials: set[asyncio.Task[None]] = set()
        self._ended_by_event: dict[int, asyncio.Event] = {}  # by the identity of the event that began the turn

    @property
    def authorization_is_upstream(self) -> bool:
        return True  # the daemon has proved who it is, and `allow` was asked

    # --- connection ---------------------------------------------------------------------------------------------------

    async def connect(self, *, is_reconnect: bool = False) -> bool:
        me = AsyncAgent(self.settings.agent, adapter=DECLARED)
        try:
            await me.sessions(is_open=True)
        except BackchannelError as error:
            log.error("backchannel: agent %s: %s", self.settings.agent, error)
            await me.close()
            return False
        self.mail = Mail(me, self, self.settings, self.askers)
        self.mail.start()
        live.adapters[self.profile] = self
        self._mark_connected()
        return True

    async def disconnect(self) -> None:
        live.adapters.pop(self.profile, None)
        if self.mail is not None:
            await self.mail.stop()
            self.mail = None
        self._mark_disconnected()

    # --- turns --------------------------------------------------------------------------------------------------------

    def own_chat(self, peer: str, session: str = "") -> Chat:
        """The history of one session; messages without one share a history for each peer."""
        return hermes.chat_of(self._source(peer, session))

    def cause_of(self, chat: Chat) -> AsyncDelivery | None:
        """What the turn in this chat acts on, if it was us who began it."""
        return self._causes.get(chat.key)

    async def take_turn(self, chat: Chat, heading: str, text: str, delivery: AsyncDelivery) -> Outcome:
        """One turn in a chat of this gateway, when it is free. Says how it ended."""
        async with self._chat_locks.setdefault(chat.key, asyncio.Lock()):
            adapter = await self._free_adapter(chat)
            if adapter is None:
                return Outcome("stopping")
            turn = self._turn_log.expect(heading)
            self._causes[chat.key] = delivery
            try:
                if adapter is self:
                    await self._own_turn(turn, chat, text, delivery.id)
                else:
                    await self._foreign_turn(adapter, chat, text)
                return self._outcome(turn)
            finally:
                del self._causes[chat.key]
                self._turn_log.forget(turn)

    async def turn_under_way(self, chat: Chat, session_id: str) -> Outcome:
        """How the turn that runs in a chat ends."""
        turn = self._turn_log.expect_next(session_id)
        try:
            await self._until_idle(hermes.adapter_of(self.gateway_runner, chat.platform), chat.key)
            return self._outcome(turn)
        finally:
            self._turn_log.forget(turn)

    async def _own_turn(self, turn: Turn, chat: Chat, text: str, delivery_id: str) -> None:
        event = MessageEvent(
            text=text,
            message_type=MessageType.TEXT,
            source=self._source(chat.chat_id, chat.thread_id),
            message_id=delivery_id,
            **({"allow_gateway_control": False} if hasattr(MessageEvent, "allow_gateway_control") else {}),
        )
        ended = self._ended_by_event[id(event)] = asyncio.Event()
        where = (chat.chat_id, chat.thread_id)
        self._turns_by_chat[where] = turn
        try:
            await self.handle_message(event)
            await ended.wait()
        finally:
            self._turns_by_chat.pop(where, None)
            self._ended_by_event.pop(id(event), None)

    async def _foreign_turn(self, adapter: Any, chat: Chat, text: str) -> None:
        """In a chat of another platform. What is said there goes to that chat, by that platform."""
        source = hermes.source_of(self.gateway_runner, chat)
        await adapter.handle_message(
            MessageEvent(text=text, message_type=MessageType.TEXT, source=source, internal=True)
        )
        await self._until_idle(adapter, chat.key)

    def _outcome(self, turn: Turn) -> Outcome:
        outcome = turn.outcome()
        return Outcome("stopping") if hermes.is_stopping(self.gateway_runner) and not outcome.has_ended else outcome

    async def _free_adapter(self, chat: Chat) -> Any:
        """The adapter of a chat, once nothing runs there; None when the gateway stops."""
        is_missed = False
        while not hermes.is_stopping(self.gateway_runner):
            adapter = hermes.adapter_of(self.gateway_runner, chat.platform)
            if adapter is None and not is_missed and not hermes.is_starting(self.gateway_runner):
                log.warning("backchannel: mail for %s waits until %s is connected", chat.key, chat.platform)
                is_missed = True
            is_ready = adapter is not None and not hermes.is_starting(self.gateway_runner)
            if is_ready and not hermes.is_busy(self.gateway_runner, adapter, chat.key):
                return adapter
            await asyncio.sleep(POLL_S)
        return None

    async def _until_idle(self, adapter: Any, key: str) -> None:
        while hermes.is_busy(self.gateway_runner, adapter, key):
            await asyncio.sleep(POLL_S)

    def _source(self, peer: str, session: str) -> Any:
        return self.build_source(
            chat_id=peer, chat_name=peer, chat_type="dm", user_id=peer, user_name=peer, thread_id=session or None
        )

    # --- what Hermes calls --------------------------------------------------------------------------------------------

    async def handle_message(self, event: Any) -> None:
        """Without Hermes' own resuming of what a restart interrupted: the daemon hands that out again, once, and only
        what was not answered. Hermes takes up everything that was active lately."""
        if event.internal and not (event.text or "").strip():
            return
        await super().handle_message(event)

    async def on_processing_start(self, event: Any) -> None:
        """A turn that nobody of us asked for: a process in the background has ended, say."""
        where = (event.source.chat_id, event.source.thread_id or "")
        if id(event) not in self._ended_by_event and where not in self._turns_by_chat and event.text:
            self._turns_by_chat[where] = self._turn_log.expect(event.text)

    async def on_processing_complete(self, event: Any, outcome: ProcessingOutcome) -> None:
        ended = self._ended_by_event.get(id(event))
        if ended is not None:
            ended.set()
            return
        turn = self._turns_by_chat.get((event.source.chat_id, event.source.thread_id or ""))
        if turn is not None and turn.heading == event.text:
            del self._turns_by_chat[event.source.chat_id, event.source.thread_id or ""]
            self._turn_log.forget(turn)
            said = turn.outcome()
            if said.kind == "answered" and self.mail is not None:
                await self.mail.volunteer(hermes.chat_of(event.source), said.text)

    async def send(
        self, chat_id: str, content: str, reply_to: str | None = None, metadata: dict[str, Any] | None = None
    ) -> SendResult:
        """Always a success: Hermes would send it again, mangled."""
        about = metadata or {}
        turn = self._turns_by_chat.get((chat_id, about.get("thread_id") or ""))
        if turn is not None and about.get("notify") is True:
            turn.finals.append(content)
        else:
            log.debug("backchannel: not sent to %s: %.200s", chat_id, content)
        return SendResult(success=True, message_id="kept")

    async def send_exec_approval(
        self, chat_id: str, command: str, session_key: str, description: str = "", metadata: Any = None, **_: Any
    ) -> SendResult:
        self._denials.add(denial := asyncio.create_task(self._deny(session_key)))
        denial.add_done_callback(self._denials.discard)
        return SendResult(success=True, message_id="denied")

    async def _deny(self, session_key: str) -> None:
        """The request is in Hermes' queue only after it was "sent"."""
        for _ in range(int(DENY_S_MAX / POLL_S)):
            if hermes.deny(session_key, NOBODY):
                return
            await asyncio.sleep(POLL_S)

    async def send_clarify(
        self, chat_id: str, question: str, choices: Any, clarify_id: str, session_key: str, metadata: Any = None
    ) -> SendResult:
        hermes.answer_clarify(clarify_id, f"[{NOBODY}; decide yourself, or put the question into your answer]")
        return SendResult(success=True, message_id="answered")

    async def send_typing(self, chat_id: str, metadata: Any = None) -> None:
        pass

    async def get_chat_info(self, chat_id: str) -> dict[str, Any]:
        return {"name": chat_id, "type": "dm"}

    # Paths are what the answer is about: the peer reads the same disk. Hermes would cut them out, to upload the files.

    @staticmethod
    def extract_local_files(content: str) -> tuple[list[str], str]:
        return [], content

    @staticmethod
    def extract_images(content: str) -> tuple[list[tuple[str, str]], str]:
        return [], content

    @staticmethod
    def extract_media(content: str) -> tuple[list[tuple[str, bool]], str]:
        return [], content.replace("MEDIA:", "")  # the mark alone: later steps would cut out the path behind it
