"""The agents: a few processes each, that call their own daemon over control connections, and die.

What they do is drawn from the seed: they take, hold, ack, answer late or never, open sessions and say things in them,
and now and then something wrong. `Truth` is told of every call before it is made. In the liveness phase one willing
process of each agent accepts, acks and closes all there is.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from .daemon import Link

if TYPE_CHECKING:
    from .world import World

Result = dict[str, Any]
encode = msgspec.json.encode

PROCESSES = 3  # of each agent
THINKS_S = (0.0, 0.001, 0.01, 0.1, 1.0, 6.0)
KINDS: list[list[str] | None] = [
    None, None, None, ["message"], ["message", "offer"], ["data", "finished"], ["finished"],
    ["offer", "accepted", "rejected", "reset"],
]  # fmt: skip
LOOK_S = 20.0  # a willing agent looks for sessions to close
MY_SESSIONS = 4  # an agent opens so many, then it uses those it has


class Control(Link):
    """A process's connection to its own daemon."""

    __slots__ = ("process",)

    def __init__(self, process: "Process") -> None:
        super().__init__(is_control=True)
        self.process = process

    def answered(self, answer: Result, line: bytes, passed: int) -> None:
        self.process.agent.world.at(0.0001, partial(self.process.answered, self, answer))

    def cut(self) -> None:
        self.process.agent.world.at(0.0001, partial(self.process.cut, self))


class Agent:
    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.daemon = world.daemons[name]
        self.sessions: list[str] = []  # that it has heard of
        self.opened = 0
        self.offers: list[str] = []  # not answered yet, as far as it knows
        self.questions: list[Result] = []  # messages, taken or acked, that it may answer
        self.graveyard: list[Result] = []  # deliveries of processes that died
        self.processes: list[Process] = []

    def begin(self) -> None:
        self.processes = [Process(self) for _ in range(PROCESSES)]

    def turn_willing(self) -> None:
        for process in list(self.processes):
            process.die()
        self.processes = [Willing(self)]

    def new_id(self, prefix: str) -> str:
        self.world.named += 1
        return f"{prefix}-{self.world.named:032x}"

    def new_text(self) -> str:
        self.world.named += 1
        return f"{self.name} says {self.world.named}" + "." * self.world.random.choice((0, 0, 0, 30))

    def heard_of(self, session: str) -> None:
        if session not in self.sessions:
            self.sessions.append(session)


