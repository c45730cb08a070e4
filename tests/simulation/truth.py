"""What the agents themselves know: what they said, what they were told, what they have processed.

It is kept outside every daemon, so no crash touches it. Whatever a daemon hands out or answers is held against it at
once; what was promised is kept as a fact with the daemon's pass that promised it, and is looked for on the disk later.
"""

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .daemon import Daemon, Link
    from .world import World

USER = "@user"
FORBIDDEN = {  # codes with which nothing of ours may ever be refused
    "internal", "malformed", "bad_request", "bad_params", "unknown_method", "not_permitted", "key_reused", "protocol",
    "bad_name", "ambiguous", "storage",
}  # fmt: skip


class Violation(AssertionError):
    """Something that must be true is not."""


class Stored(NamedTuple):
    """A receipt that said `stored`."""

    mailbox_id: str
    msg_no: int
    text: str
    passed: int
    was_flushed: bool


class End:
    """What one agent of a session did and saw. `tried` may have happened or not; `said` was answered."""

    def __init__(self) -> None:
        self.tried: dict[str, bool] = {}  # text: input_required
        self.said: dict[int, list[tuple[str, int]]] = defaultdict(list)  # seq: (text, pass of the own daemon)
        self.closes: set[tuple[str, str]] = set()
        self.accepts = False
        self.accepted: list[int] = []  # passes
        self.rejects: set[str] = set()
        self.rejected: list[int] = []
        self.aborts: set[str] = set()
        self.acks: set[int] = set()
        self.processed = 0  # all up to here
        self.got: dict[int, str] = {}
        self.deliveries = 0  # the most that one mail had

    def acks_one(self, seq: int) -> None:
        self.acks.add(seq)
        while self.processed + 1 in self.acks:
            self.processed += 1


class SessionTruth:
    def __init__(self, session: str, opener: str, acceptor: str, params: dict[str, Any]) -> None:
        self.id = session
        self.opener = opener
        self.acceptor = acceptor
        self.task = params["text"]
        self.params = params
        self.may_expire = any(
            params.get(key) for key in ("max_messages", "max_bytes", "deadline", "accept_timeout", "idle_timeout")
        )
        self.ends = {opener: End(), acceptor: End()}
        self.asked_at = 0.0
        self.opened_at: float | None = None  # when that was answered
        self.is_narrowed = False  # accepted with limits that the opener did not set
        self.is_disturbed = False  # one of the ends lost something of its disk since it was opened

    def other(self, name: str) -> str:
        return self.acceptor if name == self.opener else self.opener


class Message(NamedTuple):
    target: str
    text: str
    wants_bounce: bool = True


