"""Acknowledged sends: until the receipt `stored` is in our hands. Nobody receives, so it is the cost of accepting."""

from backchannel.client import calls, wire
from backchannel.client.drive import run

from ..bench import Bench, Samples, flood, timed
from ..helper import flood as flood_role
from ..sizes import TEXT
from .world import World, places_in, sender_and_sink


def new(bench: Bench, durability: str) -> Samples:
    """Each over a connection of its own: connect, push, receipt, close. As the command line does it."""
    _, caller = sender_and_sink(bench)

    def once() -> None:
        run(calls.push(caller, "sink", TEXT, durability=durability))
        caller.close()

    return timed(once, _count(bench, durability))


def kept(bench: Bench, durability: str) -> Samples:
    """`Agent.send`, which keeps its connection for a moment."""
    world = World(bench)
    world.up("alice", "sink")
    with world.agent("alice") as alice:
        return timed(lambda: alice.send("sink", TEXT, durability=durability), _count(bench, durability))


def together(bench: Bench, senders: int) -> Samples:
    """Power-durable sends by so many processes at once, each over a new connection: they share the flush."""
    world = World(bench)
    world.up("sink", *(f"sender{i}" for i in range(senders)))
    count = bench.sizes.flood // senders
    role = f"{__name__}:power_sender"
    helpers = [bench.helper_unready(role, str(bench.folder), f"sender{i}", str(count)) for i in range(senders)]
    return flood(helpers, count)


def power_sender(folder: str, name: str, count: str) -> None:
    """A role: pushes power-durable texts, each over a new connection."""
    caller = wire.Caller(name, places_in(folder))

    def once() -> None:
        run(calls.push(caller, "sink", TEXT, durability="power"))
        caller.close()

    flood_role(once, int(count))


def _count(bench: Bench, durability: str) -> int:
    return bench.sizes.slow_messages if durability == "power" else bench.sizes.messages