class Process:
    """One process of an agent: one call at a time over one connection, what it holds, and a mind that wanders."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.world = agent.world
        self.random = agent.world.random
        self.is_dead = False
        self.link: Control | None = None
        self.call: tuple[str, Result, Callable[[Result], None]] | None = None
        self.held: list[Result] = []
        self._thoughts = 0
        self.think()

    # --- calls --------------------------------------------------------------------------------------------------------

    def ask(self, method: str, then: Callable[[Result], None] | None = None, **params: Any) -> None:
        """Makes a call; `then` gets its result. A refusal is taken as it is."""
        self.world.truth.asked(self.agent.name, method, params)
        self.call = (method, params, then or (lambda _: None))
        if method == "commit":
            self.world.checks.commit_asked(self.agent.daemon, params)
        self._send()

    def _send(self) -> None:
        if self.is_dead or self.call is None:
            return
        method, params, _ = self.call
        if self.link is None:
            self.link = Control(self)
        self.world.requests += 1
        line = encode({"jsonrpc": "2.0", "id": self.world.requests, "method": method, "params": params})
        if not self.agent.daemon.receive(self.link, line):
            self.link = None
            self.world.at(self.random.choice((0.1, 1.0, 5.0)), self._send)
            return
        if self.world.faults.strikes("process dies with a call under way"):
            self.world.at(self.random.choice((0.0, 0.001, 0.03)), self.die)

    def answered(self, link: Control, answer: Result) -> None:
        if self.is_dead or link is not self.link or self.call is None:
            return
        _, _, then = self.call
        self.call = None
        if "result" in answer:
            then(answer["result"])
        if self.call is None:
            self.think()

    def cut(self, link: Control) -> None:
        """The daemon went away. What a repetition makes harmless is asked again, or forgotten."""
        if self.is_dead or link is not self.link:
            return
        self.link = None
        interrupted, self.call = self.call, None
        takes = {d["take_id"] for d in self.held}
        if interrupted is not None and self.world.faults.strikes("gives a call up"):
            interrupted = None
        if takes and self.world.faults.strikes("resumes a take"):
            take_id = min(takes)
            self.ask("take", partial(self._resumed, take_id, interrupted), take_id=take_id, resume=True, max=5)
        elif interrupted is not None:
            self.call = interrupted
            self.world.at(self.random.choice((0.05, 0.5, 3.0)), self._send)
        else:
            self.think()

    def _resumed(self, take_id: str, interrupted: Any, result: Result) -> None:
        self._took(take_id, result)
        if interrupted is not None:
            self.call = interrupted
            self._send()

    def die(self) -> None:
        if self.is_dead:
            return
        self.is_dead = True
        self.agent.graveyard += self.held
        if self.link is not None:
            self.agent.daemon.hang_up(self.link)
        if self in self.agent.processes:
            self.agent.processes.remove(self)
        if self.world.faults.is_on:
            self.world.at(self.random.choice((0.01, 0.5, 4.0)), self._succeed)

    def _succeed(self) -> None:
        if self.world.faults.is_on and len(self.agent.processes) < PROCESSES:
            self.agent.processes.append(Process(self.agent))

    # --- what it does -------------------------------------------------------------------------------------------------

    def think(self, pause: float | None = None, then: Callable[[], None] | None = None) -> None:
        """`then` or whatever comes to mind, after a pause. Only the last thought counts."""
        self._thoughts += 1
        if pause is None:
            pause = self.random.choice(THINKS_S)
        self.world.at(pause, partial(self._decide, self._thoughts, then or self._act))

    def _decide(self, thought: int, then: Callable[[], None]) -> None:
        if thought == self._thoughts and not self.is_dead and self.call is None:
            then()
            if self.call is None and thought == self._thoughts:
                self.think()

    def _act(self) -> None:
        if self.world.faults.strikes("process dies"):
            self.die()
            return
        dice = self.random.random()
        if self.held and dice < 0.55:
            if self.world.faults.strikes("acks late"):
                self.think(self.agent.daemon.config.lease_s + self.random.choice((-0.5, 1.0)), self._settle_one)
                return
            self._settle_one()
        elif dice < 0.7:
            self._take()
        elif dice < 0.9:
            self._converse()
        else:
            doings = (self._push, self._push, self._commit, self._ask, self._look, self._look, self._answer)
            self.random.choice(doings)()

    def _take(self) -> None:
        take_id = self.agent.new_id("t")
        params: Result = {"take_id": take_id, "max": self.random.choice((1, 1, 3, 10))}
        params["wait"] = self.random.choice((0, 0, 0.5, 8.0))
        params["detached"] = self.random.random() < 0.3
        kinds = self.random.choice(KINDS)
        if kinds is not None:
            params["kinds"] = kinds
        if self.agent.sessions and self.random.random() < 0.25:
            params["session"] = self.random.choice(self.agent.sessions)
        self.ask("take", partial(self._took, take_id), **params)
        if params["wait"] and self.world.faults.strikes("takes the same again"):
            others = [p for p in self.agent.processes if p is not self and p.call is None and p.link is not None]
            if others:
                others[0].ask("take", partial(others[0]._took, take_id), **params)

    def _took(self, take_id: str, result: Result) -> None:
        self.held = [d for d in self.held if d["take_id"] != take_id]  # a repeated take brings them again
        for d in result["messages"]:
            d["take_id"] = take_id
            self.held.append(d)
            if d["session"] is not None and d["session"] in self.world.truth.sessions:
                self.agent.heard_of(d["session"])
            if d["kind"] == "offer":
                self.agent.offers.append(d["session"])
            elif d["kind"] == "message":
                self.agent.questions.append(d)

    def _settle_one(self) -> None:
        if not self.held:
            return
        d = self.held.pop(0) if self.random.random() < 0.8 else self.held.pop(self.random.randrange(len(self.held)))
        dice = self.random.random()
        if self.world.faults.strikes("stale token") and d["delivery"] > 1:
            self.ask("ack", **token(d, delivery=d["delivery"] - 1))
        elif dice < 0.1:
            self.ask("release", **token(d), unseen=self.random.random() < 0.5)
        elif d["kind"] == "message" and dice < 0.2:
            self.ask("reject", **token(d), reason="not for me")
        elif dice < 0.45:
            self._commit(d)
        else:
            self.ask("ack", **token(d), evidence=self.random.choice(("ack", "flush", "turn")))

    def _commit(self, d: Result | None = None) -> None:
        """One transaction of several things; `d` is settled in it."""
        agent = self.agent
        params: dict[str, list[Result]] = {"acks": [], "says": [], "closes": [], "sends": [], "replies": []}
        if d is not None and d["kind"] == "message" and self.random.random() < 0.4:
            params["replies"].append(self._reply(d))
        elif d is not None:
            params["acks"].append(token(d))
        named = {d["id"]} if d is not None else set()
        while self.held and self.random.random() < 0.3:
            other = self.held.pop(0)
            if other["id"] not in named:  # else the same was stored anew after a mailbox was lost
                params["acks"].append(token(other))
            named.add(other["id"])
        session = d["session"] if d is not None and d["kind"] in ("data", "finished") else None
        if session is None and agent.sessions:
            session = agent.sessions[-1] if self.random.random() < 0.5 else self.random.choice(agent.sessions)
        if session is not None:
            for _ in range(self.random.choice((0, 1, 1, 2))):
                params["says"].append(self._words(session))
            if self.random.random() < 0.2:
                params["closes"].append({"session": session, "status": "ok", "text": agent.new_text()})
        for _ in range(self.random.choice((0, 0, 1, 2))):
            params["sends"].append(self._letter())
        if self.world.faults.strikes("commits what cannot be"):
            params["says"].append({"session": agent.new_id("s"), "text": "nobody", "id": agent.new_id("i")})
        if any(params.values()):
            parts: Result = {key: value for key, value in params.items() if value}
            self.ask("commit", **parts)

    def _words(self, session: str) -> Result:
        said = {"session": session, "text": self.agent.new_text(), "id": self.agent.new_id("i")}
        return said | ({"input_required": True} if self.random.random() < 0.2 else {})

    def _letter(self) -> Result:
        to = self.random.choice(self.world.addressees(self.agent.name))
        letter: Result = {"to": to, "text": self.agent.new_text(), "id": self.agent.new_id("m")}
        if self.random.random() < 0.2:
            letter["priority"] = self.random.choice(("urgent", "low"))
        if self.random.random() < 0.15:
            letter["ttl"] = self.random.choice((0.5, 20.0))
        if self.random.random() < 0.2:
            letter["durability"] = "power"
        if self.random.random() < 0.1:
            letter["bounce"] = False
        return letter

    def _reply(self, d: Result) -> Result:
        return {**token(d), "text": self.agent.new_text(), "reply_id": self.agent.new_id("m")}

    def _answer(self) -> None:
        """Late: a message that was acked before, or is long gone."""
        if self.agent.questions:
            self.ask("commit", replies=[self._reply(self.random.choice(self.agent.questions))])

    def _push(self) -> None:
        """Straight to the other's inbox, as itself or as the user, until there is an answer."""
        letter = self._letter()
        if self.random.random() < 0.6:
            letter |= {"from": self.agent.name, "auth": self.agent.daemon.key}
        self.world.truth.asked(self.agent.name, "push", letter)
        self._push_again(letter, 0)

    def _push_again(self, letter: Result, times: int) -> None:
        if self.is_dead or times > 6:
            return
        self.world.requests += 1
        line = encode({"jsonrpc": "2.0", "id": self.world.requests, "method": "push", "params": letter})
        if why := self.world.obstacle(letter["to"]):
            self._pushed(letter, times, b"", why)
        else:
            self.world.carry(letter["to"], line, partial(self._pushed, letter, times))

    def _pushed(self, letter: Result, times: int, line: bytes, why: str) -> None:
        if why or b'"retry":true' in line:
            self.world.at(self.random.choice((0.1, 1.0)), partial(self._push_again, letter, times + 1))
        elif self.random.random() < 0.1 and not self.world.obstacle(letter["to"]):
            self.world.requests += 1
            params = {"id": letter["id"], "from": letter.get("from", "@user")}
            cancel = {"jsonrpc": "2.0", "id": self.world.requests, "method": "cancel", "params": params}
            self.world.carry(letter["to"], encode(cancel), lambda *_: None)

    def _ask(self) -> None:
        """A question through the outbox, and a wait for its answer, which nobody else may have."""
        question = self._letter()
        self.ask("claim", partial(self._claimed, question), reply_to=question["id"])

    def _claimed(self, question: Result, _result: Result) -> None:
        self.ask("commit", partial(self._asked, question), sends=[question])

    def _asked(self, question: Result, _result: Result) -> None:
        take_id = self.agent.new_id("t")
        wanted: Result = {"take_id": take_id, "wait": 8.0, "reply_to": question["id"], "kinds": ["message", "bounce"]}
        self.ask("take", partial(self._took, take_id), **wanted)

    def _converse(self) -> None:
        """Something with a session."""
        agent, dice = self.agent, self.random.random()
        if self.world.faults.strikes("zombie acks") and agent.graveyard:
            self.ask("ack", **token(self.random.choice(agent.graveyard)))
        elif self.world.faults.strikes("calls at the wrong time"):
            session = self.random.choice([*agent.sessions, agent.new_id("s")])
            method = self.random.choice(("accept", "say", "close", "abort", "reject"))
            self._in_session(method, session)
        elif agent.offers and dice < 0.6:
            session = agent.offers.pop(0)
            self._in_session("accept" if self.random.random() < 0.8 else "reject", session)
        elif agent.opened < MY_SESSIONS and (not agent.sessions or dice < 0.2):
            self._open()
        elif agent.sessions:
            session = agent.sessions[-1] if self.random.random() < 0.6 else self.random.choice(agent.sessions)
            methods, weights = ("say", "close", "abort", "renew", "claim"), (60, 18, 3, 6, 3)
            self._in_session(self.random.choices(methods, weights)[0], session)

    def _in_session(self, method: str, session: str) -> None:
        match method:
            case "accept":
                limits: Result = self.random.choice(({}, {}, {"max_messages": 6}))
                self.ask("accept", session=session, **limits)
            case "reject":
                self.ask("reject", id=session, reason=self.random.choice(("busy", "no")), retry_after=5.0)
            case "say":
                self.ask("say", **self._words(session))
            case "close":
                status = self.random.choice(("ok", "failed"))
                self.ask("close", session=session, status=status, text=self.agent.new_text())
            case "abort":
                self.ask("abort", session=session, reason="enough")
            case "renew":
                self.ask("renew", session=session, note="half way")
            case "claim":
                self.ask("claim", session=session)

    def _open(self) -> None:
        agent = self.agent
        agent.opened += 1
        session = agent.new_id("s")
        to = self.random.choice(self.world.addressees(agent.name, itself=False))
        params: Result = {"to": to, "text": agent.new_text()}
        params["accept_timeout"] = self.random.choice((None, None, 300.0, 10.0))
        if self.random.random() < 0.25:
            key, value = self.random.choice(
                (("max_messages", 3), ("max_bytes", 100), ("deadline", 30.0), ("idle_timeout", 20.0))
            )
            params[key] = value
        agent.heard_of(session)
        self.ask("open", session=session, **params)

    def _look(self) -> None:
        match self.random.randrange(8):
            case 0:
                self.ask("sessions", self._seen, state="SYN-RECEIVED")
            case 1:
                self.ask("sessions", is_open=True, wait=self.random.choice((0, 2.0)))
            case 2 if self.agent.sessions:
                self.ask("trace", session=self.random.choice(self.agent.sessions))
            case 3:
                self.ask("pause")
            case 4:
                self.ask("resume")
            case 5 if self.agent.questions:
                question = self.random.choice(self.agent.questions)
                self.ask("wait", id=question["id"], stage="acked", timeout=self.random.choice((0.0, 5.0)))
            case 6:
                self.ask("tap", wait=self.random.choice((0, 3.0)))
            case _:
                self.ask("status")

    def _seen(self, result: Result) -> None:
        for record in result["sessions"]:
            if record["id"] not in self.agent.offers:
                self.agent.offers.append(record["id"])
                self.agent.heard_of(record["id"])


