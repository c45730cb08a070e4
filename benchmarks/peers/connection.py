"""`multiprocessing.connection`: what the standard library has for two processes; objects over a unix socket."""

from multiprocessing.connection import Client, Listener

from ..bench import Bench, Samples, timed
from ..helper import ready
from ..sizes import BIG_TEXT, TEXT


def echoes(bench: Bench, connection: str) -> Samples:
    """Send a text, receive the same; over one connection, or a new one each time."""
    path = bench.path("echo")
    bench.helper(f"{__name__}:echo", path)
    if connection == "kept":
        return _kept(path, TEXT, bench.sizes.messages)

    def once() -> None:
        with Client(path, "AF_UNIX") as client:
            client.send(TEXT)
            client.recv()

    return timed(once, bench.sizes.messages)


def big(bench: Bench) -> Samples:
    bench.helper(f"{__name__}:echo", bench.path("echo"))
    return _kept(bench.path("echo"), BIG_TEXT, bench.sizes.big)


def _kept(path: str, text: str, count: int) -> Samples:
    with Client(path, "AF_UNIX") as client:

        def once() -> None:
            client.send(text)
            client.recv()

        return timed(once, count)


def echo(path: str) -> None:
    """A role: one connection after another."""
    with Listener(path, "AF_UNIX", backlog=512) as listener:
        ready()
        while True:
            with listener.accept() as link:
                try:
                    while True:
                        link.send(link.recv())
                except (EOFError, OSError):
                    pass  # they closed
