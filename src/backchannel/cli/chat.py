"""`backchannel chat TO`: a person joins. Opens a session; what is typed is said, what the peer says is printed.

Two threads, because a terminal and a session are both waited for. The one that reads the session decides when it is
over: at the peer's FIN. `/quit` or the end of the input says our own FIN; the peer may still finish its sentence.
"""

import argparse
import os
import sys
import threading

from ..client.blocking import Agent
from ..client.sessions import Session
from ..errors import BackchannelError, LocalProtocolError
from ..protocol.codec import encode
from .main import report
from .terminal import printable

QUIT = "/quit"


def talk(options: argparse.Namespace) -> int:
    """Returns 0 if the peer closed the session as done, 3 if it says that it failed."""
    name = options.agent or os.environ.get("BACKCHANNEL_AGENT")
    if not name:
        raise LocalProtocolError(
            "chat needs an agent's name: the peer's words come to a mailbox",
            code="bad_name",
            hint="set BACKCHANNEL_AGENT=NAME, or use --as NAME",
        )
    with Agent(name) as me, me.open(options.to, options.task or f"chat with {name}", timeout=options.wait) as session:
        _tell(f"{session.peer} accepted; {QUIT} or ctrl-d closes", options)
        threading.Thread(target=_say_lines, args=(session, options), daemon=True).start()
        for data in session:
            print(encode(data.raw) if options.json else printable(data.text, sys.stdout), flush=True)
        session.close()
        status, result = session.result
        if options.json:
            print(encode({"kind": "finished", "session": session.id, "status": status, "text": result}), flush=True)
        else:
            _tell(f"{session.peer} closed: {status}{': ' + printable(result, sys.stderr) if result else ''}", options)
    return 0 if status == "ok" else 3


def _say_lines(session: Session, options: argparse.Namespace) -> None:
    try:
        for line in sys.stdin:
            text = line.removesuffix("\n")
            if text == QUIT:
                break
            session.send(text, timeout=None)
        session.close()
    except BackchannelError as error:  # over meanwhile, as the reader will see; or a text that is none
        report(error, as_json=options.json)


def _tell(text: str, options: argparse.Namespace) -> None:
    """To the person, beside what was said: on stderr, so that a pipe gets the peer's words alone."""
    if not options.json:
        print(f"-- {text}", file=sys.stderr, flush=True)
