"""What becomes of a message whose taker crashes, hangs, loses the answer or speaks too late, over and over, with takers
that are processes and a daemon that is killed every now and then."""

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ..world import Daemon, Failed, Link, World, eventually, result
from .storm import seed

DELIVERIES_MAX = 5
LEASE_S = 1.0  # of zoe's mail, which zombies take
ZOMBIES = 16  # at a time
TAKER = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
answers = sock.makefile("rb")
for line in sys.stdin.buffer:
    sock.sendall(line)
    sys.stdout.buffer.write(answers.readline())
    sys.stdout.buffer.flush()
"""


class Taker:
    """A process that is connected to a control socket: it passes on what it is told to ask, and prints the answer."""

    def __init__(self, path: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", TAKER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def tell(self, method: str, **params: Any) -> None:
        assert self.process.stdin
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n"
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The result. Raises `Failed`."""
        self.tell(method, **params)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        return result(json.loads(self.process.stdout.readline()))

    def take(self, **params: Any) -> list[tuple[str, int]]:
        return pairs(self.ask("take", **params))

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def pairs(taken: dict[str, Any]) -> list[tuple[str, int]]:
    return [(message["id"], message["delivery"]) for message in taken["messages"]]


def refusal(ask: Callable[[], object]) -> str:
    with pytest.raises(Failed) as failed:
        ask()
    return failed.value.code


