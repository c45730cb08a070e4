"""Breadth first through all worlds of a configuration, until an invariant breaks or there are no more."""

import time
from collections import deque
from dataclasses import dataclass, field
from functools import cache

from .invariants import broken
from .world import Config, Event, World, Worlds


@dataclass
class Verdict:
    """`violation` is empty if all holds; else it names the invariant, and `way` is the shortest way to it."""

    config: Config
    worlds: int = 0
    steps: int = 0
    nodes: int = 0
    seconds: float = 0.0
    violation: str = ""
    way: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        result = self.violation or "holds"
        return f"{self.config.name:42} {self.worlds:>9,} worlds {self.steps:>10,} steps {self.seconds:6.1f} s  {result}"


def search(config: Config, *, watching: str = "", most: int = 50_000_000) -> Verdict:
    """The verdict over all worlds that can be reached; raises if there are more than `most`.

    `watching` one invariant leaves the others unheeded: to see that it too would find the fault.
    """
    began = time.process_time()
    worlds = Worlds(config)
    start = worlds.start()
    came_from: dict[World, tuple[World, Event] | None] = {start: None}
    ends_well: set[World] = set()
    frontier = deque([start])
    verdict = Verdict(config)
    while frontier:
        world = frontier.popleft()
        verdict.violation = violated(worlds, world, ends_well, watching)
        if verdict.violation:
            verdict.way = [worlds.tell(event) for event in way_to(world, came_from)]
            break
        for event, after in worlds.following(world):
            verdict.steps += 1
            if after not in came_from:
                came_from[after] = (world, event)
                frontier.append(after)
        if len(came_from) > most:
            raise RuntimeError(f"{config.name}: more than {most:,} worlds")
    names_broken.cache_clear()
    verdict.worlds, verdict.nodes = len(came_from), len(worlds.nodes)
    verdict.seconds = time.process_time() - began
    return verdict


def violated(worlds: Worlds, world: World, ends_well: set[World], watching: str) -> str:
    for name in names_broken(worlds, world.nodes, world.faults, worlds.is_quiet(world)):
        if watching in ("", name):
            return name
    return endless(worlds, world, ends_well) if watching in ("", "P1") else ""


@cache
def names_broken(worlds: Worlds, nodes: tuple[int, int], faults: tuple[int, int], quiet: bool) -> tuple[str, ...]:
    """As `broken`: it looks at the nodes only, and many worlds differ by their network alone."""
    a, b = (worlds.nodes[number] for number in nodes)
    return tuple(broken(worlds.config, a, b, faults, quiet))


def endless(worlds: Worlds, world: World, ends_well: set[World]) -> str:
    """P1: from here, with nothing failing any more, the session ends at both ends and the outboxes empty."""
    chain: list[World] = []
    on_chain = set()
    while (key := world._replace(network=0)) not in ends_well:
        if key in on_chain:
            return "P1: goes in a circle"
        chain.append(key)
        on_chain.add(key)
        following = worlds.fair(world)
        if following is None:
            break
        world = following
    else:
        ends_well.update(chain)
        return ""
    ends = [worlds.nodes[n] for n in world.nodes]
    if any(node.session.state.is_open or node.disk.outbox or node.disk.mail for node in ends):
        states = " ".join(node.session.state.value for node in ends)
        return f"P1: stays {states}"
    ends_well.update(chain)
    return ""


def way_to(world: World, came_from: dict[World, tuple[World, Event] | None]) -> list[Event]:
    way = []
    while (step := came_from[world]) is not None:
        world, event = step
        way.append(event)
    return way[::-1]
