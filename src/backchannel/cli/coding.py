"""What `init claude`, `init codex` and `init gemini` change: the program's windows in one directory become an agent.

The agent is named by the directory. The program's settings *of that directory* get our hooks, so that windows elsewhere
are not concerned, and each carries the agent's name. Our hooks are known by their command; all else in the file stays.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

from ..client import adapters
from ..errors import BackchannelError, LocalProtocolError
from ..hooks.dialects import DIALECTS, PROMPT, SESSION_END, SESSION_START, STOP, TOOL, WAIT, Dialect
from ..hooks.waiter import adapter
from ..protocol.codec import Malformed, decode, encode
from ..protocol.names import NAME_CHARS_MAX, AgentName, is_name
from ..transport.paths import Places
from .init import Change, Plan, TextChange, declaring, driven_by_model, read
from .settings import Json, edit_json, parse_toml

HOOK_S = 10
CODEX_END_S = 3  # more it warns of, and does not give
WAITER_S = 86_400  # then the program ends it, and an idle window is not woken until its next turn
LEASE_S = 3600  # a tool may run for an hour until the next moment comes
VERSION_S = 30.0
PLACED = "placed.json"  # in the agent's state, by program: where its settings are; `mcp-PROGRAM` for a server of tools


class Program(NamedTuple):
    """Where one program keeps its settings, and what it must be. `version_min` is the oldest we tried."""

    command: str
    settings: str
    version_min: tuple[int, int, int]
    note: str = ""


PROGRAMS = {
    "claude": Program("claude", ".claude/settings.local.json", (2, 1, 330)),
    "codex": Program(
        "codex", ".codex/hooks.json", (0, 169, 0),
        "Codex runs a hook only after you trusted it: start codex in this directory, and accept what it asks",
    ),
    "gemini": Program(
        "gemini", ".gemini/settings.json", (0, 61, 0),
        "Gemini CLI runs the hooks of a directory only if you trust that directory",
    ),
}  # fmt: skip


def plan_init(places: Places, what: str, directory: str, agent: str | None, *, must_wake: bool) -> Plan:
    """Raises `LocalProtocolError` for a program that cannot do what is asked of it."""
    dialect, program = DIALECTS[what], PROGRAMS[what]
    if must_wake and not dialect.waking:
        raise LocalProtocolError(
            f"{dialect.title} cannot be woken when it is idle: its mail comes with its next turn", code="cannot_wake",
            hint=f"leave out --wake; or as a service: backchannel serve NAME --exec {program.command} ...",
        )  # fmt: skip
    directory = os.path.realpath(directory)
    path = os.path.join(directory, program.settings)
    before = read(path)
    name = AgentName(agent or named_in(before) or named_by(directory))
    check_free(places, name, directory)
    found = version_of(program.command)
    after = edit_json(path, before, lambda settings: _put(settings, dialect, name))
    changes: list[Change] = [
        TextChange(path, before, after),
        _config(places, name),
        declaring(places, name, adapter(dialect, found or "")),
        placing(places, name, what, path),
    ]
    older = named_in(before)
    if older is not None and older != name:
        changes += _undeclaring(places, older, what)
    warnings = [program.note] if program.note else []
    warnings += shared(places, name, directory, agent)
    if chosen := chosen_places():
        words = " ".join(f"{key}={shlex.quote(value)}" for key, value in chosen.items())
        warnings.append(f"start {program.command} with {words}, as they are set here: its hooks look there")
    if found is None:
        warnings.append(f"there is no {program.command} command on the PATH")
    elif complaint := _too_old(program, found):
        warnings.append(complaint)
    return Plan(name, changes, [f"start {program.command} anew in {directory}", "backchannel doctor"], warnings)


def plan_uninit(places: Places, what: str, directory: str, agent: str | None) -> Plan:
    """The way back. The agent and its mail stay."""
    program = PROGRAMS[what]
    directory = os.path.realpath(directory)
    path = os.path.join(directory, program.settings)
    before = read(path)
    name = AgentName(agent or named_in(before) or named_by(directory))
    changes: list[Change] = [
        TextChange(path, before, edit_json(path, before, _take_out)),
        *_undeclaring(places, name, what),
    ]
    return Plan(name, changes, [f"backchannel remove {name}    (if the agent is to go as well)"], [])


def named_by(directory: str) -> str:
    """An agent's name out of a directory's."""
    name = re.sub(r"[^a-z0-9_-]+", "-", os.path.basename(directory).lower()).strip("-_")[:NAME_CHARS_MAX]
    if not is_name(name):
        raise LocalProtocolError(f"{directory} gives no agent name", code="bad_name", hint="name it: --agent NAME")
    return name


# --- our hooks in a program's settings --------------------------------------------------------------------------------


def _put(settings: Json, dialect: Dialect, agent: str) -> None:
    _take_out(settings)
    hooks_ = settings.setdefault("hooks", {})
    for event, handlers in handlers_for(dialect, agent).items():
        group = {"matcher": "*", "hooks": handlers} if dialect.name == "gemini" else {"hooks": handlers}
        hooks_.setdefault(event, []).append(group)


def handlers_for(dialect: Dialect, agent: str) -> dict[str, list[Json]]:
    """By the program's event."""
    found: dict[str, list[Json]] = {}
    for moment in (SESSION_START, PROMPT, TOOL, STOP, SESSION_END):
        found[dialect.names[moment]] = [_handler(dialect, moment, agent)]
    if dialect.waking == "rewake":
        for moment in (SESSION_START, STOP):
            waiter = _handler(dialect, WAIT, agent) | {"async": True, "asyncRewake": True, "timeout": WAITER_S}
            found[dialect.names[moment]].append(waiter)
    return found


