"""Every row of the benchmark: what is measured, of whom, and what it includes.

`durable` says what a text survives once it is acknowledged: `no` (in somebody's memory), `process` (a kill of whoever
stores it), `power` (a power cut). `acknowledged` says who has told the sender what. `connection` is `kept`, or `new`
for each text. A row without such an answer has `-`.
"""

from dataclasses import dataclass, field
from typing import Any

from .sizes import BATCH, COLD_S, IDLE_S

REDIS = ("redis-server", "pypi:redis")
NATS = ("nats-server", "pypi:nats-py")
MQTT = ("mosquitto", "pypi:paho-mqtt")
DBUS = ("dbus-daemon", "pypi:dbus-fast")
ZMQ = ("pypi:pyzmq",)
HTTP = ("pypi:uvicorn",)
HCOM = ("hcom", "pypi:hcom")
C = ("echo",)


@dataclass(frozen=True)
class Work:
    """A table. `is_latency`: measured pinned and unpinned, and less is better. `base` is the row that others divide by."""

    title: str
    unit: str
    base: str
    is_latency: bool = True


@dataclass(frozen=True)
class Case:
    """A row. `measure` is a function below `benchmarks`, called with `options`; `needs` are what `tools.py` brings."""

    work: str
    system: str
    connection: str
    durable: str
    acknowledged: str
    measure: str
    options: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.work}: {self.system}" + ("" if self.connection == "-" else f", {self.connection}")

    @property
    def is_peer(self) -> bool:
        """Whether it runs in the peers' environment instead of that in which Backchannel is installed."""
        return any(need.startswith("pypi:") for need in self.needs)


WORKS = {
    "send": Work("acknowledged send of 256 bytes, nobody receives", "us", "send: raw Python, new"),
    "round trip": Work(
        "round trip: 256 bytes to another process and 256 back", "us", "round trip: Redis Streams everysec, kept"
    ),
    "one way": Work(
        "one way: until another process has 256 bytes, all idle before", "us", "one way: ZeroMQ push/pull, kept"
    ),
    "one way, cold": Work("the same after a longer sleep", "us", "one way, cold: raw Python, new"),
    "session": Work(
        "sessions: until the peer's agent has 256 bytes, all idle before; from open to accepted",
        "us",
        "session: Backchannel message to the peer's agent, kept",
    ),
    "1 MiB": Work("round trip of 1 MiB each way", "us", "1 MiB: Redis Streams everysec, kept"),
    "1 sender": Work("sends of 256 bytes while somebody consumes, 1 sender", "/s", "1 sender: raw Python, new", False),
    "4 senders": Work("the same, 4 senders at once", "/s", "4 senders: raw Python, new", False),
    "group commit": Work(
        "power-durable sends, nobody receives", "/s", "group commit: Backchannel, 1 sender, new", False
    ),
    "batches": Work(
        f"texts in batches of {BATCH}, nobody receives", "/s", "batches: Redis Streams everysec, kept", False
    ),
    "command": Work("whole processes", "ms", "command: python -c pass"),
    "memory": Work("resident memory, idle", "MB", "memory: Backchannel daemon", False),
    "idle": Work("wakeups while idle", "/s", "idle: Backchannel daemon", False),
    "put": Work("growth: an acknowledged send", "us", "put: Backchannel, empty, kept"),
    "take": Work("growth: a take and its ack", "us", "take: Backchannel, empty, kept"),
    "agents": Work("growth: an acknowledged send, agents in one process", "us", "agents: Backchannel, few, kept"),
}

ME = "Backchannel"
RECEIPT = "stored"
BOTH = "stored, acked"

