"""The manual pages, in mdoc(7), from the command line as data and `facts`."""

import re
import textwrap
from collections.abc import Iterable, Iterator

from backchannel import __version__

from . import facts
from .completion import COMMON
from .surface import Command, Option, Word

DATE = "November 23, 2026"  # of the last change to a page's own words
NOTICE = '.\\" Made by `nox -s docs`; edit tools/manual.py instead.'

DESCRIPTION = """\
`backchannel` sends durable messages between the agents of this machine.
An agent is a name and the mailbox that belongs to it.
Each running agent is served by a daemon, `backchanneld`, on two Unix sockets.
A message to a registered agent starts it.

A message passes the stages `stored`, `taken`, `acked` and `done`; it may end as `rejected`, `expired`, `cancelled` or \
`dead` instead.
A stage is never reported before it is true.

`BACKCHANNEL_AGENT`, or `--as NAME`, says who you are.
Who is no agent sends as `@user`.
With `--json` every command prints one JSON object a line on standard output, and errors as one on standard error."""

DAEMON_DESCRIPTION = """\
`backchanneld` serves the mailboxes of the agents named, in the foreground, until it is told to stop.
`backchannel up NAME` and the first message to an agent start one in the background, with its log in `STATE/NAME/log`.

It takes a lock before it touches anything, so that a second daemon for the same name ends at once.
Every process may be killed at any instruction: a message that was reported as stored is there after the next start."""

EXAMPLES = [
    ("Two agents, a message and its receipt:", [
        "backchannel up alice bob",
        "backchannel send bob 'use port 8080' --as alice --wait acked --timeout 60",
        "backchannel recv --as bob --wait 60",
    ]),
    ("A question and its answer:", [
        "backchannel ask bob 'which port?' --as alice --timeout 60",
        "backchannel reply ID 8080 --as bob",
    ]),
    ("Take without acknowledging, and acknowledge when the work is done:", [
        "backchannel recv --as bob --keep --json",
        "backchannel ack ID --as bob",
    ]),
]  # fmt: skip


def client_page(commands: list[Command]) -> str:
    """backchannel(1)."""
    names = [".Nm", ".Ar COMMAND", ".Op Ar options", ".Nm", ".Fl -version"]
    body = [
        *_head("BACKCHANNEL", 1, "backchannel", "durable local messages between the agents on one machine"),
        *_section("SYNOPSIS", names),
        *_section("DESCRIPTION", _prose(DESCRIPTION)),
        *_section("COMMANDS", _commands(commands)),
        *_section("ENVIRONMENT", _variables(facts.ENVIRONMENT)),
        *_section("FILES", _files()),
        *_section("EXIT STATUS", _statuses(facts.EXIT_STATUS)),
        *_section("EXAMPLES", _examples()),
        *_section("SEE ALSO", [".Xr backchanneld 8"]),
    ]
    return "\n".join(body) + "\n"


def daemon_page(command: Command) -> str:
    """backchanneld(8)."""
    synopsis = [".Nm", *(_optional(option) for option in command.options), ".Ar NAME ..."]
    environment = [
        row for row in facts.ENVIRONMENT if row[0].startswith(("BACKCHANNEL_STATE", "BACKCHANNEL_DIR", "XDG"))
    ]
    body = [
        *_head("BACKCHANNELD", 8, "backchanneld", "serve the mailboxes of agents"),
        *_section("SYNOPSIS", synopsis),
        *_section("DESCRIPTION", [*_prose(DAEMON_DESCRIPTION), ".Pp", "The options are:", *_options(command.options)]),
        *_section("ENVIRONMENT", _variables([*environment, *facts.DAEMON_ENVIRONMENT])),
        *_section("FILES", _files()),
        *_section("EXIT STATUS", _statuses(facts.DAEMON_EXIT_STATUS)),
        *_section("SEE ALSO", [".Xr backchannel 1"]),
    ]
    return "\n".join(body) + "\n"


# --- pieces -----------------------------------------------------------------------------------------------------------


def _head(title: str, section: int, name: str, what: str) -> list[str]:
    return [
        NOTICE, f".Dd {DATE}", f".Dt {title} {section}", f".Os backchannel {__version__}",
        ".Sh NAME", f".Nm {name}", f".Nd {what}",
    ]  # fmt: skip


def _section(title: str, body: Iterable[str]) -> list[str]:
    return [f".Sh {title}", *body]


def _prose(text: str) -> list[str]:
    return [".Pp" if not line else _text(line) for line in text.splitlines()]


def _commands(commands: list[Command]) -> Iterator[str]:
    for command in commands:
        words = "".join(f" {_synopsis(word)}" for word in command.words)
        yield f".Ss {command.name}"
        yield f".Nm Cm {command.name}{words}" + (" Op Ar options" if command.options else "")
        yield ".Pp"
        yield from (_text(sentence) for sentence in _sentences(command.description))
        described = [word for word in command.words if word.help]
        if described or command.options:
            yield ".Bl -tag -width Ds"
            for word in described:
                yield f".It Ar {word.value.metavar}"
                yield _text(_capital(word.help))
            yield from _items(command.options)
            yield ".El"


def _synopsis(word: Word) -> str:
    if len(word.value.words) == 1:
        return f"Cm {word.value.words[0]}"
    shown = word.value.metavar + (" ..." if word.repeats else "")
    return f"Ar {shown}" if word.is_required else f"Oo Ar {shown} Oc"


def _options(options: list[Option]) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    yield from _items([*options, *COMMON])
    yield ".El"


def _items(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        yield f".It {_flag(option)}"
        is_word = option.value is not None and option.help.startswith(option.value.words or "\0")
        yield _text(f"{option.help}." if is_word else _capital(option.help))


def _flag(option: Option) -> str:
    flag = f"Fl {option.flag[1:]}"
    return flag if option.value is None else f"{flag} Ar {'|'.join(option.value.words) or option.value.metavar}"


def _optional(option: Option) -> str:
    return f".Op {_flag(option)}"


def _variables(rows: list[tuple[str, str]]) -> Iterator[str]:
    return _list(".It Ev", rows)


def _files() -> Iterator[str]:
    yield "STATE and DIR are directories that"
    yield ".Sx ENVIRONMENT"
    yield "tells how to find."
    yield from _list(".It Pa", facts.FILES)


def _statuses(rows: list[tuple[int, str]]) -> Iterator[str]:
    return _list(".It", rows)


def _list(item: str, rows: Iterable[tuple[object, str]]) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for name, text in rows:
        yield f"{item} {name}"
        yield from (_text(sentence) for sentence in _sentences(text))
    yield ".El"


def _examples() -> Iterator[str]:
    for number, (what, lines) in enumerate(EXAMPLES):
        if number:
            yield ".Pp"
        yield what
        yield ".Bd -literal -offset indent"
        yield from lines
        yield ".Ed"


def _sentences(text: str) -> list[str]:
    """A sentence a line, as roff wants it."""
    return re.split(r"(?<=[.:;]) (?=[A-Z`])", text) if text else []


def _capital(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else text + "."


def _text(line: str) -> str:
    """A line of text: what roff would read as a command or an escape is hidden, `code` is bold."""
    line = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", line.replace("\\", "\\e"))
    line = line.replace("--", "\\-\\-").replace("~", "\\(ti")
    lines = textwrap.wrap(line, 78, break_long_words=False, break_on_hyphens=False)
    return "\n".join("\\&" + part if part.startswith((".", "'")) else part for part in lines)