class Stage:
    """bob's and zoe's daemons, and five stories that are told again and again."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self._world = world
        self._dice = dice
        world.configure("zoe", f"lease_s = {LEASE_S}\ndeliveries_max = 1000\n")
        self._daemon: Daemon = world.start("bob", "zoe")
        self.ends: Counter[str] = Counter()
        self.daemons_killed = 0
        self._pushed = 0

    def kill_the_daemon(self) -> None:
        self._daemon.kill()
        self._daemon = self._world.restart(self._daemon)
        self.daemons_killed += 1

    def push(self, to: str = "bob") -> str:
        self._pushed += 1
        key = f"{to}-{self._pushed:06}"
        assert self._world.push(to, f"text of {key}", id=key)["stage"] == "stored"
        return key

    @contextmanager
    def taker(self, name: str = "bob") -> Iterator[Taker]:
        taker = Taker(self._world.path(name, "control"))
        try:
            yield taker
        finally:
            taker.kill()

    def receipt(self, key: str) -> dict[str, Any]:
        return self._world.receipt(key.partition("-")[0], key)

    def stored_again(self, key: str) -> None:
        eventually(lambda: self.receipt(key)["stage"] == "stored", f"{key} comes back")

    def ack_next(self, key: str, *deliveries: int) -> None:
        """The next taker has it, as one of these deliveries, and takes it over; it is all that waits."""
        with Link(self._world.path(key.partition("-")[0], "control")) as link:
            ((found, delivery),) = pairs(link.call("take", {"max": 10}))
            assert (found, delivery in deliveries) == (key, True), f"{found} came as delivery {delivery}"
            assert link.call("ack", {"id": key, "delivery": delivery})["stage"] == "acked"
            assert link.call("ack", {"id": key, "delivery": delivery})["duplicate"]
            assert pairs(link.call("take", {"max": 10})) == []
        self.over(key, "acked", delivery)

    def over(self, key: str, stage: str, delivery: int) -> None:
        receipt = self.receipt(key)
        assert (receipt["stage"], receipt["delivery"]) == (stage, delivery), receipt
        self.ends[stage] += 1

    # --- the stories --------------------------------------------------------------------------------------------------

    def crash_after_take(self) -> None:
        """It comes again to the next taker, and `delivery` says so."""
        key = self.push()
        with self.taker() as taker:
            assert taker.take(wait=10) == [(key, 1)]
            assert self.receipt(key)["stage"] == "taken"
        self.stored_again(key)
        self.ack_next(key, 2)

    def stale_token(self) -> None:
        """Who has an old delivery can do nothing to the current one, and is told that he is late."""
        key = self.push()
        with self.taker() as first, self.taker() as second:
            assert first.take() == [(key, 1)]
            assert first.ask("release", id=key, delivery=1)["stage"] == "stored"
            assert second.take() == [(key, 2)]
            for method, params in (("ack", {}), ("reject", {"reason": "late"}), ("release", {}), ("renew", {})):
                assert refusal(lambda m=method, p=params: first.ask(m, id=key, delivery=1, **p)) == "stale"  # type: ignore[misc]
            assert second.ask("ack", id=key, delivery=2)["stage"] == "acked"
            assert refusal(lambda: first.ask("ack", id=key, delivery=1)) == "ended"
        self.over(key, "acked", 2)

    def zombies(self) -> None:
        """Takers that hang until their leases are over wake up to find that others have their messages."""
        keys = [self.push("zoe") for _ in range(ZOMBIES)]
        takers = [Taker(self._world.path("zoe", "control")) for _ in keys]
        try:
            had = []
            for taker in takers:
                had += taker.take(detached=True)
                taker.signal(signal.SIGSTOP)
            # On a busy machine a lease may be over before the last has taken, and he has what the first had.
            assert {key for key, _ in had} <= set(keys)
            with Link(self._world.path("zoe", "control")) as link:
                now: dict[str, int] = {}
                while len(now) < len(keys):
                    now.update(pairs(link.call("take", {"max": ZOMBIES, "wait": 10})))
                for taker, (key, delivery) in zip(takers, had, strict=True):
                    taker.signal(signal.SIGCONT)
                    assert delivery < now[key]
                    assert refusal(lambda t=taker, k=key, d=delivery: t.ask("ack", id=k, delivery=d)) == "stale"  # type: ignore[misc]
                for key, delivery in now.items():
                    assert link.call("ack", {"id": key, "delivery": delivery})["stage"] == "acked"
                    self.over(key, "acked", delivery)
        finally:
            for taker in takers:
                taker.kill()

    def lost_take_answer(self) -> None:
        """Nobody read the answer: the same take finds the same delivery, and another taker the next one."""
        key = self.push()
        match self._dice.choice(("taker dies", "daemon dies", "connection dies")):
            case "taker dies":
                with self.taker() as taker:
                    taker.tell("take", take_id=f"t-{key}")
                    if self._dice.random() < 0.5:
                        eventually(lambda: self.receipt(key)["stage"] == "taken")
                eventually(lambda: self.receipt(key)["stage"] == "stored")
                self.ack_next(key, 1, 2)
            case "daemon dies":
                with Link(self._world.path("bob", "control")) as link:
                    link.ask("take", {"take_id": f"t-{key}"})
                    eventually(lambda: self.receipt(key)["stage"] == "taken")
                    self.kill_the_daemon()
                with Link(self._world.path("bob", "control")) as link:
                    (taken,) = pairs(link.call("take", {"take_id": f"t-{key}", "wait": 10}))
                    # On a busy machine the five seconds for which its lease waits may be over.
                    assert taken in ((key, 1), (key, 2))
                    assert link.call("ack", {"id": key, "delivery": taken[1]})["stage"] == "acked"
                self.over(key, "acked", taken[1])
            case _:
                with Link(self._world.path("bob", "control")) as link:
                    link.ask("take", {"take_id": f"t-{key}", "detached": True})
                    eventually(lambda: self.receipt(key)["stage"] == "taken")
                with Link(self._world.path("bob", "control")) as link:
                    for _ in range(2):
                        assert pairs(link.call("take", {"take_id": f"t-{key}", "detached": True})) == [(key, 1)]
                    assert link.call("ack", {"id": key, "delivery": 1})["stage"] == "acked"
                self.over(key, "acked", 1)

    def poison(self) -> None:
        """What five takers did not survive is handed out no more, says why, and keeps nobody else from his mail."""
        key = self.push()
        for delivery in range(1, DELIVERIES_MAX + 1):
            with self.taker() as taker:
                assert taker.take(wait=10) == [(key, delivery)]
            if delivery < DELIVERIES_MAX:
                self.stored_again(key)
        eventually(lambda: self.receipt(key)["stage"] == "dead")
        assert f"{DELIVERIES_MAX} deliveries" in self.receipt(key)["reason"]
        self.over(key, "dead", DELIVERIES_MAX)
        self.ack_next(self.push(), 1)

    def adds_up(self) -> None:
        """The daemons count what the stories counted."""
        counters = [self._world.call(name, "status", which="control")["counters"] for name in ("bob", "zoe")]
        stages = ("stored", "taken", "acked", "done", "rejected", "expired", "cancelled", "dead")
        for counted in counters:
            assert counted["total"] == sum(counted[stage] for stage in stages)
        assert {stage: n for stage in stages if (n := sum(c[stage] for c in counters))} == self.ends
        assert sum(counted["total"] for counted in counters) == self._pushed


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(500, marks=[pytest.mark.proof, pytest.mark.timeout(600)]),
        pytest.param(10_000, marks=[pytest.mark.night, pytest.mark.timeout(5400)]),
    ],
)
def test_a_message_outlives_its_takers(world: World, cases: int) -> None:
    chosen = seed()
    print(f"STORM_SEED={chosen}")
    dice = random.Random(chosen)
    stage = Stage(world, dice)
    stories = (stage.crash_after_take, stage.stale_token, stage.zombies, stage.lost_take_answer, stage.poison)
    told: Counter[str] = Counter()
    while told.total() < cases:
        story = dice.choices(stories, (ZOMBIES, ZOMBIES, 1, ZOMBIES, ZOMBIES))[0]
        story()
        told[story.__name__] += ZOMBIES if story == stage.zombies else 1
        if dice.random() < 0.01:
            stage.kill_the_daemon()
    stage.adds_up()
    print(f"{dict(told)}, {stage.daemons_killed} daemons killed; {dict(stage.ends)}")