CASES = (
    # --- acknowledged send
    Case("send", "raw C", "kept", "no", "echo", "peers.raw_c:echoes", {"connection": "kept"}, C),
    Case("send", "raw C", "new", "no", "echo", "peers.raw_c:echoes", {"connection": "new"}, C),
    Case("send", "raw C, fdatasync", "new", "power", "echo", "peers.raw_c:echoes", {"connection": "new", "is_flushed": True}, C),
    Case("send", "raw Python", "kept", "no", "echo", "peers.raw_python:echoes", {"connection": "kept"}),
    Case("send", "raw Python", "new", "no", "echo", "peers.raw_python:echoes", {"connection": "new"}),
    Case("send", ME, "kept", "process", RECEIPT, "ours.sends:kept", {"durability": "process"}),
    Case("send", ME, "new", "process", RECEIPT, "ours.sends:new", {"durability": "process"}),
    Case("send", f"{ME}, power", "kept", "power", RECEIPT, "ours.sends:kept", {"durability": "power"}),
    Case("send", f"{ME}, power", "new", "power", RECEIPT, "ours.sends:new", {"durability": "power"}),
    Case("send", "multiprocessing", "kept", "no", "reply", "peers.connection:echoes", {"connection": "kept"}),
    Case("send", "multiprocessing", "new", "no", "reply", "peers.connection:echoes", {"connection": "new"}),
    Case("send", "ZeroMQ req/rep", "kept", "no", "reply", "peers.zeromq:requests", {"connection": "kept"}, ZMQ),
    Case("send", "ZeroMQ req/rep", "new", "no", "reply", "peers.zeromq:requests", {"connection": "new"}, ZMQ),
    Case("send", "Redis pub/sub", "kept", "no", "broker", "peers.redis_server:publish", {}, REDIS),
    Case("send", "Redis Streams everysec", "kept", "process", "broker", "peers.redis_server:send", {"fsync": "everysec", "connection": "kept"}, REDIS),
    Case("send", "Redis Streams everysec", "new", "process", "broker", "peers.redis_server:send", {"fsync": "everysec", "connection": "new"}, REDIS),
    Case("send", "Redis Streams always", "kept", "power", "broker", "peers.redis_server:send", {"fsync": "always", "connection": "kept"}, REDIS),
    Case("send", "NATS request", "kept", "no", "reply", "peers.nats_server:requests", {}, NATS),
    Case("send", "NATS JetStream", "kept", "process", "broker", "peers.nats_server:send", {}, NATS),
    Case("send", "mosquitto QoS 1", "kept", "no", "broker", "peers.mqtt:send", {}, MQTT),
    Case("send", "D-Bus call", "kept", "no", "reply", "peers.dbus:calls", {}, DBUS),
    Case("send", "HTTP", "kept", "no", "200", "peers.http:posts", {"connection": "kept"}, HTTP),
    Case("send", "HTTP", "new", "no", "200", "peers.http:posts", {"connection": "new"}, HTTP),
    # --- round trip
    Case("round trip", "raw C", "kept", "no", "-", "peers.raw_c:echoes", {"connection": "kept"}, C),
    Case("round trip", "raw C", "new", "no", "-", "peers.raw_c:echoes", {"connection": "new"}, C),
    Case("round trip", "raw Python", "kept", "no", "-", "peers.raw_python:echoes", {"connection": "kept"}),
    Case("round trip", "raw Python", "new", "no", "-", "peers.raw_python:echoes", {"connection": "new"}),
    Case("round trip", ME, "kept", "process", BOTH, "ours.round_trips:kept"),
    Case("round trip", ME, "new", "process", BOTH, "ours.round_trips:new"),
    Case("round trip", "multiprocessing", "kept", "no", "-", "peers.connection:echoes", {"connection": "kept"}),
    Case("round trip", "multiprocessing", "new", "no", "-", "peers.connection:echoes", {"connection": "new"}),
    Case("round trip", "ZeroMQ push/pull", "kept", "no", "-", "peers.zeromq:round_trips", {}, ZMQ),
    Case("round trip", "Redis pub/sub", "kept", "no", "broker", "peers.redis_server:published_round_trips", {}, REDIS),
    Case("round trip", "Redis Streams everysec", "kept", "process", BOTH, "peers.redis_server:round_trips", {"fsync": "everysec", "connection": "kept"}, REDIS),
    Case("round trip", "Redis Streams everysec", "new", "process", BOTH, "peers.redis_server:round_trips", {"fsync": "everysec", "connection": "new"}, REDIS),
    Case("round trip", "Redis Streams always", "kept", "power", BOTH, "peers.redis_server:round_trips", {"fsync": "always", "connection": "kept"}, REDIS),
    Case("round trip", "NATS request", "kept", "no", "-", "peers.nats_server:requests", {}, NATS),
    Case("round trip", "NATS JetStream", "kept", "process", BOTH, "peers.nats_server:round_trips", {}, NATS),
    Case("round trip", "mosquitto QoS 1", "kept", "no", "broker", "peers.mqtt:round_trips", {}, MQTT),
    Case("round trip", "D-Bus call", "kept", "no", "-", "peers.dbus:calls", {}, DBUS),
    Case("round trip", "HTTP", "kept", "no", "-", "peers.http:posts", {"connection": "kept"}, HTTP),
    Case("round trip", "HTTP", "new", "no", "-", "peers.http:posts", {"connection": "new"}, HTTP),
    Case("round trip", "files, polled every 10 ms", "-", "process", "no", "peers.files:round_trips"),
    # --- one way
    Case("one way", "raw Python", "new", "no", "no", "peers.raw_python:one_way", {"idle_s": IDLE_S}),
    Case("one way", ME, "kept", "process", RECEIPT, "ours.one_way:idle", {"idle_s": IDLE_S}),
    Case("one way", "ZeroMQ push/pull", "kept", "no", "no", "peers.zeromq:one_way", {"idle_s": IDLE_S}, ZMQ),
    Case("one way", "Redis pub/sub", "kept", "no", "broker", "peers.redis_server:published_one_way", {"idle_s": IDLE_S}, REDIS),
    Case("one way", "Redis Streams everysec", "kept", "process", "broker", "peers.redis_server:one_way", {"idle_s": IDLE_S}, REDIS),
    Case("one way", "NATS JetStream", "kept", "process", "broker", "peers.nats_server:one_way", {"idle_s": IDLE_S}, NATS),
    Case("one way", "mosquitto QoS 1", "kept", "no", "broker", "peers.mqtt:one_way", {"idle_s": IDLE_S}, MQTT),
    Case("one way", "files, polled every 10 ms", "-", "process", "no", "peers.files:one_way", {"idle_s": IDLE_S}),
    Case("one way, cold", "raw Python", "new", "no", "no", "peers.raw_python:one_way", {"idle_s": COLD_S}),
    Case("one way, cold", ME, "kept", "process", RECEIPT, "ours.one_way:idle", {"idle_s": COLD_S}),
    # --- sessions
    Case("session", f"{ME} message to the peer's agent", "kept", "process", RECEIPT, "ours.one_way:idle", {"idle_s": IDLE_S}),
    Case("session", f"{ME} data to the peer's agent", "kept", "process", "own daemon", "ours.sessions:data", {"idle_s": IDLE_S}),
    Case("session", f"{ME} open to accepted", "kept", "process", "accepted", "ours.sessions:opens"),
    # --- 1 MiB
    Case("1 MiB", "raw Python", "kept", "no", "-", "peers.raw_python:big_echoes"),
    Case("1 MiB", ME, "kept", "process", BOTH, "ours.round_trips:big"),
    Case("1 MiB", "multiprocessing", "kept", "no", "-", "peers.connection:big"),
    Case("1 MiB", "ZeroMQ push/pull", "kept", "no", "-", "peers.zeromq:big", {}, ZMQ),
    Case("1 MiB", "Redis Streams everysec", "kept", "process", BOTH, "peers.redis_server:big", {}, REDIS),
    Case("1 MiB", "NATS JetStream", "kept", "process", BOTH, "peers.nats_server:big", {}, NATS),
    Case("1 MiB", "mosquitto QoS 1", "kept", "no", "broker", "peers.mqtt:big", {}, MQTT),
    Case("1 MiB", "HTTP", "kept", "no", "-", "peers.http:big", {}, HTTP),
    # --- throughput
    *(
        case
        for work, senders in (("1 sender", 1), ("4 senders", 4))
        for case in (
            Case(work, "raw Python", "kept", "no", "echo", "peers.raw_python:senders", {"senders": senders, "connection": "kept"}),
            Case(work, "raw Python", "new", "no", "echo", "peers.raw_python:senders", {"senders": senders, "connection": "new"}),
            Case(work, ME, "kept", "process", RECEIPT, "ours.throughput:senders", {"senders": senders, "connection": "kept", "until": "stored"}),
            Case(work, ME, "new", "process", RECEIPT, "ours.throughput:senders", {"senders": senders, "connection": "new", "until": "stored"}),
            Case(work, f"{ME}, to the last ack", "kept", "process", BOTH, "ours.throughput:senders", {"senders": senders, "connection": "kept", "until": "acked"}),
            Case(work, f"{ME}, to the last ack", "new", "process", BOTH, "ours.throughput:senders", {"senders": senders, "connection": "new", "until": "acked"}),
            Case(work, "Redis Streams everysec", "kept", "process", "broker", "peers.redis_server:senders", {"senders": senders, "until": "stored"}, REDIS),
            Case(work, "Redis Streams, to the last ack", "kept", "process", BOTH, "peers.redis_server:senders", {"senders": senders, "until": "acked"}, REDIS),
            Case(work, "NATS JetStream", "kept", "process", "broker", "peers.nats_server:senders", {"senders": senders}, NATS),
            Case(work, "mosquitto QoS 1", "kept", "no", "broker", "peers.mqtt:senders", {"senders": senders}, MQTT),
        )
    ),
    Case("group commit", f"{ME}, 1 sender", "new", "power", RECEIPT, "ours.sends:together", {"senders": 1}),
    Case("group commit", f"{ME}, 16 senders", "new", "power", RECEIPT, "ours.sends:together", {"senders": 16}),
    # --- batches
    Case("batches", ME, "kept", "process", RECEIPT, "ours.batches:batches", {"waiting": -1}),
    Case("batches", f"{ME}, many waiting", "kept", "process", RECEIPT, "ours.batches:batches", {"waiting": 1}),
    Case("batches", "Redis Streams everysec", "kept", "process", "broker", "peers.redis_server:batches", {}, REDIS),
    # --- whole processes
    Case("command", "python -c pass", "-", "-", "-", "ours.command_line:nothing"),
    Case("command", "backchannel send", "new", "process", RECEIPT, "ours.command_line:send"),
    Case("command", "backchannel hook, nothing to say", "new", "-", "-", "ours.command_line:hook"),
    Case("command", "backchannel send to exit of recv", "new", "process", BOTH, "ours.command_line:send_to_exit_of_recv"),
    Case("command", "hcom send", "-", "process", "stored", "peers.hcom:send", {}, HCOM),
    Case("command", "hcom send to exit of listen", "-", "process", "stored", "peers.hcom:send_to_exit_of_listen", {}, HCOM),
    # --- a daemon that has nothing to do
    Case("memory", f"{ME} daemon", "-", "-", "-", "ours.daemon:memory"),
    Case("memory", f"{ME}, some agents in a process", "-", "-", "-", "ours.daemon:memory_of_many", {"many": 0}),
    Case("memory", f"{ME}, many agents in a process", "-", "-", "-", "ours.daemon:memory_of_many", {"many": 1}),
    Case("memory", "redis-server", "-", "-", "-", "peers.redis_server:memory", {}, REDIS),
    Case("memory", "nats-server", "-", "-", "-", "peers.nats_server:memory", {}, NATS),
    Case("memory", "mosquitto", "-", "-", "-", "peers.mqtt:memory", {}, MQTT),
    Case("idle", f"{ME} daemon", "-", "-", "-", "ours.daemon:wakeups_idle"),
    # --- growth
    *(
        Case(work, f"{ME}, {size}", "kept", "process", RECEIPT if work == "put" else "acked", f"ours.growth:{work}", {"waiting": waiting})
        for work in ("put", "take")
        for waiting, size in ((-1, "empty"), (0, "some waiting"), (1, "many waiting"))
    ),
    *(
        Case("agents", f"{ME}, {size}", "kept", "process", RECEIPT, "ours.growth:agents", {"many": many})
        for many, size in ((-1, "few"), (0, "some"), (1, "many"))
    ),
)  # fmt: skip

BY_NAME = {case.name: case for case in CASES}
assert len(BY_NAME) == len(CASES), "two rows of one name"
