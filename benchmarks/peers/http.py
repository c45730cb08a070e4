"""HTTP over loopback TCP: a POST to uvicorn and its 200, from the standard library's client; nothing is stored."""

import asyncio
import http.client
import socket
from typing import Any

import uvicorn

from ..bench import Bench, Samples, free_port, timed
from ..helper import ready
from ..sizes import BIG_TEXT, TEXT


def posts(bench: Bench, connection: str) -> Samples:
    """A text, and the same text as the answer; one connection kept alive, or a new one each time."""
    port = _server(bench)
    if connection == "kept":
        return _kept(port, TEXT, bench.sizes.slow_messages)

    def once() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port)
        _post(client, TEXT)
        client.close()

    return timed(once, bench.sizes.slow_messages)


def big(bench: Bench) -> Samples:
    return _kept(_server(bench), BIG_TEXT, bench.sizes.big)


def _kept(port: int, text: str, count: int) -> Samples:
    client = http.client.HTTPConnection("127.0.0.1", port)
    return timed(lambda: _post(client, text), count)


def _post(client: http.client.HTTPConnection, text: str) -> None:
    client.request("POST", "/", text.encode())
    assert len(client.getresponse().read()) == len(text)


def _server(bench: Bench) -> int:
    port = free_port()
    bench.helper(f"{__name__}:server", str(port))
    return port


def server(port: str) -> None:
    """A role: uvicorn around the smallest application that reads a body and sends it back."""
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it every answer waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", int(port)))
    listener.listen(512)
    config = uvicorn.Config(application, log_level="warning", access_log=False, lifespan="off")
    ready()
    asyncio.run(uvicorn.Server(config).serve([listener]))


async def application(scope: Any, receive: Any, send: Any) -> None:
    body, is_more = b"", True
    while is_more:
        message = await receive()
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})
