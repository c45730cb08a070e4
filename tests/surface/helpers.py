"""Waiting with a deadline, and speaking the wire by hand."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from backchannel import Agent, Delivery, PeerAbsent, Request, Session
from backchannel.testing import World

T = TypeVar("T")
PATIENCE_S = 20.0


def until(look: Callable[[], T], what: str = "", timeout: float = PATIENCE_S) -> T:
    """What `look` returns once that is true."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {timeout} s for {what or look}, saw {found!r}"
        time.sleep(0.005)
    return found


def kill(world: World, name: str) -> None:
    """Kills NAME's daemon as soon as one is up."""

    def is_killed() -> bool:
        try:
            return bool(world.kill(name))
        except PeerAbsent:
            return False  # it is only starting

    until(is_killed, f"a daemon of {name} to kill")


def collect(agent: Agent, count: int, kinds: tuple[str, ...] = ("message",), wait: float = PATIENCE_S) -> list[Any]:
    """The next `count` deliveries, acked."""
    found: list[Delivery] = []
    if count:
        for delivery in agent.receive(wait=wait, kinds=kinds):
            delivery.ack()
            found.append(delivery)
            if len(found) == count:
                break
    assert len(found) == count, found
    return found


def left(agent: Agent, kinds: tuple[str, ...] | None = ("message",)) -> list[Delivery]:
    """Everything that waits now, acked."""
    found = []
    for delivery in agent.receive(wait=0, kinds=kinds):
        delivery.ack()
        found.append(delivery)
    return found


def texts(deliveries: list[Delivery]) -> list[str]:
    return [delivery.text for delivery in deliveries]


@contextmanager
def answering(agent: Agent, answer: Callable[[Delivery], object], threads: int = 1) -> Iterator[None]:
    """Meanwhile, threads of `agent` take what comes and do `answer` with it."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            for delivery in agent.receive(wait=0.2):
                answer(delivery)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        over.set()
        for worker in workers:
            worker.join()


# --- sessions ---------------------------------------------------------------------------------------------------------


@contextmanager
def opening(agent: Agent, to: str, task: str, timeout: float = PATIENCE_S, **limits: Any) -> Iterator[Future[Session]]:
    """`agent.open`, under way in another thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(agent.open, to, task, timeout=timeout, **limits)


def offer(agent: Agent) -> Request:
    """The next offer to the agent."""
    return next(agent.requests(wait=PATIENCE_S))


def established(opener: Agent, acceptor: Agent, task: str = "review PR #42", **limits: Any) -> tuple[Session, Session]:
    """Both ends of a new session."""
    with opening(opener, acceptor.name, task, **limits) as opened:
        accepted = offer(acceptor).accept()
        return opened.result(PATIENCE_S), accepted


def heard(session: Session, count: int) -> list[str]:
    """The next `count` texts, acked."""
    found: list[str] = []
    for data in session.receive(wait=PATIENCE_S):
        data.ack()
        found.append(data.text)
        if len(found) == count:
            break
    assert len(found) == count, found
    return found


def reached(session: Session, *states: str) -> Session:
    """The session, once it is in one of these states."""
    until(lambda: session.refresh().state in states, f"{session!r} to be {states}")
    return session


class Refusal(Exception):
    """An error answer on the wire."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code = error["data"]["code"]
        self.data = error["data"]


def wire(world: World, name: str, method: str, params: dict[str, Any], door: str = "inbox") -> Any:
    """One request on a connection of its own. Raises `Refusal`."""
    with connection(world, name, door) as sock:
        sock.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
        line = sock.makefile("rb").readline()
    if not line:
        raise ConnectionResetError("closed before it answered")
    answer = json.loads(line)
    if "error" in answer:
        raise Refusal(answer["error"])
    return answer["result"]


def control(world: World, name: str, method: str, **params: Any) -> Any:
    return wire(world, name, method, params, "control")


def connection(world: World, name: str, door: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    try:
        sock.connect(f"{world.paths.sockets(name)}/{door}.sock")
    except OSError:
        sock.close()
        raise
    return sock


def key(world: World, name: str) -> str:
    with open(world.paths.state(name, "key")) as file:
        return file.read().strip()


def status(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = control(world, name, "status")
    return found


def configure(world: World, name: str, text: str) -> None:
    """Settings for an agent, in force when its daemon starts next; the name may be new."""
    world.up(name)
    world.stop(name)
    with open(world.paths.state(name, "config.toml"), "w") as file:
        file.write(text)
