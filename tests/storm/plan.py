"""What is to be done in a session of the storm. Both its agents derive it from the id, however often they were killed,
and so does the checker."""

import hashlib
import random
from typing import NamedTuple

ENDINGS = {  # how often of 20
    "opener_first": 4,  # it closes once it has all answers
    "acceptor_first": 3,  # it closes with its last answer
    "at_once": 3,  # both close when they have said all, whatever the other does
    "rejected": 2,
    "opener_aborts": 2,
    "acceptor_aborts": 2,
    "withdrawn": 1,  # aborted by its opener at once, which may be before or after the acceptor said yes
    "unanswered": 1,  # until `accept_timeout`
    "budget": 2,  # of texts, which is not enough
}
NEVER_ACCEPTED = ("rejected", "unanswered")
FINISHES = ("opener_first", "acceptor_first", "at_once")
ACCEPT_TIMEOUT_S = 2.0  # where the acceptor will not answer; else without end
RETRY_AFTER_S = 7.0  # what who rejects says


class Plan(NamedTuple):
    id: str
    ending: str
    asked: int  # texts of the opener; the acceptor answers each in the commit that acknowledges it
    told: int  # texts of the acceptor, before it reads
    aborts_at: int  # with this text in hand, 0: before any
    status: str  # of the acceptor's result
    filler: str

    @property
    def answers(self) -> int:
        """The acceptor's texts if all goes well."""
        return self.told + self.asked

    @property
    def max_messages(self) -> int | None:
        return self.asked + self.told + self.asked - 1 if self.ending == "budget" else None

    @property
    def accept_timeout(self) -> float | None:
        return ACCEPT_TIMEOUT_S if self.ending == "unanswered" else None

    @property
    def task(self) -> str:
        return f"{self.id}: {self.ending}"

    def question(self, number: int) -> str:
        return f"{self.id} question {number} {self.filler}"

    def remark(self, number: int) -> str:
        return f"{self.id} remark {number} {self.filler}"

    def answer(self, seq: int) -> str:
        """To the opener's text of this number."""
        return f"{self.id} answer {seq} {self.filler}"

    def note(self, seq: int) -> str:
        """What the acceptor tells the third agent in the same commit."""
        return f"{self.id} note {seq}"

    def result(self, name: str) -> str:
        return f"{self.id} result of {name}"

    @property
    def reason(self) -> str:
        """Of its reject or abort."""
        return f"{self.id} {self.ending}"


def session_id(opener: str, acceptor: str, lane: int, number: int) -> str:
    return "s-" + hashlib.sha256(f"{opener} {acceptor} {lane} {number}".encode()).hexdigest()[:32]


def plan_of(session: str) -> Plan:
    dice = random.Random(session)
    ending = dice.choices(list(ENDINGS), list(ENDINGS.values()))[0]
    asked = dice.randint(1 if ending == "budget" else 0, 5)
    told = dice.randint(0, 2)
    said = told + asked if ending == "opener_aborts" else asked
    return Plan(
        session, ending, asked, told, dice.randint(0, said), dice.choice(["ok", "failed"]), "x" * dice.randint(0, 600)
    )
