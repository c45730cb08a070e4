"""Redis over its unix socket, through redis-py with hiredis: pub/sub, and Streams with an append-only file.

A stream's text is stored, read by a consumer group and acknowledged, as a mailbox's is: XADD, XREADGROUP, XACK.
`everysec` survives a kill of the server, `always` a power cut.
"""

import time
from collections.abc import Callable
from typing import Any

import redis

from ..bench import Bench, Samples, flood, timed, timed_elsewhere
from ..helper import flood as flood_role
from ..helper import ready, tell
from ..processes import memory_mb
from ..sizes import BATCH, BIG_TEXT, TEXT

GROUP = "agent"
PREFETCH = 100  # as Backchannel's consumer
REQUESTS, ANSWERS = "requests", "answers"


def send(bench: Bench, fsync: str, connection: str) -> Samples:
    """XADD until its id is back. Nobody reads."""
    path = _server(bench, fsync)
    return timed(_adding(path, REQUESTS, TEXT, connection), _count(bench, fsync, connection))


def publish(bench: Bench) -> Samples:
    """PUBLISH until the broker has said how many subscribers there are; nothing is stored."""
    client = redis.Redis(unix_socket_path=_server(bench, "everysec"))
    return timed(lambda: client.publish(REQUESTS, TEXT), bench.sizes.messages)


def round_trips(bench: Bench, fsync: str, connection: str) -> Samples:
    """A text through one stream and a text back through another, each stored, read and acknowledged."""
    return _round_trips(bench, TEXT, fsync, connection, _count(bench, fsync, connection))


def big(bench: Bench) -> Samples:
    return _round_trips(bench, BIG_TEXT, "everysec", "kept", bench.sizes.big)


def published_round_trips(bench: Bench) -> Samples:
    """A text through one channel and one back through another; nothing is stored."""
    path = _server(bench, "everysec")
    client = redis.Redis(unix_socket_path=path)
    heard = _subscribed(client, ANSWERS)
    bench.helper(f"{__name__}:subscriber", path, "answer")

    def once() -> None:
        client.publish(REQUESTS, TEXT)
        heard()

    return timed(once, bench.sizes.messages)


def one_way(bench: Bench, idle_s: float) -> Samples:
    """XADD until another process has the text from XREADGROUP."""
    path = _server(bench, "everysec")
    add = _adding(path, REQUESTS, TEXT, "kept")
    receiver = bench.helper(f"{__name__}:consumer", path, "tell each", "0")
    return timed_elsewhere(add, receiver, bench.sizes.one_way, idle_s)


def published_one_way(bench: Bench, idle_s: float) -> Samples:
    """PUBLISH until a subscriber has it."""
    path = _server(bench, "everysec")
    client = redis.Redis(unix_socket_path=path)
    receiver = bench.helper(f"{__name__}:subscriber", path, "tell")
    return timed_elsewhere(lambda: client.publish(REQUESTS, TEXT), receiver, bench.sizes.one_way, idle_s)


def senders(bench: Bench, senders: int, until: str) -> Samples:
    """XADD from several processes while one reads and acknowledges; until the last is `stored`, or `acked`."""
    path = _server(bench, "everysec")
    count = bench.sizes.flood
    consumer = bench.helper(f"{__name__}:consumer", path, "tell the last", str(count * senders))
    helpers = [bench.helper_unready(f"{__name__}:sender", path, str(count)) for _ in range(senders)]
    return flood(helpers, count, consumer if until == "acked" else None)


def batches(bench: Bench) -> Samples:
    """Pipelined XADDs, a hundred in each pipeline."""
    client = redis.Redis(unix_socket_path=_server(bench, "everysec"))

    def batch() -> None:
        with client.pipeline(transaction=False) as pipeline:
            for _ in range(BATCH):
                pipeline.xadd(REQUESTS, {"text": TEXT})
            pipeline.execute()

    batch()
    began = time.perf_counter()
    for _ in range(bench.sizes.batches):
        batch()
    return Samples([BATCH * bench.sizes.batches / (time.perf_counter() - began)])


def memory(bench: Bench) -> Samples:
    """Resident memory of the server after some messages."""
    path = bench.path("redis")
    pid = _start(bench, "everysec", path)
    add = _adding(path, REQUESTS, TEXT, "kept")
    for _ in range(bench.sizes.slow_messages):
        add()
    return Samples([memory_mb(pid)])


