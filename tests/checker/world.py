"""Two ends and the network between them: which worlds follow from a world.

The network is the set of all frames that were ever given to it. Any of them may arrive at any later time, again and
again, or never: that is loss, delay, repetition and overtaking in one. Answers come back over the connection that
carried the frame, so they are lost, or arrive at once, or (with `slow_answers`) arrive once and later.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from backchannel.protocol.effects import Answer
from backchannel.protocol.endpoint import EndpointSnapshot
from backchannel.protocol.session import Local, Session
from backchannel.protocol.sessionframe import Probe, SessionFrame
from backchannel.protocol.states import State

from .node import Disk, Node, Result, step


@dataclass(frozen=True)
class Config:
    """What the agents and the faults may do. Pairs are (initiator, acceptor)."""

    name: str
    sends: tuple[int, int] = (1, 1)
    aborts: tuple[bool, bool] = (False, False)
    gives_up: bool = False
    rejects: bool = False
    forgets: bool = False
    probes: bool = True
    slow_answers: bool = False
    lost: tuple[int, int] = (0, 0)
    new_id: bool = True
    rolls_back: tuple[int, int] = (0, 0)
    """How many of its last commits an end may lose, once."""
    new_epoch: bool = True

    @property
    def loses_data(self) -> bool:
        return any(self.lost) or any(self.rolls_back)

    @property
    def ends_early(self) -> bool:
        return any(self.aborts) or self.gives_up


class World(NamedTuple):
    """Nodes, frames and answers stand for themselves by number (see `Worlds`). `network` has a bit for each frame."""

    nodes: tuple[int, int]
    network: int = 0
    faults: tuple[int, int] = (0, 0)
    answers: tuple[int | None, int | None] = (None, None)
    """On the way to a and to b."""


class Event(NamedTuple):
    """What leads from a world to the next, told in words by `Worlds.tell`."""

    side: int
    what: str
    thing: int | None = None


Step = tuple[int, int, int | None]
"""The node after a step, the frames it gave to the network as bits, and its answer."""


class Worlds:
    """All worlds of one configuration. A node's step is computed once, however many worlds contain it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.nodes: list[Node] = []
        self.node_numbers: dict[Node, int] = {}
        self.things: list[SessionFrame | Answer] = []
        self.thing_numbers: dict[SessionFrame | Answer, int] = {}
        self.steps: dict[tuple[int, str, int | None], Step | None] = {}
        self.calls = cache(self._calls)
        self.rows = cache(self._rows)
        self.probe_of = cache(self._probe_of)

    def start(self) -> World:
        return World((self.number(Node("a", "b", "A1")), self.number(Node("b", "a", "B1"))))

    def number(self, node: Node) -> int:
        if node not in self.node_numbers:
            self.node_numbers[node] = len(self.nodes)
            self.nodes.append(node)
        return self.node_numbers[node]

    def thing(self, thing: SessionFrame | Answer) -> int:
        if thing not in self.thing_numbers:
            self.thing_numbers[thing] = len(self.things)
            self.things.append(thing)
        return self.thing_numbers[thing]

    def step(self, node: int, action: str, thing: int | None = None) -> Step | None:
        key = (node, action, thing)
        try:
            return self.steps[key]
        except KeyError:
            pass
        before = self.nodes[node]
        history = 0 if before.epoch > 1 else self.config.rolls_back[before.name == "b"]
        argument = None if thing is None else self.things[thing]
        self.steps[key] = self._numbered(step(before, action, argument, history=history))
        return self.steps[key]

    def _numbered(self, result: Result | None) -> Step | None:
        if result is None:
            return None
        bits = 0
        for frame in result.frames:
            bits |= self._bit(self.thing(frame))
        return self.number(result.node), bits, None if result.answer is None else self.thing(result.answer)

    def _bit(self, frame: int) -> int:
        """A PROBE is not kept by the network: an old one says less than the one that can be sent at any time."""
        return 0 if isinstance(self.things[frame], Probe) else 1 << frame

    def tell(self, event: Event) -> str:
        words = f"{'ab'[event.side]} {event.what}"
        if event.thing is None:
            return words
        thing = self.things[event.thing]
        if isinstance(thing, Answer):
            return f"{words} {thing.outcome.value} for {thing.frame.kind} {thing.frame.number}"
        return f"{words} {thing.id.kind} {thing.id.number} (epoch {thing.epoch})"

    # -- what may happen -------------------------------------------------------------------------------------------

    def following(self, world: World) -> Iterator[tuple[Event, World]]:
        """All worlds one step further, each with what happened."""
        slow = self.config.slow_answers
        for side in (0, 1):
            for call in self.calls(world.nodes[side]):
                yield from self._alone(world, side, call)
            for row in self.rows(world.nodes[side]):
                yield from self._push(world, side, row, slow=slow)
            yield from self._probe(world, side, slow=slow)
            yield from self._late_answer(world, side)
            yield from self._fault(world, side)
        for frame in bits_of(world.network):
            side = self.towards(frame)
            after = self.step(world.nodes[side], "receive", frame)
            if after and after[0] != world.nodes[side]:
                yield Event(side, "receives", frame), self._with(world, side, after[0], after[1])

    def towards(self, frame: int) -> int:
        thing = self.things[frame]
        assert not isinstance(thing, Answer)
        return 0 if thing.from_mailbox[0] == "B" else 1

    def _calls(self, number: int) -> list[str]:
        """What the agent of this node may do now, within the configuration."""
        node, config = self.nodes[number], self.config
        side = int(node.name == "b")
        state, agent = node.session.state, node.agent
        calls = {
            "open": side == 0 and not agent.opened,
            "accept": state is State.SYN_RECEIVED,
            "reject": state is State.SYN_RECEIVED and config.rejects,
            "send": state in (State.ESTABLISHED, State.CLOSE_WAIT) and agent.sent < config.sends[side],
            "close": state in (State.ESTABLISHED, State.CLOSE_WAIT),
            "ack": bool(node.disk.mail),
            "abort": config.aborts[side] and state.is_open and not agent.aborted,
            "give up": config.gives_up and state is State.SYN_SENT,
            "forget": config.forgets and state is State.CLOSED and not agent.forgot,
        }
        return [call for call, possible in calls.items() if possible]

    def _rows(self, number: int) -> list[int]:
        """The outbox as it may be pushed: in the epoch of the day, held back while a PROBE must come first."""
        node = self.nodes[number]
        local = Local(node.mailbox, node.epoch)
        session = Session(local, node.session)
        pushed = (session.outgoing(row) for row in node.disk.outbox)
        return [self.thing(frame) for frame in pushed if frame]

    def _alone(self, world: World, side: int, call: str) -> Iterator[tuple[Event, World]]:
        after = self.step(world.nodes[side], call)
        if after:
            yield Event(side, call), self._with(world, side, after[0], after[1])

    def _push(self, world: World, side: int, frame: int, *, slow: bool) -> Iterator[tuple[Event, World]]:
        """Push a frame; its answer comes back, at once or later. (Without an answer: the network's affair.)"""
        there = self.step(world.nodes[1 - side], "receive", frame)
        if there is None:
            return
        node, bits, answer = there
        arrived = self._with(world, 1 - side, node, bits | self._bit(frame))
        if slow and world.answers[side] is None:
            yield Event(side, "pushes", frame), self._with_answer(arrived, side, answer)
        elif not slow and (back := self.step(world.nodes[side], "answered", answer)):
            yield Event(side, "pushes, and hears", answer), self._with(arrived, side, back[0], back[1])

    def _probe(self, world: World, side: int, *, slow: bool) -> Iterator[tuple[Event, World]]:
        if self.config.probes and (probe := self.probe_of(world.nodes[side])) is not None:
            yield from self._push(world, side, probe, slow=slow)

    def _probe_of(self, number: int) -> int | None:
        result = step(self.nodes[number], "probe")
        return next((self.thing(f) for f in result.frames if isinstance(f, Probe)), None) if result else None

    def _late_answer(self, world: World, side: int) -> Iterator[tuple[Event, World]]:
        answer = world.answers[side]
        if answer is not None:
            if back := self.step(world.nodes[side], "answered", answer):
                read = self._with(world, side, back[0], back[1])
                yield Event(side, "hears", answer), self._with_answer(read, side, None)
            yield Event(side, "never hears", answer), self._with_answer(world, side, None)

    def _fault(self, world: World, side: int) -> Iterator[tuple[Event, World]]:
        node, config = self.nodes[world.nodes[side]], self.config
        used = world.faults[side]
        if used < config.lost[side]:
            mailbox = f"{node.mailbox[0]}{used + 2}" if config.new_id else node.mailbox
            agent = node.agent._replace(offers=0)
            lost = node._replace(mailbox=mailbox, disk=Disk(EndpointSnapshot()), agent=agent, history=())
            yield Event(side, "loses its database"), self._faulty(world, side, lost)
        if not used:
            for k in range(1, min(config.rolls_back[side], len(node.history)) + 1):
                epoch = node.epoch + 1 if config.new_epoch else node.epoch
                back = node._replace(disk=node.history[-k], epoch=epoch, history=())
                yield Event(side, f"loses its last {k} commits"), self._faulty(world, side, back)

    def _faulty(self, world: World, side: int, node: Node) -> World:
        faults = (world.faults[0] + (side == 0), world.faults[1] + (side == 1))
        return self._with_answer(self._with(world, side, self.number(node), 0), side, None)._replace(faults=faults)

    def _with(self, world: World, side: int, node: int, bits: int) -> World:
        a, b = world.nodes
        return world._replace(nodes=(node, b) if side == 0 else (a, node), network=world.network | bits)

    def _with_answer(self, world: World, side: int, answer: int | None) -> World:
        to_a, to_b = world.answers
        return world._replace(answers=(answer, to_b) if side == 0 else (to_a, answer))

    # -- without luck ----------------------------------------------------------------------------------------------

    def fair(self, world: World) -> World | None:
        """One step of a time in which nothing fails and both agents want to finish; None when nothing is left."""
        for side in (0, 1):
            if world.answers[side] is not None:
                return next(self._late_answer(world, side))[1]
        for side in (0, 1):
            for row in self.rows(world.nodes[side]):
                for _, after in self._push(world, side, row, slow=False):
                    if after.nodes != world.nodes:
                        return after
        for side in (0, 1):
            for _, after in self._probe(world, side, slow=False):
                if after.nodes != world.nodes:
                    return after
        for side in (0, 1):
            for call in ("accept", "ack", "close"):
                if call in self.calls(world.nodes[side]):
                    for _, after in self._alone(world, side, call):
                        return after
        return None

    def is_quiet(self, world: World) -> bool:
        """Nothing under way: no row to push, no answer to come, and where data may be lost, no PROBE would tell."""
        if world.answers != (None, None) or any(self.nodes[n].disk.outbox for n in world.nodes):
            return False
        if not self.config.loses_data:
            return True
        return all(after.nodes == world.nodes for side in (0, 1) for _, after in self._probe(world, side, slow=False))


def bits_of(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
