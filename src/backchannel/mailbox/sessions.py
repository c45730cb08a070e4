"""Sessions on disk: each one's transmission control block, and what people want to know of it.

The machine's snapshot is written in the same transaction as the mail, the frames and the acks it speaks of. Columns
that a person reads stand beside it; what only the machine needs is JSON in `machine`.
"""

from typing import Any, NamedTuple

import msgspec

from ..protocol.endpoint import Changes, EndpointSnapshot
from ..protocol.session import Role, Snapshot
from ..protocol.sessionwire import Lineage
from ..protocol.states import Cause
from ..protocol.synnumbers import SynNumbers
from .mailbox import Mailbox
from .standing import TEXT


class About(NamedTuple):
    """What is known of a session beside its machine."""

    task: str
    status: str | None
    result: str | None
    peer_status: str | None
    peer_result: str | None
    retry_after: float | None
    progress: str | None
    progress_at: float | None
    is_waiting: int
    hops: int
    trace_id: str | None
    path: str | None  # the agents it came through, oldest first, with commas
    opened_at: float
    ended_at: float | None


class Sessions:
    """The sessions of one mailbox."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._db = mailbox.db
        self._next_syn = 0  # as it is on disk; 0: not there
        self._numbers: dict[tuple[str, int], SynNumbers] = {}  # the same
        self._versions: dict[str, int] = {}
        self._waiting: set[str] = set()  # whose acceptor cannot go on without an answer; as on disk, or about to be

    def load(self) -> tuple[EndpointSnapshot, list[Snapshot]]:
        """What the endpoint is restored from. After opening, and after a rollback."""
        found = self._db.execute("SELECT value FROM meta WHERE key = 'next_syn'").fetchone()
        self._next_syn = found[0] if found else 0
        self._numbers = {
            (mailbox, epoch): SynNumbers(number, int(seen, 16))
            for mailbox, epoch, number, seen in self._db.execute("SELECT mailbox, epoch, number, seen FROM syn_numbers")
        }
        self._waiting = {session for (session,) in self._db.execute("SELECT id FROM sessions WHERE is_waiting")}
        # Tombstones go oldest first, so that is how they must come.
        rows = self._db.execute("SELECT machine FROM sessions ORDER BY ended_at IS NULL, ended_at, opened_at")
        snapshots = [_decoder.decode(machine) for (machine,) in rows]
        self._versions = {snapshot.id: snapshot.version for snapshot in snapshots}
        return EndpointSnapshot(self._next_syn or 1, tuple(self._numbers.items())), snapshots

    def save(self, changes: Changes, wall: float, *, by_new_clock: bool = False) -> None:
        """Writes what a pass changed. A session that only answered is as it was, unless its times were counted by the
        clock of another boot."""
        if by_new_clock:
            self._mailbox.begin()
            self._db.execute("UPDATE meta SET value = 0.0 WHERE key = 'clock_shift'")
        for snapshot in changes.sessions:
            if self._versions.get(snapshot.id) == snapshot.version and not by_new_clock:
                continue
            self._mailbox.begin()
            cause = snapshot.cause.value if snapshot.cause else None
            # Without a SYN there never was a session: a RST left its mark, which no counter counts.
            role = snapshot.role.value if snapshot.role is not None and snapshot.number is not None else None
            values = (role, snapshot.state.value, cause, snapshot.reason, _encode(snapshot))
            cursor = self._db.execute(
                "UPDATE sessions SET role = ?, state = ?, cause = ?, reason = ?, machine = ? WHERE id = ?",
                (*values, snapshot.id),
            )
            if not cursor.rowcount:  # a RST came for a session nobody knew: a tombstone, and nothing to tell
                self._db.execute(
                    "INSERT INTO sessions (id, peer, role, state, cause, reason, machine, opened_at, ended_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (snapshot.id, snapshot.peer, *values, wall, wall),
                )
            self._versions[snapshot.id] = snapshot.version
        if changes.endpoint is not None:
            self._save_endpoint(changes.endpoint)

    def _save_endpoint(self, endpoint: EndpointSnapshot) -> None:
        self._mailbox.begin()
        if endpoint.next_number != self._next_syn:
            self._db.execute("REPLACE INTO meta (key, value) VALUES ('next_syn', ?)", (endpoint.next_number,))
            self._next_syn = endpoint.next_number
        numbers = dict(endpoint.numbers)
        for (mailbox, epoch), seen in numbers.items():
            if self._numbers.get((mailbox, epoch)) != seen:
                self._db.execute(
                    "REPLACE INTO syn_numbers (mailbox, epoch, number, seen) VALUES (?, ?, ?, ?)",
                    (mailbox, epoch, seen.highest, f"{seen.seen:x}"),
                )
        for forgotten in self._numbers.keys() - numbers.keys():
            self._db.execute("DELETE FROM syn_numbers WHERE mailbox = ? AND epoch = ?", forgotten)
        self._numbers = numbers

    def begin(self, session: str, peer: str, role: Role, task: str, lineage: Lineage, wall: float) -> None:
        """A session that is opened or offered; its machine comes with `save`, in the same transaction."""
        self._mailbox.begin()
        self._db.execute("UPDATE session_counters SET opened = opened + 1 WHERE role = ?", (role.value,))
        self._db.execute(
            "INSERT INTO sessions (id, peer, state, task, hops, trace_id, path, opened_at, machine)"
            " VALUES (?, ?, 'NONE', ?, ?, ?, ?, ?, x'')",
            (session, peer, task, lineage.hops, lineage.trace_id, ",".join(lineage.path) or None, wall),
        )

    def finished(self, session: str, status: str, result: str) -> None:
        """We said that all is said."""
        self._mailbox.begin()
        self._db.execute("UPDATE sessions SET status = ?, result = ? WHERE id = ?", (status, result, session))

    def peer_finished(self, session: str, status: str, result: str) -> None:
        """The peer said that all is said."""
        self._mailbox.begin()
        self._db.execute("UPDATE sessions SET peer_status = ?, peer_result = ? WHERE id = ?", (status, result, session))

    def progressed(self, session: str, note: str, wall: float) -> None:
        self._mailbox.begin()
        self._db.execute("UPDATE sessions SET progress = ?, progress_at = ? WHERE id = ?", (note, wall, session))

    def set_waiting(self, session: str, is_waiting: bool) -> None:
        """Whether the acceptor cannot go on without an answer."""
        if is_waiting == (session in self._waiting):
            return
        self._mailbox.begin()
        self._db.execute("UPDATE sessions SET is_waiting = ? WHERE id = ?", (int(is_waiting), session))
        (self._waiting.add if is_waiting else self._waiting.remove)(session)

    def ended(self, session: str, role: Role, cause: Cause, retry_after: float | None, wall: float) -> None:
        self._mailbox.begin()
        self._db.execute(_ENDED[cause], (role.value,))
        self._db.execute("UPDATE sessions SET ended_at = ?, retry_after = ? WHERE id = ?", (wall, retry_after, session))

    def forget(self, session: str) -> None:
        """Its tombstone has stood long enough."""
        self._mailbox.begin()
        self._db.execute("DELETE FROM sessions WHERE id = ?", (session,))
        self._versions.pop(session, None)
        self._waiting.discard(session)

    def peer(self, session: str) -> str | None:
        """Whose the other end is; None if the session is not known."""
        found = self._db.execute("SELECT peer FROM sessions WHERE id = ?", (session,)).fetchone()
        return found[0] if found else None

    def has(self, session: str) -> bool:
        return self._db.execute("SELECT 1 FROM sessions WHERE id = ?", (session,)).fetchone() is not None

    def lineage(self, session: str) -> Lineage:
        """What it hands down to all that is said in it."""
        hops, trace_id, path = self._db.execute(
            "SELECT hops, trace_id, path FROM sessions WHERE id = ?", (session,)
        ).fetchone()
        return Lineage(hops, trace_id, tuple(path.split(",")) if path else ())

    def about(self, session: str) -> About:
        return About(
            *self._db.execute(
                "SELECT task, status, result, peer_status, peer_result, retry_after, progress, progress_at, is_waiting,"
                " hops, trace_id, path, opened_at, ended_at FROM sessions WHERE id = ?",
                (session,),
            ).fetchone()
        )

    def counters(self) -> dict[str, dict[str, int]]:
        """By role: how many sessions there ever were, how they ended, and how many are open."""
        rows = self._db.execute(
            "SELECT role, opened, finished, rejected, aborted, reset, expired,"
            " (SELECT count(*) FROM sessions s WHERE s.role = c.role AND s.state <> 'CLOSED') FROM session_counters c"
        )
        names = ("opened", *(cause.value for cause in Cause), "open")
        return {role: dict(zip(names, counts, strict=True)) for role, *counts in rows}

    def has_mail(self, session: str) -> bool:
        """Whether anything of it waits, or is handed out."""
        waiting = self._mailbox.ready.in_session(session)
        return bool(waiting) or any(leased.session == session for leased in self._mailbox.leased.values())

    def received(self, session: str) -> list[tuple[Any, ...]]:
        """(kind, id, text, stage, stored_at, ended_at) of the mail that came in this session, in order."""
        return self._db.execute(
            f"SELECT kind, id, {TEXT}, stage, stored_at, ended_at FROM messages"  # noqa: S608 - a constant
            " WHERE session = ? ORDER BY msg_no",
            (session,),
        ).fetchall()


_ENDED = {
    Cause.FINISHED: "UPDATE session_counters SET finished = finished + 1 WHERE role = ?",
    Cause.REJECTED: "UPDATE session_counters SET rejected = rejected + 1 WHERE role = ?",
    Cause.ABORTED: "UPDATE session_counters SET aborted = aborted + 1 WHERE role = ?",
    Cause.RESET: "UPDATE session_counters SET reset = reset + 1 WHERE role = ?",
    Cause.EXPIRED: "UPDATE session_counters SET expired = expired + 1 WHERE role = ?",
}
_decoder = msgspec.json.Decoder(Snapshot)
_encode = msgspec.json.Encoder().encode
