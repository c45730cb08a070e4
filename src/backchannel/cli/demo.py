"""`backchannel demo`: three agents, three processes, three daemons, in a world of their own that vanishes afterwards.

Each agent is a process of its own that tells what it does on its standard output, a JSON line an event; this one starts
them, kills a daemon in the middle, and prints the story with the times they measured.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..client import calls, wire
from ..client.blocking import Agent
from ..client.drive import run
from ..errors import BackchannelError
from ..transport.dial import connect, peer_pid
from ..transport.paths import CONTROL, Places

NAMES = ("analyst", "executor", "writer")
PATIENCE_S = 10.0


def show() -> int:
    """Runs the demonstration. Returns 0 if everything that was promised happened."""
    begun = time.monotonic()
    with _world() as places, _agents(places) as agents:
        print(f"Three agents, three processes, three daemons, in {os.path.dirname(places.state_dir)}\n")
        _ask(agents)
        _refuse(agents)
        _kill(places, agents)
    print(f"\nCleaned up. The whole took {time.monotonic() - begun:.1f} s. Now your own:\n")
    print("  backchannel up alice bob")
    print("  BACKCHANNEL_AGENT=alice backchannel send bob 'hello' --wait acked &")
    print("  BACKCHANNEL_AGENT=bob backchannel recv --wait 10")
    return 0


# --- the story --------------------------------------------------------------------------------------------------------


def _ask(agents: "dict[str, _Process]") -> None:
    print("1. A question and its answer")
    analyst, executor = agents["analyst"], agents["executor"]
    analyst.tell(to="executor", text="use port 8080 or 3000?")
    sent = analyst.hear("stored")
    _line("analyst -> executor", f"{sent['text']!r}")
    _line("stored", f"in executor's mailbox, on disk; receipt after {sent['us']:.0f} us")
    taken = executor.hear("taken")
    _line("taken", f"in executor's hands {taken['us']:.0f} us after it was sent")
    _line("acked", f"executor says it has it ({analyst.hear('acked')['stage']}, by its receipt)")
    answer = analyst.hear("answer")
    _line("executor -> analyst", f"{answer['text']!r}, {answer['us'] / 1000:.1f} ms after the question")


def _refuse(agents: "dict[str, _Process]") -> None:
    print("\n2. A refusal says why")
    agents["analyst"].tell(to="writer", text="write it up")
    sent = agents["analyst"].hear("stored")
    _line("analyst -> writer", f"{sent['text']!r}, stored after {sent['us']:.0f} us")
    _line("rejected", f"writer: {agents['analyst'].hear('rejected')['reason']!r}")


def _kill(places: Places, agents: "dict[str, _Process]") -> None:
    print("\n3. kill -9")
    agents["writer"].end()
    agents["analyst"].tell(to="writer", text="then tomorrow")
    sent = agents["analyst"].hear("stored")
    _line("analyst -> writer", f"{sent['text']!r}; nobody is there to take it")
    killed = _kill_daemon(places, "writer")
    _line("SIGKILL", f"to writer's daemon (pid {killed})")
    begun = time.perf_counter()
    agents["writer"] = _Process(places, "writer")
    taken = agents["writer"].hear("taken")
    _line("taken", f"{taken['text']!r}, by a new writer, {time.perf_counter() - begun:.1f} s later, from a new daemon")


def _line(what: str, how: str) -> None:
    print(f"   {what:<20} {how}", flush=True)


# --- its processes ----------------------------------------------------------------------------------------------------


class _Process:
    """One agent as a process: `tell` gives it work on stdin, `hear` waits for one of its events."""

    def __init__(self, places: Places, name: str) -> None:
        env = os.environ | {"BACKCHANNEL_STATE": places.state_dir, "BACKCHANNEL_DIR": places.socket_dir}
        code = f"from backchannel.cli.demo import play; play({name!r})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True
        )

    def tell(self, **work: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(work) + "\n")
        self._process.stdin.flush()

    def hear(self, event: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            heard: dict[str, Any] = json.loads(line)
            if heard["event"] == event:
                return heard
        raise BackchannelError(f"the demo's agent ended before it said {event!r}", hint="backchannel doctor")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def _world() -> Iterator[Places]:
    folder = tempfile.mkdtemp(prefix="backchannel-demo-")
    places = Places(folder + "/run", folder + "/state")
    try:
        yield places
    finally:
        for name in places.registered():
            try:
                run(calls.stop(wire.Caller(None, places), name, 2.0))
            except BackchannelError:
                _kill_daemon(places, name)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _agents(places: Places) -> Iterator[dict[str, _Process]]:
    agents = {name: _Process(places, name) for name in NAMES}
    alarm = signal.signal(signal.SIGALRM, _too_slow)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        for agent in agents.values():
            agent.hear("ready")
        yield agents
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        for agent in agents.values():
            agent.end()


def _too_slow(*_: object) -> None:
    raise BackchannelError(f"the demo did not end within {PATIENCE_S:g} s", hint="backchannel doctor")


def _kill_daemon(places: Places, name: str) -> int:
    sock = connect(f"{places.sockets(name)}/{CONTROL}", 1.0)
    pid = peer_pid(sock)
    os.kill(pid, signal.SIGKILL)
    sock.close()
    return pid


# --- its roles --------------------------------------------------------------------------------------------------------


def play(name: str) -> None:
    """One agent of the demo; the body of its process."""
    with Agent(name) as me:
        _say("ready")
        {"analyst": _analyst, "executor": _executor, "writer": _writer}[name](me)


def _analyst(me: Agent) -> None:
    for line in sys.stdin:
        work = json.loads(line)
        begun = time.perf_counter()
        receipt = me.send(work["to"], work["text"])
        _say("stored", text=work["text"], us=(time.perf_counter() - begun) * 1e6)
        if work["to"] == "executor":
            _say("acked", stage=receipt.wait("acked", PATIENCE_S).stage)
            for answer in me.receive(wait=PATIENCE_S):
                answer.ack()
                _say("answer", text=answer.text, us=(time.perf_counter() - begun) * 1e6)
                break
        elif work["text"] == "write it up":
            try:
                receipt.wait("acked", PATIENCE_S)
            except BackchannelError:
                _say("rejected", reason=receipt.reason)


def _executor(me: Agent) -> None:
    for question in me.receive(wait=None):
        _say("taken", us=(time.time() - question.sent_at) * 1e6)
        question.ack()
        me.send(question.sender, "8080: something listens on 3000", reply_to=question.id)


def _writer(me: Agent) -> None:
    for task in me.receive(wait=None):
        _say("taken", text=task.text)
        if task.text == "write it up":
            task.reject("busy until noon")
        else:
            task.ack()


def _say(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)
