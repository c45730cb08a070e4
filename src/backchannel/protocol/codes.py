"""The stable error codes of the wire: what each means to a program, a JSON-RPC library and a shell.

One table, read from both ends: the daemon writes the JSON-RPC number beside the code, the client raises the class and
the command line exits with the number. Codes are never renamed and never reused.
"""

from ..errors import (
    BackchannelError,
    LocalProtocolError,
    NotPermitted,
    OverLimit,
    PeerAbsent,
    Refused,
    RemoteProtocolError,
    TimedOut,
)

# code: (JSON-RPC number, exception, exit code)
CODES: dict[str, tuple[int, type[BackchannelError], int]] = {
    # the request itself
    "malformed": (-32700, LocalProtocolError, 2),  # not JSON as section 2 of docs/protocol.md allows it
    "bad_request": (-32600, LocalProtocolError, 2),  # JSON, but no request
    "unknown_method": (-32601, LocalProtocolError, 2),
    "bad_params": (-32602, LocalProtocolError, 2),
    "bad_name": (-32020, LocalProtocolError, 2),
    "bad_id": (-32021, LocalProtocolError, 2),
    # limits
    "oversize": (-32001, OverLimit, 6),  # the line is longer than the daemon reads
    "full": (-32002, OverLimit, 6),  # mailbox or disk
    "quota": (-32003, OverLimit, 6),  # this sender's share of the mailbox
    "busy": (-32004, OverLimit, 6),  # no place for another connection or wait right now
    # who is there, who may
    "not_permitted": (-32005, NotPermitted, 7),
    "sandbox": (-32030, NotPermitted, 7),  # this process may not use Unix sockets at all
    "unknown_agent": (-32006, PeerAbsent, 5),
    "unreachable": (-32007, PeerAbsent, 5),
    "no_such_message": (-32008, LocalProtocolError, 5),
    # a clear no
    "stale": (-32009, Refused, 3),  # the delivery named is not the current one
    "taken": (-32010, Refused, 3),  # too late to cancel: an agent has it
    "ended": (-32011, Refused, 3),  # the message has ended already
    "key_reused": (-32012, Refused, 3),  # the same id with another text, target or headers
    "ambiguous": (-32013, LocalProtocolError, 2),  # two senders used this id
    "waiting_mail": (-32014, Refused, 3),  # remove without --purge
    "loop": (-32022, Refused, 3),  # too many hops, or too many messages of one trace
    "rate": (-32023, OverLimit, 6),  # a model sends too fast
    "via_outbox": (-32024, NotPermitted, 7),  # an agent that a model drives sends through its own daemon
    "queued": (-32029, Refused, 3),  # too early to cancel: it is on its way to its target
    # sessions
    "no_such_session": (-32025, LocalProtocolError, 5),
    "session_state": (-32026, LocalProtocolError, 3),  # what was asked is not possible in the state it is in
    "window": (-32027, OverLimit, 6),  # too much is said that the other agent has not processed
    "budget": (-32028, Refused, 3),  # the session has used up what it was given, and is over
    # time, trouble
    "timeout": (-32015, TimedOut, 4),
    "again": (-32016, TimedOut, 4),  # the wait was cut short to make room: ask again
    "storage": (-32017, BackchannelError, 1),  # the disk failed; nothing is known of this request
    "internal": (-32603, BackchannelError, 1),  # a mistake of the daemon's; nothing of the request happened
    "protocol": (-32018, RemoteProtocolError, 1),
}


def error_for(code: str, message: str, *, hint: str = "", retry: bool = False, reason: str = "") -> BackchannelError:
    """The exception that stands for an error answer. An unknown code (a newer daemon's) stays a clear error."""
    kind = CODES[code][1] if code in CODES else BackchannelError
    if kind is TimedOut:
        return TimedOut(message, code=code, hint=hint)
    if kind is Refused:
        return Refused(message, code=code, hint=hint, retry=retry, reason=reason)
    return kind(message, code=code, hint=hint, retry=retry)


def exit_code(error: BackchannelError) -> int:
    return CODES[error.code][2] if error.code in CODES else error.exit_code
