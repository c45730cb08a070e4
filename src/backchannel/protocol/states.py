"""The session's states and the one table that moves between them.

The names are RFC 9293's (3.3.2), with DRAIN where TCP has TIME-WAIT: our FIN is acked, their FIN is stored,
our agent has not yet processed it. A state is a function of four facts: my FIN sent? acked by their agent?
their FIN stored? processed by my agent? What is not in the table is an error by itself: a call raises, a
frame is BAD. `docs/protocol.md` 20 shows the same; a test visits every cell.
"""

from enum import Enum

from msgspec import Struct


class State(Enum):
    """Where one end of a session stands."""

    NONE = "NONE"
    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN-WAIT-1"
    FIN_WAIT_2 = "FIN-WAIT-2"
    CLOSE_WAIT = "CLOSE-WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST-ACK"
    DRAIN = "DRAIN"
    CLOSED = "CLOSED"

    @property
    def is_open(self) -> bool:
        return self is not State.NONE and self is not State.CLOSED


class Cause(Enum):
    """Why a session is CLOSED."""

    FINISHED = "finished"
    REJECTED = "rejected"
    ABORTED = "aborted"
    RESET = "reset"
    EXPIRED = "expired"


class Outcome(Enum):
    """What the receiving daemon answers to a frame: its receipt."""

    STORED = "stored"
    DUP = "dup"
    NO_SESSION = "no_session"
    CLOSED = "closed"
    BAD = "bad"
    GAP = "gap"
    REFUSED = "refused"  # not stored, for a reason outside the table: a limit, or a PROBE that must come first
    ALIVE = "alive"  # a PROBE's answer


class Input(Enum):
    """The table's columns: first what our own side does, then what a frame of the peer is to us."""

    OPEN = "OPEN"
    ACCEPT = "ACCEPT"
    REJECT = "REJECT"
    SEND = "SEND"
    CLOSE = "CLOSE"
    CLOSE_LAST = "CLOSE-LAST"  # close, when our agent has already processed their FIN
    ACKNOWLEDGE = "ACKNOWLEDGE"  # our agent processed data
    ACKNOWLEDGE_FIN = "ACKNOWLEDGE-FIN"  # our agent processed their FIN, and so all before it
    ABORT = "ABORT"
    TIMEOUT = "TIMEOUT"  # a timer ran out, or a budget was passed
    LOST = "LOST"  # the peer says it has no such session, or one of us lost what the other counts on

    SYN = "SYN"
    SYN_ACK = "SYN-ACK"
    REJ = "REJ"
    DATA = "DATA"  # seq = rcv_nxt
    OLD = "OLD"  # DATA or FIN, seq < rcv_nxt
    AHEAD = "AHEAD"  # DATA or FIN, seq > rcv_nxt
    FIN = "FIN"  # seq = rcv_nxt
    ACK = "ACK"
    ACK_FIN = "ACK-FIN"  # the ACK covers our FIN
    RST = "RST"


class Step(Struct, frozen=True):
    """One cell: the state after it, why it is CLOSED if it is, and the receipt if the input was a frame."""

    state: State
    cause: Cause | None
    outcome: Outcome


# A state or `=` (the same): go there; a frame is then STORED. A cause in small letters: go to CLOSED for it.
# An answer in capitals: nothing changes. `-`: the call raises; the frame cannot be, and is BAD, like one that only the
# other role may send (a SYN to the initiator, a SYN-ACK or REJ to the acceptor).
CALLS = """
              OPEN      ACCEPT       REJECT    SEND  CLOSE       CLOSE-LAST  ACKNOWLEDGE  ACKNOWLEDGE-FIN
NONE          SYN-SENT  -            -         -     -           -           -            -
SYN-SENT      -         -            -         -     -           -           -            -
SYN-RECEIVED  -         ESTABLISHED  rejected  -     -           -           -            -
ESTABLISHED   -         -            -         =     FIN-WAIT-1  -           =            -
FIN-WAIT-1    -         -            -         -     -           -           =            -
FIN-WAIT-2    -         -            -         -     -           -           =            -
CLOSE-WAIT    -         -            -         =     CLOSING     LAST-ACK    =            =
CLOSING       -         -            -         -     -           -           =            LAST-ACK
LAST-ACK      -         -            -         -     -           -           -            -
DRAIN         -         -            -         -     -           -           =            finished
CLOSED        -         -            -         -     -           -           =            =
"""

