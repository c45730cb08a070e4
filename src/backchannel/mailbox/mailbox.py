"""One agent's mailbox: messages put, leased, settled; every promise about them one transaction.

Calls change the open transaction (begun by the first of them); nothing is true before `commit()` returned, and after
`rollback()` nothing happened. The daemon commits once per pass of its loop for everything that arrived in it.

`now` is seconds since boot (it never jumps), `wall` is Unix time (it may, and is only ever shown). Leases, counters and
the order of what waits live in memory beside the rows they follow from; a restart finds them again. All three change by
`_move` alone, and a rollback is the same moves backwards.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ..errors import BackchannelError, LocalProtocolError, Refused
from ..protocol.envelope import SESSION_DATA, SESSION_KINDS, Envelope, digest_of, same_content, shown_sender
from ..protocol.frame import Log
from ..protocol.receipt import Stage
from . import standing
from .counters import Counters
from .database import damaged, is_full, open_database, quick_check, release_memory, unusable
from .ready import Ready
from .standing import INLINE_MAX, SIZE, TEXT, Standing

HELD_GRACE_S = 5.0  # how long a held lease waits for its client after a daemon's restart
DETACHED_S = 300.0  # a shell user's time to act on what `recv --keep` printed
DELIVERIES_MAX = 5  # then a message is dead: whatever takes it does not survive it
_ALWAYS_KNOWN = {"mailbox_id", "epoch", "boot_id", "boot_offset", "clean"}  # of `meta`, written in one transaction

_ENVELOPE = (
    f"id, sender, kind, {TEXT}, uid, gid, pid, sent_at, priority, NULL, headers, session, reply_to, trace_id, hops,"
    " durability, extra, path, bounce"
)

_STATE = (
    f"msg_no, id, sender, uid, stage, priority, delivery, durability, reason, evidence, reply_id, {SIZE},"
    " trace_id, hops, path, bounce, unseen, kind, session"
)


# What every message has comes first. `sqlite3` binds int, float, str and bytearray as they are, and looks for an
# adapter of each None, bool and bytes: a third of a microsecond each. So what a message lacks is not bound.
_ALWAYS = (
    "msg_no, id, sender, kind, text, stage, priority, delivery, sent_at, stored_at, uid, gid, pid, durability, hops,"
    " bounce"
)
_LEASED = ", take_id, detached"
_SELDOM = ", session, reply_to, trace_id, expires, headers, extra, path"
_NOTHING_SELDOM = (None,) * 7


def _insert(columns: str) -> str:
    return f"INSERT INTO messages ({columns}) VALUES ({','.join('?' * (columns.count(',') + 1))})"  # noqa: S608


_INSERT = {  # by whether it is leased, and whether it has nothing seldom
    (False, True): _insert(_ALWAYS),
    (False, False): _insert(_ALWAYS + _SELDOM),
    (True, True): _insert(_ALWAYS + _LEASED),
    (True, False): _insert(_ALWAYS + _LEASED + _SELDOM),
}


class Leased:
    """One message that is handed out. `ordered` is the session whose next mail waits until this one is settled."""

    __slots__ = ("delivery", "id", "msg_no", "ordered", "sender", "session", "size", "take", "taken_at")

    def __init__(
        self,
        msg_no: int,
        message_id: str,
        sender: str,
        size: int,
        delivery: int,
        take: "Lease",
        kind: str,
        session: str | None,
    ) -> None:
        self.msg_no = msg_no
        self.id = message_id
        self.sender = sender
        self.size = size
        self.delivery = delivery
        self.take = take
        self.session = session
        self.ordered = in_order(kind, session)
        self.taken_at: float | None = None  # Unix time; None: by an earlier daemon


class Lease:
    """What one `take` handed out. `holder` is the connection it lives with; without one it has a `deadline`
    (seconds since boot)."""

    __slots__ = ("deadline", "detached", "holder", "messages", "take_id")

    def __init__(self, take_id: str, *, detached: bool, deadline: float | None) -> None:
        self.take_id = take_id
        self.detached = detached
        self.deadline = deadline
        self.holder: object = None
        self.messages: dict[int, Leased] = {}


class Handed:
    """A message leaving for an agent: the envelope, its number, and the how-manieth handing-out this is. `stored_at`
    is Unix time; None if it has left before, and the answer was lost."""

    __slots__ = ("delivery", "envelope", "msg_no", "stored_at")

    def __init__(self, envelope: Envelope, msg_no: int, delivery: int, stored_at: float | None = None) -> None:
        self.envelope = envelope
        self.msg_no = msg_no
        self.delivery = delivery
        self.stored_at = stored_at


class State(msgspec.Struct, gc=False):
    """What is known of one message: the row without its text. A Struct, for one is made of every push and ack: as a
    plain class that took a microsecond more."""

    msg_no: int
    id: str
    sender: str
    uid: int
    word: str
    priority: int
    delivery: int
    durability: str
    reason: str | None
    evidence: str | None
    reply_id: str | None
    size: int
    trace_id: str | None
    hops: int
    went_through: str | None
    bounce: int
    unseen: int
    kind: str
    session: str | None

    @property
    def stage(self) -> Stage:
        return STAGES[self.word]

    @property
    def path(self) -> list[str]:
        """The agents it went through, oldest first."""
        return self.went_through.split(",") if self.went_through else []

    def check_current(self, delivery: int | None) -> None:
        """Raises `Refused` (`stale`, `ended`) unless this delivery is the current one; None: whichever is.

        A lease that fell but was not handed out again is still current: the agent was only slow.
        """
        if self.word == "taken" and delivery in (None, self.delivery):
            return
        if self.word not in ("stored", "taken"):
            why = f" ({self.reason})" if self.reason else ""
            raise Refused(f"message {self.id} is {self.word} already{why}", code="ended", hint="nothing to do")
        if delivery is None or self.delivery == 0:
            raise Refused(
                f"message {self.id} is not handed out", code="stale", hint="take it first: backchannel recv --keep"
            )
        if delivery != self.delivery:
            raise Refused(
                f"delivery {delivery} of message {self.id} is stale, {self.delivery} is the current one",
                code="stale",
                hint="it was handed out again; leave it to who has it now",
            )


class Mailbox:
    """The open mailbox of one agent. `leases` maps take ids to what they hold. `changed` lists (msg_no, stage) as they
    came about, for whoever reads it and empties it after a commit. Since the last commit: `ended_undone` is what failed
    and whose sender's daemon wants to know, `poisoned` the sessions whose data nobody survives."""

    def __init__(
        self,
        db: sqlite3.Connection,
        path: str,
        *,
        messages_max: int = 1_000_000,
        bytes_max: int = 1 << 30,
        deliveries_max: int = DELIVERIES_MAX,
        detached_s: float = DETACHED_S,
    ) -> None:
        self.db = db
        self._writer = db.cursor()  # for what returns no rows; `db.execute` makes a cursor a call
        self.path = path
        self.mailbox_id = ""
        self.epoch = 0
        self.deliveries_max = deliveries_max
        self.detached_s = detached_s
        self.counters = Counters(messages_max, bytes_max)
        self.ready = Ready()
        self.leases: dict[str, Lease] = {}
        self.leased: dict[int, Leased] = {}
        self._moves: list[Move] = []  # since the last commit
        self.changed: list[tuple[int, str]] = []
        self._changed_before = 0  # of them, how many are true already
        self.ended_undone: list[tuple[State, Stage, str]] = []
        self.poisoned: list[str] = []
        self.clock_shift = 0.0  # what boots added to the clock since sessions' times were written, seconds
        self._in_hand: set[str] = set()  # sessions of whose mail one is leased
        self.next_expiry: float | None = None
        self.paused = False
        self.in_transaction = False
        self.commits = 0
        self._next_no = 1

    # --- opening and closing ------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: str,
        *,
        now: float,
        wall: float,
        boot_id: str,
        random: Callable[[int], bytes],
        migrate: bool = True,
        **limits: float,
    ) -> "Mailbox":
        """The mailbox at `path`, recovered and ready. Raises `MailboxUnusable`; the file is then as it was.

        Raises `BackchannelError` (`storage`) when the disk or a permission does not allow it now.
        """
        db = open_database(path, migrate=migrate)
        mailbox = cls(db, path, **limits)  # type: ignore[arg-type]
        try:
            mailbox._recover(now, wall, boot_id, random)
        except sqlite3.Error as error:
            db.close()
            raise unusable(path, error) from None
        except BaseException:
            db.close()
            raise
        return mailbox

    def _recover(self, now: float, wall: float, boot_id: str, random: Callable[[int], bytes]) -> None:
        meta = dict(self.db.execute("SELECT key, value FROM meta"))
        if meta and not meta.keys() >= _ALWAYS_KNOWN:
            raise damaged(self.path, "it has forgotten what it is")
        was_closed = bool(meta) and bool(meta["clean"])
        if meta and not was_closed:
            quick_check(self.db, self.path)
        found = (standing.load(self.db) if was_closed else None) or standing.count(self.db)
        self.db.execute("PRAGMA synchronous=FULL")  # no frame may tell of an epoch that a power cut undoes
        self.begin()
        if not meta:
            meta = {"mailbox_id": random(16).hex(), "epoch": 1, "boot_id": boot_id, "boot_offset": wall - now}
        elif meta["boot_id"] != boot_id:
            # Another boot counts its seconds from another zero. What ended needs no time, and is not looked at.
            shift = meta["boot_offset"] - (wall - now)
            self.db.execute(
                "UPDATE messages SET expires = expires + ? WHERE expires IS NOT NULL AND stage = 'stored'", (shift,)
            )
            self.db.executemany(
                "UPDATE messages SET expires = expires + ? WHERE msg_no = ? AND expires IS NOT NULL",
                [(shift, number) for number in found.taken],
            )
            # Kept until the sessions are written by the new clock: a kill may come first.
            meta["clock_shift"] = meta.get("clock_shift", 0.0) + shift
            if not meta["clean"]:
                meta["epoch"] += 1  # a power cut may have taken the last commits
        meta.update(boot_id=boot_id, boot_offset=wall - now, clean=0)
        self.db.executemany("REPLACE INTO meta (key, value) VALUES (?, ?)", meta.items())
        self.db.execute("COMMIT")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.in_transaction = False
        self.mailbox_id = str(meta["mailbox_id"])
        self.epoch = int(meta["epoch"])
        self.clock_shift = float(meta.get("clock_shift", 0.0))
        self._stand(found, now)
        self._read_back()

    def _stand(self, found: Standing, now: float) -> None:
        """Takes over what memory mirrors. What is handed out waits for its client."""
        self.counters.load(found.counts)
        self.ready = found.ready
        for number in found.taken:
            message_id, sender, size, delivery, take_id, detached, kind, session = self.db.execute(
                f"SELECT id, sender, {SIZE}, delivery, take_id, detached, kind, session"  # noqa: S608
                " FROM messages WHERE msg_no = ?",
                (number,),
            ).fetchone()
            grace = self.detached_s if detached else HELD_GRACE_S
            lease = self.leases.get(take_id) or Lease(take_id, detached=bool(detached), deadline=now + grace)
            self._hold(Leased(number, message_id, sender, size, delivery, lease, kind, session))
        self._next_no = standing.highest_no(self.db) + 1

    def _read_back(self) -> None:
        """What memory mirrors of the rest of the file."""
        paused = self.db.execute("SELECT value FROM meta WHERE key = 'paused'").fetchone()
        self.paused = bool(paused and paused[0])
        self._find_next_expiry()

    def close(self, wall: float, now: float) -> None:
        """An orderly end: the log goes into the file, and the next start need not check it.

        A full disk may have no room for what that start would be spared: then it looks for itself, as after a kill.
        """
        if self.in_transaction:
            self.rollback()
        try:
            self.begin()
            standing.save(self.db, Standing(self.counters.by_sender, self.ready, list(self.leased)))
            self.db.execute("UPDATE meta SET value = 1 WHERE key = 'clean'")
            self.db.execute("UPDATE meta SET value = ? WHERE key = 'boot_offset'", (wall - now,))
            self.commit()
        except sqlite3.Error as error:
            if not is_full(error):
                raise
        finally:
            self.db.close()

    # --- transactions -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        if not self.in_transaction:
            self._writer.execute("BEGIN IMMEDIATE")
            self.in_transaction = True
            self._changed_before = len(self.changed)

    def commit(self) -> None:
        """Makes everything since `begin` true. Raises `sqlite3.Error`; nothing is known then until `rollback`."""
        self._writer.execute("COMMIT")
        self.in_transaction = False
        self._moves.clear()
        self.commits += 1

    def rollback(self) -> None:
        """Nothing since `begin` happened. A lease that was emptied holds its messages again, with its deadline."""
        if self.db.in_transaction:  # a full disk makes SQLite roll back by itself
            self.db.execute("ROLLBACK")
        if self.in_transaction:
            del self.changed[self._changed_before :]
        self.in_transaction = False
        self.ended_undone.clear()
        self.poisoned.clear()
        for number, sender, size, priority, session, before, after, leased in reversed(self._moves):
            self._carry_out(number, sender, size, priority, session, after, before, leased)
            if before is None:
                self._next_no = number
        self._moves.clear()
        self._read_back()

    @property
    def file_bytes(self) -> int:
        return os.stat(self.path).st_size

    @property
    def wal_bytes(self) -> int:
        try:
            return os.stat(self.path + "-wal").st_size
        except FileNotFoundError:
            return 0

    def checkpoint(self, *, truncate: bool = False) -> None:
        """Moves the log into the file, and with `truncate` gives its room back. Costs milliseconds (it waits for the
        disk): only when nobody waits.

        In an open transaction it is not done: a commit follows, and the next occasion after that.
        """
        if self.in_transaction:
            return
        self.db.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if truncate else 'PASSIVE'})").fetchone()
        # The first commit after a checkpoint restarts the log and waits for the disk once more. Let it be this one; a
        # row that would stay as it is would not be written.
        self.db.execute(
            "INSERT INTO meta (key, value) VALUES ('checkpoints', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1"
        )
        release_memory(self.db)

    # --- storing ------------------------------------------------------------------------------------------------------

    def put(
        self, envelope: Envelope, *, now: float, wall: float, lease: Lease | None = None, is_own: bool = False
    ) -> tuple[State, bool, Handed | None]:
        """Stores a message; with `lease` it is handed out in the same transaction. No limit holds for our `is_own`.

        Returns its state, whether it was there already (then nothing changed), and what to hand over. Raises
        `OverLimit` when it does not fit and `Refused` (`key_reused`) when its id carries something else.
        """
        e = envelope
        size = e.body_bytes
        try:
            if not is_own:
                self.counters.admit(e.sender, size)
        except BackchannelError:
            # A full mailbox still answers truthfully about what it stored before.
            if (state := self.find(e.id, e.sender)) is not None:
                return self._repeated(state, e), True, None
            raise
        self.begin()
        number = self._next_no
        expires = None if e.ttl is None else now + e.ttl
        is_long = len(e.text) > INLINE_MAX
        stage, delivery = ("stored", 0) if lease is None else ("taken", 1)
        values: tuple[object, ...] = (
            number, e.id, e.sender, e.kind, bytearray() if is_long else bytearray(e.text), stage, e.priority, delivery,
            e.sent_at, wall, e.uid, e.gid, e.pid, e.durability, e.hops, int(e.bounce),
        )  # fmt: skip
        if lease is not None:
            values += (lease.take_id, int(lease.detached))
        seldom = (e.session, e.reply_to, e.trace_id, expires, e.headers, e.extra, e.path)
        is_plain = seldom == _NOTHING_SELDOM
        try:
            self._writer.execute(_INSERT[lease is not None, is_plain], values if is_plain else values + seldom)
        except sqlite3.IntegrityError:
            existing = self.find(e.id, e.sender)
            assert existing is not None, "only the id and sender are unique"
            return self._repeated(existing, e), True, None
        if is_long:
            self._writer.execute("INSERT INTO texts (msg_no, text) VALUES (?, ?)", (number, e.text))
        self._next_no = number + 1
        state = State(
            number, e.id, e.sender, e.uid, stage, e.priority, delivery, e.durability, None, None, None, size,
            e.trace_id, e.hops, e.path, e.bounce, 0, e.kind, e.session,
        )  # fmt: skip
        self.changed.append((number, "stored"))
        if lease is None:
            self._move(number, e.sender, size, e.priority, e.session, None, "stored")
            if expires is not None and (self.next_expiry is None or expires < self.next_expiry):
                self.next_expiry = expires
            return state, False, None
        self.changed.append((number, "taken"))
        leased = Leased(number, e.id, e.sender, size, 1, lease, e.kind, e.session)
        self._move(number, e.sender, size, e.priority, e.session, None, "taken", leased)
        return state, False, Handed(e, number, 1, wall)

    def _repeated(self, state: State, envelope: Envelope) -> State:
        text, headers, digest = self.db.execute(
            f"SELECT {TEXT}, headers, digest FROM messages WHERE msg_no = ?",  # noqa: S608 - a constant
            (state.msg_no,),
        ).fetchone()
        is_same = (
            same_content(envelope, text, headers)
            if digest is None
            else digest == digest_of(envelope.text, envelope.headers)
        )
        if not is_same:
            raise Refused(
                f"id {envelope.id} was used before with another text or other headers",
                code="key_reused",
                hint="use a new id for a new message",
            )
        return state

    # --- handing out --------------------------------------------------------------------------------------------------

    def lease(
        self,
        lease: Lease,
        count: int,
        *,
        bytes_max: int,
        reply_to: str | None = None,
        session: str | None = None,
        wants: Callable[[str, str | None, str | None], bool] | None = None,
    ) -> list[Handed]:
        """Hands out up to `count` messages in order of priority and arrival, at most about `bytes_max` of them.

        Only those for which `wants(kind, session, reply_to)`; with `reply_to` only answers to that message, with
        `session` only its mail. Of one session one mail at a time, so that its order holds whoever takes.
        """
        handed: list[Handed] = []
        size = 0
        while len(handed) < count and size < bytes_max and self.counters.stored:
            row = self._next_ready(reply_to, session, wants)
            if row is None:
                break
            number, delivery, *fields, stored_at = row
            self.begin()
            self._writer.execute(
                "UPDATE messages SET stage = 'taken', delivery = delivery + 1, take_id = ?, detached = ?"
                " WHERE msg_no = ?",
                (lease.take_id, int(lease.detached), number),
            )
            e = Envelope(*fields)
            leased = Leased(number, e.id, e.sender, e.body_bytes, delivery + 1, lease, e.kind, e.session)
            self._move(number, e.sender, leased.size, e.priority, e.session, "stored", "taken", leased)
            self.changed.append((number, "taken"))
            handed.append(Handed(e, number, delivery + 1, stored_at))
            size += leased.size
        return handed

    def _next_ready(
        self,
        reply_to: str | None,
        session: str | None,
        wants: Callable[[str, str | None, str | None], bool] | None,
    ) -> Any:
        numbers: Iterable[int] = self.ready
        if reply_to is not None:
            rows = self.db.execute(
                "SELECT msg_no FROM messages WHERE stage = 'stored' AND reply_to = ? ORDER BY priority, msg_no",
                (reply_to,),
            )
            numbers = [number for (number,) in rows.fetchall()]
        elif session is not None:
            numbers = self.ready.in_session(session)
        passed_over: set[str] = set()  # sessions whose data waits for somebody else: what comes behind it waits too
        for number in numbers:  # the first nearly always is the one
            if wants is not None or self._in_hand:
                kind, of, answers = self.db.execute(
                    "SELECT kind, session, reply_to FROM messages WHERE msg_no = ?", (number,)
                ).fetchone()
                is_data = kind in SESSION_DATA
                if wants is not None and not wants(kind, of, answers):
                    if is_data:
                        passed_over.add(of)
                    continue
                if (is_data and of in passed_over) or self.is_in_hand(kind, of):
                    continue
            return self.db.execute(
                f"SELECT msg_no, delivery, {_ENVELOPE}, stored_at FROM messages"  # noqa: S608 - a constant
                " WHERE msg_no = ?",
                (number,),
            ).fetchone()
        return None

    def is_in_hand(self, kind: str, session: str | None) -> bool:
        """Whether such mail must wait, because mail of its session that comes before it is leased."""
        return bool(self._in_hand) and in_order(kind, session) in self._in_hand

    def handed_again(self, lease: Lease) -> list[Handed]:
        """What a lease still holds, for a client that asks again with the same take id."""
        return [
            Handed(
                Envelope(
                    *self.db.execute(
                        f"SELECT {_ENVELOPE} FROM messages WHERE msg_no = ?",  # noqa: S608 - a constant
                        (number,),
                    ).fetchone()
                ),
                number,
                leased.delivery,
            )
            for number, leased in sorted(lease.messages.items())
        ]

    # --- settling -----------------------------------------------------------------------------------------------------

    def ack(self, state: State, evidence: str, wall: float) -> None:
        """The agent has it."""
        self._settle(state, Stage.ACKED, wall, evidence=evidence)

    def answer(self, state: State, reply_id: str, reply_text: bytes | None, wall: float) -> None:
        """The agent answered. `reply_text` is kept for a sender who has no mailbox."""
        self._settle(state, Stage.DONE, wall, evidence=state.evidence or "ack")
        self.db.execute(
            "UPDATE messages SET reply_id = ?, reply_text = ? WHERE msg_no = ?", (reply_id, reply_text, state.msg_no)
        )

    def reject(self, state: State, reason: str, wall: float) -> None:
        """The agent does not take it, and says why."""
        self._settle(state, Stage.REJECTED, wall, reason=reason)

    def release(self, state: State, wall: float, *, unseen: bool = False) -> None:
        """Back among the waiting; `dead` instead if it went out too often. `unseen`: this time does not count."""
        if state.stage is not Stage.TAKEN:
            return
        seen = state.delivery - state.unseen - unseen
        if not unseen and seen >= self.deliveries_max:
            if state.kind in SESSION_DATA and state.session is not None:
                self.poisoned.append(state.session)
            self._settle(state, Stage.DEAD, wall, reason=f"{seen} deliveries without an ack")
            return
        self.begin()
        self.db.execute(
            "UPDATE messages SET stage = 'stored', take_id = NULL, detached = NULL, unseen = unseen + ?"
            " WHERE msg_no = ?",
            (int(unseen), state.msg_no),
        )
        self._moved(state, Stage.STORED)
        self._find_next_expiry()

    def drop(self, lease: Lease, wall: float) -> None:
        """A lease falls: its connection closed, or its time is over."""
        for leased in list(lease.messages.values()):
            self.release(self.get_by_number(leased.msg_no), wall)

    def release_expired(self, now: float, wall: float) -> None:
        """Drops the leases whose deadline passed."""
        for lease in [x for x in self.leases.values() if x.deadline is not None and x.deadline <= now]:
            self.drop(lease, wall)

    def cancel(self, state: State, wall: float) -> None:
        """The sender takes it back, while nobody has it. Raises `Refused` (`taken`, `ended`)."""
        if state.stage is Stage.CANCELLED:
            return
        if state.stage is Stage.TAKEN:
            raise Refused(
                f"message {state.id} is taken", code="taken", hint="the agent has it; send another message instead"
            )
        if state.stage is not Stage.STORED:
            raise Refused(f"message {state.id} is {state.stage} already", code="ended", hint="nothing to do")
        self._settle(state, Stage.CANCELLED, wall, reason="cancelled by the sender")

    def has_ttl_to_come(self) -> bool:
        """Whether something waits that has a ttl. (`next_expiry` may still be that of a message which has ended.)"""
        self._find_next_expiry()
        return self.next_expiry is not None

    def expire(self, now: float, wall: float) -> None:
        """Ends what waited longer than its ttl. A leased message expires only when it comes back."""
        if self.next_expiry is None or self.next_expiry > now:
            return
        rows = self.db.execute(
            "SELECT msg_no FROM messages WHERE expires IS NOT NULL AND expires <= ? AND stage = 'stored'"
            " ORDER BY expires LIMIT 1000",  # bounded: the loop comes back for the rest
            (now,),
        ).fetchall()
        for (number,) in rows:
            self._settle(self.get_by_number(number), Stage.EXPIRED, wall, reason="its ttl passed before it was taken")
        self._find_next_expiry()

    def _settle(
        self, state: State, stage: Stage, wall: float, *, reason: str | None = None, evidence: str | None = None
    ) -> None:
        self.begin()
        self._writer.execute(
            "UPDATE messages SET stage = ?, reason = ?, evidence = ?, ended_at = ?, take_id = NULL, detached = NULL"
            " WHERE msg_no = ?",
            (stage._value_, reason, evidence, wall, state.msg_no),
        )
        if state.bounce and stage.is_failure:
            self.ended_undone.append((state, stage, reason or ""))
        self._moved(state, stage)

    def _moved(self, state: State, stage: Stage) -> None:
        word = stage._value_  # `value` is looked up by a function, which takes longer than all else here
        self._move(state.msg_no, state.sender, state.size, state.priority, state.session, state.word, word)
        self.changed.append((state.msg_no, word))

    # --- what memory mirrors ------------------------------------------------------------------------------------------

    def _move(
        self,
        number: int,
        sender: str,
        size: int,
        priority: int,
        session: str | None,
        before: str | None,
        after: str,
        leased: Leased | None = None,
    ) -> None:
        """A message went from one stage to another, or came in; with `leased` it is handed out now."""
        if before == "taken":
            leased = self.leased[number]
        self._moves.append((number, sender, size, priority, session, before, after, leased))
        self._carry_out(number, sender, size, priority, session, before, after, leased)

    def _carry_out(
        self,
        number: int,
        sender: str,
        size: int,
        priority: int,
        session: str | None,
        before: str | None,
        after: str | None,
        leased: Leased | None,
    ) -> None:
        self.counters.moved(sender, before, after, size)
        if before == "stored":
            self.ready.remove(number, priority, session)
        elif before == "taken":
            assert leased is not None
            self._let_go(leased)
        if after == "stored":
            self.ready.add(number, priority, session)
        elif after == "taken":
            assert leased is not None
            self._hold(leased)

    def _hold(self, leased: Leased) -> None:
        lease = leased.take
        lease.messages[leased.msg_no] = self.leased[leased.msg_no] = leased
        self.leases[lease.take_id] = lease
        if leased.ordered is not None:
            self._in_hand.add(leased.ordered)

    def _let_go(self, leased: Leased) -> None:
        lease = leased.take
        del self.leased[leased.msg_no], lease.messages[leased.msg_no]
        if leased.ordered is not None:
            self._in_hand.discard(leased.ordered)
        if not lease.messages:
            del self.leases[lease.take_id]

    # --- looking ------------------------------------------------------------------------------------------------------

    def get(self, message_id: str, sender: str | None, uid: int | None = None) -> State:
        """A message by id, and by sender where two used the same; with `uid` only one that this user sent. Raises
        `LocalProtocolError`."""
        rows = self.db.execute(
            f"SELECT {_STATE} FROM messages WHERE id = ?",  # noqa: S608 - a constant
            (message_id,),
        ).fetchall()
        found = [State(*row) for row in rows if sender is None or shown_sender(row[2]) == sender]
        if uid is not None:
            found = [state for state in found if state.uid == uid]
        if not found:
            raise LocalProtocolError(
                f"there is no message {message_id} here", code="no_such_message", hint="check the id and the agent"
            )
        if len(found) > 1:
            names = ", ".join(sorted(shown_sender(state.sender) for state in found))
            raise LocalProtocolError(
                f"several senders used the id {message_id} ({names})",
                code="ambiguous",
                hint="say whose you mean: --from NAME",
            )
        return found[0]

    def find(self, message_id: str, sender_key: str) -> State | None:
        """The message that `sender_key` stored under this id, if any."""
        row = self.db.execute(
            f"SELECT {_STATE} FROM messages WHERE id = ? AND sender = ?",  # noqa: S608 - a constant
            (message_id, sender_key),
        ).fetchone()
        return State(*row) if row else None

    def has(self, message_id: str) -> bool:
        """Whether anybody stored a message under this id."""
        return self.db.execute("SELECT 1 FROM messages WHERE id = ?", (message_id,)).fetchone() is not None

    def get_by_number(self, msg_no: int) -> State:
        """Raises `LocalProtocolError` for one whose row was purged."""
        row = self.db.execute(
            f"SELECT {_STATE} FROM messages WHERE msg_no = ?",  # noqa: S608 - a constant
            (msg_no,),
        ).fetchone()
        if row is None:
            raise LocalProtocolError(
                f"message number {msg_no} is not here any more", code="no_such_message", hint="it was purged"
            )
        return State(*row)

    def reply_text(self, msg_no: int) -> bytes | None:
        """The answer kept for a sender who has no mailbox: a JSON string."""
        text: bytes | None = self.db.execute("SELECT reply_text FROM messages WHERE msg_no = ?", (msg_no,)).fetchone()[
            0
        ]
        return text

    def text(self, msg_no: int) -> bytes:
        """The text of a message: a JSON string, or null if it was purged."""
        row: tuple[bytes] | None = self.db.execute(
            f"SELECT {TEXT} FROM messages WHERE msg_no = ?",  # noqa: S608 - a constant
            (msg_no,),
        ).fetchone()
        return row[0] if row else b"null"

    def waiting(self, begin: int, end: int, count: int) -> sqlite3.Cursor:
        """Messages not acked yet, from number `begin` to before `end`, at most `count`: (msg_no, stage, delivery,
        *envelope). The caller closes it."""
        return self.db.execute(
            f"SELECT msg_no, stage, delivery, {_ENVELOPE} FROM messages"  # noqa: S608 - a constant
            " WHERE stage IN ('stored', 'taken') AND msg_no >= ? AND msg_no < ? ORDER BY msg_no LIMIT ?",
            (begin, end, count),
        )

    def numbers(self) -> tuple[int, int]:
        """The lowest and the highest msg_no there is: (1, 0) in an empty mailbox."""
        first, last = self.db.execute(
            "SELECT (SELECT min(msg_no) FROM messages), (SELECT max(msg_no) FROM messages)"
        ).fetchone()
        return first or 1, last or 0

    def history(self, wanted: Log, begin: int, end: int, *, newest_first: bool) -> sqlite3.Cursor:
        """Of the messages from number `begin` to before `end` those that are wanted, at most `wanted.max`.

        Each as (msg_no, stage, reason, stored_at, ended_at, is_purged, delivery, *envelope). Read one by one: texts are
        large. The caller closes it.
        """
        order = "DESC" if newest_first else "ASC"
        return self.db.execute(
            f"SELECT msg_no, stage, reason, stored_at, ended_at, digest IS NOT NULL, delivery, {_ENVELOPE}"  # noqa: S608
            " FROM messages WHERE msg_no >= :begin AND msg_no < :end"
            " AND (:sender IS NULL OR sender = :sender OR (:sender = '@user' AND sender LIKE '@%'))"
            " AND (:kind IS NULL OR kind = :kind) AND (:stage IS NULL OR stage = :stage)"
            " AND (:session IS NULL OR session = :session) AND (:trace_id IS NULL OR :trace_id IN (trace_id, id))"
            " AND (:since IS NULL OR stored_at >= :since) AND (:until IS NULL OR stored_at < :until)"
            f" ORDER BY msg_no {order} LIMIT :max",
            {"begin": begin, "end": end, **{name: getattr(wanted, name) for name in wanted.__struct_fields__}},
        )

    def set_paused(self, paused: bool) -> None:
        """Whether a person stopped the handing out. Survives restarts."""
        self.note("paused", int(paused))
        self.paused = paused

    def note(self, key: str, value: float) -> None:
        """Keeps one number of ours in the file."""
        self.begin()
        self.db.execute("REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    def oldest_unacked(self) -> float | None:
        """When the oldest message still waiting or handed out was stored (Unix time, seconds)."""
        number = self.first_unacked()
        if number is None:
            return None
        age: float = self.db.execute("SELECT stored_at FROM messages WHERE msg_no = ?", (number,)).fetchone()[0]
        return age

    def first_unacked(self) -> int | None:
        """The lowest number of what waits or is handed out."""
        numbers = [*self.leased]
        if (waiting := self.ready.oldest()) is not None:
            numbers.append(waiting)
        return min(numbers, default=None)

    def withdraw(self, message_id: str, sender: str, reason: str, wall: float) -> bool:
        """Cancels a notice of our own that has become pointless; False if somebody took it before, or none is there."""
        state = self.find(message_id, sender)
        if state is None or state.stage is not Stage.STORED:
            return False
        self._settle(state, Stage.CANCELLED, wall, reason=reason)
        return True

    def _find_next_expiry(self) -> None:
        self.next_expiry = self.db.execute(
            "SELECT min(expires) FROM messages WHERE expires IS NOT NULL AND stage = 'stored'"
        ).fetchone()[0]


STAGES = {stage.value: stage for stage in Stage}
# msg_no, sender, size, priority, session, stage before (None: new), stage after, what is leased if one of them is taken
Move = tuple[int, str, int, int, str | None, str | None, str, Leased | None]


def in_order(kind: str, session: str | None) -> str | None:
    """The session whose mail this must keep its place in; None for all that has no such order."""
    return session if kind in SESSION_KINDS and kind != "offer" else None
