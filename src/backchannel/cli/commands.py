"""Every command but `send` and `recv`: the full parser, and a short function a command."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from .. import __version__
from ..client import calls, sessioncalls, wire
from ..client.drive import run
from ..client.sessioncalls import is_session
from ..errors import BackchannelError, LocalProtocolError, PeerAbsent, Refused, TimedOut
from ..hooks import engine
from ..protocol.codec import encode
from ..protocol.names import AgentName
from ..protocol.receipt import Stage
from ..transport import start
from ..transport.lock import served_in
from ..transport.paths import register, write_private
from ..transport.units import unit_of
from . import init, recv, safekeeping, send, service, session, systemctl
from .common import (
    age,
    ago,
    caller_of,
    each,
    positive,
    print_columns,
    receipt_line,
    require_own,
    say,
    seconds,
    session_line,
    whole,
    why_it_ended,
)
from .terminal import printable

STOP_S = 5.0
OLDER_MAX = 3  # daemons of an older version, one after another: one may have been starting when the one before ended
STAGES = tuple(stage.value for stage in Stage if stage is not Stage.QUEUED)
FROM = "whose message, if several senders used this id"

DESCRIPTION = """Durable local messages between the agents on this machine.

  send TO TEXT      store a text in TO's mailbox; the receipt says what is true
  recv              print what waits for you, and acknowledge it
