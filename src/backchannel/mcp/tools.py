"""The tools: each a call or two of the client, what it found in the shape the model was told, and the next step.

Their signatures and first lines are what the model reads; they are few and flat. None waits longer than `WAIT_S_MAX`,
since clients give up on a call that takes longer: who needs more asks again.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..client import (
    UNTRUSTED,
    Adapter,
    AsyncAgent,
    AsyncDelivery,
    SessionRecord,
    calls,
    quoted,
    rendered,
    sessioncalls,
    wire,
)
from ..client.aiodrive import run
from ..client.render import marked
from ..errors import LocalProtocolError, Refused
from .mail import STEP_S, Mail
from .shapes import Agents, Answer, Inbox, Message, Neighbour, Receipt, Rejected, Session, Settled, Status

if TYPE_CHECKING:
    from ..transport.paths import Places

WAIT_S_MAX = 50.0  # the shortest limit of a client that we know of is 60 s
MESSAGES_MAX = 50
ACCEPT_S = 300.0  # how long an offer stands, as in the library
TEXT_CHARS_SHOWN = 300  # of a task or a result in a list

Name = Annotated[str, Field(description="the agent's name, as the tool agents lists it")]
Text = Annotated[str, Field(description="what to say; the other agent knows nothing of your conversation")]
MessageId = Annotated[str, Field(description="the id of a message, as inbox gave it")]
SessionId = Annotated[str, Field(description="the session's id, s-...")]
Seconds = Annotated[float, Field(ge=0, le=WAIT_S_MAX, description=f"how long to wait, at most {WAIT_S_MAX:g} s")]


class Tools:
    """The tools of one agent for one client."""

    def __init__(
        self, name: str, adapter: Adapter | None = None, places: "Places | None" = None, step_s: float = STEP_S
    ) -> None:
        self.me = AsyncAgent(name, places=places, adapter=adapter)
        self.mail = Mail(self.me, step_s)
        self.caller = wire.Caller(name, places)
        self._adapter = adapter
        self._attached = wire.Stream()
        self._attaching = asyncio.Lock()  # calls of one step come side by side, and a connection carries one at a time

    async def attach(self) -> None:
        """Holds a connection to the daemon, so that others see that we are here and what we can do. A daemon that was
        restarted is told again."""
        adapter = self._adapter._asdict() if self._adapter is not None else None
        params = {"take_id": wire.new_id("t"), "resume": True, "adapter": adapter}
        async with self._attaching:
            await run(wire.stream_call(self.caller, self._attached, "take", params, wire.CALL_S))

    async def close(self) -> None:
        """Leaves: what was not settled is handed out again."""
        await self.mail.close()
        self._attached.close()
        self.caller.close()
        await self.me.close()

    # --- messages -----------------------------------------------------------------------------------------------------

    async def send(
        self,
        to: Name,
        text: Text,
        reply_to: Annotated[str, Field(description="the id of a message that this refers to")] = "",
        urgent: Annotated[bool, Field(description="handed out before what waits already")] = False,
        key: Annotated[str, Field(description="of your choice: the same key and text again is stored once")] = "",
    ) -> Receipt:
        """Send a message to another agent on this machine; it is kept until that agent has it. Does not wait for an
        answer: one comes into your inbox. Send no thanks and no confirmations."""
        self._check_target(to)
        receipt = await self.me.send(
            to, text, key=key or None, priority="urgent" if urgent else None, reply_to=reply_to or None
        )
        return _receipt(receipt.raw)

    async def ask(self, to: Name, question: Text, wait_s: Seconds = 30.0) -> Answer:
        """Ask another agent a question and wait for the answer. One that comes later lies in your inbox."""
        self._check_target(to)
        (answer,) = await self.mail.hold(self.me.answers(to, question, timeout=wait_s))
        return {"id": answer.id, "sender": answer.sender, "text": rendered(answer)}

    async def inbox(
        self,
        wait_s: Seconds = 0.0,
        count: Annotated[int, Field(ge=1, le=MESSAGES_MAX, description="how many at most")] = 10,
    ) -> Inbox:
        """Read what other agents sent you. It is handed to you and counts as received when you go on with another of
        these tools; otherwise it comes again. With wait_s it waits for the first message, if none is there."""
        found = await self.mail.take(wait_s, count)
        state = await run(calls.status(self.caller, self.me.name))
        return {
            "messages": [await self._message(delivery) for delivery in found],
            "more_waiting": max(0, state["backlog"] - len(self.mail.held)),
            "note": UNTRUSTED if found else "nothing waits",
        }

    async def reply(self, id: MessageId, text: Text) -> Receipt:
        """Answer a message from your inbox: it is done, and the text goes to its sender."""
        delivery = self.mail.held.get(id)
        if delivery is not None:
            return _receipt((await delivery.reply(text)).raw)
        (receipt,) = (await run(calls.commit(self.caller, {"replies": [{"id": id, "text": text}]})))["sends"]
        return _receipt(receipt)

    async def ack(self, ids: Annotated[list[str], Field(description="ids from inbox")]) -> Settled:
        """Say that you have these messages, when you will use none of these tools any more."""
        held = self.mail.held
        for id in ids:
            if id in held:
                await self.mail.settle(held[id], "ack")
            else:
                await self._ack_by_id(id)
        return {"acked": ids}

    # --- the others ---------------------------------------------------------------------------------------------------

    async def agents(self) -> Agents:
        """The other agents on this machine, whether they are there, and how much waits for them."""
        found: list[Neighbour] = [
            {"name": agent.name, "presence": agent.presence, "waiting": agent.backlog, "wakes": agent.wakes}
            for agent in await self.me.agents()
            if agent.name != self.me.name
        ]
        return {"you": self.me.name, "agents": found}

    # --- sessions -----------------------------------------------------------------------------------------------------

    async def open_session(
        self,
        to: Name,
        task: Text,
        wait_s: Seconds = 20.0,
        max_messages: Annotated[int, Field(ge=0, description="texts both ways, then it ends; 0: as configured")] = 0,
    ) -> Session:
        """Give another agent a task: it accepts or rejects it, both may say more, and it ends with a result. Waits for
        the acceptance; if that takes longer the offer stands for five minutes, and the answer comes into your inbox."""
        self._check_target(to)
        limits = {"max_messages": max_messages or None}
        offered = await run(sessioncalls.offer(self.caller, wire.new_id("s"), to, task, ACCEPT_S, **limits))
        until = time.monotonic() + wait_s
        watching = sessioncalls.watch_until(self.caller, offered, lambda now: now["state"] != "SYN-SENT", until)
        answered = await run(watching)
        record = SessionRecord(answered)
        if record.state == "SYN-SENT":
            return self._session(record, f"not answered yet: inbox will tell whether {to} accepts")
        await self._drop_notices(record)
        if record.cause is not None:
            raise sessioncalls.ended(answered)
        return self._session(record, f"what {to} says comes into your inbox")

    async def accept(self, session: SessionId) -> Session:
        """Accept a task that was offered to you. Then work on it, and end with close_session and your result."""
        session = _session_of(session)
        record = SessionRecord(await run(sessioncalls.accept(self.caller, session)))
        await self._settle_offer(session)
        return self._session(record, "close_session with your result when you are done")

    async def reject(
        self,
        id: Annotated[str, Field(description="of a message, or of the session of an offered task")],
        reason: Annotated[str, Field(description="why; the sender is told")],
        retry_after_s: Annotated[float, Field(ge=0, description="of a task: when to ask again; 0: never")] = 0.0,
    ) -> Rejected:
        """Refuse a message or an offered task, with the reason."""
        session = _session_of(id)
        if sessioncalls.is_session(session):
            await run(sessioncalls.reject(self.caller, session, reason, retry_after_s or None))
            await self._settle_offer(session)
            return {"id": session, "state": "rejected"}
        delivery = self.mail.held.get(id)
        if delivery is not None:
            await delivery.reject(reason)
        else:
            await self.me.reject(id, reason)
        return {"id": id, "state": "rejected"}

    async def say(
        self,
        session: SessionId,
        text: Text,
        needs_answer: Annotated[bool, Field(description="you cannot go on without an answer")] = False,
    ) -> Session:
        """Say something in an open session. What the other says comes into your inbox."""
        session = _session_of(session)
        await run(sessioncalls.say(self.caller, session, text, wire.CALL_S, input_required=needs_answer))
        return self._session(await self.me.look(session))

    async def close_session(
        self,
        session: SessionId,
        result: Annotated[str, Field(description="your result, or why it ends")] = "",
        status: Annotated[
            Literal["ok", "failed", "aborted"], Field(description="aborted ends it at once for both")
        ] = "ok",
    ) -> Session:
        """End a session: you have said all. As the one who works on the task, give your result."""
        session = _session_of(session)
        if status == "aborted":
            record = await run(sessioncalls.abort(self.caller, session, result or "aborted"))
        else:
            record = await run(sessioncalls.close(self.caller, session, result, status))
        return self._session(SessionRecord(record))

    async def status(
        self, id: Annotated[str, Field(description="of a message you sent, or of a session; empty: yourself")] = ""
    ) -> Status:
        """What became of a message you sent, how a session stands, or your own mailbox and open sessions."""
        if sessioncalls.is_session(session := _session_of(id)):
            return {"you": self.me.name, "session": self._session(await self.me.look(session))}
        if id:
            return {"you": self.me.name, "message": _receipt((await self.me.status(id)).raw)}
        state = await run(calls.status(self.caller, self.me.name))
        held = list(self.mail.held)
        return {
            "you": self.me.name,
            "waiting": max(0, state["backlog"] - len(held)),
            "held": held,
            "paused": state["paused"],
            "sessions": [self._session(record) for record in await self.me.sessions(is_open=True)],
        }

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _check_target(self, to: str) -> None:
        if to == self.me.name:
            raise LocalProtocolError(f"you are {to} yourself", code="bad_params", hint="agents lists the others")

    async def _ack_by_id(self, id: str) -> None:
        """What another process took for us, or what this model has shown it read already."""
        try:
            await self.me.ack(id)
        except Refused as ended:
            if ended.code != "ended" or (await self.me.status(id, to=self.me.name)).stage not in ("acked", "done"):
                raise

    async def _message(self, delivery: AsyncDelivery) -> Message:
        message: Message = {
            "id": delivery.id,
            "kind": delivery.kind,
            "sender": delivery.sender,
            "text": rendered(delivery),
            "next": await self._next(delivery),
        }
        if delivery.session is not None:
            message["session"] = delivery.session
        if delivery.reply_to is not None:
            message["answers"] = delivery.reply_to
        if delivery.delivery > 1:
            message["handed_out_before"] = delivery.delivery - 1
        return message

    async def _next(self, delivery: AsyncDelivery) -> str:
        """What may be done with it, in our words."""
        again = ""
        if delivery.delivery > 1:
            again = "It was handed out before: do not repeat what you have done. "
        match delivery.kind:
            case "message" if delivery.reply_to is None:
                return again + "reply, if an answer is owed"
            case "offer":
                return again + "accept or reject it, with its session"
            case "accepted":
                return again + "what it says will come here; say tells it more"
            case "data":
                return again + "say answers in its session, close_session ends it"
            case "finished":
                record = await self.mail.session_of(delivery)
                if record is not None and record.role == "acceptor" and record.is_open:
                    return again + "it will say no more: close_session with your result"
                return again + "the session is over"
            case "loop":
                return again + "stop answering; begin a new message if there is something new"
        return again + "nothing is owed"

    def _session(self, record: SessionRecord, next: str = "") -> Session:
        def theirs(kind: str, text: str) -> str:
            return marked(kind, record.peer, f"{record.id}/{kind}", text[:TEXT_CHARS_SHOWN])

        found: Session = {
            "session": record.id,
            "peer": record.peer,
            "you": record.role,
            "state": record.state,
            "task_state": record.task_state,
            "task": theirs("task", record.task) if record.role == "acceptor" else record.task[:TEXT_CHARS_SHOWN],
            "unread": record.unread,
        }
        if record.progress is not None:
            found["progress"] = theirs("progress", record.progress)
        if record.result is not None:
            is_theirs = record.role == "initiator"
            found["result"] = theirs("result", record.result) if is_theirs else record.result[:TEXT_CHARS_SHOWN]
        if record.reason:
            found["reason"] = quoted(record.reason)
        if next:
            found["next"] = next
        return found

    async def _settle_offer(self, session: str) -> None:
        """The notice of what was answered now."""
        notice = self.mail.held.get(f"{session}/offer")
        if notice is not None:
            await self.mail.settle(notice, "turn")

    async def _drop_notices(self, record: SessionRecord) -> None:
        """The model is told in the answer; mail that says the same would be the second time."""
        async for notice in self.me.receive(kinds=("accepted", "rejected", "reset"), session=record.id):
            await notice.ack()


def _receipt(raw: Any) -> Receipt:
    receipt: Receipt = {"id": raw["id"], "to": raw["to"], "stage": raw["stage"]}
    if raw.get("reason"):
        receipt["reason"] = quoted(raw["reason"])
    if raw.get("evidence"):
        receipt["evidence"] = raw["evidence"]
    if raw.get("reply_id"):
        receipt["answer_id"] = raw["reply_id"]
    return receipt


def _session_of(some_id: str) -> str:
    """The session, if it was named by a piece of its mail."""
    session, is_mail, _ = some_id.partition("/")
    return session if is_mail and sessioncalls.is_session(session) else some_id
