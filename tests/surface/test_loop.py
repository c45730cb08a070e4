"""The loop guard: agents that answer everything stop by themselves, all of the circle are told, nothing is dropped."""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from backchannel import Agent, BackchannelError, Delivery, NotPermitted, OverLimit, PeerAbsent, Refused
from backchannel.client import acting_on
from backchannel.testing import World

from .helpers import Refusal, collect, configure, control, key, left, status, texts, until, wire

HOPS_MAX = 16
TRACE_MAX = 200  # messages of one trace in one mailbox
QUIET_S = 0.5  # nobody has said anything for so long: it is over


class Circle:
    """Agents that do something with every message, until all is quiet. Every send and every notice is counted."""

    def __init__(self, world: World, names: tuple[str, ...], quiet_s: float = QUIET_S) -> None:
        self._quiet_s = quiet_s
        self.agents = {name: world.agent(name) for name in names}
        self.sent: Counter[str] = Counter()  # by sender; each has a receipt
        self.refused: Counter[str] = Counter()  # by sender
        self.got: Counter[str] = Counter()
        self.told: Counter[tuple[str, str]] = Counter()  # (name, kind of notice)
        self._last = time.monotonic()
        self._lock = threading.Lock()

    def run(self, act: "Callable[[Circle, Delivery], object]") -> None:
        threads = [threading.Thread(target=self._work, args=(agent, act)) for agent in self.agents.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def send(self, sender: str, to: str, text: str) -> None:
        try:
            self.agents[sender].send(to, text)
        except Refused:
            with self._lock:
                self.refused[sender] += 1
        else:
            with self._lock:
                self.sent[sender] += 1

    def heard(self, name: str, kind: str = "loop") -> bool:
        """Whether NAME knows that it was in a loop: by a refusal, or by a notice."""
        return bool(self.refused[name] or self.told[name, "loop"] or self.told[name, "bounce"])

    def _work(self, agent: Agent, act: "Callable[[Circle, Delivery], object]") -> None:
        while time.monotonic() - self._last < self._quiet_s:
            for delivery in agent.receive(wait=0.1, kinds=None):
                self._last = time.monotonic()
                if delivery.kind == "message":
                    with self._lock:
                        self.got[agent.name] += 1
                    act(self, delivery)
                    if not delivery.is_settled:
                        delivery.ack()
                else:
                    with self._lock:
                        self.told[agent.name, delivery.kind] += 1
                    delivery.ack()


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c")], ids=["self", "ping-pong", "circle"])
def test_a_circle_told_to_answer_everything_stops_and_all_are_told(world: World, names: tuple[str, ...]) -> None:
    circle = Circle(world, names)
    after = dict(zip(names, (*names[1:], names[0]), strict=True))
    circle.send(names[0], after[names[0]], "you are welcome")
    circle.run(lambda c, delivery: c.send(delivery.to, after[delivery.to], "no, you are"))
    assert sum(circle.sent.values()) == sum(circle.got.values()) == HOPS_MAX + 1
    assert sum(circle.refused.values()) == 1
    assert all(circle.heard(name) for name in names), (circle.told, circle.refused)
    assert all(count == 1 for count in circle.told.values()), circle.told


def test_two_who_reply_to_everything_stop_and_both_are_told(world: World) -> None:
    circle = Circle(world, ("a", "b"))
    circle.send("a", "b", "you are welcome")
    circle.run(lambda c, delivery: delivery.reply("no, you are"))
    assert sum(circle.got.values()) == HOPS_MAX + 1
    assert Counter(kind for (_, kind), count in circle.told.items() for _ in range(count)) == {"loop": 1, "bounce": 1}
    assert all(circle.heard(name) for name in "ab")
    assert [status(world, name)["outbox"] for name in "ab"] == [0, 0]


def test_a_fan_out_that_keeps_fanning_out_stops_and_every_receipt_is_accounted_for(world: World) -> None:
    names = ("a", "b", "c")
    circle = Circle(world, names)
    circle.send("a", "b", "tell everybody")

    def tell_all(circle: Circle, delivery: Delivery) -> None:
        for name in names:
            if name != delivery.to:
                circle.send(delivery.to, name, "tell everybody")

    circle.run(tell_all)
    assert sum(circle.sent.values()) == sum(circle.got.values())
    assert sum(circle.sent.values()) + sum(circle.refused.values()) == 1 + 2 * sum(circle.got.values())
    assert max(circle.got.values()) <= TRACE_MAX + 1
    assert all(circle.heard(name) for name in names)
    for name in names:
        counters = status(world, name)["counters"]
        assert counters["acked"] == counters["total"]


def test_a_tree_that_ends_is_no_loop(world: World) -> None:
    leaves = [f"leaf{number}" for number in range(4)]
    root, branch = world.agent("root"), world.agent("branch")
    world.up(*leaves)
    root.send("branch", "tell all of them")
    for delivery in branch.receive(wait=5):
        for leaf in leaves:
            for number in range(10):
                branch.send(leaf, str(number))
        delivery.ack()
        break
    for leaf in leaves:
        got = collect(world.agent(leaf), 10)
        assert {(found.hops, found.trace_id, tuple(found.path)) for found in got} == {(1, delivery.id, ("branch",))}


def test_more_hops_than_a_task_needs_are_refused_with_a_trace_or_without(world: World) -> None:
    world.up("executor")
    push = {"to": "executor", "text": "again", "hops": HOPS_MAX}
    assert wire(world, "executor", "push", push)["stage"] == "stored"
    for extra in ({}, {"trace_id": "t1"}):
        with pytest.raises(Refusal) as refusal:
            wire(world, "executor", "push", push | extra | {"hops": HOPS_MAX + 1})
        assert refusal.value.code == "loop"
    executor = world.agent("executor")
    assert len(left(executor)) == 1
    assert "that is a loop" in left(executor, ("loop",))[0].text


# --- an agent that a model drives -------------------------------------------------------------------------------------


@pytest.fixture
def modelled(world: World) -> World:
    """The model sends only through its own daemon."""
    configure(world, "model", 'driven_by = "model"\n')
    world.up("model", "executor", "writer")
    return world


def test_a_model_may_not_push_past_its_own_daemon(modelled: World) -> None:
    push = {"to": "executor", "text": "hello", "from": "model", "auth": key(modelled, "model")}
    with pytest.raises(Refusal) as refusal:
        wire(modelled, "executor", "push", push)
    assert refusal.value.code == "via_outbox"
    assert refusal.value.data["retry"] is False


def test_the_setting_for_all_agents_counts_too(world: World) -> None:
    world.up("model", "executor")
    world.stop("model")
    world.stop("executor")
    with open(world.paths.state_dir + "/config.toml", "w") as file:
        file.write('driven_by = "model"\n')
    world.up("model", "executor")
    push = {"to": "executor", "text": "hello", "from": "model", "auth": key(world, "model")}
    with pytest.raises(Refusal) as refusal:
        wire(world, "executor", "push", push)
    assert refusal.value.code == "via_outbox"


def test_the_library_and_the_shell_take_the_way_through_the_daemon(modelled: World) -> None:
    model, executor = modelled.agent("model"), modelled.agent("executor")
    assert model.send("executor", "one").stage == "stored"
    assert [receipt.stage for receipt in model.send_many("executor", ["two", "three"])] == ["stored", "stored"]
    assert model.broadcast("four", ["executor"])["executor"].stage == "stored"

    async def send() -> None:
        async with modelled.async_agent("model") as agent:
            assert (await agent.send("executor", "five")).stage == "stored"
            assert [receipt.stage for receipt in await agent.send_many("executor", ["six"])] == ["stored"]

    asyncio.run(send())
    shell = modelled.cli("send", "executor", "seven", agent="model")
    assert (shell.returncode, shell.stdout[:6]) == (0, "stored")
    assert texts(collect(executor, 7)) == ["one", "two", "three", "four", "five", "six", "seven"]


def test_what_the_target_refuses_a_model_is_raised_as_what_it_is(modelled: World) -> None:
    model = modelled.agent("model")
    model.send("executor", "deploy", key="k")
    for _ in range(5):  # the refusal may come before or after we ask
        with pytest.raises(Refused) as refused:
            model.send("executor", "destroy", key="k")
        assert refused.value.code == "key_reused"
    shell = modelled.cli("send", "executor", "destroy", "--key", "k", agent="model")
    assert (shell.returncode, "another text" in shell.stderr) == (3, True)


def test_what_a_model_sends_to_somebody_who_is_down_fails_unless_something_waits_there_already(modelled: World) -> None:
    modelled.cli("down", "executor")
    model = modelled.agent("model")
    assert modelled.cli("send", "executor", "lost", agent="model").returncode == 5
    with pytest.raises(PeerAbsent):
        model.send("executor", "lost")
    model.commit(sends=[("executor", "first")])
    assert model.send("executor", "second", timeout=0.1).stage == "queued"
    modelled.cli("up", "executor")
    assert texts(collect(modelled.agent("executor"), 2)) == ["first", "second"]


@pytest.mark.parametrize("is_acked", [False, True])
def test_a_model_cannot_forget_the_hops_and_the_trace(modelled: World, is_acked: bool) -> None:
    writer, executor = modelled.agent("writer"), modelled.agent("executor")
    writer.send("model", "older")
    control(modelled, "writer", "commit", sends=[{"to": "model", "text": "newer", "hops": 3, "trace_id": "t1"}])
    until(lambda: status(modelled, "model")["backlog"] == 2, "both to be there")
    messages = control(modelled, "model", "take", max=2, detached=True)["messages"]
    for message in messages if is_acked else ():
        control(modelled, "model", "ack", id=message["id"])
    # Another process, which knows of no delivery.
    modelled.cli("send", "executor", "so", agent="model")
    (got,) = collect(executor, 1)
    assert (got.hops, got.trace_id, got.path) == (4, "t1", ["model"])


def test_an_adapter_says_what_its_model_acts_on(modelled: World) -> None:
    model, writer, executor = modelled.agent("model"), modelled.agent("writer"), modelled.agent("executor")
    control(modelled, "writer", "commit", sends=[{"to": "model", "text": "old", "hops": 15, "trace_id": "t1"}])
    (old,) = collect(model, 1)
    writer.send("model", "new")
    collect(model, 1)
    with acting_on(None):  # a person asked for it
        model.send("executor", "afresh")
    with acting_on(old):
        model.send("executor", "still the old")
    afresh, still = collect(executor, 2)
    assert (afresh.hops, afresh.path) == (0, ["model"])
    assert (still.hops, still.trace_id) == (16, "t1")
    assert afresh.trace_id not in (None, "t1")


def test_models_that_answer_each_other_by_command_stop_by_themselves(world: World) -> None:
    for name in ("a", "b"):
        configure(world, name, 'driven_by = "model"\n')
    world.up("a", "b")
    other = {"a": "b", "b": "a"}
    a = world.agent("a")
    a.send("b", "you are welcome")
    sent, name = 1, "b"
    refusals: list[BackchannelError] = []
    while not refusals and sent < 50:
        agent = world.agent(name)
        collect(agent, 1)
        with world.agent(name) as fresh:  # as another process: nothing is being handled
            thread = threading.Thread(target=attempt, args=(fresh, other[name], refusals))
            thread.start()
            thread.join()
        sent += 1
        name = other[name]
    assert sent == HOPS_MAX + 2
    assert [refusal.code for refusal in refusals] == ["loop"]
    told = {name: {notice.kind for notice in left(world.agent(name), ("loop", "bounce"))} for name in "ab"}
    assert all(told.values()), told


def attempt(agent: Agent, to: str, refusals: list[BackchannelError]) -> None:
    try:
        agent.send(to, "no, you are")
    except BackchannelError as error:
        refusals.append(error)


def test_a_repetition_and_what_was_refused_do_not_count_against_the_rate(modelled: World) -> None:
    sends = [{"to": "executor", "text": "x", "id": f"id-{number}"} for number in range(20)]
    for _ in range(2):  # the second time as if the answer to the first had been lost
        assert len(control(modelled, "model", "commit", sends=sends)["sends"]) == 20
    for _ in range(25):
        with pytest.raises(Refusal):
            control(modelled, "model", "commit", sends=[{"to": "writer", "text": "x"}, {"to": "nobody", "text": "x"}])
    assert control(modelled, "model", "commit", sends=[{"to": "writer", "text": "the first"}])
    assert texts(collect(modelled.agent("writer"), 1)) == ["the first"]


def test_a_model_that_sends_too_fast_is_stopped_and_both_are_told_once(modelled: World) -> None:
    model = modelled.agent("model")
    refusals: list[BackchannelError] = []
    stored = 0
    while not refusals and stored < 60:
        attempt(model, "executor", refusals)
        stored += not refusals
    assert [(type(refusal), refusal.code) for refusal in refusals] == [(OverLimit, "rate")]
    assert 20 <= stored < 40  # a burst, and one a second
    assert status(modelled, "model")["too_fast_to"] == ["executor"]
    tripped = modelled.cli("send", "executor", "one more", agent="model")
    assert tripped.returncode in (0, 6)  # a second may have passed
    assert model.send("writer", "to another").stage == "stored"
    assert [notice.headers for notice in collect(model, 1, ("loop",))] == [{"peer": "executor"}]
    (notice,) = collect(modelled.agent("executor"), 1, ("loop",))
    assert "faster than a model should" in notice.text
    assert left(model, ("loop", "bounce")) == []
    until(lambda: can_send(model), "the next token")


def can_send(agent: Agent) -> bool:
    try:
        return agent.send("executor", "slowly").stage == "stored"
    except OverLimit:
        return False


def test_a_program_may_send_fast_and_directly(world: World) -> None:
    world.up("executor")
    analyst = world.agent("analyst")
    for number in range(100):
        analyst.send("executor", str(number))
    assert status(world, "analyst")["outbox"] == 0
    assert len(left(world.agent("executor"))) == 100


def test_a_models_name_does_not_pass_without_its_key(modelled: World) -> None:
    with pytest.raises(Refusal) as refusal:
        wire(
            modelled, "executor", "push", {"to": "executor", "text": "x", "from": "model", "auth": os.urandom(32).hex()}
        )
    assert refusal.value.code == NotPermitted.code
