"""What agents were told of their sessions, and whether all of it can be true together. Pure: events in, broken promises
out.

An agent writes an event down before its next step, as in `history`. Beside the journals stand the daemons' own answers
to frames (`daemon.py` writes them down) and what the mailboxes hold when all is over. What should have become of a
session is known from its id (`plan`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from .journal import kinds_of
from .plan import FINISHES, RETRY_AFTER_S, Plan, plan_of

INITIATOR, ACCEPTOR = "initiator", "acceptor"
CAUSES = ("finished", "rejected", "aborted", "reset", "expired")


class Doing(NamedTuple):
    """`agent` is about to call `what`: open, accept, reject, say, commit, ack, close or abort."""

    agent: str
    session: str
    what: str
    words: str
    at: float


class Told(NamedTuple):
    """A record, as the daemon of `agent` answered it."""

    agent: str
    session: str
    role: str
    state: str
    cause: str | None
    reason: str
    version: int
    stored_upto: int
    acked_upto: int
    peer_status: str | None
    peer_result: str | None
    retry_after: float | None
    at: float


class Said(NamedTuple):
    """The daemon confirmed a text under a key."""

    agent: str
    session: str
    key: str
    seq: int
    text: str
    duplicate: bool
    at: float


class Heard(NamedTuple):
    """`agent` has a text of its peer in its hands."""

    agent: str
    session: str
    seq: int
    text: str
    delivery: int
    at: float


class Settled(NamedTuple):
    """The daemon confirmed an ack, or a commit with one."""

    agent: str
    session: str
    seq: int
    delivery: int
    at: float


class Answered(NamedTuple):
    """What the daemon of `agent` answered to a frame of the peer."""

    agent: str
    session: str
    kind: str
    number: int
    outcome: str
    reason: str


class End(NamedTuple):
    """One end of a session, as its mailbox knows it when all is over. `role` None: a RST came before its SYN."""

    agent: str
    session: str
    peer: str
    role: str | None
    state: str
    cause: str | None
    reason: str
    retry_after: float | None
    status: str | None
    result: str | None
    peer_status: str | None
    peer_result: str | None


class Frame(NamedTuple):
    """A frame in the outbox of `agent`, or what is kept of it."""

    agent: str
    session: str
    kind: str
    number: int
    text: str
    stage: str


class Mail(NamedTuple):
    """A row of the mailbox of `agent`. `session` is None for a message on its own; `place` is the id without it."""

    agent: str
    session: str | None
    kind: str
    place: str
    text: str
    stage: str
    delivery: int


KINDS = kinds_of((Doing, Told, Said, Heard, Settled))
ANSWERS = kinds_of((Answered,))
Name = tuple[str, str]  # agent, session: one end


class SessionHistory:
    """Each agent's events in the order it wrote them, the daemons' answers, and all rows when all was over."""

    def __init__(
        self,
        journals: dict[str, list[Any]],
        answers: list[Answered],
        ends: list[End],
        frames: list[Frame],
        mail: list[Mail],
        counters: dict[str, dict[str, dict[str, int]]],
    ) -> None:
        self.journals = journals
        self.answers = answers
        self.ends = ends
        self.frames = frames
        self.mail = mail
        self.counters = counters

    def all(self, kind: type[Any]) -> Iterator[Any]:
        for journal in self.journals.values():
            for event in journal:
                if type(event) is kind:
                    yield event

    @cached_property
    def pairs(self) -> dict[str, tuple[End | None, End | None]]:
        """Opener's and acceptor's end of each session."""
        ends = {(end.session, end.role): end for end in self.ends}
        return {
            end.session: (ends.get((end.session, INITIATOR)), ends.get((end.session, ACCEPTOR))) for end in self.ends
        }

    @cached_property
    def peers(self) -> dict[Name, str]:
        return {(end.agent, end.session): end.peer for end in self.ends}

    @cached_property
    def texts(self) -> dict[Name, dict[int, Frame]]:
        """What each end said, by number."""
        found: dict[Name, dict[int, Frame]] = defaultdict(dict)
        for frame in self.frames:
            if frame.kind == "DATA":
                found[frame.agent, frame.session][frame.number] = frame
        return found

    @cached_property
    def received(self) -> dict[Name, dict[int, Mail]]:
        """What came to each end, by number."""
        found: dict[Name, dict[int, Mail]] = defaultdict(dict)
        for mail in self.mail:
            if mail.session is not None and mail.kind == "data":
                found[mail.agent, mail.session][int(mail.place)] = mail
        return found

    @cached_property
    def heard(self) -> dict[Name, dict[int, float]]:
        """When each end first had each text in its hands."""
        found: dict[Name, dict[int, float]] = defaultdict(dict)
        for event in self.all(Heard):
            found[event.agent, event.session].setdefault(event.seq, event.at)
        return found

    @cached_property
    def done(self) -> dict[tuple[str, str, str], float]:
        """When each end was first about to call what."""
        found: dict[tuple[str, str, str], float] = {}
        for event in self.all(Doing):
            found.setdefault((event.agent, event.session, event.what), event.at)
        return found


def check(history: SessionHistory) -> list[str]:
    """Every promise that was broken, one sentence each."""
    promises = (
        at_rest, ends_agree, reasons_are_given, results_arrive, what_is_said_arrives, handed_over_in_order,
        handled_once, states_in_order, nothing_is_told_before_it_is_true, frames_are_taken_once, counted,
    )  # fmt: skip
    return [sentence for promise in promises for sentence in promise(history)]


def at_rest(history: SessionHistory) -> Iterator[str]:
    """Every session is over at both ends, no frame waits, and no mail does."""
    for end in history.ends:
        if end.state != "CLOSED":
            yield f"{end.session} of {end.agent} is {end.state} when all is over"
    for frame in history.frames:
        if frame.stage == "queued":
            yield f"{frame.session}: {frame.kind} {frame.number} of {frame.agent} is still queued"
    for mail in history.mail:
        if mail.stage not in ("acked", "cancelled"):
            yield f"{mail.session}: {mail.kind} {mail.place} of {mail.agent} is {mail.stage} when all is over"


def ends_agree(history: SessionHistory) -> Iterator[str]:
    """Each session ended at both ends in one of the ways its plan leaves open; what was begun never vanishes."""
    for session in sorted({event.session for event in history.all(Told)}):
        if session not in history.pairs:
            yield f"{session} was told of and is in no mailbox"
    for session, (opener, acceptor) in sorted(history.pairs.items()):
        plan = plan_of(session)
        if opener is None:
            yield f"{session} has no opener"
            continue
        causes = (opener.cause, acceptor.cause if acceptor else None)
        if causes not in PAIRS[plan.ending]:
            yield f"{session} ({plan.ending}) ended {causes[0]} at {opener.agent} and {causes[1]} at {opener.peer}"
        if acceptor and (acceptor.agent, acceptor.peer) != (opener.peer, opener.agent):
            yield f"{session} has the ends {opener.agent}-{opener.peer} and {acceptor.agent}-{acceptor.peer}"


PAIRS: dict[str, set[tuple[str, str | None]]] = {
    **{ending: {("finished", "finished")} for ending in FINISHES},
    "rejected": {("rejected", "rejected")},
    "opener_aborts": {("aborted", "reset")},
    "acceptor_aborts": {("reset", "aborted")},
    "withdrawn": {("aborted", "reset"), ("aborted", None)},
    "unanswered": {("expired", "reset"), ("expired", None)},
    "budget": {("reset", "expired"), ("expired", "reset"), ("expired", "expired")},
}


def reasons_are_given(history: SessionHistory) -> Iterator[str]:
    """Who is told no is told why, in the words of who said it."""
    for session, pair in sorted(history.pairs.items()):
        plan = plan_of(session)
        for end in filter(None, pair):
            wanted = _reason(plan)
            if wanted is not None and end.reason != wanted:
                yield f"{session} ended {end.cause} at {end.agent} with the reason {end.reason!r}, not {wanted!r}"
            if end.cause == "rejected" and end.role == INITIATOR and end.retry_after != RETRY_AFTER_S:
                yield f"{session}: {end.agent} was told to ask again after {end.retry_after}"


def _reason(plan: Plan) -> str | None:
    return {"unanswered": "accept_timeout", "budget": "max_messages"}.get(
        plan.ending, None if plan.ending in FINISHES else plan.reason
    )


def results_arrive(history: SessionHistory) -> Iterator[str]:
    """Of a finished session both have the other's result, and it is what the other said."""
    for session, pair in sorted(history.pairs.items()):
        plan = plan_of(session)
        for end in filter(None, pair):
            if end.cause != "finished":
                continue
            mine, theirs = ("ok", plan.status) if end.role == INITIATOR else (plan.status, "ok")
            if (end.status, end.result) != (mine, plan.result(end.agent)):
                yield f"{session}: {end.agent} finished with {end.status} {end.result!r}"
            if (end.peer_status, end.peer_result) != (theirs, plan.result(end.peer)):
                yield f"{session}: {end.agent} has {end.peer_status} {end.peer_result!r} as the result of {end.peer}"


