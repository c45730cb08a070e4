"""`backchannel init WHAT` and `uninit WHAT`: sets another program up to talk through Backchannel, and takes it back.

What would change is worked out first, whole, and shown as a diff; then one question; then it is written. So
`--dry-run` is the same road, ended early, and a second `init` finds nothing to do. Paths are absolute in all that is
written: a service has another working directory, and another PATH.
"""

import argparse
import difflib
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..client import adapters, calls, wire
from ..client.adapters import Adapter
from ..client.drive import run
from ..client.driven import with_model
from ..client.reach import START_S
from ..errors import LocalProtocolError
from ..transport.paths import Places, register

CODING = ("claude", "codex", "gemini")


class TextChange(NamedTuple):
    """A small file; None: it is not there. One whose content says nothing to a person is shown as `about`."""

    path: str
    before: str | None
    after: str | None
    about: str = ""

    @property
    def is_needed(self) -> bool:
        return self.before != self.after

    def diff(self) -> str:
        if self.about:
            return f"{self.about} {self.path}"
        lines = difflib.unified_diff(
            (self.before or "").splitlines(), (self.after or "").splitlines(), self.path, self.path, n=1, lineterm=""
        )
        return "\n".join(lines)

    def apply(self) -> None:
        # Settings are often links into somebody's collection of them: the link stays, and the file behind it changes.
        path = os.path.realpath(self.path) if os.path.isfile(self.path) else self.path
        if self.after is None:
            os.unlink(path)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{os.getpid()}.new"
        mode = os.stat(path).st_mode & 0o777 if self.before is not None else 0o644
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
            file.write(self.after)
        os.replace(temporary, path)


