"""What must be true of every daemon after every pass, of its disk now and then, and of all together at the end.

The names I1 to I12 are those of `docs/protocol.md` 5.4. What is handed out is judged at once, in `truth.py`; here
stands what can be seen in the daemons' memory and files.
"""

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from backchannel.daemon.host import Host
from backchannel.mailbox import standing
from backchannel.mailbox.sessions import _decoder
from backchannel.protocol import sendqueue
from backchannel.protocol.session import Role, Session, Snapshot
from backchannel.protocol.states import Cause, State

from .truth import End, SessionTruth, Violation

if TYPE_CHECKING:
    from .daemon import Daemon
    from .world import World

DEEP_EVERY = 12  # passes; the disk is read whole then
UNANSWERED = (State.NONE, State.SYN_SENT)
EARLY = (Cause.ABORTED, Cause.EXPIRED, Cause.RESET)


def is_same(saved: Snapshot, live: Snapshot, *, with_timers: bool) -> bool:
    """Whether the disk has what memory has. That we heard of the peer is no change worth writing."""
    a, b = saved.timers, live.timers
    timers = (a.deadline, a.accept, a.idle, a.forget) == (b.deadline, b.accept, b.idle, b.forget) or not with_timers
    return timers and replace(saved, timers=a) == replace(live, timers=a)


def said_in(session: Session) -> int:
    """How many DATA it had, both ways."""
    send, recv = session.send_queue, session.recv_queue
    sent, received = max(0, send.snd_nxt - 1), max(0, recv.rcv_nxt - 1)
    return sent - (send.fin is not None) + received - (recv.fin is not None)


