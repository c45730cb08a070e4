"""One end: the production endpoint, what its disk holds, its agent, and what the agent truly did.

A node is a value. Every step makes the endpoint anew from what is on the disk, so every step is also a restart, and
whatever the machine kept only in memory is lost. What the agent did (`Agent`) is kept beside the disk: it is the truth
that the invariants compare with, and does not roll back.
"""

from typing import NamedTuple

from msgspec.structs import replace

from backchannel.errors import BackchannelError
from backchannel.protocol.effects import (
    Answer,
    Deliver,
    Effect,
    Enqueue,
    Forget,
    Leave,
    Report,
    Strike,
    StrikeAll,
    Transmit,
)
from backchannel.protocol.endpoint import Endpoint, EndpointSnapshot
from backchannel.protocol.events import SessionOffered
from backchannel.protocol.session import Local, Snapshot
from backchannel.protocol.sessionframe import Data, Fin, FrameId, Limits, SessionFrame

SESSION = "s"
NOW = 0.0
LATER = 8 * 86_400.0  # after every tombstone
LIMITS = Limits()

Row = Data | Fin


class Disk(NamedTuple):
    """What one transaction writes: the session, the outbox, and the agent's mail."""

    endpoint: EndpointSnapshot = EndpointSnapshot()
    session: Snapshot | None = None
    outbox: tuple[SessionFrame, ...] = ()
    mail: tuple[Row, ...] = ()


class Agent(NamedTuple):
    """The truth about one agent. `receipted` are the bodies whose outbox row left because the peer has them."""

    opened: bool = False
    offers: int = 0
    accepted: bool = False
    rejected: bool = False
    sent: int = 0
    closed: bool = False
    aborted: bool = False
    gave_up: bool = False
    forgot: bool = False
    processed: tuple[str, ...] = ()
    receipted: tuple[str, ...] = ()


class Node(NamedTuple):
    name: str
    peer: str
    mailbox: str
    epoch: int = 1
    disk: Disk = Disk()
    agent: Agent = Agent()
    history: tuple[Disk, ...] = ()
    unforeseen: str = ""
    """An exception of the machine that is not an error of its caller."""

    @property
    def session(self) -> Snapshot:
        return self.disk.session or Snapshot(SESSION, self.peer)


class Result(NamedTuple):
    """The node after a step, the frames that entered the network, and the answer if the input was a frame."""

    node: Node
    frames: tuple[SessionFrame, ...] = ()
    answer: Answer | None = None


def step(node: Node, action: str, argument: object = None, *, history: int = 0) -> Result | None:
    """What the node does; None if it may not."""
    sessions = [node.disk.session] if node.disk.session else []
    endpoint = Endpoint.restore(Local(node.mailbox, node.epoch), node.disk.endpoint, sessions, NOW)
    try:
        effects, agent = act(endpoint, node, action, argument)
        changes = endpoint.changes()
        sayings = endpoint.committed(changes.pass_number, NOW)
    except BackchannelError:
        return None
    except Exception as error:  # whatever it is, the search must name the way to it
        return Result(node._replace(unforeseen=repr(error)))
    session = next((replace(s, version=0) for s in changes.sessions), node.disk.session)
    disk = Disk(
        endpoint=changes.endpoint or node.disk.endpoint,
        session=None if Forget(SESSION) in effects else session,
        outbox=outbox_after(node.disk.outbox, effects),
        mail=mail_after(node, action, argument, effects),
    )
    offered = sum(isinstance(e, Report) and isinstance(e.event, SessionOffered) for e in effects)
    agent = agent._replace(
        offers=agent.offers + offered,
        receipted=with_new(agent.receipted, leaving(node.disk.outbox, effects)),
    )
    past = (*node.history, node.disk)[-history:] if history and disk != node.disk else node.history
    answers = [s for s in sayings if isinstance(s, Answer)]
    assert len(answers) == (action == "receive"), "every frame has one answer, and nothing else has"
    return Result(
        node._replace(disk=disk, agent=agent, history=past),
        tuple(s.frame for s in sayings if isinstance(s, Transmit)),
        answers[0] if answers else None,
    )


def act(endpoint: Endpoint, node: Node, action: str, argument: object) -> tuple[list[Effect], Agent]:
    agent = node.agent
    match action, argument:
        case "open", _:
            return endpoint.open(SESSION, node.peer, "task", LIMITS, NOW), agent._replace(opened=True)
        case "accept", _:
            return endpoint.accept(SESSION, NOW), agent._replace(accepted=True)
        case "reject", _:
            return endpoint.reject(SESSION, "busy", NOW), agent._replace(rejected=True)
        case "send", _:
            body = f"{node.name}{agent.sent + 1}"
            return endpoint.send(SESSION, body, NOW), agent._replace(sent=agent.sent + 1)
        case "ack", _:
            row = node.disk.mail[0]
            done = agent._replace(processed=with_new(agent.processed, [said(row)]))
            return endpoint.ack(SESSION, row.seq, NOW), done
        case "close", _:
            return endpoint.close(SESSION, NOW, result=node.name), agent._replace(closed=True)
        case "abort", _:
            return endpoint.abort(SESSION, "enough", NOW), agent._replace(aborted=True)
        case "give up", _:  # the accept_timeout
            at = LIMITS.accept_timeout
            assert at is not None
            return endpoint.handle_timer(at), agent._replace(gave_up=True)
        case "forget", _:
            return endpoint.handle_timer(LATER), agent._replace(forgot=True)
        case "probe", _:
            return endpoint.probe(SESSION, NOW), agent
        case "receive", frame:
            return endpoint.receive(node.peer, frame, NOW), agent  # type: ignore[arg-type]
        case "answered", Answer() as answer:
            return endpoint.answered(answer, NOW), agent
    raise AssertionError(action)


def outbox_after(rows: tuple[SessionFrame, ...], effects: list[Effect]) -> tuple[SessionFrame, ...]:
    for effect in effects:
        match effect:
            case Enqueue(frame=frame):
                assert frame.id not in [row.id for row in rows], "a row is put once"
                rows = (*rows, frame)
            case Strike(frame=frame_id):
                rows = tuple(row for row in rows if row.id != frame_id)
            case StrikeAll():
                rows = ()
    return rows


def mail_after(node: Node, action: str, argument: object, effects: list[Effect]) -> tuple[Row, ...]:
    mail = node.disk.mail[1:] if action == "ack" else node.disk.mail
    return (*mail, *(e.frame for e in effects if isinstance(e, Deliver)))


def leaving(rows: tuple[SessionFrame, ...], effects: list[Effect]) -> list[str]:
    """What was said in the rows that leave because the peer has them."""
    struck: set[FrameId] = {
        e.frame for e in effects if isinstance(e, Strike) and e.why in (Leave.RECEIPTED, Leave.ACKED)
    }
    return [said(row) for row in rows if row.id in struck and isinstance(row, Data | Fin)]


def said(row: Row) -> str:
    return row.body if isinstance(row, Data) else "FIN"


def with_new(known: tuple[str, ...], more: list[str]) -> tuple[str, ...]:
    return (*known, *(word for word in more if word not in known))
