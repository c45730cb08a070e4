"""Settings of a daemon: one table with unit, default and reason, read from `config.toml`.

`STATE/config.toml` holds for all agents, `STATE/NAME/config.toml` for one and wins. An unknown key or a wrong value is
an error that names the file: a setting that is silently not in force is worse than none.
"""

from typing import Any, NamedTuple

from ..errors import LocalProtocolError
from ..protocol.envelope import DURABILITIES
from ..protocol.sessionframe import Limits

MODEL_SESSION_MESSAGES = 200


class Setting(NamedTuple):
    """One line of the table. `low` and `high` bound numbers; `words` lists what a text may be."""

    default: Any
    unit: str
    reason: str
    low: float = 1
    high: float = 2**53 - 1
    words: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[type, ...]:
        """Only time comes in fractions."""
        return (int, float) if self.unit == "seconds" else (int,)


SETTINGS = {
    "messages_max": Setting(
        1_000_000, "messages", "stored and handed out; a full mailbox refuses, it never drops", high=100_000_000
    ),
    "bytes_max": Setting(1 << 30, "bytes", "of texts stored and handed out", low=1 << 16),
    "line_bytes_max": Setting(
        1 << 20, "bytes", "of one request; a longer one is refused before it is read whole", low=4096, high=16 << 20
    ),
    "durability": Setting(
        "process",
        "",
        "what `stored` survives unless a message asks for more: a kill, or a power cut",
        words=DURABILITIES,
    ),
    "deliveries_max": Setting(5, "deliveries", "unacked, until a message is dead: its takers die of it", high=1000),
    "lease_s": Setting(
        300, "seconds", "a detached lease (`recv --keep`): time to act on what a shell printed", high=30 * 86400
    ),
    "driven_by": Setting(
        "program",
        "",
        "who decides what this agent sends; a model's messages go through its own daemon, which counts hops and rate",
        words=("program", "model"),
    ),
    "session_messages_max": Setting(
        0,
        "messages",
        f"both ways in one session, then it ends; 0: no limit, or {MODEL_SESSION_MESSAGES} for an agent that a model"
        " drives, since two of those may thank each other for ever",
        low=0,
    ),
    "session_bytes_max": Setting(0, "bytes", "of texts both ways in one session, then it ends; 0: no limit", low=0),
    "session_s_max": Setting(
        0,
        "seconds",
        "that a session may last, then it ends; 0: no limit, agents think for hours",
        low=0,
        high=366 * 86400,
    ),
    "reserve_bytes": Setting(
        16 << 20, "bytes", "of disk that pushes leave free, so that acks and deletes still fit", low=0, high=1 << 40
    ),
    "history_s": Setting(
        30 * 86400,
        "seconds",
        "that the content of a finished message is kept; 0: for ever. A month answers most questions",
        low=0,
        high=100 * 366 * 86400,
    ),
    "history_bytes_max": Setting(
        1 << 30,
        "bytes",
        "of the file for what is finished; beyond that the oldest contents leave, however young. 0: no limit",
        low=0,
        high=1 << 50,
    ),
    "idle_exit_s": Setting(
        60,
        "seconds",
        "without anything to do until a daemon ends whose sockets the service manager keeps; the next connection starts"
        " it, which costs that caller a start, so not sooner than a minute",
        low=60,
        high=366 * 86400,
    ),
    "log_bytes_max": Setting(
        1 << 20,
        "bytes",
        "of `log`, then it becomes `log.1`: some ten thousand lines, weeks of them",
        low=1 << 12,
        high=1 << 30,
    ),
    "log_files_kept": Setting(
        3, "files", "of the log's past, `log.1` the newest; what is older is deleted", low=1, high=100
    ),
}


class Config:
    """The settings in force for one agent, as attributes; `origin` says where each came from."""

    messages_max: int
    bytes_max: int
    line_bytes_max: int
    durability: str
    deliveries_max: int
    lease_s: float
    driven_by: str
    session_messages_max: int
    session_bytes_max: int
    session_s_max: float
    reserve_bytes: int
    history_s: float
    history_bytes_max: int
    idle_exit_s: float
    log_bytes_max: int
    log_files_kept: int

    def __init__(self, values: dict[str, Any] | None = None, origin: dict[str, str] | None = None) -> None:
        self.origin = dict.fromkeys(SETTINGS, "default") | (origin or {})
        for key, setting in SETTINGS.items():
            setattr(self, key, (values or {}).get(key, setting.default))

    @property
    def session_limits(self) -> Limits:
        """What every session of this agent has at the most, whoever opened it."""
        model_max = MODEL_SESSION_MESSAGES if self.driven_by == "model" else None
        return Limits(
            self.session_messages_max or model_max, self.session_bytes_max or None, self.session_s_max or None, None
        )

    def shown(self) -> list[dict[str, Any]]:
        """Every setting with its value in force, where that came from, its unit, default and reason."""
        return [
            {
                "key": key,
                "value": getattr(self, key),
                "origin": self.origin[key],
                "unit": setting.unit,
                "default": setting.default,
                "reason": setting.reason,
            }
            for key, setting in SETTINGS.items()
        ]


def load(paths: list[str]) -> Config:
    """The settings from the files that exist, later ones winning. Raises `LocalProtocolError` naming file and key."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                text = file.read()
        except FileNotFoundError:
            continue
        import tomllib  # 0.3 MB that a daemon without settings does not need

        try:
            found = tomllib.loads(text.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise _wrong(path, f"is not TOML: {error}") from None
        for key, value in found.items():
            values[key] = _checked(path, key, value)
            origin[key] = path
    return Config(values, origin)


def _checked(path: str, key: str, value: Any) -> Any:
    setting = SETTINGS.get(key)
    if setting is None:
        raise _wrong(path, f"has an unknown setting {key!r}", f"known are {', '.join(SETTINGS)}")
    if setting.words:
        if value not in setting.words:
            raise _wrong(path, f"{key} = {value!r}", f"use {' or '.join(setting.words)}")
    elif type(value) not in setting.kinds or not setting.low <= value <= setting.high:
        raise _wrong(path, f"{key} = {value!r}", f"use {setting.low} to {setting.high} {setting.unit}")
    return value


def _wrong(path: str, what: str, hint: str = "") -> LocalProtocolError:
    return LocalProtocolError(f"{path} {what}", code="bad_config", hint=hint or "mend the file, then start again")
