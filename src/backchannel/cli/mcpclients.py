"""What `init mcp CLIENT` changes: a program that speaks MCP gets the server `backchannel mcp --as NAME`.

It is entered in the settings of one directory, as hooks are, and under one key. The tools are all it gives: who has the
server alone sees its mail when its model asks for it.
"""

import importlib.util
import json
import os
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

from ..client import adapters
from ..errors import BackchannelError
from ..mcp import ADAPTER
from ..protocol.names import AgentName
from ..transport.paths import Places
from .coding import PROGRAMS, check_free, chosen_places, named_by, named_in, own_command, placed, placing, shared
from .init import Change, Plan, TextChange, declaring, driven_by_model, read
from .settings import Json, edit_json, with_table, without_table

KEY = "backchannel"
CALL_S_MAX = 600  # `inbox` waits for mail
CLIENTS = {"claude": ".mcp.json", "codex": ".codex/config.toml", "gemini": ".gemini/settings.json"}
NOTES = {
    "claude": "Claude Code asks once whether it may use a server of this directory's .mcp.json",
    "codex": "Codex reads the settings of a directory only if you trust that directory",
    "gemini": "Gemini CLI reads the settings of a directory only if you trust that directory",
}


def plan_init(places: Places, client: str, directory: str, agent: str | None) -> Plan:
    directory = os.path.realpath(directory)
    path = os.path.join(directory, CLIENTS[client])
    name = _name(client, directory, agent)
    if agent is None:  # who names another's agent means to share its mailbox
        check_free(places, name, directory)
    before = read(path)
    changes: list[Change] = [
        TextChange(path, before, _with_server(path, before, client, server(client, name))),
        driven_by_model(places, name),
        declaring(places, name, ADAPTER),
        placing(places, name, f"mcp-{client}", path),
    ]
    warnings = [NOTES[client], *shared(places, name, directory, agent)]
    if importlib.util.find_spec("mcp") is None:
        warnings.append("`backchannel mcp` cannot run here yet: pip install 'backchannel[mcp]'")
    return Plan(name, changes, [f"start {PROGRAMS[client].command} anew in {directory}"], warnings)


def plan_uninit(places: Places, client: str, directory: str, agent: str | None) -> Plan:
    directory = os.path.realpath(directory)
    path = os.path.join(directory, CLIENTS[client])
    name = _name(client, directory, agent)
    before = read(path)
    changes: list[Change] = [
        TextChange(path, before, _without_server(path, before, client)),
        placing(places, name, f"mcp-{client}", None),
    ]
    if not any(_has_server(directory, other) for other in CLIENTS if other != client):
        declared = adapters.path_of(places, name, ADAPTER.name)
        changes.append(TextChange(declared, read(declared), None, "remove"))
    return Plan(name, changes, [f"backchannel remove {name}    (if the agent is to go as well)"], [])


def examine(places: Places) -> Iterator[tuple[str, str, str, str]]:
    """For `doctor`: whether each program that got the server still has it, and whether it can be run."""
    for agent in places.registered():
        for what, path in placed(places, agent).items():
            _, is_server, client = what.partition("mcp-")
            if not is_server or client not in CLIENTS or path is None:
                continue
            directory = path.removesuffix("/" + CLIENTS[client])
            again = f"cd {shlex.quote(directory)} && backchannel init mcp {client} --agent {agent}"
            yield _verdict(f"mcp {client} {agent}", path, _entry(path, client), agent, again)


def _verdict(subject: str, path: str, entry: Any, agent: str, again: str) -> tuple[str, str, str, str]:
    command = entry.get("command") if isinstance(entry, dict) else None
    if not isinstance(command, str) or entry.get("args") != ["mcp", "--as", agent]:
        return "fail", subject, f"{path} does not have the MCP server of {agent}", again
    if not os.access(command, os.X_OK):
        return "fail", subject, f"{path} runs {command}, which is gone", again
    return "ok", subject, f"{path} has the MCP server; mail comes when its model asks", ""


def _entry(path: str, client: str) -> Any:
    """What the settings say of our server; None if nothing, or nothing that can be read."""
    try:
        text = read(path) or ""
        settings: Any = tomllib.loads(text) if client == "codex" else json.loads(text)
        return settings["mcp_servers" if client == "codex" else "mcpServers"][KEY]
    except (BackchannelError, OSError, ValueError, KeyError, TypeError):
        return None


def server(client: str, agent: str) -> Json:
    """The entry, as the client wants it."""
    about: Json = {"command": own_command(), "args": ["mcp", "--as", agent]}
    if chosen := chosen_places():  # a client gives its servers few variables
        about["env"] = chosen
    if client == "codex":
        return about | {"tool_timeout_sec": CALL_S_MAX}
    return about | {"timeout": CALL_S_MAX * 1000} if client == "gemini" else about


def _name(client: str, directory: str, agent: str | None) -> AgentName:
    """The agent that the hooks of this directory serve, if they were set up: it has one mailbox."""
    hooks = read(os.path.join(directory, PROGRAMS[client].settings))
    return AgentName(agent or named_in(hooks) or named_by(directory))


def _has_server(directory: str, client: str) -> bool:
    path = os.path.join(directory, CLIENTS[client])
    before = read(path)
    return before is not None and _without_server(path, before, client) != before


def _with_server(path: str, before: str | None, client: str, about: Json) -> str | None:
    if client == "codex":
        return with_table(path, before, ("mcp_servers", KEY), about)

    def put(settings: Json) -> None:
        settings.setdefault("mcpServers", {})[KEY] = about

    return edit_json(path, before, put)


def _without_server(path: str, before: str | None, client: str) -> str | None:
    if client == "codex":
        return without_table(path, before, ("mcp_servers", KEY))

    def take_out(settings: dict[str, Any]) -> None:
        if settings.get("mcpServers", {}).pop(KEY, None) is not None and not settings["mcpServers"]:
            del settings["mcpServers"]

    return edit_json(path, before, take_out)