ENDINGS = """
              ABORT    TIMEOUT  LOST
NONE          -        -        -
SYN-SENT      aborted  expired  reset
SYN-RECEIVED  aborted  expired  reset
ESTABLISHED   aborted  expired  reset
FIN-WAIT-1    aborted  expired  reset
FIN-WAIT-2    aborted  expired  reset
CLOSE-WAIT    aborted  expired  reset
CLOSING       aborted  expired  reset
LAST-ACK      aborted  expired  reset
DRAIN         aborted  expired  reset
CLOSED        -        -        -
"""

FRAMES = """
              SYN           SYN-ACK      REJ         DATA        OLD         AHEAD       FIN
NONE          SYN-RECEIVED  NO_SESSION   NO_SESSION  NO_SESSION  -           NO_SESSION  NO_SESSION
SYN-SENT      -             ESTABLISHED  rejected    GAP         -           GAP         GAP
SYN-RECEIVED  DUP           -            -           BAD         BAD         BAD         BAD
ESTABLISHED   DUP           DUP          BAD         =           DUP         GAP         CLOSE-WAIT
FIN-WAIT-1    DUP           DUP          BAD         =           DUP         GAP         CLOSING
FIN-WAIT-2    DUP           DUP          BAD         =           DUP         GAP         DRAIN
CLOSE-WAIT    DUP           DUP          BAD         BAD         DUP         GAP         BAD
CLOSING       DUP           DUP          BAD         BAD         DUP         GAP         BAD
LAST-ACK      DUP           DUP          BAD         BAD         DUP         GAP         BAD
DRAIN         DUP           DUP          BAD         BAD         DUP         GAP         BAD
CLOSED        DUP           DUP          DUP         CLOSED      DUP         CLOSED      CLOSED
"""

FRAMES_WITHOUT_NUMBER = """
              ACK         ACK-FIN     RST
NONE          NO_SESSION  -           reset
SYN-SENT      GAP         -           reset
SYN-RECEIVED  BAD         -           reset
ESTABLISHED   =           -           reset
FIN-WAIT-1    =           FIN-WAIT-2  reset
FIN-WAIT-2    =           =           reset
CLOSE-WAIT    =           -           reset
CLOSING       =           DRAIN       reset
LAST-ACK      =           finished    reset
DRAIN         =           =           reset
CLOSED        DUP         DUP         DUP
"""


def read_table(text: str) -> dict[tuple[State, Input], Step]:
    """The cells of one table; raises on a word that is no state, cause or answer."""
    header, *rows = text.strip("\n").splitlines()
    inputs = [Input(word) for word in header.split()]
    cells = {}
    for row in rows:
        name, *words = row.split()
        state = State(name)
        for column, word in zip(inputs, words, strict=True):
            if word != "-":
                cells[state, column] = read_cell(state, word)
    return cells


def read_cell(state: State, word: str) -> Step:
    if word == "=":
        return Step(state, None, Outcome.STORED)
    if word in CAUSES:
        return Step(State.CLOSED, CAUSES[word], Outcome.STORED)
    if word in Outcome.__members__:
        return Step(state, None, Outcome[word])
    return Step(State(word), None, Outcome.STORED)


CAUSES = {cause.value: cause for cause in Cause}
TABLE = read_table(CALLS) | read_table(ENDINGS) | read_table(FRAMES) | read_table(FRAMES_WITHOUT_NUMBER)
