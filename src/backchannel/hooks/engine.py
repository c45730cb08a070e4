"""`backchannel hook DIALECT EVENT --as NAME`: what a program runs at a moment of its session, and what it is told then.

New mail goes into the answer, leased. It is acknowledged at a later moment that proves a request to the model with it
(evidence `turn`), and not before: if the program dies in between, the receipt stays at `taken`, and the next window
gets the mail again. Whatever goes wrong here, the program must not notice: the hook ends with 0, says nothing, and
writes a line into `STATE/NAME/hooks.log`. With nothing to say a hook costs little more than the interpreter: what is
only needed with mail is imported then.
"""

import os
import sys
import time

from ..errors import BackchannelError, LocalProtocolError
from ..protocol.codec import decode, decode_foreign, encode, encode_request
from ..transport import dial
from ..transport.paths import CONTROL, find_places
from . import windows
from .dialects import DIALECTS, EVENTS, PROMPT, SESSION_END, SESSION_START, STOP, WAIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..transport.paths import Places
    from .dialects import Dialect

USAGE = """usage: backchannel hook claude|codex|gemini EVENT --as NAME

Run by Claude Code, Codex and Gemini CLI: puts new mail before the model. `backchannel init` sets it up.

  EVENT                 session-start, prompt, tool, stop, session-end or wait
  --as NAME             the agent of the directory; a second window of it is NAME-2
"""

CALL_S = 2.0  # the program waits for us, before each of its steps
BLOCKS_MAX = 5  # in one turn; Claude Code overrules the ninth, and that mail would count as seen
LOG_BYTES_MAX = 1 << 18  # then the older half of it goes


def hook(argv: list[str]) -> int:
    """Returns the exit code: 0, also when it failed; 1 for words that are no hook (2 would mean something)."""
    if argv and argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    if len(argv) != 4 or argv[0] not in DIALECTS or argv[1] not in EVENTS or argv[2] != "--as":
        sys.stderr.write(f"backchannel: no such hook: {' '.join(argv)}: {USAGE.partition(chr(10))[0]}\n")
        return 1
    dialect, event, base = DIALECTS[argv[0]], argv[1], argv[3]
    try:
        raw = sys.stdin.buffer.read()
        places = find_places()
        if not os.path.exists(places.state(base, "key")):
            return 0  # the agent was removed
        try:
            said = decode_foreign(raw)
            if not isinstance(said, dict) or not windows.is_session(said.get("session_id")):
                raise LocalProtocolError("standard input is not what a hook is told", code="malformed")
            if "agent_id" in said:
                return 0  # a subagent's moment: mail is for who gave it its work
            if event == WAIT:
                from .waiter import wait

                return wait(dialect, places, base, said)
            _at(dialect, event, places, base, said)
        except Exception as error:
            log(places, base, dialect, event, error)
    except Exception:  # noqa: S110 - there is not even a log to write: silence is what is left
        pass
    return 0


def _at(dialect: "Dialect", event: str, places: "Places", base: str, said: "dict[str, Any]") -> None:
    """One moment of a window, with its file locked from beginning to end."""
    window = None if event == SESSION_START else windows.find(places, base, said["session_id"])
    if window is None:
        if event == SESSION_END:
            return
        window = _enrol(places, base, said)
    try:
        if event == SESSION_END:
            end(places, window)
            return
        try:
            if window.pending:
                _settle(dialect, event, places, window, str(said.get("prompt")))
            if event == STOP:
                _stop(dialect, places, window, said)
            else:
                _tell(dialect, event, places, window)
        except BackchannelError:  # mail is out of reach; the turn ends all the same, and the waiter comes again for it
            if event == STOP:
                _rest(dialect, window, said)
            raise
    finally:
        window.close()


def _enrol(places: "Places", base: str, said: "dict[str, Any]") -> windows.Window:
    """A window that opens, or that was open before we were set up."""
    source = said.get("source", "startup")
    window, gone = windows.enrol(places, base, said["session_id"], beside=source == "startup")
    for other in gone:
        end(places, other, unless=window.agent)
    if source == "compact":  # in the middle of a turn, mostly
        window.is_idle = False
        window.save()
    else:  # a program that starts again has not come to the end of what it had
        give_back(places, window)
    return window


