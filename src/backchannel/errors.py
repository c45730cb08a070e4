"""Everything Backchannel raises, told apart by whose fault it is.

Pure, and free of imports: the command line's fast path reads it too. Each error carries the stable `code` that
stands on the wire and in `--json`, a `message` that says what and about which name, and a `hint`: the next step.
"""


class BackchannelError(Exception):
    """The root of all errors of this package.

    `code` is stable and meant for programs; `str(error)` is one line for people, the hint included.
    `retry` says whether the same call may succeed later without anybody changing anything.
    """

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, code: str = "", hint: str = "", retry: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.hint = hint
        self.retry = retry

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class LocalProtocolError(BackchannelError):
    """You called wrongly: a bad name, an ended session, an ack for a delivery that is no longer yours."""

    code = "bad_request"
    exit_code = 2


class RemoteProtocolError(BackchannelError):
    """The other end of the socket spoke wrongly, or a version of the protocol that we don't know."""

    code = "protocol"


class Refused(BackchannelError):
    """The peer said no. `reason` is its own word for why; `retry_after` (seconds) when it named a time."""

    code = "rejected"
    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        hint: str = "",
        retry: bool = False,
        reason: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint, retry=retry)
        self.reason = reason or message
        self.retry_after = retry_after


class TimedOut(BackchannelError):
    """We ran out of time. `waited` is how long, in seconds."""

    code = "timeout"
    exit_code = 4

    def __init__(self, message: str, *, code: str = "", hint: str = "", waited: float = 0.0) -> None:
        super().__init__(message, code=code, hint=hint, retry=True)
        self.waited = waited


class PeerAbsent(BackchannelError):
    """Nobody is there: no agent of this name, or its daemon cannot be reached or started."""

    code = "unreachable"
    exit_code = 5


class OverLimit(BackchannelError):
    """Too large, too many or too fast: a full mailbox, an oversized text, a rate."""

    code = "full"
    exit_code = 6


class NotPermitted(BackchannelError):
    """The kernel's credentials, or the agent's key, do not allow it."""

    code = "not_permitted"
    exit_code = 7