"""


def run_command(argv: list[str]) -> int:
    """Parses and runs one command. Returns the exit code; raises `BackchannelError`."""
    parser = build_parser()
    if not argv:
        parser.print_help()
        return 2
    options = parser.parse_args(argv)
    status: int = options.run(options)
    return status


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="backchannel",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"backchannel {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    # Only named here so that they stand in the list: they have a parser of their own.
    for name, module in (("send", send), ("recv", recv), ("hook", engine)):
        about = " ".join(module.USAGE.split("\n\n")[1].split())
        commands.add_parser(name, help=about.partition(". ")[0].rstrip(".") + ".", add_help=False)

    def command(name: str, function: Any, text: str, *, identity: bool = False, json: bool = True) -> _Parser:
        added: _Parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(run=function)
        if identity:
            added.add_argument("--as", dest="agent", metavar="NAME", help="be this agent (default: BACKCHANNEL_AGENT)")
        if json:
            added.add_argument("--json", action="store_true", help="one JSON object a line")
        return added

    command("up", up, "Make and start agents; says what it did.").add_argument("names", nargs="+", metavar="NAME")
    down_ = command("down", down, "Stop agents; pushes fail until `up`.")
    down_.add_argument("names", nargs="*", metavar="NAME")
    down_.add_argument("--all", action="store_true", help="all of this user's agents")
    remove_ = command("remove", remove, "Unregister an agent; refuses while mail waits.")
    remove_.add_argument("name", metavar="NAME")
    remove_.add_argument("--purge", action="store_true", help="even if mail waits: it is lost")
    for name, function, text in (
        ("pause", pause, "Stop the handing out: mail waits, nothing is lost."),
        ("resume", pause, "Hand out again."),
    ):
        pause_ = command(name, function, text)
        pause_.set_defaults(method=name)
        pause_.add_argument("names", nargs="*", metavar="NAME")
        pause_.add_argument("--all", action="store_true", help="all of this user's agents")
    ask_ = command("ask", ask, "Ask an agent, and print its answer.", identity=True)
    ask_.add_argument("to", metavar="TO")
    ask_.add_argument("text", nargs="?", metavar="TEXT", help="or - (or nothing): standard input")
    ask_.add_argument("--timeout", type=seconds, default=60.0, metavar="S", help="seconds (default: 60)")
    ask_.add_argument("--key", metavar="K", help="idempotency key of the question")
    reply_ = command("reply", reply, "Answer a message: it is done, and the text goes to its sender.", identity=True)
    reply_.add_argument("id", metavar="ID")
    reply_.add_argument("text", nargs="?", metavar="TEXT", help="or - (or nothing): standard input")
    reply_.add_argument("--from", dest="sender", metavar="NAME", help=FROM)
    reply_.add_argument("--delivery", type=int, help="refuse if it was handed out again since (default: the current)")
    for name, function, text in (
        ("ack", settle, "Say that you have these messages."),
        ("reject", reject, "Say no to these messages or offered sessions, and why."),
        ("release", settle, "Give these messages back; they are handed out again."),
    ):
        settle_ = command(name, function, text, identity=True)
        settle_.set_defaults(method=name)
        settle_.add_argument("ids", nargs="+", metavar="ID")
        settle_.add_argument(
            "--delivery", type=int, help="refuse if it was handed out again since (default: the current)"
        )
        settle_.add_argument("--from", dest="sender", metavar="NAME", help=FROM)
        if name == "reject":
            settle_.add_argument("--reason", required=True, help="what the sender is told")
            settle_.add_argument("--retry-after", type=seconds, metavar="S", help="of an offer: ask again in S seconds")
    status_ = command("status", status, "One message's receipt, or your daemon's own state.", identity=True)
    status_.add_argument("id", nargs="?", metavar="ID")
    cancel_ = command("cancel", cancel, "Take a message back while nobody has it.", identity=True)
    cancel_.add_argument("id", metavar="ID")
    for parser_ in (status_, cancel_):
        parser_.add_argument("--to", metavar="NAME", help="whose mailbox; without it all are asked")
        parser_.add_argument("--from", dest="sender", metavar="NAME", help=FROM)
    peek_ = command("peek", peek, "What waits for you, without taking it.", identity=True)
    log_ = command("log", log, "What came to an agent, finished messages included.", identity=True)
    log_.add_argument("names", nargs="*", metavar="NAME", help="whose mailboxes (default: your own)")
    log_.add_argument("--peer", metavar="NAME", help="only from this sender")
    log_.add_argument("--kind", metavar="KIND", help="only this kind: message, bounce, loop, offer, data, ...")
    log_.add_argument("--stage", choices=STAGES, help="only what is in this stage now")
    log_.add_argument("--session", metavar="ID", help="only of this session")
    log_.add_argument(
        "--trace", dest="trace_id", metavar="ID", help="only of this trace: a message and what came of it"
    )
    log_.add_argument("--since", metavar="T", help="from then on: 10m, 2h, 3d ago, or 2026-01-31T12:00")
    log_.add_argument("--until", metavar="T", help="before then")
    log_.add_argument("--follow", action="store_true", help="go on as things happen")
    for parser_ in (peek_, log_):
        parser_.add_argument(
            "--max", type=positive, default=1000, metavar="N", help="at most N (default: 1000); of a log the last"
        )
        parser_.add_argument("--text", action="store_true", help="with the texts")
    tap_ = command("tap", tap, "Live traffic of agents, without taking anything.")
    tap_.add_argument("names", nargs="*", metavar="NAME", help="whose mailboxes (default: all that run)")
    tap_.add_argument("--text", action="store_true", help="with the texts")
    tap_.add_argument("--for", dest="seconds", type=seconds, metavar="S", help="end after S seconds")
    config_ = command("config", config, "Settings in force, and where each came from.", identity=True)
    config_.add_argument("what", choices=("show",))
    session.add_commands(command)
    init.add_commands(command)
    service.add_commands(command)
    command(
        "mcp", mcp, "Serve an agent's mailbox as MCP tools, on standard input and output.", identity=True, json=False
    )
    command("agents", agents, "The agents of this machine.")
    audit_ = command("audit", audit, "Whether everything ever stored or opened is accounted for; exits 1 if not.")
    audit_.add_argument("names", nargs="*", metavar="NAME", help="of these agents (default: all)")
    metrics_ = command("metrics", metrics, "What the daemons counted, as OpenMetrics text; no port.", json=False)
    metrics_.add_argument("names", nargs="*", metavar="NAME", help="of these agents (default: all)")
    metrics_.add_argument("--textfile", metavar="PATH", help="write it there, whole or not at all, for node_exporter")
    backup_ = command("backup", safekeeping.backup, "Copy an agent's mailbox, while it works or not; checked, 0600.")
    backup_.add_argument("name", metavar="NAME")
    backup_.add_argument("file", nargs="?", metavar="FILE", help="a new file (default: in the agent's own directory)")
    restore_ = command(
        "restore", safekeeping.restore, "Put a backup in the place of an agent's mailbox, which is kept aside."
    )
    restore_.add_argument("name", metavar="NAME")
    restore_.add_argument("file", metavar="FILE")
    restore_.add_argument("--stop", action="store_true", help="stop the agent's daemon for it, and start it again")
    purge_ = command("purge", safekeeping.purge, "Let the contents of finished messages go; what is unfinished stays.")
    purge_.add_argument("name", metavar="NAME")
    purge_.add_argument(
        "--older-than",
        type=age,
        default=age("30d"),
        metavar="T",
        help="that ended so long ago: 30d, 12h, 0 (default: 30d)",
    )
    purge_.add_argument("--keep", type=whole, default=0, metavar="N", help="but nothing of the last N messages")
    purge_.add_argument("--dry-run", action="store_true", help="only count")
    purge_.add_argument("--list", action="store_true", help="instead: what left before, and why")
    command("doctor", doctor, "What is wrong here, and the command that mends it.")
    command("demo", demo, "Three agents talk, in a world of their own; ends and cleans up by itself.", json=False)
    return parser


class _Parser(argparse.ArgumentParser):
    """Argparse with our exit: one line, the next step, code 2. Options may stand between the words."""

    _is_mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # Left to itself argparse counts TEXT as left out as soon as an option follows TO: `ask TO --timeout 5 TEXT`.
        if self._is_mixing or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._is_mixing = True
        try:
            found, rest = self.parse_known_intermixed_args(self._masked(args), namespace)
        finally:
            self._is_mixing = False
        for key, value in vars(found).items():
            setattr(found, key, _unmasked(value))
        return found, [_unmasked(word) for word in rest]

    def _masked(self, args: list[str]) -> list[str]:
        """Words after `--` are no options, nor are those of a whole command; parsed this way argparse forgets that."""
        takes_all = [name for a in self._actions if a.nargs == argparse.REMAINDER for name in a.option_strings]
        at = next((at for at, word in enumerate(args) if word == "--" or word in takes_all), len(args))
        words = args[:at] if args[at:] and args[at] == "--" else args[: at + 1]
        return words + [_MASK + word if word.startswith("-") else word for word in args[at + 1 :]]

    def error(self, message: str) -> NoReturn:
        usage = self.format_usage().replace("usage: ", "").strip()
        raise LocalProtocolError(message, code="usage", hint=" ".join(usage.split()))


_MASK = "\0"  # in no word of a command line


def _unmasked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unmasked(item) for item in value]
    return value.removeprefix(_MASK) if isinstance(value, str) else value


# --- agents -----------------------------------------------------------------------------------------------------------


def up(options: argparse.Namespace) -> int:
    return _for_each(options.names, _up, options)


def _up(caller: wire.Caller, name: AgentName, options: argparse.Namespace) -> dict[str, Any]:
    places = caller.places
    unit = unit_of(places, name)
    is_new = False
    if unit is None or not unit.is_system:  # what is the system's, is made by its units
        is_new = register(places, name)
        start.record(places, name)
    was_down = _unlink(places.state(name, "down"))
    try:
        served = run(calls.ping(caller, name, may_start=False))
    except PeerAbsent:
        served = None
    did = "runs already"
    if unit is not None and served is None:
        systemctl.start_unit(unit)
    if served is None:
        did = "made and started" if is_new else "started"
        served = run(calls.ping(caller, name))
    for _ in range(OLDER_MAX):
        if served["version"] == __version__:
            break
        run(calls.stop(caller, name, STOP_S))
        did = f"restarted (version {served['version']} ran)"
        served = run(calls.ping(caller, name))
    return {"name": name, "online": True, "backlog": served["backlog"], "did": did, "was_down": was_down}


def down(options: argparse.Namespace) -> int:
    places = wire.Caller(None).places
    names = places.own() if options.all else options.names
    if not names and not options.all:
        raise LocalProtocolError("down needs a NAME, or --all", code="usage", hint="backchannel down NAME...")
    return _for_each(names, _down, options)


def _down(caller: wire.Caller, name: AgentName, options: argparse.Namespace) -> dict[str, Any]:
    places = caller.places
    require_own(caller, name)
    write_private(places.state(name, "down"), "by `backchannel down`\n")
    unit = unit_of(places, name)
    ran = served_in(places.state(name, "lock")) is not None
    if unit is not None:
        systemctl.stop_unit(unit)  # its sockets too, or the next push would start it
    try:
        did = "stopped" if run(calls.stop(caller, name, STOP_S)) or ran else "did not run"
    except TimedOut:
        run(calls.kill(caller, name, STOP_S))
        did = "killed: it did not answer"
    return {"name": name, "online": False, "backlog": None, "did": did}


def remove(options: argparse.Namespace) -> int:
    caller = wire.Caller(None)
    name = AgentName(options.name)
    places = caller.places
    require_own(caller, name)
    if (unit := unit_of(places, name)) is not None:
        raise Refused(
            f"{name} is a service of the {unit.manager} manager",
            code="service",
            hint=f"backchannel service uninstall {name}{service.flag(unit.manager)}",
        )
    was_down = os.path.exists(places.state(name, "down"))
    write_private(places.state(name, "down"), "by `backchannel remove`\n")  # nobody starts it meanwhile
    run(calls.stop(caller, name, STOP_S))
    command = [*start.DAEMON, name, "--remove"]
    command += ["--state", places.state_dir, "--dir", places.socket_dir, *(["--purge"] if options.purge else [])]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        if not was_down:
            _unlink(places.state(name, "down"))
        reason = why_it_ended(done)
        if done.returncode == 3:
            raise Refused(reason, code="waiting_mail", hint=f"backchannel recv --as {name}")
        raise BackchannelError(f"{name} was not removed: {reason}", hint="backchannel doctor")
    say({"name": name, "did": "removed"}, f"{name}  removed", options)
    return 0


def agents(options: argparse.Namespace) -> int:
    found = run(calls.agents(wire.Caller(None)))
    if options.json:
        for agent in found:
            print(encode(agent))
        return 0
    if not found:
        print("no agents yet: backchannel up NAME")
    print_columns([_agent_row(agent) for agent in found])
    return 0


def _agent_row(agent: dict[str, Any]) -> tuple[str, ...]:
    """Its name, its daemon, the agent itself, its mail, and what connects it."""
    since = f" {ago(agent['since'])}" if agent["since"] and agent["presence"] in ("idle", "away") else ""
    oldest = f", the oldest for {ago(agent['oldest_unacked'])}" if agent["oldest_unacked"] else ""
    backlog = "" if agent["backlog"] is None else f"{agent['backlog']} waiting{oldest}"
    if agent["down"]:
        return agent["name"], "down", "", backlog, _adapters(agent)
    daemon = "online" if agent["online"] else "offline"
    return agent["name"], daemon, agent["presence"] + since, backlog, _adapters(agent)


def _adapters(agent: dict[str, Any]) -> str:
    shown = []
    for adapter in agent["adapters"]:
        able = [word for word, key in (("wakes", "wakes"), ("mid-turn", "mid_turn")) if adapter[key]]
        away = [] if adapter["attached"] else ["not attached"]
        shown.append(f"{adapter['name']} ({', '.join([*able, 'evidence ' + adapter['evidence'], *away])})")
    return ", ".join(shown)


def pause(options: argparse.Namespace) -> int:
    # Who is down hands nothing out anyway; a person who stops all of them means those that might.
    caller = wire.Caller(None)
    names = [n for n in caller.everybody_else() if caller.places.is_ours(n)] if options.all else options.names
    if not names and not options.all:
        raise LocalProtocolError(f"{options.method} needs a NAME, or --all", code="usage", hint="backchannel agents")
    return _for_each(names, _pause, options)


def _pause(caller: wire.Caller, name: AgentName, options: argparse.Namespace) -> dict[str, Any]:
    answer = run(calls.control(caller, name, options.method))
    return {"name": name, "paused": answer["paused"], "did": "paused" if answer["paused"] else "hands out again"}


# --- messages ---------------------------------------------------------------------------------------------------------


def settle(options: argparse.Namespace) -> int:
    caller = caller_of(options)
    caller.me()

    def act(message_id: str) -> dict[str, Any]:
        return run(calls.settle(caller, options.method, message_id, sender=options.sender, delivery=options.delivery))

    return each(options.ids, options, act, receipt_line)


def reject(options: argparse.Namespace) -> int:
    """A message, or an offer: the id tells."""
    caller = caller_of(options)
    caller.me()

    def act(some_id: str) -> dict[str, Any]:
        if is_session(some_id):
            return run(sessioncalls.reject(caller, some_id, options.reason, options.retry_after))
        if options.retry_after is not None:
            raise LocalProtocolError(
                f"{some_id} is a message: only an offer can be asked for again", code="usage",
                hint="leave out --retry-after",
            )  # fmt: skip
        token = {"sender": options.sender, "delivery": options.delivery}
        return run(calls.settle(caller, "reject", some_id, **token, reason=options.reason))

    return each(
        options.ids, options, act, lambda outcome: (session_line if "role" in outcome else receipt_line)(outcome)
    )


def ask(options: argparse.Namespace) -> int:
    caller = caller_of(options)
    text = send.text_from([options.to, *([options.text] if options.text is not None else [])], "ask")
    answer = run(calls.ask(caller, options.to, text, options.timeout, options.key))
    say(answer, printable(answer["text"], sys.stdout), options)
    return 0


def reply(options: argparse.Namespace) -> int:
    caller = caller_of(options)
    text = send.text_from([options.id, *([options.text] if options.text is not None else [])], "reply")
    answer = {"id": options.id, "text": text, "delivery": options.delivery, "from": options.sender}
    answer = {key: value for key, value in answer.items() if value is not None}
    (receipt,) = run(calls.commit(caller, {"replies": [answer]}))["sends"]
    say(receipt, receipt_line(receipt), options)
    return 0


def status(options: argparse.Namespace) -> int:
    caller = caller_of(options)
    if options.id:
        return each([options.id], options, _asking(calls.receipt, caller, options), receipt_line)
    state = run(calls.status(caller, caller.me()))
    if options.json:
        print(encode(state))
        return 0
    counters = state.pop("counters")
    for key, value in (*state.items(), *counters.items()):
        print(f"{key:<15} {value}")
    return 0


def cancel(options: argparse.Namespace) -> int:
    caller = caller_of(options)
    return each([options.id], options, _asking(calls.cancel, caller, options), receipt_line)


def _asking(conversation: Any, caller: wire.Caller, options: argparse.Namespace) -> Any:
    return lambda message_id: run(conversation(caller, message_id, options.to, options.sender))


# --- looking around ---------------------------------------------------------------------------------------------------


def peek(options: argparse.Namespace) -> int:
    from . import watch

    return watch.peek(caller_of(options), options)


def log(options: argparse.Namespace) -> int:
    from . import watch

    return watch.log(caller_of(options), options)


def tap(options: argparse.Namespace) -> int:
    from .watch import show_traffic

    return show_traffic(wire.Caller(None), options)


def config(options: argparse.Namespace) -> int:
    caller = caller_of(options)
    settings = run(calls.control(caller, caller.me(), "config"))["settings"]
    if options.json:
        for setting in settings:
            print(encode(setting))
        return 0
    print_columns([(s["key"], f"{s['value']} {s['unit']}".strip(), s["origin"]) for s in settings])
    return 0


# --- elsewhere --------------------------------------------------------------------------------------------------------


def doctor(options: argparse.Namespace) -> int:
    from .doctor import examine

    return examine(as_json=options.json)


def audit(options: argparse.Namespace) -> int:
    from .audit import audit as account

    return account(options)


def metrics(options: argparse.Namespace) -> int:
    from .metrics import metrics as count

    return count(options)


def mcp(options: argparse.Namespace) -> int:
    name = caller_of(options).me()
    try:
        from ..mcp import server
    except ImportError as error:
        raise BackchannelError(
            f"this Python cannot serve MCP ({error})", code="missing_extra", hint="pip install 'backchannel[mcp]'"
        ) from None
    server.serve(name)
    return 0


def demo(options: argparse.Namespace) -> int:
    from .demo import show

    return show()


# --- helpers ----------------------------------------------------------------------------------------------------------


def _for_each(names: Iterable[str], action: Any, options: argparse.Namespace) -> int:
    """One line an agent; all are tried, the first failure's exit code counts."""
    caller = wire.Caller(None)

    def act(name: str) -> dict[str, Any]:
        outcome: dict[str, Any] = action(caller, AgentName(name), options)
        return outcome

    return each(names, options, act, lambda outcome: f"{outcome['name']}  {outcome['did']}")


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
