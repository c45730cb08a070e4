"""ZeroMQ through pyzmq: sockets that queue in both processes' memory, and nothing beyond."""

import time

import zmq

from ..bench import Bench, Samples, timed, timed_elsewhere
from ..helper import ready, tell
from ..sizes import BIG_TEXT, TEXT


def requests(bench: Bench, connection: str) -> Samples:
    """REQ/REP: a request and its reply; over one socket, or a new one each time."""
    address = _address(bench, "rep")
    bench.helper(f"{__name__}:replier", address)
    with zmq.Context() as context:
        if connection == "kept":
            with context.socket(zmq.REQ) as socket:
                socket.connect(address)
                return timed(lambda: _ask(socket), bench.sizes.messages)

        def once() -> None:
            with context.socket(zmq.REQ) as socket:
                socket.connect(address)
                _ask(socket)

        return timed(once, bench.sizes.slow_messages)


def round_trips(bench: Bench) -> Samples:
    """PUSH/PULL both ways: a text to a process that pushes one back; both sockets kept."""
    return _round_trips(bench, TEXT.encode(), bench.sizes.messages)


def big(bench: Bench) -> Samples:
    return _round_trips(bench, BIG_TEXT.encode(), bench.sizes.big)


def one_way(bench: Bench, idle_s: float) -> Samples:
    """PUSH until the other process has it from its PULL; both sockets kept."""
    receiver = bench.helper(f"{__name__}:receiver", _address(bench, "pull"))
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.connect(_address(bench, "pull"))
        return timed_elsewhere(lambda: push.send(TEXT.encode()), receiver, bench.sizes.one_way, idle_s)


def _round_trips(bench: Bench, data: bytes, count: int) -> Samples:
    here, there = _address(bench, "here"), _address(bench, "there")
    with zmq.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        pull.bind(here)
        bench.helper(f"{__name__}:answerer", there, here)
        push.connect(there)

        def once() -> None:
            push.send(data)
            pull.recv()

        return timed(once, count)


def _ask(socket: "zmq.Socket[bytes]") -> None:
    socket.send(TEXT.encode())
    socket.recv()


def _address(bench: Bench, name: str) -> str:
    return f"ipc://{bench.path(name)}"


# --- roles ------------------------------------------------------------------------------------------------------------


def replier(address: str) -> None:
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.bind(address)
        ready()
        while True:
            socket.send(socket.recv())


def answerer(here: str, there: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        pull.bind(here)
        push.connect(there)
        ready()
        while True:
            push.send(pull.recv())


def receiver(address: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.bind(address)
        ready()
        while True:
            pull.recv()
            tell(time.monotonic_ns())
