"""What the model can do: write to agents, ask them, open sessions with them, and end those.

Hermes runs a tool in a thread of its own, so these block. Which chat asked is remembered before anything is sent: an
answer may be faster than we are, or come after a restart.
"""

import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from backchannel import BackchannelError, LocalProtocolError, Refused, TimedOut
from backchannel.client import acting_on

from . import hermes, live
from .chats import Askers, Chat
from .settings import Settings, read_settings
from .turns import Awaited

if TYPE_CHECKING:  # registered in every process of Hermes: imported when the first tool is called
    from backchannel.client import Agent, AsyncDelivery, Receipt

TASK_CHARS_SHOWN = 200
LOOK_S = 0.5  # how often a waiting tool looks whether it was interrupted
LATER = "no answer yet; when it comes, it comes into this chat by itself. Do not ask again"

_agents: "dict[str, Agent]" = {}


NOTICES = ("bounce", "loop")  # a daemon's own words


class Me(NamedTuple):
    """Who calls: the agent, and the chat whose turn it is. Outside a gateway there is no adapter, and no chat."""

    agent: "Agent"
    settings: Settings
    adapter: Any
    chat: Chat | None

    @property
    def cause(self) -> "AsyncDelivery | None":
        """What the turn acts on; None: what a person wrote."""
        if self.adapter is None or self.chat is None:
            return None
        cause: AsyncDelivery | None = self.adapter.cause_of(self.chat)
        return cause

    def remember(self, asked_id: str) -> None:
        if self.chat is not None:
            askers = self.adapter.askers if self.adapter is not None else Askers(hermes.askers_file())
            askers.remember(asked_id, self.chat)


def whoami() -> Me:
    profile = hermes.profile_name()
    adapter = live.adapter_for(profile)
    settings = adapter.settings if adapter is not None else read_settings(hermes.configured_extra(), profile)
    if settings.agent not in _agents:
        from backchannel.client import Agent

        _agents[settings.agent] = Agent(settings.agent)
    return Me(_agents[settings.agent], settings, adapter, hermes.current_chat())


# --- the tools --------------------------------------------------------------------------------------------------------


def send(me: Me, to: str = "", text: str = "", session: str = "") -> dict[str, Any]:
    if bool(to) == bool(session):
        raise LocalProtocolError("name one of `to` and `session`", code="bad_params")
    if session:
        (receipt,) = me.agent.commit(sends=[(me.agent.look(session), text)])
        return {"sent": receipt.id, "to": receipt.to}
    _check_may_send(me, to)
    message_id = _new_id()
    me.remember(message_id)
    receipt = _send(me, to, text, message_id)
    return {
        "sent": receipt.id,
        "to": to,
        "stage": receipt.stage.value,
        "note": "an answer comes into this chat by itself",
    }


def ask(me: Me, to: str, question: str, timeout_s: float = 60.0) -> dict[str, Any]:
    _check_may_send(me, to)
    timeout = min(float(timeout_s), me.settings.ask_s_max)
    if me.adapter is None or me.chat is None:
        return {"from": to, "answer": me.agent.ask(to, question, timeout=timeout).text}
    message_id = _new_id()
    me.remember(message_id)
    answer: Future[str] = Future()
    awaited = me.adapter.mail.awaited
    awaited[message_id] = Awaited(to, answer, me.chat, hermes.current_session_id())
    try:
        _send(me, to, question, message_id)
        _wait(answer, timeout)
    finally:
        is_given_up = awaited.pop(message_id, None) is not None
    if is_given_up:
        return {"from": to, "answer": None, "note": LATER}
    return {"from": to, "answer": answer.result()}


