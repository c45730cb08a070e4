"""The commands of a session: each is one call on the agent's own daemon, from whichever process.

A session stands between two commands as it stands between two packets: in the daemons. So a script may accept in one
process, say something in another, and close in a third.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from ..client import sessioncalls, wire
from ..client.drive import run
from ..errors import LocalProtocolError
from ..protocol.codec import encode
from .common import caller_of, first_line, positive, receipt_line, say, seconds, session_line
from .send import text_from
from .terminal import printable

FORMATS = ("md", "jsonl", "mermaid")
FRAMES = ("SYN", "SYN-ACK", "REJ", "DATA", "FIN", "RST")
TASK_CHARS_MAX = 40  # of a list's line


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The parsers of these commands; `command(name, function, text, **kind)` makes one."""
    open_ = command(
        "open", open_session, "Offer a task; prints the session's id once the agent accepted.", identity=True
    )
    open_.add_argument("to", metavar="TO")
    open_.add_argument("task", nargs="?", metavar="TASK", help="or - (or nothing): standard input")
    open_.add_argument(
        "--wait", type=seconds, default=300.0, metavar="S",
        help="withdraw the offer after S seconds and exit with 4 (default: 300); 0: do not wait, print the id at once",
    )  # fmt: skip
    _add_limits(open_)
    accept_ = command("accept", accept, "Accept an offered session: you will do its task.", identity=True)
    accept_.add_argument("id", metavar="ID")
    _add_limits(accept_)
    say_ = command("say", say_text, "Say a text in a session.", identity=True)
    say_.add_argument("id", metavar="ID")
    say_.add_argument("text", nargs="?", metavar="TEXT", help="or - (or nothing): standard input")
    say_.add_argument(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="S",
        help="how long to wait for room in the window (default: 60)",
    )
    say_.add_argument("--input-required", action="store_true", help="you cannot go on without an answer")
    say_.add_argument("--key", metavar="K", help="idempotency key: the same key and text again is said once")
    close_ = command("close", close, "You have said all in a session; tell the result.", identity=True)
    close_.add_argument("id", metavar="ID")
    close_.add_argument("--result", default="", metavar="TEXT", help="the result, or -: standard input")
    close_.add_argument("--failed", action="store_true", help="the task was not done")
    abort_ = command("abort", abort, "End a session at once, for both.", identity=True)
    abort_.add_argument("id", metavar="ID")
    abort_.add_argument("--reason", required=True, help="what the peer is told")
    progress_ = command(
        "progress", progress, "Show the peer that you are still at it; leases begin anew.", identity=True
    )
    progress_.add_argument("id", metavar="ID")
    progress_.add_argument("note", nargs="?", default="", metavar="NOTE", help="how far you are")
    sessions_ = command("sessions", sessions, "Your sessions, or all that is known of one.", identity=True)
    sessions_.add_argument("id", nargs="?", metavar="ID")
    sessions_.add_argument("--open", action="store_true", help="only those that are not CLOSED")
    trace_ = command("trace", trace, "Who said what when in a session; or what became of a message.", identity=True)
    trace_.add_argument("id", metavar="ID")
    trace_.add_argument("--text", action="store_true", help="with the texts")
    trace_.add_argument("--kind", choices=FRAMES, help="of a session: only these frames")
    trace_.add_argument("--since", metavar="T", help="of a session: from then on (10m, 2h, 3d ago, or a time)")
    trace_.add_argument("--until", metavar="T", help="of a session: before then")
    export_ = command("export", export, "A session as a document, with its texts.", identity=True, json=False)
    export_.add_argument("id", metavar="SESSION")
    export_.add_argument("--format", choices=FORMATS, default="md", help="Markdown, JSON a line, or a Mermaid diagram")
    chat_ = command("chat", chat, "Talk in a session line by line; /quit or the end of input closes it.", identity=True)
    chat_.add_argument("to", metavar="TO")
    chat_.add_argument("task", nargs="?", metavar="TASK", help="what it is about")
    chat_.add_argument("--wait", type=seconds, default=300.0, metavar="S", help="for the peer to accept (default: 300)")
    serve_ = command("serve", serve, "Let a program be an agent: one run for each session.")
    serve_.usage = "backchannel serve NAME [--max N] [--json] --exec COMMAND..."  # argparse would put NAME last
    serve_.add_argument("name", metavar="NAME")
    serve_.add_argument(
        "--max", type=positive, default=1, metavar="N", help="run N at once; further tasks wait (default: 1)"
    )
    serve_.add_argument(
        "--exec", dest="program", nargs=argparse.REMAINDER, required=True, metavar="COMMAND...",
        help="the program and its arguments: the rest of the line",
    )  # fmt: skip


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-messages", type=positive, metavar="N", help="end it after N texts, both directions together"
    )
    parser.add_argument("--max-bytes", type=positive, metavar="N", help="end it after N bytes of text")
    parser.add_argument("--deadline", type=seconds, metavar="S", help="end it after S seconds")
    parser.add_argument("--idle-timeout", type=seconds, metavar="S", help="end it after S seconds without a text")


