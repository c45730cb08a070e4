"""One agent of the soak: `tests.storm.walker NAME OTHERS FOLDER`. It is always busy and never in a hurry.

One thread takes whatever comes and answers it; the other sends messages, and keeps so many sessions open in which it
says something now and then, and of which it closes the oldest and opens another. It may be killed at any instruction:
all it has to know is in its daemon.
"""

import itertools
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from backchannel import Agent, BackchannelError
from backchannel.client import sessioncalls, wire
from backchannel.client.blocking import Delivery
from backchannel.client.drive import run

from .agent import join

SESSIONS = 50  # that each keeps open; four agents: 200
TURN_S = 4.0  # how often one of them is closed, and another opened
TICK_S = 0.04
LOOK_EVERY = 50  # ticks, which of the sessions are still open
PASSING = ("unreachable", "timeout", "stale", "ended", "session_state", "taken")  # what kills bring


def main() -> None:
    name, others, folder = sys.argv[1:]
    walker = Walker(join(name), others.split(","), Path(folder))
    threading.Thread(target=surely, args=(walker.speak,), daemon=True).start()
    surely(walker.listen)


def surely(work: Callable[[], None]) -> None:
    """A thread that fails must not fail alone."""
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)


class Walker:
    def __init__(self, agent: Agent, others: list[str], folder: Path) -> None:
        self._agent = agent
        self._caller = agent._caller
        self._others = others
        self._enough = folder / "enough"  # then no session is opened any more, and all are closed
        self._over = folder / "over"
        self._dice = random.Random(os.getpid())

    # --- answering ----------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        while not self._over.exists():
            try:
                for delivery in self._agent.receive(0.5, kinds=None, prefetch=10):
                    self._handle(delivery)
            except BackchannelError as error:
                if error.code not in PASSING:
                    raise

    def _handle(self, delivery: Delivery) -> None:
        try:
            match delivery.kind:
                case "message" if delivery.text.startswith("question"):
                    delivery.reply(f"answer to {delivery.text}")
                case "data" if (session := self._agent.look(str(delivery.session))).role == "acceptor":
                    self._agent.commit(acks=[delivery], sends=[(session, f"answer to {delivery.text}")])
                case "offer":
                    run(sessioncalls.accept(self._caller, str(delivery.session)))
                    delivery.ack()
                case "finished":
                    delivery.ack()
                    if self._agent.look(str(delivery.session)).state in sessioncalls.TALKING:
                        run(sessioncalls.close(self._caller, str(delivery.session), "that is all"))
                case _:
                    delivery.ack()
        except BackchannelError as error:
            if error.code not in PASSING:
                raise
            if not delivery.is_settled and delivery.kind == "data":
                delivery.ack()  # the session was over before the answer

    # --- speaking -----------------------------------------------------------------------------------------------------

    def speak(self) -> None:
        turn = time.monotonic()
        mine: list[str] = []
        for number in itertools.count():
            time.sleep(self._dice.uniform(0, 2 * TICK_S))
            try:
                if number % LOOK_EVERY == 0:
                    mine = self._opened()
                if self._enough.exists():
                    for session in self._opened():
                        self._close(session)
                elif len(mine) < SESSIONS:
                    mine.append(self._open(number))
                elif time.monotonic() > turn + TURN_S:
                    turn = time.monotonic()
                    self._close(mine.pop(0))
                elif number % 2:
                    kind = self._dice.choice(("question", "remark"))
                    self._agent.send(self._dice.choice(self._others), f"{kind} {number} {'x' * (number % 500)}")
                else:
                    text = f"text {number} {'x' * (number % 500)}"
                    run(sessioncalls.say(self._caller, self._dice.choice(mine), text))
            except BackchannelError as error:
                if error.code not in PASSING:
                    raise

    def _opened(self) -> list[str]:
        """Those we opened and have not closed, oldest first."""
        found = self._agent.sessions(is_open=True)
        return [s.id for s in reversed(found) if s.role == "initiator" and s.state in ("SYN-SENT", "ESTABLISHED")]

    def _open(self, number: int) -> str:
        session = wire.new_id("s")
        run(sessioncalls.offer(self._caller, session, self._dice.choice(self._others), f"task {number}", 600.0))
        return session

    def _close(self, session: str) -> None:
        run(sessioncalls.close(self._caller, session))


if __name__ == "__main__":
    main()