def _tell(dialect: "Dialect", event: str, places: "Places", window: windows.Window) -> None:
    """Session start: who this is. Otherwise the mail that has come."""
    was_idle = window.is_idle
    if event != SESSION_START:
        window.is_idle = False
    if event == PROMPT:
        window.blocks = 0
        windows.end_waiting(window.path)
    messages = [] if event == SESSION_START else take(places, window.agent, dialect.chars_max)
    if messages or window.is_new:
        from . import words

        parts = [words.introduction(window.agent)] if window.is_new else []
        parts += [words.mail(messages, window.agent)] if messages else []
        _show(places, window, dialect.context(event, "\n\n".join(parts)), messages)
    if messages or was_idle != window.is_idle:
        window.save()


def _stop(dialect: "Dialect", places: "Places", window: windows.Window, said: "dict[str, Any]") -> None:
    """Mail keeps the turn going, a bounded number of times; what comes then waits for the next turn."""
    if not said.get("stop_hook_active"):
        window.blocks = 0
    messages = take(places, window.agent, dialect.chars_max) if window.blocks < BLOCKS_MAX else []
    if messages:
        from . import words

        window.blocks += 1
        _show(places, window, dialect.go_on(words.mail(messages, window.agent)), messages)
        window.is_idle = False
        window.save()
    else:
        _rest(dialect, window, said)


def _rest(dialect: "Dialect", window: windows.Window, said: "dict[str, Any]") -> None:
    """The turn ends: from now on the window may be woken."""
    window.is_idle = True
    window.save()
    if dialect.waking == "queue":
        _start_waiter(dialect, window, said["session_id"])


def _start_waiter(dialect: "Dialect", window: windows.Window, session: str) -> None:
    """In the background, for a program that would wait for its end, or end it."""
    command = [sys.executable, "-P", os.path.abspath(sys.argv[0]), "hook", dialect.name, WAIT, "--as", window.base]
    read, write = os.pipe()
    os.write(write, encode({"session_id": session}).encode())
    os.close(write)
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (1, 2)]
    os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, read, 0), *null], setsid=True)
    os.close(read)


# --- mail -------------------------------------------------------------------------------------------------------------


def take(
    places: "Places", agent: str, chars_max: int, begun: "list[dict[str, Any]] | None" = None
) -> "list[dict[str, Any]]":
    """What waits, leased, until an answer is half full, with what was taken already. A message alone may be too long.

    One at a time, so that no more than one has to be given back because it does not fit. What counts is what the
    model reads: of many short messages the most is ours.
    """
    messages = [] if begun is None else begun
    chars = _chars(messages, agent)
    while chars < chars_max // 2:
        found = _take_one(places, agent)
        if not found:
            break
        chars += _chars(found, agent)
        if messages and chars > chars_max:
            return_unseen(places, agent, found)
            break
        messages += found
    return messages


def _chars(messages: "list[dict[str, Any]]", agent: str) -> int:
    if not messages:
        return 0  # without the import
    from . import words

    return len(words.mail(messages, agent))


def _take_one(places: "Places", agent: str) -> "list[dict[str, Any]]":
    """By the shortest way there is, since most often nothing waits; where that fails, as every client does it."""
    params = {"take_id": f"t-{os.urandom(16).hex()}", "max": 1, "detached": True, "wait": 0}
    try:
        sock = dial.connect(f"{places.sockets(agent)}/{CONTROL}", CALL_S)
        try:
            if dial.peer_uid(sock) == os.geteuid():
                sock.sendall(encode_request(1, "take", params))
                line = b""
                while not line.endswith(b"\n"):
                    chunk = sock.recv(65536)
                    if not chunk:
                        break
                    line += chunk
                found: list[dict[str, Any]] = decode(line)["result"]["messages"]
                return found
        finally:
            sock.close()
    except (OSError, ValueError, KeyError):
        pass
    from ..client import calls, wire
    from ..client.drive import run

    asked = calls.control(wire.Caller(agent, places), agent, "take", CALL_S, **params)  # the same take: nothing is lost
    again: list[dict[str, Any]] = run(asked)["messages"]
    return again


