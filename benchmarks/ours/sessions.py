"""Sessions: a text said in one until the peer's agent has it, beside a message; and from `open` to accepted.

A text of a session is committed by the own daemon, which brings it to the peer's: two hops and two commits where a
message has one. An open is four of each: SYN there, the notice taken, SYN-ACK back, and told.
"""

import time

from backchannel import Agent

from ..bench import Bench, Samples, microseconds, timed_elsewhere
from ..helper import ready, tell
from ..sizes import TEXT
from .world import World, places_in

OPEN_S = 30.0


def data(bench: Bench, idle_s: float) -> Samples:
    """Everybody has slept for so long when a text is said."""
    world = World(bench)
    world.up("alice", "bob")
    reader = bench.helper(f"{__name__}:listener", str(bench.folder))
    with world.agent("alice") as alice, alice.open("bob", task="listen", timeout=OPEN_S) as session:
        return timed_elsewhere(lambda: session.send(TEXT), reader, bench.sizes.one_way, idle_s)


def opens(bench: Bench) -> Samples:
    """An agent that waits for offers accepts each at once."""
    world = World(bench)
    world.up("alice", "bob")
    bench.helper(f"{__name__}:acceptor", str(bench.folder))
    found = []
    with world.agent("alice") as alice:
        for _ in range(bench.sizes.one_way + 1):
            began = time.perf_counter_ns()
            session = alice.open("bob", task=TEXT, timeout=OPEN_S)
            found.append(time.perf_counter_ns() - began)
            session.abort("measured")
    return microseconds(found[1:])


def listener(folder: str) -> None:
    """A role: accepts one session, and tells when it has each text."""
    with Agent("bob", places=places_in(folder)) as agent:
        ready()
        for request in agent.requests(wait=None):
            for said in request.accept():
                tell(time.monotonic_ns())
                assert said.text == TEXT
            return


def acceptor(folder: str) -> None:
    """A role: accepts whatever is offered."""
    with Agent("bob", places=places_in(folder)) as agent:
        ready()
        for request in agent.requests(wait=None):
            request.accept().detach()
