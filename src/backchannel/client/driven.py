"""Who decides what an agent sends: said once, in its own config.toml, by whatever connects a model to it.

The daemon of an agent that a model drives counts hops and rates, and bounds its sessions. It reads the file when it
starts, so one that runs is ended here; the next call starts it again, and sessions and leases outlive that.
"""

from typing import TYPE_CHECKING

from ..transport.paths import write_private
from . import calls, wire

if TYPE_CHECKING:
    from .wire import Conversation

MODEL_LINE = 'driven_by = "model"\n'


def with_model(config: str | None) -> str:
    """The config.toml of an agent that a model drives. A person's word on it stays."""
    text = config or ""
    is_said = any(line.split("=")[0].strip() == "driven_by" for line in text.splitlines())
    return text if is_said else MODEL_LINE + text  # before everything: no table of TOML has begun there


def drive_by_model(caller: wire.Caller) -> "Conversation[str]":
    """Sees to it that the daemon of this agent knows that a model drives it. Returns the value in force: what the
    agent's file says, or `model`."""
    path = caller.places.state(caller.me(), "config.toml")
    try:
        with open(path) as file:
            before = file.read()
    except FileNotFoundError:
        before = ""
    after = with_model(before)
    if after != before:
        write_private(path, after)
        yield from calls.stop(caller, caller.me())
    settings = yield from calls.control(caller, caller.me(), "config")
    return next(str(setting["value"]) for setting in settings["settings"] if setting["key"] == "driven_by")
