"""Twenty loops with real daemons: whatever the shape and the way, they stop, both ends know, nothing is gone silently.

`test_loop.py` tells of the guard's rules; here are shapes: how many agents, and how they answer.
"""

import threading
from collections.abc import Callable
from contextvars import copy_context

import pytest

from backchannel import BackchannelError, Delivery, Refused
from backchannel.testing import World

from .helpers import configure, kill, left, status, until
from .test_loop import HOPS_MAX, TRACE_MAX, Circle

pytestmark = [pytest.mark.proof, pytest.mark.timeout(180)]

QUIET_S = 1.5  # a daemon's errand may take its time while the machine is busy

Act = Callable[[Circle, Delivery], object]


def by_send(circle: Circle, delivery: Delivery) -> None:
    circle.send(delivery.to, following(circle, delivery.to), "and you?")


def by_commit(circle: Circle, delivery: Delivery) -> None:
    """The ack and what follows from it are one; a refusal comes back later, as a bounce."""
    circle.agents[delivery.to].commit(acks=[delivery], sends=[(following(circle, delivery.to), "and you?")])


def by_reply(circle: Circle, delivery: Delivery) -> None:
    delivery.reply("and you?")


def by_many(circle: Circle, delivery: Delivery) -> None:
    """Two for each: without a guard, twice as many each time round."""
    for _ in range(2):
        circle.send(delivery.to, following(circle, delivery.to), "and you?")


def following(circle: Circle, name: str) -> str:
    names = list(circle.agents)
    return names[(names.index(name) + 1) % len(names)]


def check_counters(world: World, circle: Circle) -> None:
    """Nothing is on its way any more, and every message ended in an ack or an answer."""
    for name in circle.agents:
        until(lambda name=name: status(world, name)["outbox"] == 0, "the outbox to be empty")  # type: ignore[misc]
        with world.agent(name) as agent:
            left(agent, None)
        counters = status(world, name)["counters"]
        assert counters["acked"] + counters["done"] == counters["total"], counters


CIRCLES = [
    (size, act, driven_by)
    for size in (1, 2, 3)
    for act in (by_send, by_commit, by_reply)
    for driven_by in ("program", "model")
    if act is not by_reply or size == 2  # an answer goes back to who asked
]


@pytest.mark.parametrize(
    ("size", "act", "driven_by"), CIRCLES, ids=[f"{'abc'[:s]}-{act.__name__}-{d}" for s, act, d in CIRCLES]
)
def test_a_circle_stops_and_everybody_in_it_knows(world: World, size: int, act: Act, driven_by: str) -> None:
    names = ("a", "b", "c")[:size]
    for name in names if driven_by == "model" else ():
        configure(world, name, 'driven_by = "model"\n')
    circle = Circle(world, names, QUIET_S)
    circle.send("a", following(circle, "a"), "how are you?")
    circle.run(act)
    assert sum(circle.got.values()) <= HOPS_MAX + 1
    assert sum(circle.got.values()) >= HOPS_MAX
    assert all(circle.heard(name) for name in set(names)), (circle.told, circle.refused)
    check_counters(world, circle)


@pytest.mark.parametrize("size", [2, 3])
def test_a_circle_that_doubles_stops_at_the_budget_of_its_trace(world: World, size: int) -> None:
    circle = Circle(world, ("a", "b", "c")[:size], QUIET_S)
    circle.send("a", "b", "how are you?")
    circle.run(by_many)
    assert sum(circle.sent.values()) == sum(circle.got.values()), "each receipt is a delivery"
    assert max(circle.got.values()) <= TRACE_MAX + 1
    assert all(circle.heard(name) for name in circle.agents)
    check_counters(world, circle)


