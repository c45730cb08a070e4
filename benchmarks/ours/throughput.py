"""Messages a second from several senders to one mailbox, while an agent takes and acks them."""

import time
from functools import partial

from backchannel import Agent
from backchannel.client import calls, wire
from backchannel.client.drive import run

from ..bench import Bench, Samples, flood
from ..helper import flood as flood_role
from ..helper import ready, tell
from ..sizes import TEXT
from .world import World, places_in

PREFETCH = 100  # a consumer that has much to do asks for much


def senders(bench: Bench, senders: int, connection: str, until: str) -> Samples:
    """`until` the last is `stored` (acknowledged to its sender), or `acked` (consumed, and the mailbox knows)."""
    world = World(bench)
    names = [f"sender{i}" for i in range(senders)]
    world.up("sink", *names)
    count = bench.sizes.flood
    consumer = bench.helper(f"{__name__}:consumer", str(bench.folder), str(count * senders))
    role = f"{__name__}:sender"
    helpers = [bench.helper_unready(role, str(bench.folder), name, connection, str(count)) for name in names]
    return flood(helpers, count, consumer if until == "acked" else None)


def sender(folder: str, name: str, connection: str, count: str) -> None:
    """A role: sends so many texts."""
    if connection == "kept":
        with Agent(name, places=places_in(folder)) as agent:
            flood_role(partial(agent.send, "sink", TEXT), int(count))
        return
    caller = wire.Caller(name, places_in(folder))

    def once() -> None:
        run(calls.push(caller, "sink", TEXT))
        caller.close()

    flood_role(once, int(count))


def consumer(folder: str, count: str) -> None:
    """A role: takes and acks so many texts, and tells when the last is acked."""
    left = int(count)
    with Agent("sink", places=places_in(folder)) as agent:
        ready()
        for delivery in agent.receive(wait=None, prefetch=PREFETCH):
            delivery.ack()
            left -= 1
            if left == 0:
                break
        tell(time.monotonic_ns())