class TreeChange(NamedTuple):
    """A directory of ours, put there whole; an empty `files`: taken away. `files` maps names in it to their content."""

    path: str
    files: dict[str, bytes]

    @property
    def is_needed(self) -> bool:
        return read_tree(self.path) != self.files

    def diff(self) -> str:
        there = read_tree(self.path)
        did = "remove" if not self.files else "replace" if there else "add"
        count = len(self.files or there)
        return f"{did} {self.path}/ ({count} files)"

    def apply(self) -> None:
        """By one rename, so that a Hermes that starts meanwhile finds the old one or the new one."""
        new, old = f"{self.path}.{os.getpid()}.new", f"{self.path}.{os.getpid()}.old"
        for name, content in self.files.items():
            path = os.path.join(new, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
        if os.path.lexists(self.path):
            os.rename(self.path, old)
        if self.files:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            os.rename(new, self.path)
        shutil.rmtree(old, ignore_errors=True)


Change = TextChange | TreeChange


class Plan(NamedTuple):
    """What `init` or `uninit` comes to. `warnings` are left to a person; `next_steps` are commands to type."""

    agent: str
    changes: list[Change]
    next_steps: list[str]
    warnings: list[str]


def add_commands(command: Callable[..., Any]) -> None:
    """`command` is the parser's: name, function, text -> its own parser."""
    for name, text in (
        ("init", "Set another program up to talk through Backchannel; shows what it would change, and asks."),
        ("uninit", "Take back what `init` set up; the agent and its mail stay."),
    ):
        added = command(name, init if name == "init" else uninit, text, json=False)
        added.add_argument("what", choices=(*CODING, "hermes", "mcp"), metavar="claude|codex|gemini|hermes|mcp")
        added.add_argument(
            "client", nargs="?", choices=CODING, metavar="CLIENT", help="of mcp: claude, codex or gemini"
        )
        added.add_argument(
            "--agent", metavar="NAME", help="the agent's name (default: the directory's, or the profile's)"
        )
        added.add_argument(
            "--dir", metavar="PATH", default=".", help="the directory (default: this one; not of hermes)"
        )
        added.add_argument("--profile", metavar="NAME", help="of hermes (default: its default profile)")
        added.add_argument("--hermes", metavar="PATH", help="the hermes command (default: found on the PATH)")
        if name == "init":
            added.add_argument("--wake", action="store_true", help="refuse a program that cannot be woken when idle")
        added.add_argument("--dry-run", action="store_true", help="only show what it would change")
        added.add_argument("--yes", action="store_true", help="do not ask")


def init(options: argparse.Namespace) -> int:
    caller = wire.Caller(None)
    plan = _plan_init(caller.places, options)
    if not _carry_out(plan, options, partial(register, caller.places, plan.agent)):
        return 0
    from .commands import up

    config = next(change for change in plan.changes if change.path == caller.places.state(plan.agent, "config.toml"))
    if config.is_needed:  # a daemon reads it when it starts
        run(calls.stop(caller, plan.agent, START_S))
    status = up(argparse.Namespace(names=[plan.agent], json=False))
    _print_steps(plan)
    return status


def uninit(options: argparse.Namespace) -> int:
    plan = _plan_uninit(wire.Caller(None).places, options)
    if _carry_out(plan, options, lambda: None):
        _print_steps(plan)
    return 0


def _plan_init(places: Places, options: argparse.Namespace) -> Plan:
    _check_words(options)
    if options.what != "hermes" and not os.path.isdir(options.dir):
        raise LocalProtocolError(f"{options.dir} is no directory", code="usage", hint="--dir PATH")
    if options.what == "hermes":
        from . import hermes

        return hermes.plan_init(places, options.profile, options.agent, options.hermes)
    if options.what == "mcp":
        from . import mcpclients

        return mcpclients.plan_init(places, options.client, options.dir, options.agent)
    from . import coding

    return coding.plan_init(places, options.what, options.dir, options.agent, must_wake=options.wake)


def _plan_uninit(places: Places, options: argparse.Namespace) -> Plan:
    _check_words(options)
    if options.what == "hermes":
        from . import hermes

        return hermes.plan_uninit(places, options.profile, options.agent, options.hermes)
    if options.what == "mcp":
        from . import mcpclients

        return mcpclients.plan_uninit(places, options.client, options.dir, options.agent)
    from . import coding

    return coding.plan_uninit(places, options.what, options.dir, options.agent)


def _check_words(options: argparse.Namespace) -> None:
    if (options.what == "mcp") != (options.client is not None):
        what = "mcp needs a CLIENT" if options.what == "mcp" else f"{options.what} takes no {options.client!r}"
        raise LocalProtocolError(what, code="usage", hint=f"backchannel init mcp {'|'.join(CODING)}")
    if getattr(options, "wake", False) and options.what == "mcp":
        raise LocalProtocolError(
            "a server of tools cannot wake its client: mail is seen when its model asks for it", code="cannot_wake",
            hint=f"backchannel init {options.client} --wake",
        )  # fmt: skip


def driven_by_model(places: Places, name: str) -> TextChange:
    """The agent's own config.toml, saying that a model decides what it sends: its daemon counts hops and rate then."""
    path = places.state(name, "config.toml")
    before = read(path)
    return TextChange(path, before, with_model(before))


def declaring(places: Places, name: str, adapter: Adapter) -> TextChange:
    """The file that says what connects the agent and what that can do, for `agents` to show. `uninit` takes it away:
    `TextChange(change.path, change.before, None)`."""
    path = adapters.path_of(places, name, adapter.name)
    return TextChange(path, read(path), adapters.content(adapter))


def read(path: str) -> str | None:
    """The file; None if it is not there. Raises `LocalProtocolError` if it is no text."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise LocalProtocolError(
            f"{path} is not UTF-8 ({error})", code="bad_config", hint="mend it by hand, then try again"
        ) from None


def _carry_out(plan: Plan, options: argparse.Namespace, begin: Callable[[], object]) -> bool:
    """Shows, asks, writes. False if it was only to be shown, or was declined."""
    needed = [change for change in plan.changes if change.is_needed]
    for change in needed:
        print(change.diff(), end="\n\n")
    for warning in plan.warnings:
        print(f"note: {warning}")
    if not needed:
        print("nothing to change")
    if options.dry_run:
        return False
    if needed and not options.yes:
        if not sys.stdin.isatty():
            raise LocalProtocolError("nobody can be asked here", code="usage", hint="--yes, or --dry-run")
        if input("write this? [y/N] ").strip().lower() not in ("y", "yes"):
            return False
    begin()
    for change in needed:
        change.apply()
    return True


def _print_steps(plan: Plan) -> None:
    if plan.next_steps:
        print("next:")
    for step in plan.next_steps:
        print(f"  {step}")


def read_tree(path: str) -> dict[str, bytes]:
    """Every file below, by its name there; nothing if it is not there."""
    found = {}
    for directory, _, names in os.walk(path):
        for name in names:
            whole = os.path.join(directory, name)
            if "__pycache__" not in whole:
                with open(whole, "rb") as file:
                    found[os.path.relpath(whole, path)] = file.read()
    return found