def _handler(dialect: Dialect, moment: str, agent: str) -> Json:
    words = [own_command(), "hook", dialect.name, moment, "--as", agent]
    if dialect.name == "claude":  # without a shell between
        return {"type": "command", "command": words[0], "args": words[1:], "timeout": HOOK_S}
    handler: Json = {"type": "command", "command": shlex.join(words)}
    if dialect.name == "gemini":
        return {"name": "backchannel"} | handler | {"timeout": HOOK_S * 1000}
    return handler | {"timeout": HOOK_S if moment != SESSION_END else CODEX_END_S}


def _take_out(settings: Json) -> None:
    hooks_ = settings.get("hooks")
    if hooks_ is None:
        return
    for event in list(hooks_):
        groups = []
        for group in hooks_[event]:
            theirs = [handler for handler in group["hooks"] if our_words(handler) is None]
            if len(theirs) == len(group["hooks"]):
                groups.append(group)
            elif theirs:
                groups.append(group | {"hooks": theirs})
        if groups or not hooks_[event]:
            hooks_[event] = groups
        else:
            del hooks_[event]
    if not hooks_:
        del settings["hooks"]


def our_words(handler: Json) -> list[str] | None:
    """The command of a hook of ours, as words; None for somebody else's."""
    try:
        words = [*shlex.split(handler["command"])] if "args" not in handler else [handler["command"], *handler["args"]]
    except (ValueError, KeyError, TypeError):
        return None
    is_ours = len(words) == 6 and words[1] == "hook" and words[2] in DIALECTS and words[4] == "--as"
    return words if is_ours and os.path.basename(words[0]) == "backchannel" else None


def _ours(text: str | None) -> list[list[str]]:
    """Every hook of ours in a settings file."""
    try:
        hooks_ = decode(text or "{}").get("hooks", {})
        handlers = [handler for groups in hooks_.values() for group in groups for handler in group["hooks"]]
    except (Malformed, AttributeError, KeyError, TypeError):
        return []
    return [words for handler in handlers if (words := our_words(handler)) is not None]


def named_in(text: str | None) -> str | None:
    """The agent that a settings file names already."""
    return next((words[5] for words in _ours(text)), None)


def chosen_places() -> dict[str, str]:
    """The variables of this shell that say where agents lie, if it has them."""
    return {key: os.environ[key] for key in ("BACKCHANNEL_STATE", "BACKCHANNEL_DIR") if os.environ.get(key)}