class Willing(Process):
    """It accepts what is offered, acks what it gets, closes what is open, and never goes away."""

    def __init__(self, agent: Agent) -> None:
        self._to_end: list[Result] = []
        self._sees_at = 0.0
        super().__init__(agent)
        self.ask("resume")

    def _act(self) -> None:
        if self.held:
            d = self.held.pop(0)
            if d["kind"] == "offer" and self._state(d["session"]) == "SYN-RECEIVED":
                self.held.insert(0, d)
                self._in_session("accept", d["session"])
            else:
                self.ask("ack", **token(d))
        elif self._to_end:
            record = self._to_end.pop()
            if record["state"] == "SYN-RECEIVED":
                self._in_session("accept", record["id"])
            elif record["state"] in ("ESTABLISHED", "CLOSE-WAIT"):
                self._in_session("close", record["id"])
        elif self.world.t >= self._sees_at:
            self._sees_at = self.world.t + LOOK_S
            self.ask("sessions", self._see, is_open=True)
        else:
            take_id = self.agent.new_id("t")
            self.ask("take", partial(self._took, take_id), take_id=take_id, max=5, wait=LOOK_S)

    def _see(self, result: Result) -> None:
        self._to_end = result["sessions"]

    def _state(self, session_id: str) -> str:
        host = self.agent.daemon.host
        session = host.sessions.endpoint.find(session_id) if host is not None else None
        return session.state.value if session is not None else ""

    def think(self, pause: float | None = None, then: Callable[[], None] | None = None) -> None:
        super().think(0.01, then)


def token(d: Result, *, delivery: int | None = None) -> Result:
    return {"id": d["id"], "delivery": delivery or d["delivery"], "from": d["from"]}