def what_is_said_arrives(history: SessionHistory) -> Iterator[str]:
    """What was confirmed is on its way under that number; what came is what was said, without a gap; what the peer's
    daemon receipted, or both finished, has come."""
    for said in history.all(Said):
        frame = history.texts[said.agent, said.session].get(said.seq)
        if frame is None or frame.text != said.text:
            yield f"{said.session}: {said.agent} was told that {said.key} is number {said.seq}, which is not so"
    stored_upto: dict[Name, int] = defaultdict(int)
    for told in history.all(Told):
        stored_upto[told.agent, told.session] = max(stored_upto[told.agent, told.session], told.stored_upto)
    for (agent, session), peer in sorted(history.peers.items()):
        said_here, came = history.texts[agent, session], history.received[peer, session]
        if sorted(came) != list(range(1, len(came) + 1)):
            yield f"{session}: {peer} has the numbers {sorted(came)}"
        for seq, mail in came.items():
            if seq not in said_here or said_here[seq].text != mail.text:
                yield f"{session}: {peer} has as number {seq} what {agent} did not say: {mail.text[:60]!r}"
        opener, _ = history.pairs[session]
        is_finished = opener is not None and opener.cause == "finished"
        for seq, frame in said_here.items():
            has_receipt = frame.stage == "stored" or seq < stored_upto[agent, session]
            if seq not in came and (is_finished or has_receipt):
                yield f"{session}: number {seq} of {agent} is {frame.stage} and never came to {peer}"