def own_command() -> str:
    """The absolute path of this very command: a hook has another PATH than this shell."""
    command = os.path.abspath(sys.argv[0])
    if os.path.basename(command) == "backchannel" and os.access(command, os.X_OK):
        return command
    found = shutil.which("backchannel")
    if found is None:
        raise BackchannelError("the command backchannel is not on the PATH", hint="run it by its whole path")
    return os.path.abspath(found)


# --- the agent's own files --------------------------------------------------------------------------------------------


def _config(places: Places, name: str) -> TextChange:
    """A model drives it; and what was put before that model is not taken back while a long tool runs."""
    change = driven_by_model(places, name)
    after = change.after or ""
    if "lease_s" not in parse_toml(change.path, after):
        after = f"lease_s = {LEASE_S}\n" + after
    return TextChange(change.path, change.before, after)


def placing(places: Places, name: str, what: str, where: str | None) -> TextChange:
    """Remembers which settings name this agent, for `doctor`; None: none do."""
    path = places.state(name, PLACED)
    left = {key: value for key, value in (placed(places, name) | {what: where}).items() if value is not None}
    return TextChange(path, read(path), encode(left) + "\n" if left else None, "write" if left else "remove")


def _undeclaring(places: Places, name: str, what: str) -> list[Change]:
    declared = adapters.path_of(places, name, what)
    return [TextChange(declared, read(declared), None, "remove"), placing(places, name, what, None)]


def placed(places: Places, name: str) -> dict[str, str | None]:
    """By program the settings that name this agent."""
    try:
        known: dict[str, str | None] = decode(read(places.state(name, PLACED)) or "{}")
    except (Malformed, OSError):
        return {}
    return known


def check_free(places: Places, name: str, directory: str) -> None:
    """Raises `LocalProtocolError` for the agent of another directory of the same name."""
    for what, path in placed(places, name).items():
        if what not in PROGRAMS:
            continue
        other = str(path).removesuffix("/" + PROGRAMS[what].settings)
        if other != directory and os.path.isdir(other):
            raise LocalProtocolError(
                f"{name} is the agent of {other}", code="name_taken", hint="another name: --agent NAME"
            )


# --- looking at what is there -----------------------------------------------------------------------------------------


def shared(places: Places, name: str, directory: str, agent: str | None) -> list[str]:
    """A warning, if an agent that somebody else made has the name that was found for this directory."""
    is_set_up_here = any(str(path).startswith(directory + "/") for path in placed(places, name).values())
    if agent is not None or is_set_up_here or name not in places.registered():
        return []
    return [f"{name} is there already, and its mail will be read here too; for an agent of its own: --agent NAME"]


def examine(places: Places) -> Iterator[tuple[str, str, str, str]]:
    """For `doctor`: verdict, subject, what it says and the command that mends it, for each program set up."""
    for agent in places.registered():
        for what, path in placed(places, agent).items():
            if what not in PROGRAMS or path is None:
                continue
            again = f"cd {shlex.quote(os.path.dirname(os.path.dirname(path)))} && backchannel init {what}"
            try:
                yield from _examine(what, agent, path, again)
            except (BackchannelError, OSError) as error:
                yield "fail", f"{what} {agent}", str(error), again


def _examine(what: str, agent: str, path: str, again: str) -> Iterator[tuple[str, str, str, str]]:
    subject, program, dialect = f"{what} {agent}", PROGRAMS[what], DIALECTS[what]
    found = version_of(program.command)
    if found is None:
        yield "warn", subject, f"there is no {program.command} command on the PATH", ""
    elif complaint := _too_old(program, found):
        yield "warn", subject, complaint, ""
    ours = [words for words in _ours(read(path)) if words[2] == what]
    wanted = sum(len(handlers) for handlers in handlers_for(dialect, agent).values())
    if len(ours) < wanted or any(words[5] != agent for words in ours):
        yield "fail", subject, f"{path} has {len(ours)} of its {wanted} hooks", again
        return
    gone = next((words[0] for words in ours if not os.access(words[0], os.X_OK)), None)
    if gone is not None:
        yield "fail", subject, f"{path} runs {gone}, which is gone", again
        return
    try:
        complaint = _WRONG[what](path)
    except (AttributeError, TypeError):
        complaint = f"some settings of {program.command} have a form we do not know: its hooks may be off"
    if complaint:
        yield "warn", subject, complaint, ""
        return
    wakes = "wakes it when idle" if dialect.waking else "comes with its next turn"
    yield "ok", subject, f"{path} has its hooks; mail {wakes}", ""


