"""What `platforms.backchannel.extra` of a Hermes profile may say. A wrong value is an error, never a silent default."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class Settings(NamedTuple):
    """One agent's settings. Times in seconds."""

    agent: str
    accept: str = "all"  # who decides about an offered task: `all` takes what is allowed, `model` asks the model
    allow: frozenset[str] | None = None  # who may write to this agent at all; None: everybody
    at_once: int = 4  # tasks worked on at the same time; the next is rejected as busy
    busy_retry_s: float = 60.0  # when a rejected peer may ask again
    texts_max: int = 40  # of one session, both ways; then it is over for both. No thanking without end
    idle_s: float = 86400.0  # a session without a text for so long is over
    ask_s_max: float = 120.0  # how long backchannel_ask may wait: it holds a turn, and a thread
    open_s_max: float = 300.0  # how long backchannel_open may wait for the peer to decide
    retry_s: float = 5.0  # after a failed turn (provider down); doubled each time, to RETRY_S_MAX
    attempts: int = 5  # turns for one delivery, until its sender is told that it failed

    def may_write(self, peer: str) -> bool:
        return self.allow is None or peer in self.allow


ACCEPT = ("all", "model")
RETRY_S_MAX = 600.0


def read_settings(extra: Mapping[str, Any], profile: str) -> Settings:
    """The settings of a profile. Raises `ValueError` that names the key and what it may be."""
    unknown = set(extra) - set(Settings._fields) - _HERMES_OWN
    if unknown:
        raise ValueError(
            f"platforms.backchannel.extra.{min(unknown)} is no setting (known: {', '.join(Settings._fields)})"
        )
    values: dict[str, Any] = {"agent": agent_name(str(extra.get("agent") or profile))}
    for key, default in Settings._field_defaults.items():
        if key not in extra or extra[key] is None:
            continue
        value = extra[key]
        if key == "accept":
            values[key] = _word(key, value)
        elif key == "allow":
            values[key] = _names(value)
        else:
            values[key] = _number(key, value, whole=type(default) is int)
    return Settings(**values)


def agent_name(profile: str) -> str:
    """The agent's name for a profile's: the same, as far as an agent may be called so."""
    name = re.sub(r"[^a-z0-9_-]+", "-", profile.lower()).strip("-_")[:63]
    return name if name and name != "default" else "hermes"


# What Hermes itself keeps in `extra` of any platform.
_HERMES_OWN = {"group_sessions_per_user", "thread_sessions_per_user", "cron_continuable_surface"}


def _word(key: str, value: Any) -> str:
    if value not in ACCEPT:
        raise ValueError(f"platforms.backchannel.extra.{key} is {value!r}: use {' or '.join(ACCEPT)}")
    return str(value)


def _names(value: Any) -> frozenset[str] | None:
    listed = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"platforms.backchannel.extra.allow is {value!r}: list names, or leave it out for everybody")
    return frozenset(listed)


def _number(key: str, value: Any, *, whole: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value <= 0:
        kind = "whole number" if whole else "number"
        raise ValueError(f"platforms.backchannel.extra.{key} is {value!r}: use a {kind} above 0")
    return value