def handed_over_in_order(history: SessionHistory) -> Iterator[str]:
    """One text after the other, each again until it is settled, with a rising `delivery`, and never after that."""
    for agent, journal in history.journals.items():
        last: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        settled: set[tuple[str, int]] = set()
        for event in journal:
            if isinstance(event, Heard):
                seq, delivery = last[event.session]
                where = f"{event.session}: number {event.seq} came to {agent} as delivery {event.delivery}"
                if event.seq not in (seq, seq + 1):
                    yield f"{where} after number {seq}"
                if event.seq == seq and event.delivery <= delivery:
                    yield f"{where} after delivery {delivery}"
                if (event.session, event.seq) in settled:
                    yield f"{where} after it was settled"
                last[event.session] = (event.seq, event.delivery)
                mail = history.received[agent, event.session].get(event.seq)
                if mail is None or mail.text != event.text or mail.delivery < event.delivery:
                    yield f"{where}, and is not what the mailbox holds"
            elif isinstance(event, Settled):
                if last[event.session] != (event.seq, event.delivery):
                    yield f"{event.session}: {agent} settled {event.seq}, with {last[event.session]} in hand"
                settled.add((event.session, event.seq))
        for session, seq in sorted(settled):
            mail = history.received[agent, session].get(seq)
            if mail is None or mail.stage != "acked":
                yield f"{session}: number {seq} of {agent} was settled and is {mail.stage if mail else 'gone'}"
    for (agent, session), mails in sorted(history.received.items()):
        for seq, mail in mails.items():
            if mail.stage == "acked" and seq not in history.heard[agent, session]:
                yield f"{session}: number {seq} is acked, and {agent} never had it"