def return_unseen(places: "Places", agent: str, messages: "list[dict[str, Any]]") -> None:
    """Gives back what was never put before the model: this handing-out does not count."""
    from ..client import calls, wire
    from ..client.drive import run

    for message in messages:
        token = {"sender": message["from"], "delivery": message["delivery"]}
        run(calls.settle(wire.Caller(agent, places), "release", message["id"], **token, unseen=True))


def hand(window: windows.Window, messages: "list[dict[str, Any]]", proofs: int = 1) -> None:
    """Remembers what was put before the model. Only after it was written: else it would count as seen unseen."""
    window.pending += [[m["id"], m["from"], m["delivery"], proofs] for m in messages]


def _settle(dialect: "Dialect", event: str, places: "Places", window: windows.Window, prompt: str) -> None:
    """Acknowledges what is proved to be seen; the leases of the rest begin anew.

    Mail that was queued becomes a prompt of its own: until then the end of a turn proves nothing about it.
    """
    from ..client import render

    kept = []
    for message_id, sender, delivery, proofs in window.pending:
        left = proofs - (event in dialect.proofs)
        if event == PROMPT and render.names(prompt, message_id):
            left = 1
        method = "renew" if left else "ack"
        if _settled(places, window.agent, method, message_id, sender, delivery) and left:
            kept.append([message_id, sender, delivery, left])
    window.pending = kept
    window.save()


def give_back(places: "Places", window: windows.Window) -> None:
    """What was not proved to be seen goes to the next window."""
    for message_id, sender, delivery, _ in window.pending:
        _settled(places, window.agent, "release", message_id, sender, delivery)
    if window.pending:
        window.pending = []
        window.save()


def _settled(places: "Places", agent: str, method: str, message_id: str, sender: str, delivery: int) -> bool:
    """False if it is not handed out like that any more: the model answered or refused it, or a person did."""
    from ..client import calls, wire
    from ..client.drive import run
    from ..errors import Refused

    more = {"evidence": "turn"} if method == "ack" else {}
    caller = wire.Caller(agent, places)
    try:
        run(calls.settle(caller, method, message_id, CALL_S, sender=sender, delivery=delivery, **more))
    except (Refused, LocalProtocolError):
        return False
    finally:
        caller.close()
    return True


def end(places: "Places", window: windows.Window, unless: str = "") -> None:
    """A window is gone. An agent made for it goes too, if its mailbox is empty and nobody took it over."""
    windows.end_waiting(window.path)
    try:
        give_back(places, window)
    finally:
        windows.forget(window)
        if window.agent not in (window.base, unless):
            from . import leaving

            leaving.start(window.base, window.agent)


# --- speaking ---------------------------------------------------------------------------------------------------------


def _show(places: "Places", window: windows.Window, answer: "dict[str, Any]", messages: "list[dict[str, Any]]") -> None:
    """Answers with mail in it, and remembers that; or gives it back, if the program died meanwhile."""
    try:
        sys.stdout.write(encode(answer) + "\n")
        sys.stdout.flush()
    except OSError:
        return_unseen(places, window.agent, messages)
        raise
    hand(window, messages)


def log(places: "Places", base: str, dialect: "Dialect", event: str, error: Exception) -> None:
    what = str(error) if isinstance(error, BackchannelError) else f"{type(error).__name__}: {error}"
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = f"{when} {dialect.name} {event}: {' '.join(what.split())[:1000]}\n".encode()
    path = places.state(base, "hooks.log")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size > LOG_BYTES_MAX:
            newer = os.pread(fd, LOG_BYTES_MAX // 2, size - LOG_BYTES_MAX // 2).partition(b"\n")[2]
            os.ftruncate(fd, 0)
            os.write(fd, newer)
        os.write(fd, line)
    finally:
        os.close(fd)