def test_one_tells_ten_who_tell_a_hundred_who_all_tell_the_first(world: World) -> None:
    """1 to 10 to 100 is work and no loop. What comes back to the first ends at its trace's budget, which it is told."""
    heads, hands = [f"head{n}" for n in range(10)], [f"hand{n}" for n in range(10)]
    circle = Circle(world, ("root", *heads, *hands), QUIET_S)
    for name in heads:
        circle.send("root", name, "begin")  # ten traces: a person's ten tasks

    def act(circle: Circle, delivery: Delivery) -> None:
        if delivery.to.startswith("head"):
            for name in hands:
                circle.send(delivery.to, name, "your part")
        elif delivery.to.startswith("hand"):
            for _ in range(5):
                circle.send(delivery.to, "root", "a part is done")

    circle.run(act)
    assert circle.got["root"] == 500, "fifty of each trace: less than what is too much"
    assert sum(circle.got[name] for name in hands) == 100
    assert sum(circle.refused.values()) == 0
    assert not circle.told
    check_counters(world, circle)


def test_a_fan_out_of_one_trace_stops_at_the_root_and_all_are_told(world: World) -> None:
    heads = [f"head{n}" for n in range(10)]
    circle = Circle(world, ("root", *heads), QUIET_S)
    circle.send("root", "head0", "begin")

    def act(circle: Circle, delivery: Delivery) -> None:
        if delivery.to == "head0" and delivery.hops == 0:
            for name in heads[1:]:
                circle.send("head0", name, "your part")
        elif delivery.to.startswith("head"):
            for _ in range(40):
                circle.send(delivery.to, "root", "a part is done")

    circle.run(act)
    assert circle.got["root"] == TRACE_MAX
    assert sum(circle.refused.values()) == 9 * 40 - TRACE_MAX, "each of the others was refused, to its sender"
    assert circle.told["root", "loop"] == 1
    check_counters(world, circle)


def test_a_circle_whose_daemons_are_killed_on_the_way_stops_all_the_same(world: World) -> None:
    """Hops travel with the messages: no restart forgets them."""
    circle = Circle(world, ("a", "b"), 10 * QUIET_S)
    rounds = 0

    def act(circle: Circle, delivery: Delivery) -> None:
        nonlocal rounds
        rounds += 1
        if rounds % 5 == 0:
            kill(world, following(circle, delivery.to))
        by_commit(circle, delivery)

    circle.send("a", "b", "how are you?")
    circle.run(act)
    assert HOPS_MAX <= sum(circle.got.values()) <= HOPS_MAX + 3, "a kill may hand one out again"
    assert all(circle.heard(name) for name in "ab")
    check_counters(world, circle)


@pytest.mark.parametrize("size", [2, 3])
def test_sessions_that_open_sessions_in_a_circle_stop_and_the_opener_is_told(world: World, size: int) -> None:
    """Each, asked for something, asks the next. An offer inherits as a message does."""
    names = ["a", "b", "c"][:size]
    agents = {name: world.agent(name) for name in names}
    opened: list[str] = []
    refusals: list[BackchannelError] = []
    over = threading.Event()

    def work(name: str) -> None:
        agent = agents[name]
        while not over.is_set():
            for request in agent.requests(wait=0.2):
                request.accept()
                # In another thread, for others may ask meanwhile; what is being handled goes with it.
                threads.append(threading.Thread(target=copy_context().run, args=(ask_next, name)))
                threads[-1].start()

    def ask_next(name: str) -> None:
        after = names[(names.index(name) + 1) % size]
        try:
            opened.append(agents[name].open(after, task="and you?", timeout=20).id)
        except BackchannelError as error:
            refusals.append(error)
            over.set()

    threads: list[threading.Thread] = []
    workers = [threading.Thread(target=work, args=(name,)) for name in names]
    for worker in workers:
        worker.start()
    ask_next(names[0])
    assert over.wait(60)
    for thread in (*workers, *threads):
        thread.join()
    assert len(opened) <= HOPS_MAX + 1
    assert [type(error) for error in refusals] == [Refused]
