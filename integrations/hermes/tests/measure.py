"""How long from push to the start of the turn, and how much memory the plugin adds: `python measure.py HERMES`.

Hermes has the message when it calls its `pre_gateway_dispatch` hooks, and starts the turn when it calls `pre_llm_call`;
between the two, and until the request reaches the model, the time is Hermes' own. Two gateways, one with a human's desk
alone, one with Backchannel too: the difference of their memory is the plugin's.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from backchannel.testing import World
from gateways import Gateway
from model import Model, Say, Seen

TURNS = 40


def main(hermes: str) -> None:
    with World() as world, tempfile.TemporaryDirectory(prefix="bm-") as directory:
        model = Model()
        plain, agent = (Gateway(hermes, world, Path(directory), name) for name in ("plain", "agent"))
        try:
            for gateway in (plain, agent):
                gateway.make(model)
            agent.set_up()
            plain.start(platforms=1)
            agent.start()
            time.sleep(3)  # what a gateway still does in the background after it is connected
            idle = [resident_kib(gateway.pid) for gateway in (plain, agent)]
            waited = latencies(world, model, agent)
            for _ in range(TURNS + 1):
                talk(model, plain)
            busy = [resident_kib(gateway.pid) for gateway in (plain, agent)]
        finally:
            for gateway in (plain, agent):
                gateway.kill()
            model.close()
    for until, found in waited.items():
        print(f"from push until {until}: {spread(found)}")
    for when, (without, having) in (("idle", idle), (f"after {TURNS} turns", busy)):
        print(f"resident memory {when}: {without} KiB without, {having} KiB with: {having - without} KiB more")


def latencies(world: World, model: Model, agent: Gateway) -> dict[str, list[float]]:
    """In milliseconds, of single messages to an idle agent whose history is warm."""
    reached: list[float] = []

    def answers(seen: Seen) -> Say:
        reached.append(time.time())
        return Say("ok")

    model.minds["agent"] = answers
    boss = world.agent("boss")
    pushed: list[float] = []
    for number in range(TURNS + 1):  # the first is warming up
        pushed.append(time.time())
        boss.send("agent", f"message {number}").wait("done", timeout=30)
        time.sleep(0.2)
    seen = {
        "Hermes has it": noted(agent, "events"),
        "the turn starts": noted(agent, "turns"),
        "the model is asked": reached,
    }
    return {what: [(b - a) * 1000 for a, b in zip(pushed, at, strict=True)][1:] for what, at in seen.items()}


def noted(agent: Gateway, what: str) -> list[float]:
    return [float(line) for line in (agent.home / what).read_text().split()]


def talk(model: Model, plain: Gateway) -> None:
    model.minds["plain"] = lambda seen: Say(f"answer {len(model.of('plain'))}")
    before = len(plain.desk())
    plain.say("hello")
    while len(plain.desk()) == before:
        time.sleep(0.02)


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def spread(found: list[float]) -> str:
    ordered = sorted(found)
    return f"p50 {statistics.median(ordered):.1f} ms, p95 {ordered[int(len(ordered) * 0.95)]:.1f} ms, of {len(ordered)}"


if __name__ == "__main__":
    main(sys.argv[1])
