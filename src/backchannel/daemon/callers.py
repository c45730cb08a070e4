"""Who is at the other end, and what they wait for: plain values between the server, the host and its methods."""

from ..mailbox.mailbox import Handed, Lease
from ..protocol import frame
from ..protocol.envelope import Peer
from ..protocol.receipt import Stage


class Caller:
    """The other end of one connection, as far as the host needs to know it. `pending` counts unanswered requests;
    `spoke_wrongly` is set by a line that is not JSON as it must be: nothing behind it is believed."""

    __slots__ = ("is_control", "peer", "pending", "spoke_wrongly")

    def __init__(self, peer: Peer, *, is_control: bool) -> None:
        self.peer = peer
        self.is_control = is_control
        self.pending = 0
        self.spoke_wrongly = False


class Answer:
    """A line that may go out now; with `after_flush` not before the log is on the disk itself."""

    __slots__ = ("after_flush", "caller", "line")

    def __init__(self, caller: Caller, line: bytes, *, after_flush: bool = False) -> None:
        self.caller = caller
        self.line = line
        self.after_flush = after_flush


class Taker:
    """A `take` that waits for messages."""

    __slots__ = (
        "caller",
        "count",
        "deadline",
        "handed",
        "is_new",
        "kinds",
        "lease",
        "reply_to",
        "request_id",
        "session",
    )

    def __init__(self, caller: Caller, request_id: bytes, params: frame.Take, lease: Lease, deadline: float | None):
        self.caller = caller
        self.request_id = request_id
        self.count = params.max
        self.kinds = frozenset(params.kinds) if params.kinds is not None else None
        self.session = params.session
        self.reply_to = params.reply_to
        self.lease = lease
        self.deadline = deadline
        self.handed: list[Handed] = []
        self.is_new = True  # arrived in this pass

    def wants(self, kind: str, session: str | None, reply_to: str | None) -> bool:
        return (
            (self.kinds is None or kind in self.kinds)
            and (self.session is None or self.session == session)
            and (self.reply_to is None or self.reply_to == reply_to)
        )


class Watcher:
    """A `wait` for a stage of one message; `msg_no` is None while the message is in our outbox."""

    __slots__ = ("caller", "deadline", "id", "is_new", "msg_no", "request_id", "wanted")

    def __init__(
        self, caller: Caller, request_id: bytes, message_id: str, msg_no: int | None, wanted: Stage, deadline: float
    ) -> None:
        self.caller = caller
        self.request_id = request_id
        self.id = message_id
        self.msg_no = msg_no
        self.wanted = wanted
        self.deadline = deadline
        self.is_new = True