def handled_once(history: SessionHistory) -> Iterator[str]:
    """A commit is whole: the acceptor's ack of a text, its answer to it and its note to the third agent are all there,
    once, or none of them is."""
    notes = Counter(mail.text for mail in history.mail if mail.session is None)
    by_hand = {(e.agent, e.session, int(e.words)) for e in history.all(Doing) if e.what == "ack"}
    for session, (_, acceptor) in sorted(history.pairs.items()):
        if acceptor is None:
            continue
        plan, name = plan_of(session), (acceptor.agent, session)
        said = Counter(frame.text for frame in history.texts[name].values())
        for text, count in said.items():
            if count > 1:
                yield f"{session}: {acceptor.agent} said {count} times {text[:60]!r}"
        for seq, mail in history.received[name].items():
            found = said[plan.answer(seq)], notes.pop(plan.note(seq), 0)
            if found == (0, 0) and (mail.stage != "acked" or (*name, seq) in by_hand):
                continue
            if found != (1, 1) or mail.stage != "acked":
                yield (
                    f"{session}: number {seq} of {acceptor.agent} is {mail.stage}, answered {found[0]} times and noted"
                    f" {found[1]} times"
                )
    for text in notes:
        yield f"a note that nobody committed: {text!r}"


def states_in_order(history: SessionHistory) -> Iterator[str]:
    """A session only goes forward: no fact of its state is taken back, no count falls, and an end is final."""
    ends = {(end.agent, end.session): end for end in history.ends}
    for agent, journal in history.journals.items():
        last: dict[str, Told] = {}
        for event in journal:
            if not isinstance(event, Told):
                continue
            before = last.get(event.session, event)
            step = f"{event.session}: {agent} was told {before.state}, then {event.state}"
            if event.state not in FACTS:
                yield f"{step}, which is no state"
                continue
            if any(new < old for old, new in zip(FACTS[before.state], FACTS[event.state], strict=True)):
                yield step
            if event.state.startswith("SYN-") and before.state not in (event.state, "SYN-SENT", "SYN-RECEIVED"):
                yield step
            counts = (event.version, event.stored_upto, event.acked_upto)
            if any(a < b for a, b in zip(counts, (before.version, before.stored_upto, before.acked_upto), strict=True)):
                yield f"{step}, with counts that fell to {counts}"
            if event.version == before.version and (event.state, event.cause) != (before.state, before.cause):
                yield f"{step}, both as version {event.version}"
            last[event.session] = event
        for session, told in last.items():
            end = ends.get((agent, session))
            if end is None or told.state != "CLOSED":
                continue
            if (told.cause, told.reason, told.peer_result) != (end.cause, end.reason, end.peer_result):
                yield f"{session}: {agent} was told it ended {told.cause}, and it ended {end.cause} ({end.reason})"


