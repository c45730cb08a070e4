"""MQTT 3.1.1 with QoS 1: mosquitto over loopback TCP, through paho. The broker has it in memory when it says PUBACK."""

import os
import queue
import socket
import time
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho

from ..bench import Bench, Samples, flood, free_port, timed, timed_elsewhere
from ..helper import flood as flood_role
from ..helper import ready, tell
from ..processes import memory_mb
from ..sizes import BIG_TEXT, TEXT

REQUESTS, ANSWERS = "requests", "answers"


def send(bench: Bench) -> Samples:
    """A publish until the broker's PUBACK. Nobody has subscribed."""
    client = _connected(_server(bench)[1])
    return timed(lambda: _publish(client, REQUESTS, TEXT), bench.sizes.slow_messages)


def round_trips(bench: Bench) -> Samples:
    return _round_trips(bench, TEXT, bench.sizes.slow_messages)


def big(bench: Bench) -> Samples:
    return _round_trips(bench, BIG_TEXT, bench.sizes.big)


def one_way(bench: Bench, idle_s: float) -> Samples:
    """A publish until a subscriber has it."""
    _, port = _server(bench)
    client = _connected(port)
    receiver = bench.helper(f"{__name__}:receiver", str(port))
    return timed_elsewhere(lambda: client.publish(REQUESTS, TEXT, 1), receiver, bench.sizes.one_way, idle_s)


def senders(bench: Bench, senders: int) -> Samples:
    """Publishes, each acknowledged by the broker, from several processes to one subscriber."""
    _, port = _server(bench)
    bench.helper(f"{__name__}:receiver", str(port), "quiet")
    count = bench.sizes.flood // 4
    return flood([bench.helper_unready(f"{__name__}:sender", str(port), str(count)) for _ in range(senders)], count)


def memory(bench: Bench) -> Samples:
    """Resident memory of the broker."""
    return Samples([memory_mb(_server(bench)[0])])


def _round_trips(bench: Bench, text: str, count: int) -> Samples:
    """A text to a subscriber, which publishes one back."""
    _, port = _server(bench)
    answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    client = _connected(port, ANSWERS, answers.put)
    bench.helper(f"{__name__}:answerer", str(port))

    def once() -> None:
        client.publish(REQUESTS, text, 1)
        answers.get()

    return timed(once, count)


# --- roles ------------------------------------------------------------------------------------------------------------


def answerer(port: str) -> None:
    texts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    client = _connected(int(port), REQUESTS, texts.put)
    ready()
    while True:
        client.publish(ANSWERS, texts.get(), 1)


def receiver(port: str, mode: str = "tell") -> None:
    times: queue.SimpleQueue[int] = queue.SimpleQueue()
    _connected(int(port), REQUESTS, lambda _: times.put(time.monotonic_ns()))
    ready()
    while True:
        now = times.get()
        if mode == "tell":
            tell(now)


def sender(port: str, count: str) -> None:
    client = _connected(int(port))
    flood_role(lambda: _publish(client, REQUESTS, TEXT), int(count))


# --- helpers ----------------------------------------------------------------------------------------------------------


def _publish(client: Any, topic: str, text: str) -> None:
    client.publish(topic, text, 1).wait_for_publish(10)


def _connected(port: int, topic: str | None = None, heard: Callable[[bytes], object] | None = None) -> Any:
    """A client with its thread, subscribed if a topic is named."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    is_subscribed: queue.SimpleQueue[bool] = queue.SimpleQueue()
    client.on_connect = lambda *_: is_subscribed.put(True) if topic is None else client.subscribe(topic, 1)
    client.on_subscribe = lambda *_: is_subscribed.put(True)
    client.on_message = lambda _client, _data, message: heard(message.payload) if heard else None
    client.connect("127.0.0.1", port)
    # paho leaves Nagle's algorithm on; with it a PUBACK and the next publish wait for each other, 40 ms.
    client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.loop_start()
    is_subscribed.get(timeout=10)
    return client


def _server(bench: Bench) -> tuple[int, int]:
    """Returns the broker's pid and port."""
    port = free_port()
    config = bench.folder / "mosquitto.conf"
    user = "user root\n" if os.geteuid() == 0 else ""  # else it gives up its rights, and cannot read this directory
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n{user}")
    return bench.server(bench.tool("mosquitto"), "-c", str(config), address=port), port
