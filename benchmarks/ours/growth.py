"""What becomes slower as a mailbox fills and agents grow in number: it should be nothing."""

from ..bench import Bench, Samples, timed
from ..sizes import TEXT
from .world import World, with_waiting

FEW = 3  # agents; what a person starts with


def put(bench: Bench, waiting: int) -> Samples:
    """An acknowledged send over a kept connection, with so many waiting: none (-1), or one of the sizes."""
    count = 0 if waiting < 0 else bench.sizes.waiting[waiting]
    world = with_waiting(bench, count)
    with world.agent("alice") as alice:
        samples = timed(lambda: alice.send("sink", TEXT), bench.sizes.slow_messages)
    return Samples(samples.values, f"{count} waiting")


def take(bench: Bench, waiting: int) -> Samples:
    """Taking the oldest and acking it; without waiting messages just those that are taken."""
    count = 0 if waiting < 0 else bench.sizes.waiting[waiting]
    world = with_waiting(bench, count)
    takes = bench.sizes.slow_messages
    with world.agent("alice") as alice:
        alice.send_many("sink", [TEXT] * (2 * takes))
    with world.agent("sink") as sink:
        received = sink.receive(wait=10)
        samples = timed(lambda: next(received).ack(), takes)
    return Samples(samples.values, f"{count} waiting")


def agents(bench: Bench, many: int) -> Samples:
    """An acknowledged send over a kept connection in a process with so many idle agents: few (-1), or a size."""
    count = FEW if many < 0 else bench.sizes.agents[many]
    world = World(bench)
    world.up_in_one_process("alice", "sink", *(f"idle{i}" for i in range(count)))
    with world.agent("alice") as alice:
        samples = timed(lambda: alice.send("sink", TEXT), bench.sizes.slow_messages)
    return Samples(samples.values, f"{count} idle agents")