class Truth:
    def __init__(self, world: "World") -> None:
        self._world = world
        self.sessions: dict[str, SessionTruth] = {}
        self.messages: dict[tuple[str, str, str], Message] = {}  # sender, target, id
        self.stored: dict[tuple[str, str, str], Stored] = {}  # target, sender, id
        self.queued: dict[tuple[str, str, str], int] = {}  # sender, target, id: pass
        self.bounced: set[tuple[str, str]] = set()  # sender, id
        # By daemon, era and msg_no: the deliveries, and to which take each went.
        self.handed: dict[tuple[str, int, int], dict[int, str]] = defaultdict(dict)
        self.numbers: dict[tuple[str, int, str, str], int] = {}  # daemon, era, id, from: msg_no
        self.acked: dict[tuple[str, int, int], int] = {}  # daemon, era, msg_no: pass that settled it for good
        self.ack_tries: Counter[tuple[str, str]] = Counter()  # daemon, id
        self.stages: Counter[str] = Counter()  # what happened at all, for the runner's table

    def disturb(self, name: str) -> None:
        for session in self.sessions.values():
            if name in session.ends:
                session.is_disturbed = True

    # --- what agents ask ----------------------------------------------------------------------------------------------

    def asked(self, name: str, method: str, p: dict[str, Any]) -> None:
        match method:
            case "open":
                if p["session"] not in self.sessions:
                    opened = self.sessions[p["session"]] = SessionTruth(p["session"], name, p["to"], p)
                    opened.asked_at = self._world.t
            case "accept":
                if (end := self._end(p["session"], name)) is not None:
                    end.accepts = True
                    self.sessions[p["session"]].is_narrowed |= "max_messages" in p
            case "reject" if "/" not in p["id"] and p["id"].startswith("s-"):
                if (end := self._end(p["id"], name)) is not None:
                    end.rejects.add(p["reason"])
            case "say":
                if (end := self._end(p["session"], name)) is not None:
                    end.tried[p["text"]] = p.get("input_required", False)
            case "close":
                if (end := self._end(p["session"], name)) is not None:
                    end.closes.add((p["status"], p["text"]))
            case "abort":
                if (end := self._end(p["session"], name)) is not None:
                    end.aborts.add(p["reason"])
            case "ack":
                self.ack_tries[name, p["id"]] += 1
                session, seq = place(p["id"])
                if seq is not None and (end := self._end(session, name)) is not None:
                    end.acks_one(seq)
            case "push":
                self.messages.setdefault((p.get("from") or USER, p["to"], p["id"]), Message(p["to"], p["text"]))
            case "commit":
                for ack in p.get("acks", ()):
                    self.asked(name, "ack", ack)
                for say in p.get("says", ()):
                    self.asked(name, "say", say)
                for close in p.get("closes", ()):
                    self.asked(name, "close", close)
                for send in p.get("sends", ()):
                    message = Message(send["to"], send["text"], send.get("bounce", True))
                    self.messages.setdefault((name, send["to"], send["id"]), message)
                for reply in p.get("replies", ()):
                    self.ack_tries[name, reply["id"]] += 1
                    to = reply["from"]
                    self.messages.setdefault((name, to, reply["reply_id"]), Message(to, reply["text"]))

    # --- what daemons answer ------------------------------------------------------------------------------------------

    def answered(self, daemon: "Daemon", link: "Link", method: str, p: dict[str, Any], said: dict[str, Any]) -> None:
        if "error" in said:
            code = said["error"]["data"]["code"]
            self.stages[f"{method} refused: {code}"] += 1
            if code in FORBIDDEN:
                raise Violation(f"{daemon.name} refuses {method} {p} with {said['error']}")
            return
        result, name = said["result"], daemon.name
        self.stages[method] += 1
        match method:
            case "take":
                for delivery in result["messages"]:
                    self._handed(daemon, delivery, result["take_id"], link)
            case "claim":
                daemon.claims[p.get("session") or p["reply_to"]] = (link, daemon.passes)
            case "open":
                session = self.sessions[p["session"]]
                session.opened_at = self._world.t if session.opened_at is None else session.opened_at
            case "say":
                self._said(daemon, p, result)
            case "accept":
                self._note_accepted(daemon, p["session"], result)
            case "reject" if "stage" not in result:
                self._note_rejected(daemon, p["id"])
            case "push":
                self._stored(daemon, p, result)
            case "ack" | "reject" | "cancel":
                self._note_acked(daemon, p, result["msg_no"])
            case "commit":
                for settled in (*p.get("acks", ()), *p.get("replies", ())):
                    self._note_acked(daemon, settled, None)
                for say, receipt in zip(p.get("says", ()), result["says"], strict=True):
                    self._said(daemon, say, receipt)
                for receipt in result["sends"]:
                    if receipt["stage"] == "queued":
                        self.queued.setdefault((name, receipt["to"], receipt["id"]), daemon.passes)
            case "frame":
                self.stages[f"{result['kind']} {result['outcome']}"] += 1

    def _said(self, daemon: "Daemon", p: dict[str, Any], result: dict[str, Any]) -> None:
        session = self.sessions[p["session"]]
        said = session.ends[daemon.name].said
        for seq, texts in said.items():
            for text, passed in texts:
                if text == p["text"] and seq != result["seq"] and not daemon.is_lost(passed):
                    raise Violation(f"{p['text']!r} was said as {seq} and {result['seq']} of {session.id}")
        known = [text for text, passed in said[result["seq"]] if not daemon.is_lost(passed)]
        if known and known != [p["text"]]:
            raise Violation(f"{session.id}/{result['seq']} is {p['text']!r}, and was {known} before")
        if not known:
            said[result["seq"]].append((p["text"], daemon.passes))

    def _note_accepted(self, daemon: "Daemon", session_id: str, result: dict[str, Any]) -> None:
        session = self.sessions[session_id]
        if daemon.name != session.acceptor:
            raise Violation(f"{daemon.name} accepted its own {session_id}")
        end = session.ends[daemon.name]
        if [p for p in end.rejected if not daemon.is_lost(p)]:
            raise Violation(f"{session_id} was rejected, and is accepted (I7)")
        if result["state"] != "CLOSED":
            end.accepted.append(daemon.passes)

    def _note_rejected(self, daemon: "Daemon", session_id: str) -> None:
        end = self.sessions[session_id].ends[daemon.name]
        if [p for p in end.accepted if not daemon.is_lost(p)]:
            raise Violation(f"{session_id} was accepted, and is rejected (I7)")
        end.rejected.append(daemon.passes)

    def _note_acked(self, daemon: "Daemon", token: dict[str, Any], msg_no: int | None) -> None:
        number = msg_no or self.numbers.get((daemon.name, daemon.era, token["id"], token["from"]))
        if number is not None:
            handed = self.handed[daemon.name, daemon.era, number]
            if handed and token.get("delivery", max(handed)) < max(handed):
                raise Violation(f"{daemon.name}: {token} settles what was handed out again, as {max(handed)}")
            self.acked.setdefault((daemon.name, daemon.era, number), daemon.passes)

    def _stored(self, daemon: "Daemon", p: dict[str, Any], result: dict[str, Any]) -> None:
        key = (daemon.name, p.get("from") or USER, p["id"])
        before = self.stored.get(key)
        if before is not None and not daemon.is_lost(before.passed, was_flushed=before.was_flushed):
            if not result["duplicate"] or result["msg_no"] != before.msg_no:
                raise Violation(f"{key} was stored as {before}, and now again: {result}")
            return
        is_power = result["durability"] == "power"
        self.stored[key] = Stored(result["mailbox_id"], result["msg_no"], p["text"], daemon.passes, is_power)
        if p.get("kind", "message") == "bounce":
            self.bounced.add((daemon.name, p["reply_to"]))

    # --- what daemons hand out ----------------------------------------------------------------------------------------

    def _handed(self, daemon: "Daemon", d: dict[str, Any], take_id: str, link: "Link") -> None:
        name, number, delivery = daemon.name, d["msg_no"], d["delivery"]
        about = f"{name} hands out {d['id']} ({d['kind']}, msg_no {number}, delivery {delivery}) to {take_id}"
        key = (name, daemon.era, number)
        takes = self.handed[key]
        if delivery in takes and takes[delivery] != take_id:
            raise Violation(f"{about}, as it did to {takes[delivery]}")
        if delivery not in takes and takes and delivery < max(takes):
            raise Violation(f"{about} after delivery {max(takes)}")
        if delivery not in takes and (acked := self.acked.get(key)) is not None and not daemon.is_lost(acked):
            raise Violation(f"{about}, which was settled before")
        is_new = delivery not in takes and daemon.takes[take_id] == 1  # else it may have been leased before the claim
        for claimed in (d["session"], d["reply_to"]):
            claimant, since = daemon.claims.get(claimed, (link, 0))
            if is_new and claimant is not link and claimant in daemon.links and since < daemon.passes:
                raise Violation(f"{about}, though another connection claims {claimed}")
        takes[delivery] = take_id
        self.numbers[name, daemon.era, d["id"], d["from"]] = number
        self.stages[f"handed out: {d['kind']}"] += 1
        match d["kind"]:
            case "message":
                message = self.messages.get((d["from"], name, d["id"]))
                if message is None or message.text != d["text"]:
                    raise Violation(f"{about}: {d['text']!r}, which {d['from']} never sent ({message})")
            case "offer":
                session = self._session(about, d)
                if name != session.acceptor or d["text"] != session.task:
                    raise Violation(f"{about}: {d['text']!r} was not offered to it")
            case "accepted":
                session = self._session(about, d)
                if not session.ends[session.acceptor].accepts:
                    raise Violation(f"{about}, but {session.acceptor}'s agent never accepted (I5)")
            case "rejected":
                session = self._session(about, d)
                if d["text"] not in session.ends[session.acceptor].rejects:
                    raise Violation(f"{about}, but {session.acceptor}'s agent never rejected (I6)")
            case "data" | "finished":
                self._handed_in_session(about, daemon, d)
            case "bounce":
                self.bounced.add((name, d["reply_to"]))
            case "reset" | "loop":
                pass
            case kind:
                raise Violation(f"{about}: what is a {kind}?")

    def _handed_in_session(self, about: str, daemon: "Daemon", d: dict[str, Any]) -> None:
        session = self._session(about, d)
        me, peer = session.ends[daemon.name], session.ends[session.other(daemon.name)]
        seq = place(d["id"])[1]
        assert seq is not None
        me.deliveries = max(me.deliveries, d["delivery"])
        if seq > me.processed + 1:
            raise Violation(f"{about}, but {me.processed + 1} is not processed yet (order)")
        if d["kind"] == "data":
            asks = d["headers"].get("input_required") == "true"
            if peer.tried.get(d["text"]) != asks:
                raise Violation(f"{about}: {d['text']!r} (asks: {asks}) was never said so (I2)")
            # After a rollback two texts may have had one number; whether that is found out, the session's end tells.
            known = [text for text, _ in peer.said.get(seq, ())]
            if known and d["text"] not in known and not session.is_disturbed:
                raise Violation(f"{about}: {d['text']!r}, but {known} was said under this number (I2)")
        elif (d["headers"]["status"], d["text"]) not in peer.closes:
            raise Violation(f"{about}: {d['text']!r} was never the result (I2)")
        if not session.is_disturbed:
            for other, text in me.got.items():
                if (other == seq) != (text == d["text"]):
                    raise Violation(f"{about}: {d['text']!r}, but {other} was {text!r}")
        me.got[seq] = d["text"]

    def _session(self, about: str, d: dict[str, Any]) -> SessionTruth:
        session = self.sessions.get(d["session"])
        if session is None:
            raise Violation(f"{about}, of a session nobody opened")
        return session

    def _end(self, session_id: str, name: str) -> End | None:
        session = self.sessions.get(session_id)
        return session.ends.get(name) if session is not None else None


def place(message_id: str) -> tuple[str, int | None]:
    """Session and number of a mail's id; the number is None for what has none."""
    session, _, number = message_id.rpartition("/")
    return session, int(number) if session.startswith("s-") and number.isdigit() else None