def _round_trips(bench: Bench, text: str, fsync: str, connection: str, count: int) -> Samples:
    path = _server(bench, fsync)
    add = _adding(path, REQUESTS, text, connection)
    read, acknowledge = _reading(path, ANSWERS, 1)
    bench.helper(f"{__name__}:answerer", path, connection)

    def once() -> None:
        add()
        for number, fields in read():
            assert len(fields[b"text"]) == len(text)
            acknowledge(number)

    return timed(once, count)


def _count(bench: Bench, fsync: str, connection: str) -> int:
    quick = fsync == "everysec" and connection == "kept"
    return bench.sizes.messages if quick else bench.sizes.slow_messages


# --- roles ------------------------------------------------------------------------------------------------------------


def answerer(path: str, connection: str) -> None:
    """Answers each text with the same, then acknowledges it."""
    read, acknowledge = _reading(path, REQUESTS, 1)
    client = redis.Redis(unix_socket_path=path)
    ready()
    while True:
        for number, fields in read():
            if connection == "kept":
                client.xadd(ANSWERS, fields)
            else:
                with redis.Redis(unix_socket_path=path) as fresh:
                    fresh.xadd(ANSWERS, fields)
            acknowledge(number)


def consumer(path: str, what: str, count: str) -> None:
    """Reads and acknowledges; tells when it has each text, or when the last of so many is acknowledged."""
    read, acknowledge = _reading(path, REQUESTS, 1 if what == "tell each" else PREFETCH)
    left = int(count)
    ready()
    while True:
        for number, _ in read():
            now = time.monotonic_ns()
            acknowledge(number)
            left -= 1
            if what == "tell each":
                tell(now)
            elif left == 0:
                tell(time.monotonic_ns())


def subscriber(path: str, what: str) -> None:
    """Tells when it has a text, or publishes an answer."""
    client = redis.Redis(unix_socket_path=path)
    heard = _subscribed(client, REQUESTS)
    ready()
    while True:
        heard()
        if what == "tell":
            tell(time.monotonic_ns())
        else:
            client.publish(ANSWERS, TEXT)


def sender(path: str, count: str) -> None:
    flood_role(_adding(path, REQUESTS, TEXT, "kept"), int(count))


# --- helpers ----------------------------------------------------------------------------------------------------------


def _server(bench: Bench, fsync: str) -> str:
    path = bench.path("redis")
    _start(bench, fsync, path)
    client = redis.Redis(unix_socket_path=path)
    for stream in (REQUESTS, ANSWERS):
        client.xgroup_create(stream, GROUP, mkstream=True)
    client.close()
    return path


def _start(bench: Bench, fsync: str, path: str) -> int:
    return bench.server(
        bench.tool("redis-server"), "--port", "0", "--unixsocket", path, "--dir", str(bench.folder),
        "--save", "", "--appendonly", "yes", "--appendfsync", fsync, address=path,
    )  # fmt: skip


def _adding(path: str, stream: str, text: str, connection: str) -> Callable[[], object]:
    fields: dict[Any, Any] = {"text": text}
    if connection == "kept":
        client = redis.Redis(unix_socket_path=path)
        return lambda: client.xadd(stream, fields)

    def once() -> None:
        with redis.Redis(unix_socket_path=path) as fresh:
            fresh.xadd(stream, fields)

    return once


def _reading(path: str, stream: str, count: int) -> tuple[Callable[[], list[Any]], Callable[[bytes], object]]:
    """What waits for the next texts, as (number, fields), and what acknowledges one."""
    client = redis.Redis(unix_socket_path=path)

    def read() -> list[Any]:
        ((_, entries),) = client.xreadgroup(GROUP, "me", {stream: ">"}, count=count, block=0)
        found: list[Any] = entries
        return found

    return read, lambda number: client.xack(stream, GROUP, number)


def _subscribed(client: Any, channel: str) -> Callable[[], object]:
    """What waits for the next text of a channel."""
    subscription = client.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(channel)
    subscription.get_message(timeout=5)  # that the broker has us

    def heard() -> object:
        while (message := subscription.get_message(timeout=None)) is None:
            pass
        return message

    return heard
