"""`backchannel`: finds the command, runs it, turns its outcome into an exit code.

Everything that is not needed for `send` and `recv` is imported only when something else is asked for.
"""

import gc
import os
import sys

from ..errors import BackchannelError, LocalProtocolError, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

EXIT_INTERRUPTED = 130


def main() -> "NoReturn":
    """Runs `sys.argv` and ends the process: 0 done, 2 usage, 3 refused, 4 timed out, 5 nobody there, 6 over a limit,
    7 not permitted, 1 anything else."""
    argv = sys.argv[1:]
    try:
        _check_streams()
        status = run(argv)
    except BackchannelError as error:
        status = report(error, as_json="--json" in argv)
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        status = 1  # whoever read our output is gone; nothing was acked that was not read
    except OSError as error:
        status = report(BackchannelError(str(error), code="os_error"), as_json="--json" in argv)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 1
    os._exit(status)  # nothing of ours needs the interpreter's farewell, which takes milliseconds


def _check_streams() -> None:
    """A text is UTF-8 wherever it goes, whatever the locale. Raises `LocalProtocolError` without standard output: what
    cannot be printed must not be acked either."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - ours until the end
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        raise LocalProtocolError("standard output is closed", code="usage", hint="redirect it to /dev/null instead")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]


def run(argv: list[str]) -> int:
    """One command. Returns the exit code; a `BackchannelError` is reported on stderr."""
    try:
        if argv and argv[0] in ("send", "recv"):
            gc.disable()  # they end before there is anything to collect, and to look for it takes 2 % of their time
        if argv and argv[0] == "send":
            from .send import send

            return send(argv[1:])
        if argv and argv[0] == "recv":
            from .recv import recv

            return recv(argv[1:])
        if argv and argv[0] == "hook":
            from ..hooks.engine import hook

            return hook(argv[1:])
        from .commands import run_command

        return run_command(argv)
    except BackchannelError as error:
        return report(error, as_json="--json" in argv)


def report(error: BackchannelError, *, as_json: bool) -> int:
    """One line on stderr: what, about which name or id, and the next step. Returns the exit code."""
    from ..protocol.codes import exit_code

    if as_json:
        from ..protocol.codec import encode

        retry_after = error.retry_after if isinstance(error, Refused) else None
        later = {} if retry_after is None else {"retry_after": retry_after}
        what = {"error": type(error).__name__, "code": error.code, "message": error.message, "hint": error.hint}
        line = encode({**what, **later})
    else:
        from .terminal import printable

        line = "backchannel: " + printable(str(error), sys.stderr).replace("\n", " ")
    sys.stderr.write(line + "\n")
    return exit_code(error)
