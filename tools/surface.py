"""The command line as data: every command with its options and words, read from the parsers themselves.

The full parser tells it for most commands; `send` and `recv` have a usage text and a table of their own. Completion
and manual pages are made from this, so they know exactly what the parsers know.
"""

import argparse
import re
from typing import Any, NamedTuple

from backchannel.cli import commands, options, recv, send
from backchannel.daemon.options import build_parser as build_daemon_parser
from backchannel.hooks import engine
from backchannel.hooks.dialects import DIALECTS, EVENTS
from backchannel.protocol.envelope import DURABILITIES, KINDS, PRIORITIES, SESSION_KINDS

AGENT = "agent"  # a name
TARGETS = "targets"  # names with commas, or @all

NAMES_BY_METAVAR = {"NAME": AGENT, "TO": AGENT}
SEVERAL = {("send", "TO")}
WORDS_OF_OPTIONS = {
    ("send", "--wait"): send._STAGES,
    ("send", "--priority"): tuple(PRIORITIES),
    ("send", "--durability"): DURABILITIES,
    ("recv", "--kind"): (*KINDS, *SESSION_KINDS),
}


class Value(NamedTuple):
    """What a word or an option takes: how it is called, and what it can be completed from."""

    metavar: str
    names: str = ""  # AGENT, TARGETS, or nothing
    words: tuple[str, ...] = ()


class Option(NamedTuple):
    """One option; `value` is None for a flag."""

    flag: str
    help: str
    value: Value | None = None
    repeats: bool = False


class Word(NamedTuple):
    """One word in its place. One that repeats is the last."""

    value: Value
    help: str = ""
    is_required: bool = True
    repeats: bool = False


class Command(NamedTuple):
    name: str
    help: str  # the first sentence
    description: str
    options: list[Option]
    words: list[Word]


def client() -> list[Command]:
    """Every command of `backchannel`, in the order of its help."""
    parser = commands.build_parser()
    (choices,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    quick = {"send": (send.USAGE, send._OPTIONS), "recv": (recv.USAGE, recv._OPTIONS)}
    return [
        _hook() if name == "hook" else _from_usage(name, *quick[name]) if name in quick else _from_parser(name, found)
        for name, found in choices.choices.items()
    ]


def _hook() -> Command:
    """Called by programs, in one form; so it needs no parser."""
    description = " ".join(engine.USAGE.split("\n\n")[1].split())
    help = "the agent of the directory; a second window of it is NAME-2"
    agent = Option("--as", help, _value("hook", "--as", "NAME"))
    words = [Word(Value("PROGRAM", words=tuple(DIALECTS))), Word(Value("EVENT", words=tuple(EVENTS)))]
    return Command("hook", description.partition(". ")[0] + ".", description, [agent], words)


def daemon() -> Command:
    """`backchanneld`, which has no commands of its own."""
    return _from_parser("backchanneld", build_daemon_parser())


# --- from argparse ----------------------------------------------------------------------------------------------------


def _from_parser(name: str, parser: argparse.ArgumentParser) -> Command:
    found_options, found_words = [], []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._VersionAction):
            continue
        if action.option_strings:
            value = None if action.nargs == 0 else _value(name, action.option_strings[-1], _metavar(action), action)
            found_options.append(Option(action.option_strings[-1], action.help or "", value))
        else:
            found_words.append(
                Word(
                    _value(name, "", _metavar(action), action),
                    action.help or "",
                    is_required=action.nargs not in ("?", "*"),
                    repeats=action.nargs in ("+", "*"),
                )
            )
    description = " ".join((parser.description or "").split())
    return Command(name, description, description, found_options, found_words)


def _metavar(action: argparse.Action) -> str:
    return str(action.metavar or action.dest.upper())


def _value(command: str, flag: str, metavar: str, action: Any = None) -> Value:
    words = WORDS_OF_OPTIONS.get((command, flag), ())
    if action is not None and action.choices:
        words = tuple(map(str, action.choices))
    names = TARGETS if (command, metavar) in SEVERAL else NAMES_BY_METAVAR.get(metavar, "")
    return Value(metavar, "" if words else names, words)


# --- from a usage text and its table ----------------------------------------------------------------------------------

_LINE = re.compile(r"^  (?P<flag>--[a-z-]+)(?: (?P<metavar>\S+))? {2,}(?P<help>.*)$")


def _from_usage(name: str, usage: str, table: dict[str, int]) -> Command:
    synopsis, description, listed = usage.strip().split("\n\n")
    found = []
    for line in listed.splitlines():
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"usage of {name}: {line!r} is no option")
        flag, metavar = match["flag"], match["metavar"]
        kind = table[flag]
        if (metavar is None) != (kind == options.FLAG):
            raise ValueError(f"usage of {name}: {flag} and the table disagree about its value")
        value = None if metavar is None else _value(name, flag, metavar)
        found.append(Option(flag, match["help"], value, repeats=kind == options.LIST))
    if {option.flag for option in found} != set(table):
        raise ValueError(f"usage of {name}: its options are not those of the table")
    words = re.findall(r"(\[)?([A-Z]+)", synopsis.partition(f" {name}")[2])
    description = " ".join(description.split())
    return Command(
        name,
        description.partition(". ")[0].rstrip(".") + ".",
        description,
        found,
        [Word(_value(name, "", word), is_required=not bracket) for bracket, word in words],
    )
