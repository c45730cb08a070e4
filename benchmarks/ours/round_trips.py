"""Round trips of two texts: to another agent's process, which answers with a text. Both stored, taken and acked.

Through the library as it is: `send` on both sides, `receive` and `ack` on both sides, a daemon for each agent.
"""

import time
from contextvars import copy_context

from backchannel import Agent
from backchannel.client import calls, wire
from backchannel.client.drive import run

from ..bench import Bench, Samples, microseconds
from ..helper import ready
from ..sizes import BIG_TEXT, TEXT, WARM_UP
from .world import LINE_BYTES_MAX, World, places_in


def kept(bench: Bench) -> Samples:
    """Connections as the library keeps them."""
    return _round_trips(bench, TEXT, "kept", bench.sizes.messages)


def new(bench: Bench) -> Samples:
    """Each text is sent over a new connection; those that receive are kept, as everywhere."""
    return _round_trips(bench, TEXT, "new", bench.sizes.messages)


def big(bench: Bench) -> Samples:
    """1 MiB each way."""
    return _round_trips(bench, BIG_TEXT, "kept", bench.sizes.big)


def _round_trips(bench: Bench, text: str, connection: str, count: int) -> Samples:
    world = World(bench)
    world.configure(f"line_bytes_max = {LINE_BYTES_MAX}\n")
    world.up("alice", "bob")
    bench.helper(f"{__name__}:replier", str(bench.folder), connection)
    # Each is a conversation of its own: without this the loop guard would end ours after 16 hops.
    anew = copy_context()
    sender = wire.Caller("alice", world.places)

    def send_new() -> None:
        run(calls.push(sender, "bob", text))
        sender.close()

    with world.agent("alice") as alice:
        answers = alice.receive(wait=30)
        found = []
        for i in range(min(WARM_UP, count) + count):
            began = time.perf_counter_ns()
            if connection == "kept":
                anew.run(alice.send, "bob", text)
            else:
                send_new()
            answer = next(answers)
            ended = time.perf_counter_ns()
            assert len(answer.text) == len(text)
            answer.ack()
            if i >= min(WARM_UP, count):
                found.append(ended - began)
    return microseconds(found)


def replier(folder: str, connection: str) -> None:
    """A role: bob answers every text with the same text, then acks it."""
    places = places_in(folder)
    sender = wire.Caller("bob", places)
    with Agent("bob", places=places) as agent:
        ready()
        for delivery in agent.receive(wait=None):
            if connection == "kept":
                agent.send("alice", delivery.text)
            else:
                run(calls.push(sender, "alice", delivery.text))
                sender.close()
            delivery.ack()