class Checks:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._expired: set[str] = set()
        self._closed: set[tuple[str, str, int] | None] = set()  # looked at once
        self._commits: dict[str, list[dict[str, Any]]] = {}  # by daemon: asked for the first time, not answered

    def _truth(self, session_id: str) -> SessionTruth | None:
        return self._world.truth.sessions.get(session_id)

    # --- after every pass ---------------------------------------------------------------------------------------------

    def after_pass(self, daemon: "Daemon", *, is_deep: bool) -> None:
        host = daemon.host
        if host is None:
            return
        for session in host.sessions.endpoint.sessions():
            closed = (daemon.name, session.id, session.version) if session.state is State.CLOSED else None
            if closed in self._closed:
                continue  # it changes no more, and what its agents did only grows
            if closed is not None:
                self._closed.add(closed)
            truth = self._truth(session.id)
            if truth is not None and daemon.name in truth.ends:
                self._session(daemon, session, truth)
        if is_deep or daemon.passes % DEEP_EVERY == 0:
            self.disk(daemon, host)

    def _session(self, daemon: "Daemon", session: Session, truth: SessionTruth) -> None:
        me, peer = truth.ends[daemon.name], truth.ends[truth.other(daemon.name)]
        send, recv, limits = session.send_queue, session.recv_queue, session.limits
        is_opener = session.role is Role.INITIATOR
        is_over = session.state is State.CLOSED
        self._hold(
            daemon,
            session,
            {
                "I3: acked beyond what the peer's agent processed": send.snd_una - 1 <= peer.processed,
                "I3: counts as processed what our agent has not acked": recv.acked - 1 <= me.processed,
                "I4": session.cause is not Cause.FINISHED or self._is_finished(session, me, peer),
                "I5: the peer's agent never accepted": not is_opener
                or session.state in UNANSWERED
                or (is_over and session.cause is not Cause.FINISHED)
                or peer.accepts,
                "I6: nobody rejected": session.cause is not Cause.REJECTED or bool((peer if is_opener else me).rejects),
                "I10": recv.acked <= max(recv.rcv_nxt, 1),
                "window": send.snd_nxt - send.snd_una - (send.fin is not None) <= sendqueue.WINDOW,
                "max_messages": limits.max_messages is None or said_in(session) <= limits.max_messages,
                "max_bytes": limits.max_bytes is None or session.octets <= limits.max_bytes,
                "role": is_opener == (daemon.name == truth.opener),
                "I9: ended without a reason": session.cause is not Cause.RESET or self._may_be_reset(truth),
                "aborted by nobody": session.cause is not Cause.ABORTED or bool(me.aborts),
                "expired without a limit": session.cause is not Cause.EXPIRED or self._may_expire(truth),
            },
        )
        if is_opener and not truth.is_disturbed:
            self._patience(daemon, session, truth)
        other = self._world.daemons.get(truth.other(daemon.name))
        if other is not None and other.host is not None and not truth.is_disturbed:
            twin = other.host.sessions.endpoint.find(session.id)
            if twin is not None and session.cause is not Cause.REJECTED and twin.cause is not Cause.REJECTED:
                self._hold(
                    daemon,
                    session,
                    {
                        "receipts for what the peer has not stored": send.receipted <= twin.recv_queue.rcv_nxt,
                        "I2: stored what was not sent": recv.rcv_nxt <= twin.send_queue.snd_nxt,
                    },
                )

    def _patience(self, daemon: "Daemon", session: Session, truth: SessionTruth) -> None:
        """`accept_timeout` ends it in time, and not before."""
        patience, world = session.limits.accept_timeout, self._world
        is_hindered = daemon.host is None or daemon.host._own_retry is not None
        if patience is None or truth.opened_at is None or is_hindered:
            return
        slack = world.wall_slack + 1.0  # over a reboot time is told by the wall clock
        is_early = session.reason == "accept_timeout" and session.cause is Cause.EXPIRED
        if session.id not in self._expired:
            if is_early:
                self._expired.add(session.id)
                if world.t < truth.asked_at + patience - slack:
                    raise Violation(
                        f"{session.id} of {truth.asked_at} ran out at {world.t}, after less than {patience}"
                    )
            elif session.state is State.SYN_SENT and world.t > truth.opened_at + patience + slack:
                raise Violation(
                    f"{session.id} of {truth.opened_at} still waits at {world.t}, after more than {patience}"
                )

    @staticmethod
    def _is_finished(session: Session, me: End, peer: End) -> bool:
        ours, theirs = session.send_queue.fin, session.recv_queue.fin
        return (
            ours is not None
            and theirs is not None
            and bool(me.closes and peer.closes)
            and peer.processed >= ours
            and me.processed >= theirs
        )

    def _may_be_reset(self, truth: SessionTruth) -> bool:
        poisonous = max(end.deliveries for end in truth.ends.values())
        return (
            truth.is_disturbed
            or truth.acceptor not in self._world.daemons
            or self._may_expire(truth)
            or any(end.aborts for end in truth.ends.values())
            or poisonous >= min(d.config.deliveries_max for d in self._world.daemons.values())
        )

    def _may_expire(self, truth: SessionTruth) -> bool:
        models = any(d.config.driven_by == "model" for d in self._world.daemons.values())
        return truth.may_expire or truth.is_narrowed or models

    def _hold(self, daemon: "Daemon", session: Session, claims: dict[str, bool]) -> None:
        for name, holds in claims.items():
            if not holds:
                raise Violation(f"{name}: {daemon.name} has {session.snapshot()}")

    # --- the disk -----------------------------------------------------------------------------------------------------

    def disk(self, daemon: "Daemon", host: Host) -> None:
        """The file against itself, and against what memory mirrors."""
        if host.mailbox.in_transaction:
            return
        db = host.mailbox.db
        self._counters(daemon, host)
        self._takers(daemon, host)
        in_hand = db.execute(
            "SELECT session FROM messages WHERE stage = 'taken'"
            " AND kind IN ('data', 'finished', 'accepted', 'rejected', 'reset') GROUP BY session HAVING count(*) > 1"
        ).fetchall()
        if in_hand:
            raise Violation(f"{daemon.name}: two mails of {in_hand} are handed out at once")
        outbox = dict(db.execute("SELECT target, count(*) FROM outbox GROUP BY target"))
        if outbox != host.outbox.waiting:
            raise Violation(f"{daemon.name}: the outbox holds {outbox}, memory says {host.outbox.waiting}")
        queued: dict[str, list[int]] = {}
        targets: dict[str, tuple[str, int]] = {}
        for session, target, kind, number in db.execute(
            "SELECT session, target, kind, number FROM frames WHERE stage = 'queued' ORDER BY row_no"
        ):
            targets[session] = (target, targets.get(session, (target, 0))[1] + 1)
            if kind not in ("ACK", "RST"):
                queued.setdefault(session, []).append(number)
        if targets != host.sessions.frames.waiting:
            raise Violation(f"{daemon.name}: queued are {targets}, memory says {host.sessions.frames.waiting}")
        mail = dict(
            db.execute(
                "SELECT session, count(*) FROM messages WHERE stage IN ('stored', 'taken')"
                " AND kind IN ('data', 'finished') GROUP BY session"
            )
        )
        with_timers = not host.sessions._shift  # after a boot they are by the old clock until a pass wrote them
        machines = [_decoder.decode(machine) for (machine,) in db.execute("SELECT machine FROM sessions")]
        on_disk = {snapshot.id: snapshot for snapshot in machines}
        for session in host.sessions.endpoint.sessions():
            saved, live = on_disk.pop(session.id, None), session.snapshot()
            if session.trust is not None and session.trust.mine != session.local.epoch:
                live = replace(live, send=replace(live.send, unproven=None))  # doubted anew at every start
                saved = saved and replace(saved, send=replace(saved.send, unproven=None))
            if saved is None or not is_same(saved, live, with_timers=with_timers):
                raise Violation(f"{daemon.name}: memory has {live}, the disk {saved}")
            self._rows(daemon, session, queued.get(session.id, []), mail.get(session.id, 0))
        if on_disk:
            raise Violation(f"{daemon.name}: the disk has sessions that memory has not: {on_disk}")

    def _rows(self, daemon: "Daemon", session: Session, queued: list[int], mail: int) -> None:
        if not session.state.is_open:
            return
        send, recv = session.send_queue, session.recv_queue
        self._hold(
            daemon,
            session,
            {
                f"queued are {queued}": queued == list(range(send.receipted, send.snd_nxt)),
                f"{mail} mails are unacked": mail == max(recv.rcv_nxt, 1) - recv.acked,
            },
        )

    def _takers(self, daemon: "Daemon", host: Host) -> None:
        """Nobody waits for what he may have."""
        takers = [t for t in host.takers if t.kinds is None and t.session is None and t.reply_to is None]
        if not takers or host.mailbox.paused or host._own_retry is not None:
            return
        for kind, session, reply_to in host.mailbox.db.execute(
            "SELECT kind, session, reply_to FROM messages WHERE stage = 'stored'"
        ):
            if not host.mailbox.is_in_hand(kind, session) and host.may_have(takers[0], kind, session, reply_to):
                raise Violation(f"{daemon.name}: a taker waits, and a {kind} of {session} waits for him")

    def _counters(self, daemon: "Daemon", host: Host) -> None:
        found, mailbox = standing.count(host.mailbox.db), host.mailbox
        counted = {sender: count.values() for sender, count in found.counts.items()}
        live = {sender: count.values() for sender, count in mailbox.counters.by_sender.items()}
        if counted != live:
            raise Violation(f"{daemon.name}: the rows count {counted}, memory {live}")
        if list(found.ready) != list(mailbox.ready) or found.ready.of_session != mailbox.ready.of_session:
            raise Violation(f"{daemon.name}: {list(found.ready)} wait, memory says {list(mailbox.ready)}")
        if found.taken != sorted(mailbox.leased):
            raise Violation(f"{daemon.name}: {found.taken} are handed out, memory says {sorted(mailbox.leased)}")
        if standing.highest_no(mailbox.db) != mailbox.counters.total:
            raise Violation(f"{daemon.name}: numbers do not add up to {live}")
        for role, count in host.sessions.store.counters().items():
            if 2 * count["opened"] != sum(count.values()):
                raise Violation(f"{daemon.name}: as {role} {count} do not add up")

    # --- after a start ------------------------------------------------------------------------------------------------

    def after_start(self, daemon: "Daemon") -> None:
        """What was promised is on the disk, but for what was lost with it; and commits are whole or not at all."""
        host = daemon.host
        assert host is not None
        self.promises(daemon, host)
        for params in self._commits.pop(daemon.name, []):
            done = self._evidence(daemon, host, params)
            if len(set(done.values())) > 1:
                raise Violation(f"{daemon.name}: half of a commit happened: {done} of {params}")
        self.disk(daemon, host)

    def promises(self, daemon: "Daemon", host: Host) -> None:
        rows = {
            (sender if not sender.startswith("@") else "@user", message_id): (number, text)
            for sender, message_id, number, text in host.mailbox.db.execute(
                "SELECT sender, id, msg_no, CAST(text AS TEXT) FROM messages"
            )
        }
        for (target, sender, message_id), stored in self._world.truth.stored.items():
            if target != daemon.name or daemon.is_lost(stored.passed, was_flushed=stored.was_flushed):
                continue
            row = rows.get((sender, message_id))
            if row != (stored.msg_no, f'"{stored.text}"') or stored.mailbox_id != host.mailbox.mailbox_id:
                raise Violation(f"{daemon.name} has {row}, and promised {sender}'s {message_id} as {stored}")
        said = {
            (session, number): params
            for session, number, params in host.mailbox.db.execute(
                "SELECT session, number, CAST(params AS TEXT) FROM frames WHERE kind = 'DATA'"
            )
        }
        for truth in self._world.truth.sessions.values():
            if daemon.name not in truth.ends:
                continue
            for seq, texts in truth.ends[daemon.name].said.items():
                for text, passed in texts:
                    if not daemon.is_lost(passed) and text not in said.get((truth.id, seq), ""):
                        raise Violation(f"{daemon.name} promised to send {text!r} as {truth.id}/{seq}, and does not")

    # --- commits ------------------------------------------------------------------------------------------------------

    def commit_asked(self, daemon: "Daemon", params: dict[str, Any]) -> None:
        self._commits.setdefault(daemon.name, []).append(params)

    def commit_forgotten(self, daemon: "Daemon", params: dict[str, Any]) -> bool:
        """It is answered, or nobody reads the answer: what comes of it now is no longer at one instant."""
        known = self._commits.get(daemon.name, [])
        if params not in known:
            return False
        known.remove(params)
        return True

    def commit_answered(self, daemon: "Daemon", params: dict[str, Any], *, well: bool) -> None:
        """A commit that is refused has left nothing."""
        if not self.commit_forgotten(daemon, params):
            return
        if daemon.host is not None and not daemon.host.mailbox.in_transaction:
            done = self._evidence(daemon, daemon.host, params)
            if any(happened is not well for happened in done.values()):
                raise Violation(f"{daemon.name}: a commit was {'done' if well else 'refused'}: {done} of {params}")

    def _evidence(self, daemon: "Daemon", host: Host, params: dict[str, Any]) -> dict[str, bool]:
        """For each part that only this commit can have brought about: whether it happened."""
        db, truth, done = host.mailbox.db, self._world.truth, {}
        for ack in params.get("acks", ()):
            if truth.ack_tries[daemon.name, ack["id"]] == 1:
                row = db.execute(
                    "SELECT 1 FROM messages WHERE id = ? AND stage IN ('acked', 'done') AND delivery = ?",
                    (ack["id"], ack["delivery"]),
                ).fetchone()
                done[f"ack {ack['id']}"] = row is not None
        for say in params.get("says", ()):
            done[f"say {say['id']}"] = host.sessions.frames.said(say["session"], say["id"]) is not None
        for close in params.get("closes", ()):
            row = db.execute(
                "SELECT 1 FROM sessions WHERE id = ? AND result = ?", (close["session"], close["text"])
            ).fetchone()
            done[f"close {close['text']}"] = row is not None
        for send in params.get("sends", ()):
            done[f"send {send['id']}"] = host.outbox.find(send["id"], send["to"]) is not None
        for reply in params.get("replies", ()):
            row = db.execute("SELECT 1 FROM messages WHERE reply_id = ?", (reply["reply_id"],)).fetchone()
            done[f"reply {reply['reply_id']}"] = row is not None
        return done

    # --- the end ------------------------------------------------------------------------------------------------------

    def unrest(self) -> list[str]:
        """What is still under way."""
        found = []
        for daemon in self._world.daemons.values():
            host = daemon.host
            if host is None:
                found.append(f"{daemon.name} is down")
                continue
            left = [f"{s.id} {s.state.value}" for s in host.sessions.endpoint.sessions() if s.state.is_open]
            frames = host.sessions.frames.waiting
            for what, amount in (
                ("open sessions", left),
                ("frames to push", frames),
                ("messages to push", host.outbox.waiting),
                ("unacked mail", host.mailbox.counters.unacked),
            ):
                if amount:
                    found.append(f"{daemon.name} has {what}: {amount}")
        if self._world.under_way:
            found.append(f"{self._world.under_way} lines are under way")
        return found

    def at_rest(self) -> None:
        for daemon in self._world.daemons.values():
            assert daemon.host is not None
            self.promises(daemon, daemon.host)
            self.disk(daemon, daemon.host)
            self._queued(daemon)
            self._bounced(daemon, daemon.host)
        for truth in self._world.truth.sessions.values():
            self._both_ends(truth)

    def _queued(self, daemon: "Daemon") -> None:
        """What an agent gave to its outbox was stored at its target, or came back."""
        truth = self._world.truth
        for (sender, target, message_id), passed in truth.queued.items():
            if sender != daemon.name or daemon.is_lost(passed):
                continue
            if (target, sender, message_id) in truth.stored or (sender, message_id) in truth.bounced:
                continue
            if not truth.messages[sender, target, message_id].wants_bounce:
                continue  # it may have been refused for good
            raise Violation(f"{sender}'s message {message_id} to {target} was queued, and is nowhere")

    def _bounced(self, daemon: "Daemon", host: Host) -> None:
        """Who wants to know has been told what ended undone here."""
        for message_id, sender, stage in host.mailbox.db.execute(
            "SELECT id, sender, stage FROM messages"
            " WHERE bounce AND stage IN ('rejected', 'expired', 'cancelled', 'dead')"
        ):
            if sender in self._world.daemons and (sender, message_id) not in self._world.truth.bounced:
                raise Violation(f"{sender} was never told that {message_id} is {stage} at {daemon.name}")

    def _both_ends(self, truth: SessionTruth) -> None:
        ends = {}
        for name in truth.ends:
            host = self._world.daemons[name].host if name in self._world.daemons else None
            session = host.sessions.endpoint.find(truth.id) if host is not None else None
            if session is not None:
                ends[name] = session
        causes = {session.cause for session in ends.values()}
        if len(ends) == 2 and len(causes) == 2 and not causes & set(EARLY) and not truth.is_disturbed:
            raise Violation(f"I8: the ends of {truth.id} disagree: {[s.snapshot() for s in ends.values()]}")
        if len(ends) == 2 and causes == {Cause.FINISHED} and not truth.is_disturbed:
            a, b = ends.values()
            for x, y in ((a, b), (b, a)):
                if (x.send_queue.snd_nxt, x.send_queue.snd_una) != (y.recv_queue.rcv_nxt, y.recv_queue.acked):
                    raise Violation(f"I12: the ends of {truth.id} count differently: {a.snapshot()} {b.snapshot()}")
        for name, session in ends.items():
            self._world.truth.stages[f"end: {session.cause.value if session.cause else 'open'}"] += 1
            end = truth.ends[name]
            if causes == {Cause.FINISHED}:
                other = truth.other(name)
                peer, lost = truth.ends[other], self._world.daemons[other].is_lost
                texts = {seq: text for seq, said in peer.said.items() for text, passed in said if not lost(passed)}
                if any(end.got.get(seq) != text for seq, text in texts.items()):
                    raise Violation(f"I4: {truth.id} finished, but {name} got {end.got} of {texts}")