def _limits(options: argparse.Namespace) -> dict[str, Any]:
    return {key: getattr(options, key) for key in ("max_messages", "max_bytes", "deadline", "idle_timeout")}


# --- opening and answering --------------------------------------------------------------------------------------------


def open_session(options: argparse.Namespace) -> int:
    caller = caller_of(options)
    caller.me()
    task = text_from([options.to, *([options.task] if options.task is not None else [])], "open")
    session_id = wire.new_id("s")
    limits = _limits(options)
    if options.wait == 0:
        record = run(sessioncalls.offer(caller, session_id, options.to, task, None, **limits))
    else:
        stream = wire.Stream({"session": session_id})
        opening = sessioncalls.open_session(caller, stream, session_id, options.to, task, options.wait, **limits)
        try:
            record = run(opening)
        finally:
            stream.close()
    say(record, record["id"], options)
    return 0


def accept(options: argparse.Namespace) -> int:
    caller = caller_of(options)
    return _tell(run(sessioncalls.accept(caller, options.id, **_limits(options))), options)


# --- talking ----------------------------------------------------------------------------------------------------------


def say_text(options: argparse.Namespace) -> int:
    caller = caller_of(options)
    text = text_from([options.id, *([options.text] if options.text is not None else [])], "say")
    said = run(
        sessioncalls.say(caller, options.id, text, options.timeout, options.key, input_required=options.input_required)
    )
    receipt = sessioncalls.as_receipt(said)
    say(receipt, receipt_line(receipt), options)
    return 0


def close(options: argparse.Namespace) -> int:
    caller = caller_of(options)
    result = text_from([options.id, options.result], "close") if options.result == "-" else options.result
    status = "failed" if options.failed else "ok"
    return _tell(run(sessioncalls.close(caller, options.id, result, status)), options)


def abort(options: argparse.Namespace) -> int:
    return _tell(run(sessioncalls.abort(caller_of(options), options.id, options.reason)), options)


def progress(options: argparse.Namespace) -> int:
    return _tell(run(sessioncalls.progress(caller_of(options), options.id, options.note)), options)


def _tell(record: dict[str, Any], options: argparse.Namespace) -> int:
    say(record, session_line(record), options)
    return 0


# --- looking ----------------------------------------------------------------------------------------------------------


def sessions(options: argparse.Namespace) -> int:
    caller = caller_of(options)
    if options.id:
        if options.open:
            raise LocalProtocolError("--open is for the list", code="usage", hint="leave out the ID, or --open")
        record = run(sessioncalls.look(caller, options.id))
        say(record, _described(record), options)
        return 0
    found = run(sessioncalls.all_sessions(caller, is_open=True if options.open else None))
    if options.json:
        for record in found:
            print(encode(record))
        return 0
    if not found:
        print("no sessions: backchannel open TO TASK")
    peers, states, tasks = (max((len(r[key]) for r in found), default=0) for key in ("peer", "state", "task_state"))
    for record in found:
        arrow = "->" if record["role"] == "initiator" else "<-"
        print(
            f"{record['id']}  {arrow} {record['peer']:<{peers}}  {record['state']:<{states}}  "
            f"{record['task_state']:<{tasks}}  {first_line(record['task'], TASK_CHARS_MAX)}"
        )
    return 0


def _described(record: dict[str, Any]) -> str:
    shown = {key: value for key, value in record.items() if value not in (None, "", [])}
    return "\n".join(f"{key:<14} {printable(str(value), sys.stdout)}" for key, value in shown.items())


def trace(options: argparse.Namespace) -> int:
    from .ladder import show

    return show(caller_of(options), options)


def export(options: argparse.Namespace) -> int:
    from .export import export as print_session

    return print_session(caller_of(options), options)


# --- programs and people ----------------------------------------------------------------------------------------------


def chat(options: argparse.Namespace) -> int:
    from .chat import talk

    return talk(options)


def serve(options: argparse.Namespace) -> int:
    from .serve import serve_sessions

    return serve_sessions(options)
