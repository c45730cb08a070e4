"""From hand to hand: `Agent.send` until another process has the text from `Agent.receive`, committed before that."""

import time

from backchannel import Agent

from ..bench import Bench, Samples, timed_elsewhere
from ..helper import ready, tell
from ..sizes import TEXT
from .world import World, places_in


def idle(bench: Bench, idle_s: float) -> Samples:
    """Everybody has slept for so long when a message is sent."""
    world = World(bench)
    world.up("alice", "bob")
    reader = bench.helper(f"{__name__}:reader", str(bench.folder))
    with world.agent("alice") as alice:
        return timed_elsewhere(lambda: alice.send("bob", TEXT), reader, bench.sizes.one_way, idle_s)


def reader(folder: str) -> None:
    """A role: tells when it has each text."""
    with Agent("bob", places=places_in(folder)) as agent:
        ready()
        for delivery in agent.receive(wait=None):
            now = time.monotonic_ns()
            assert delivery.text == TEXT
            delivery.ack()
            tell(now)
