"""NATS over loopback TCP, through nats-py: core requests, and JetStream with its file store.

JetStream's acknowledgement says that the text is in the stream's file; the file is flushed every two minutes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import nats

from ..bench import Bench, Samples, flood, free_port, timed_await
from ..helper import ready, tell, wait_for_go
from ..processes import memory_mb
from ..sizes import BIG_TEXT, IDLE_S, TEXT

REQUESTS, ANSWERS = "requests", "answers"
PAYLOAD_MAX = 4 << 20  # the default is a little less than the frame around 1 MiB


def requests(bench: Bench) -> Samples:
    """A request to another process, and its reply; nothing is stored."""

    async def main(client: Any, url: str) -> Samples:
        bench.helper(f"{__name__}:replier", url)
        return await timed_await(lambda: client.request(REQUESTS, TEXT.encode(), timeout=10), bench.sizes.slow_messages)

    return _with_client(bench, main)


def send(bench: Bench) -> Samples:
    """A publish to a stream until it is acknowledged. Nobody reads."""

    async def main(client: Any, url: str) -> Samples:
        stream = await _streams(client)
        return await timed_await(lambda: stream.publish(REQUESTS, TEXT.encode()), bench.sizes.slow_messages)

    return _with_client(bench, main)


def round_trips(bench: Bench) -> Samples:
    return _round_trips(bench, TEXT, bench.sizes.slow_messages)


def big(bench: Bench) -> Samples:
    return _round_trips(bench, BIG_TEXT, bench.sizes.big)


def one_way(bench: Bench, idle_s: float) -> Samples:
    """A publish to a stream until another process has the text."""

    async def main(client: Any, url: str) -> Samples:
        stream = await _streams(client)
        receiver = bench.helper(f"{__name__}:receiver", url)
        found = []
        for _ in range(bench.sizes.one_way + 1):
            await asyncio.sleep(idle_s)
            began = time.monotonic_ns()
            await stream.publish(REQUESTS, TEXT.encode())
            found.append((receiver.told() - began) / 1000)
        return Samples(found[1:])

    return _with_client(bench, main)


def senders(bench: Bench, senders: int) -> Samples:
    """Publishes to a stream, each acknowledged, from several processes while one reads and acknowledges."""

    async def main(client: Any, url: str) -> Samples:
        await _streams(client)
        bench.helper(f"{__name__}:receiver", url, "quiet")
        count = bench.sizes.flood // 4
        return flood([bench.helper_unready(f"{__name__}:sender", url, str(count)) for _ in range(senders)], count)

    return _with_client(bench, main)


def memory(bench: Bench) -> Samples:
    """Resident memory of the server."""
    pid, _ = _server(bench)
    time.sleep(IDLE_S)
    return Samples([memory_mb(pid)])


def _round_trips(bench: Bench, text: str, count: int) -> Samples:
    """A text through one stream and one back through another, each stored, read and acknowledged."""

    async def main(client: Any, url: str) -> Samples:
        stream = await _streams(client)
        answers = await stream.subscribe(ANSWERS, manual_ack=True)
        bench.helper(f"{__name__}:answerer", url)

        async def once() -> None:
            await stream.publish(REQUESTS, text.encode())
            await (await answers.next_msg(timeout=30)).ack()

        return await timed_await(once, count)

    return _with_client(bench, main)


# --- roles ------------------------------------------------------------------------------------------------------------


def replier(url: str) -> None:
    async def main() -> None:
        client = await nats.connect(url)
        requests = await client.subscribe(REQUESTS)
        await client.flush()
        ready()
        async for message in requests.messages:
            await message.respond(message.data)

    asyncio.run(main())


def answerer(url: str) -> None:
    async def main() -> None:
        client = await nats.connect(url)
        stream = client.jetstream()
        requests = await stream.subscribe(REQUESTS, manual_ack=True)
        ready()
        async for message in requests.messages:
            await stream.publish(ANSWERS, message.data)
            await message.ack()

    asyncio.run(main())


def receiver(url: str, mode: str = "tell") -> None:
    async def main() -> None:
        client = await nats.connect(url)
        requests = await client.jetstream().subscribe(REQUESTS, manual_ack=True)
        ready()
        async for message in requests.messages:
            now = time.monotonic_ns()
            await message.ack()
            if mode == "tell":
                tell(now)

    asyncio.run(main())


def sender(url: str, count: str) -> None:
    async def main() -> None:
        client = await nats.connect(url)
        stream = client.jetstream()
        ready()
        wait_for_go()
        began = time.monotonic_ns()
        for _ in range(int(count)):
            await stream.publish(REQUESTS, TEXT.encode())
        ended = time.monotonic_ns()
        tell(began)
        tell(ended)

    asyncio.run(main())


# --- helpers ----------------------------------------------------------------------------------------------------------


def _with_client(bench: Bench, main: Callable[[Any, str], Awaitable[Samples]]) -> Samples:
    """A server, and a client of it in a loop of its own."""

    async def connected(url: str) -> Samples:
        client = await nats.connect(url)
        try:
            return await main(client, url)
        finally:
            await client.close()

    _, url = _server(bench)
    return asyncio.run(connected(url))


def _server(bench: Bench) -> tuple[int, str]:
    port = free_port()
    config = bench.folder / "nats.conf"
    store = f'jetstream {{ store_dir: "{bench.path("jetstream")}" }}'
    config.write_text(f"host: 127.0.0.1\nport: {port}\nmax_payload: {PAYLOAD_MAX}\n{store}\n")
    return bench.server(bench.tool("nats-server"), "-c", str(config), address=port), f"nats://127.0.0.1:{port}"


async def _streams(client: Any) -> Any:
    stream = client.jetstream()
    for name in (REQUESTS, ANSWERS):
        await stream.add_stream(name=name, subjects=[name], storage="file")
    return stream
