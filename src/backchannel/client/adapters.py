"""What connects an agent to its mailbox, and what it can do for a message: an adapter's own declaration.

Said twice, because a model's program is not always connected: `init` writes it beside the agent
(`STATE/NAME/adapters/ADAPTER.json`), and whoever takes mail says it on that connection, so that the daemon knows it for
as long as the connection lives. The file says what was installed, the connection what is there now.
"""

import os
from typing import Any, NamedTuple

from ..protocol.codec import Malformed, decode, encode
from ..protocol.names import is_name
from ..transport.paths import Places


class Adapter(NamedTuple):
    """One adapter's declaration. It must not claim what it cannot do: people and other agents rely on it."""

    name: str  # claude, codex, gemini, hermes, mcp, ...
    wakes: bool = False  # a message gives an idle agent a turn
    mid_turn: bool = False  # a message is put before the model in the middle of its work
    evidence: str = "ack"  # what its acks rest on: ack, flush or turn
    version: str = ""  # of the program that it connects


def path_of(places: Places, agent: str, adapter: str) -> str:
    return places.state(agent, f"adapters/{adapter}.json")


def content(adapter: Adapter) -> str:
    return encode(adapter._asdict()) + "\n"


def declared(places: Places, agent: str) -> list[dict[str, Any]]:
    """What was installed for the agent, by name. A file that says nothing we understand counts for nothing."""
    try:
        names = sorted(os.listdir(places.state(agent, "adapters")))
    except OSError:
        return []
    found = []
    for name in names:
        stem, _, ending = name.rpartition(".")
        if ending != "json" or not is_name(stem):
            continue
        try:
            with open(path_of(places, agent, stem)) as file:
                said = decode(file.read())
            found.append({**Adapter(stem)._asdict(), **said, "name": stem})
        except (OSError, Malformed, UnicodeDecodeError, TypeError):
            continue
    return found


def merged(attached: list[dict[str, Any]], installed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry an adapter: as it says now where it is attached, else as it was installed."""
    found = {adapter["name"]: {**adapter, "attached": False} for adapter in installed}
    found.update((adapter["name"], {**adapter, "attached": True}) for adapter in attached)
    return list(found.values())