def _wait(answer: "Future[str]", timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not answer.done() and time.monotonic() < deadline and not hermes.is_interrupted():
        wait([answer], LOOK_S)


def open_session(me: Me, to: str, task: str, timeout_s: float = 60.0) -> dict[str, Any]:
    _check_may_send(me, to)
    timeout = min(float(timeout_s), me.settings.open_s_max)
    session = me.agent.open(
        to, task, timeout=timeout, max_messages=me.settings.texts_max, idle_timeout=me.settings.idle_s
    )
    me.remember(session.id)
    session.detach()  # not before: what the peer says is looked for under this id
    return {
        "session": session.id, "peer": to, "state": "accepted",
        "note": f"what {to} says comes into this chat by itself; close the session when you need nothing more",
    }  # fmt: skip


def accept(me: Me, session: str) -> dict[str, Any]:
    for request in me.agent.requests(wait=0):
        if request.id == session:
            request.accept(max_messages=me.settings.texts_max).detach()
            return {"session": session, "state": "accepted"}
    raise LocalProtocolError(
        f"{session} is not on offer", code="session_state", hint="it may be accepted, or withdrawn"
    )


def close(
    me: Me, session: str, result: str = "", status: str = "ok", retry_after_s: float | None = None
) -> dict[str, Any]:
    if status == "rejected":
        for request in me.agent.requests(wait=0):
            if request.id == session:
                request.reject(result or "no", retry_after=retry_after_s)
                return {"session": session, "state": "rejected"}
        status = "failed"  # accepted already: what is left is to say that it will not be done
    record = me.agent.look(session)
    if status == "aborted":
        held = me.agent.session(session)
        held.abort(result or "aborted")
        held.detach()
    else:
        me.agent.commit(closes=[(record, result, status)])
    return {"session": session, "state": me.agent.look(session).state}


def agents(me: Me) -> dict[str, Any]:
    found = [
        {"name": agent.name, "state": "down" if agent.down else "paused" if agent.paused else "here"}
        for agent in me.agent.agents()
        if agent.name != me.agent.name
    ]
    return {"you": me.agent.name, "agents": found}


def inbox(me: Me) -> dict[str, Any]:
    sessions = [
        {
            "session": record.id, "peer": record.peer, "you": "asked" if record.role == "initiator" else "work",
            "state": record.state, "task": record.task[:TASK_CHARS_SHOWN], "progress": record.progress,
        }
        for record in me.agent.sessions(is_open=True)
    ]  # fmt: skip
    return {"you": me.agent.name, "sessions": sessions, "messages": [] if me.adapter is not None else _read(me.agent)}


def _read(agent: "Agent") -> list[dict[str, Any]]:
    """What waits, where no gateway takes it: read by being returned, so it is acknowledged here."""
    found = []
    for delivery in agent.receive(wait=0, kinds=("message", "bounce", "data", "rejected", "reset")):
        found.append(
            {"kind": delivery.kind, "from": delivery.sender, "text": delivery.text, "id": delivery.id,
             "session": delivery.session, "reply_to": delivery.reply_to}
        )  # fmt: skip
        delivery.ack(evidence="flush")
    return found


# --- their descriptions -----------------------------------------------------------------------------------------------


class Tool(NamedTuple):
    name: str
    description: str
    parameters: dict[str, Any]
    required: list[str]
    call: Callable[..., dict[str, Any]]

    @property
    def schema(self) -> dict[str, Any]:
        parameters = {"type": "object", "properties": self.parameters, "required": self.required}
        return {"name": self.name, "description": self.description, "parameters": parameters}

    def handler(self, args: dict[str, Any], **_: Any) -> str:
        """What Hermes calls. An error is an answer too: the model is to read it."""
        known = {key: value for key, value in args.items() if key in self.parameters and value is not None}
        try:
            me = whoami()
            with acting_on(me.cause):
                answer = self.call(me, **known)
        except BackchannelError as error:
            answer = {"error": error.message, "code": error.code, "hint": error.hint}
            if isinstance(error, TimedOut):
                answer["waited_s"] = error.waited
            if getattr(error, "retry_after", None) is not None:
                answer["retry_after_s"] = error.retry_after  # type: ignore[attr-defined]
        except (TypeError, ValueError) as wrong:
            answer = {"error": str(wrong), "code": "bad_params"}
        return json.dumps(answer, ensure_ascii=False)


def _text(about: str) -> dict[str, str]:
    return {"type": "string", "description": about}


_TO = _text("the agent's name, as backchannel_agents lists it")
_SESSION = _text("the session's id, s-...")
_SECONDS = {"type": "number", "description": "how long to wait, in seconds"}

TOOLS = (
    Tool(
        "backchannel_send",
        "Send a text to another agent on this machine, or into a session you opened. Does not wait: an answer comes "
        "into this chat by itself, as a new message. Do not send thanks or confirmations.",
        {"to": _TO, "session": _SESSION, "text": _text("what to say")},
        ["text"],
        send,
    ),
    Tool(
        "backchannel_ask",
        "Ask another agent one question and wait for its answer. Use it when you need the answer to go on.",
        {
            "to": _TO,
            "question": _text("the whole question; the agent knows nothing of this chat"),
            "timeout_s": _SECONDS,
        },
        ["to", "question"],
        ask,
    ),
    Tool(
        "backchannel_open",
        "Give another agent a task and open a session for it: it may refuse, with a reason; what it says comes into "
        "this chat as new messages, and you may say more with backchannel_send.",
        {"to": _TO, "task": _text("the whole task; the agent knows nothing of this chat"), "timeout_s": _SECONDS},
        ["to", "task"],
        open_session,
    ),
    Tool(
        "backchannel_accept",
        "Accept a task that was offered to you, before you begin a long piece of work.",
        {"session": _SESSION},
        ["session"],
        accept,
    ),
    Tool(
        "backchannel_close",
        "End a session: you have said all. As the one who works, `result` is your result, and `failed` says that it "
        "did not work out; `rejected` refuses a task that was offered to you; `aborted` ends it at once for both.",
        {
            "session": _SESSION,
            "result": _text("the result, or the reason"),
            "status": {"type": "string", "enum": ["ok", "failed", "rejected", "aborted"]},
            "retry_after_s": {"type": "number", "description": "with rejected: when to ask again, in seconds"},
        },
        ["session"],
        close,
    ),
    Tool("backchannel_agents", "The other agents on this machine.", {}, [], agents),
    Tool("backchannel_inbox", "Your open sessions with other agents, and what waits unread.", {}, [], inbox),
)


# --- helpers ----------------------------------------------------------------------------------------------------------


def _check_may_send(me: Me, to: str) -> None:
    if me.cause is not None and me.cause.kind in NOTICES:  # it follows from nothing: a loop could begin anew with it
        raise Refused("this turn is about what came to nothing", code="notice", hint="say so; a person may ask again")
    if to == me.agent.name:
        raise LocalProtocolError(
            f"you are {to} yourself", code="bad_params", hint="backchannel_agents lists the others"
        )


def _send(me: Me, to: str, text: str, message_id: str) -> "Receipt":
    try:
        return me.agent.send(to, text, key=message_id)
    except BackchannelError:
        if me.adapter is not None:
            me.adapter.mail.told.append(message_id)  # the model reads it now; it needs no notice of it as well
        raise


def _new_id() -> str:
    return f"hermes-{uuid.uuid4().hex}"