# A state is a function of facts that only ever become true: accepted, our FIN sent, processed by their agent, their FIN
# stored, processed by our agent, over. In CLOSE-WAIT theirs may be processed or not.
FACTS = {
    "SYN-SENT": (0, 0, 0, 0, 0, 0),
    "SYN-RECEIVED": (0, 0, 0, 0, 0, 0),
    "ESTABLISHED": (1, 0, 0, 0, 0, 0),
    "FIN-WAIT-1": (1, 1, 0, 0, 0, 0),
    "FIN-WAIT-2": (1, 1, 1, 0, 0, 0),
    "CLOSE-WAIT": (1, 0, 0, 1, 0, 0),
    "CLOSING": (1, 1, 0, 1, 0, 0),
    "LAST-ACK": (1, 1, 0, 1, 1, 0),
    "DRAIN": (1, 1, 1, 1, 0, 0),
    "CLOSED": (1, 1, 1, 1, 1, 1),
}


def nothing_is_told_before_it_is_true(history: SessionHistory) -> Iterator[str]:
    """An opener hears of a yes or no after the acceptor began to say it, of an ACK after the peer's agent had the text,
    of a finish after both began to close."""
    never = float("inf")
    for told in history.all(Told):
        peer = history.peers.get((told.agent, told.session))
        if peer is None or told.state not in FACTS:
            continue
        where = f"{told.session}: {told.agent} was told {told.cause or told.state}"
        opener, acceptor = (told.agent, peer) if told.role == INITIATOR else (peer, told.agent)
        is_accepted = FACTS[told.state][0] and told.cause in (None, "finished")
        if is_accepted and told.at < history.done.get((acceptor, told.session, "accept"), never):
            yield f"{where} before {acceptor} accepted what {opener} offered"
        if told.cause == "rejected" and told.at < history.done.get((acceptor, told.session, "reject"), never):
            yield f"{where} before {acceptor} rejected what {opener} offered"
        if told.cause == "finished":
            for agent in (told.agent, peer):
                if told.at < history.done.get((agent, told.session, "close"), never):
                    yield f"{where} before {agent} closed"
        heard = history.heard[peer, told.session]
        for seq in range(1, told.acked_upto):
            if seq in history.texts[told.agent, told.session] and told.at < heard.get(seq, never):
                yield f"{where} and that number {seq} is processed, before {peer} had it"


def frames_are_taken_once(history: SessionHistory) -> Iterator[str]:
    """No numbered frame was taken twice, and none was out of order or impossible."""
    taken: Counter[tuple[str, str, str, int]] = Counter()
    for answer in history.answers:
        if answer.outcome == "stored" and answer.kind in NUMBERED:
            taken[answer.agent, answer.session, answer.kind, answer.number] += 1
        if answer.outcome in ("bad", "gap"):
            yield f"{answer.session}: {answer.agent} answered {answer.kind} {answer.number} {answer.outcome}"
    for (agent, session, kind, number), count in sorted(taken.items()):
        if count > 1:
            yield f"{session}: {agent} took {kind} {number} {count} times"


NUMBERED = ("SYN", "SYN-ACK", "REJ", "DATA", "FIN")


def counted(history: SessionHistory) -> Iterator[str]:
    """The daemons' own counters agree with their rows, and the sum with what was opened."""
    for agent, by_role in history.counters.items():
        for role, counters in by_role.items():
            rows = Counter(end.cause or "open" for end in history.ends if (end.agent, end.role) == (agent, role))
            found = {name: rows[name] for name in (*CAUSES, "open")}
            if {name: counters[name] for name in found} != found:
                yield f"{agent} counts {counters} as {role}, and holds {found}"
            if counters["opened"] != sum(found.values()):
                yield f"{agent} opened {counters['opened']} as {role}, and holds {sum(found.values())}"


def repeated_calls(history: SessionHistory) -> int:
    """How often a text that was said again was recognised."""
    return sum(event.duplicate for event in history.all(Said))


def redeliveries(history: SessionHistory) -> int:
    """How often a text came as delivery 2 or more."""
    return sum(event.delivery > 1 for event in history.all(Heard))


def retransmissions(history: SessionHistory) -> Counter[str]:
    """How often frames of each kind came again after they were taken."""
    return Counter(answer.kind for answer in history.answers if answer.outcome == "dup" and answer.kind in NUMBERED)