def _wrong_with_claude(path: str) -> str:
    home = os.environ.get("CLAUDE_CONFIG_DIR") or os.path.expanduser("~/.claude")
    for where in (path, os.path.join(os.path.dirname(path), "settings.json"), os.path.join(home, "settings.json")):
        try:
            settings = decode(read(where) or "{}")
        except (Malformed, BackchannelError, OSError):
            return f"{where} is not JSON: Claude Code reads none of it"
        if settings.get("disableAllHooks"):
            return f"{where} turns all hooks off (disableAllHooks)"
    return ""


def _wrong_with_codex(path: str) -> str:
    """Its own record of what the user trusts."""
    home = os.environ.get("CODEX_HOME") or os.path.expanduser("~/.codex")
    try:
        config = tomllib.loads(read(os.path.join(home, "config.toml")) or "")
    except (tomllib.TOMLDecodeError, BackchannelError, OSError):
        return f"{home}/config.toml is not TOML: Codex does not start"
    if config.get("features", {}).get("hooks") is False:
        return f"{home}/config.toml turns hooks off ([features] hooks)"
    directory = os.path.dirname(os.path.dirname(path))
    if config.get("projects", {}).get(directory, {}).get("trust_level") != "trusted":
        return f"Codex does not trust {directory} yet: start codex there, and say that you do"
    states = config.get("hooks", {}).get("state", {}).items()
    trusted = [key for key, state in states if key.startswith(f"{path}:") and state.get("trusted_hash")]
    if len(trusted) < len(_ours(read(path))):
        return f"Codex does not trust the hooks of {path} yet: start codex there, and accept them"
    return ""


def _wrong_with_gemini(path: str) -> str:
    home = os.path.expanduser("~/.gemini")
    try:
        for where in (path, os.path.join(home, "settings.json")):
            settings = decode(read(where) or "{}")
            if settings.get("hooksConfig", {}).get("enabled") is False:
                return f"{where} turns hooks off (hooksConfig.enabled)"
        trusted = decode(read(os.path.join(home, "trustedFolders.json")) or "{}")
        is_asked = settings.get("security", {}).get("folderTrust", {}).get("enabled", True)
    except (Malformed, BackchannelError, OSError, AttributeError):
        return ""  # with comments, say: Gemini CLI reads more than JSON
    directory = os.path.dirname(os.path.dirname(path))
    if is_asked and not any(
        word.startswith("TRUST") and f"{directory}/".startswith(f"{folder.rstrip('/')}/")
        for folder, word in trusted.items()
    ):
        return f"Gemini CLI does not trust {directory} yet: start gemini there, and say that you do"
    return ""


_WRONG = {"claude": _wrong_with_claude, "codex": _wrong_with_codex, "gemini": _wrong_with_gemini}


def version_of(command: str) -> str | None:
    """What the program calls its version; "" if it does not say, None if it is not there."""
    path = shutil.which(command)
    if path is None:
        return None
    null = subprocess.DEVNULL
    try:
        done = subprocess.run(
            [path, "--version"], stdin=null, capture_output=True, text=True, timeout=VERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+\.\d+\.\d+", done.stdout)
    return found.group() if found else ""


def _too_old(program: Program, version: str) -> str:
    if not version or tuple(map(int, version.split("."))) >= program.version_min:
        return ""
    return f"{program.command} {version} is older than what was tried ({'.'.join(map(str, program.version_min))})"
