"""Single mistakes in the daemon, put there by patching it: the simulation must notice each.

python -m tests.simulation --mutants     prints which seed noticed what
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from backchannel.daemon.control import Control
from backchannel.daemon.courier import Courier, Reply
from backchannel.daemon.host import Host
from backchannel.daemon.sessions import Sessions
from backchannel.mailbox import sessions as session_store
from backchannel.mailbox.frames import FrameRow, Frames
from backchannel.mailbox.mailbox import Mailbox, State
from backchannel.mailbox.outbox import Outbox
from backchannel.protocol.endpoint import Endpoint
from backchannel.protocol.recvqueue import ReceiveQueue
from backchannel.protocol.sendqueue import SendQueue
from backchannel.protocol.session import Session
from backchannel.protocol.states import Cause

from .runner import run_one

Patch = tuple[Any, str, Any]
SEEDS_MAX = 150


class Mutant(NamedTuple):
    name: str
    patches: tuple[Patch, ...]
    steps: int = 200

    @contextmanager
    def in_force(self) -> Iterator[None]:
        with ExitStack() as stack:
            for where, name, instead in self.patches:
                stack.enter_context(patch.object(where, name, instead))
            yield


def noticed(mutant: Mutant, seeds: int = SEEDS_MAX) -> str:
    """The first violation and its seed; empty if nobody notices."""
    with mutant.in_force():
        for seed in range(seeds):
            if violation := run_one(seed, mutant.steps).violation:
                return f"seed {seed}: {violation.strip().splitlines()[-1][:160]}"
    return ""


def nothing(*_: object, **__: object) -> None:
    return None


# --- disk, then wire --------------------------------------------------------------------------------------------------


def commits_every_other_time(of: Callable[..., None] = Mailbox.commit) -> Callable[..., None]:
    def commit(self: Mailbox) -> None:
        if self.commits % 2:
            self.commits += 1
            self._moves.clear()
        else:
            of(self)

    return commit


def saves_sessions_after_the_commit(self: Host, now: float, wall: float) -> bool:
    self.sessions.poisoned(now, wall)
    self._bounce(wall)
    is_written = self.mailbox.in_transaction
    if is_written:
        self.mailbox.commit()
    saved = self.sessions.save(wall)
    if self.mailbox.in_transaction:
        self.mailbox.commit()
    if saved is not None:
        self.sessions.committed(saved, now)
    return is_written


def reads_back_all_but_the_frames(self: Sessions, now: float) -> None:
    self._asked.clear()
    self.changed.clear()
    self.endpoint = self._restored(now)


def reads_back_all_but_the_sessions(self: Sessions, now: float) -> None:
    self._asked.clear()
    self.changed.clear()
    self.frames.reload()


def forgets_to_go_back(self: Mailbox) -> None:
    self.db.execute("ROLLBACK") if self.db.in_transaction else None
    self.in_transaction = False
    for since_the_commit in (self.changed, self.ended_undone, self.poisoned, self._moves):
        since_the_commit.clear()


def reads_back_the_sessions_alone(self: Host, now: float) -> None:
    self.sessions.roll_back(now)


def acks_in_memory_only(self: Mailbox, state: Any, evidence: str, wall: float) -> None:
    from backchannel.protocol.receipt import Stage

    self._moved(state, Stage.ACKED)


def restores_without_the_shift(self: Sessions, now: float) -> Endpoint:
    saved, snapshots = self.store.load()
    return Endpoint.restore(self.local, saved, snapshots, now)


def in_its_first_epoch(of: Any = Mailbox._recover) -> Callable[..., None]:
    def recover(self: Mailbox, *arguments: Any) -> None:
        of(self, *arguments)
        self.epoch = 1

    return recover


# --- order, once, and for whom ----------------------------------------------------------------------------------------


def the_newest_first(self: Frames, session: str) -> FrameRow:
    return FrameRow(
        *self._mailbox.db.execute(
            "SELECT row_no, session, target, kind, number, params FROM frames"
            " WHERE session = ? AND stage = 'queued' ORDER BY row_no DESC LIMIT 1",
            (session,),
        ).fetchone()
    )


def stores_it_as_new(of: Any = Mailbox.put) -> Callable[..., Any]:
    def put(self: Mailbox, envelope: Any, **options: Any) -> Any:
        state, _, handed = of(self, envelope, **options)
        return state, False, handed

    return put


def gives_up_when_refused(of: Any = Host._settle_row) -> Callable[..., None]:
    def settle(self: Host, errand: Any, reply: Reply, now: float, wall: float) -> None:
        reply.retry = False
        of(self, errand.row, Reply(reply.result or {}), now, wall)

    def settle_errand(self: Host, errand: Any, reply: Reply, now: float, wall: float, before: Any = None) -> None:
        if hasattr(errand.row, "queued_at"):
            settle(self, errand, reply, now, wall)
            self.courier.settled(errand, now, has_left=True)
        else:
            ORIGINAL_SETTLE(self, errand, reply, now, wall)

    return settle_errand


ORIGINAL_SETTLE = Host._settle_errand


def counts_it_as_a_new_delivery_never(of: Any = Mailbox.release) -> Callable[..., None]:
    def release(self: Mailbox, state: Any, wall: float, *, unseen: bool = False) -> None:
        of(self, state, wall, unseen=unseen)
        self.db.execute(
            "UPDATE messages SET delivery = delivery - 1 WHERE msg_no = ? AND stage = 'stored'", (state.msg_no,)
        )

    return release


def takes_any_delivery() -> Callable[..., Any]:
    def check_current(self: State, delivery: int | None) -> None:
        pass

    return check_current


# --- sessions ---------------------------------------------------------------------------------------------------------


def accepts_by_itself(of: Any = Endpoint.receive) -> Callable[..., Any]:
    def receive(self: Endpoint, peer: str, frame: Any, now: float) -> Any:
        effects = of(self, peer, frame, now)
        if frame.id.kind == "SYN" and frame.session in self._offers:
            effects += self.accept(frame.session, now)
        return effects

    return receive


def acks_what_is_stored(of: Any = Endpoint.receive) -> Callable[..., Any]:
    def receive(self: Endpoint, peer: str, frame: Any, now: float) -> Any:
        effects = of(self, peer, frame, now)
        session = self.find(frame.session)
        if frame.id.kind == "DATA" and session is not None and session.recv_queue.may_ack(frame.seq):
            effects += self.ack(frame.session, frame.seq, now)
        return effects

    return receive


def strikes_the_session_on_a_busy_peer(of: Any = Sessions._read) -> Callable[..., Any]:
    def read(self: Sessions, errand: Any, reply: Reply) -> Any:
        reply.retry = False
        return of(self, errand, reply)

    return read


def forgets_who_waits(of: Any = Courier.wake) -> Callable[..., None]:
    return nothing


def ends_uncounted(self: Any, session: str, role: Any, cause: Cause, retry_after: Any, wall: float) -> None:
    self._mailbox.begin()
    self._db.execute("UPDATE sessions SET ended_at = ? WHERE id = ?", (wall, session))


MUTANTS = [
    Mutant("answers before the commit", ((Mailbox, "commit", commits_every_other_time()),)),
    Mutant("a session is saved after the commit of its mail", ((Host, "_commit", saves_sessions_after_the_commit),)),
    Mutant("acks in memory only", ((Mailbox, "ack", acks_in_memory_only),)),
    Mutant("acks are not told to the peer", ((Sessions, "acked", nothing),)),
    Mutant("frames are not struck", ((Frames, "settle", nothing),)),
    Mutant("a rollback does not reload the frames", ((Sessions, "roll_back", reads_back_all_but_the_frames),)),
    Mutant("a rollback does not reload the sessions", ((Sessions, "roll_back", reads_back_all_but_the_sessions),)),
    Mutant("a rollback does not reload the outbox", ((Outbox, "reload", lambda self: setattr(self, "waiting", {})),)),
    Mutant(
        "a rollback does not reload the mailbox",
        ((Host, "_roll_back", reads_back_the_sessions_alone),),
    ),
    Mutant("a rollback does not move back what memory mirrors", ((Mailbox, "rollback", forgets_to_go_back),)),
    Mutant("several mails of a session at once", ((Mailbox, "is_in_hand", lambda self, kind, session: False),)),
    Mutant(
        "no epochs, no digests, no counts compared",
        (
            (Mailbox, "_recover", in_its_first_epoch()),
            (ReceiveQueue, "recognises", lambda self, seq, digest: True),
            (Session, "_has_lost", lambda self, peer: False),
        ),
    ),
    Mutant("the clock of another boot", ((Sessions, "_restored", restores_without_the_shift),)),
    Mutant("repetitions are stored as new", ((Mailbox, "put", stores_it_as_new()),)),
    Mutant("the courier overtakes", ((Frames, "first", the_newest_first),)),
    Mutant("the outbox gives up when it is refused for now", ((Host, "_settle_errand", gives_up_when_refused()),)),
    Mutant("the same delivery number twice", ((Mailbox, "release", counts_it_as_a_new_delivery_never()),)),
    Mutant("any token settles", ((State, "check_current", takes_any_delivery()),)),
    Mutant("leases never fall", ((Mailbox, "release_expired", nothing),)),
    Mutant("no bounce", ((Host, "notice", nothing),)),
    Mutant("no bounce from afar", ((Host, "_bounce", lambda self, wall: self.mailbox.ended_undone.clear()),)),
    Mutant("the daemon accepts", ((Endpoint, "receive", accepts_by_itself()),)),
    Mutant("acks when stored", ((Endpoint, "receive", acks_what_is_stored()),)),
    Mutant("a busy peer ends the session", ((Sessions, "_read", strikes_the_session_on_a_busy_peer()),)),
    Mutant("what waits for a PROBE is not woken", ((Courier, "wake", nothing),)),
    Mutant("no PROBE when a start needs one", ((Session, "_probe_soon", nothing),)),
    Mutant("the window is not heeded", ((SendQueue, "is_full", property(lambda self: False)),), steps=600),
    Mutant("budgets are not counted", ((Session, "_count", lambda self, body: ""),)),
    Mutant("ends are not counted", ((session_store.Sessions, "ended", ends_uncounted),)),
    Mutant("claims are not heeded", ((Control, "may_have", lambda self, *_: True),)),
]
