"""One agent of the storm: `tests.storm.agent NAME OTHERS COUNT PREFETCH JOURNAL`. It may be killed at any instruction.

It sends COUNT messages to each of OTHERS in one thread, each under a key, and receives in another. What it is told
goes to JOURNAL before its next step; started again, it reads there how far it came and repeats what has no receipt.
"""

import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable

from backchannel import Agent, PeerAbsent, Refused, TimedOut
from backchannel.client import calls
from backchannel.client.drive import run

from .history import KINDS, Acked, Handed, Sent, Told
from .journal import Journal

LOOK_BACK = 20  # one send in so many is followed by a question about an earlier one


def main() -> None:
    name, others, count, prefetch, path = sys.argv[1:]
    journal = Journal(path, KINDS)
    if not any(isinstance(event, Sent) for event in journal.tail):
        journal.look_further_back()  # it has long been only receiving
    targets = others.split(",")
    agent = join(name)
    sender = threading.Thread(target=surely, args=(send_all, agent, journal, targets, int(count)))
    sender.start()
    surely(receive_all, agent, journal, len(targets) * int(count), int(prefetch))
    sender.join()
    agent.close()


def surely(work: Callable[..., None], *arguments: object) -> None:
    """A thread that fails must not fail alone."""
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def join(name: str) -> Agent:
    while True:
        try:
            return Agent(name)
        except (PeerAbsent, TimedOut):
            pass  # its daemon was killed while it started


def send_all(agent: Agent, journal: Journal, targets: list[str], count: int) -> None:
    receipted = {e.key for e in journal.tail if isinstance(e, Told) and e.by_push}
    began = max([e.number for e in journal.tail if isinstance(e, Sent)], default=0)
    dice = random.Random(os.getpid())
    for number in range(began, count):
        for to in targets:
            key = f"{agent.name}-{to}-{number:06}"
            if key in receipted:
                continue
            text = f"{key} {'x' * (64 + number % 400)}"
            journal.write(Sent(agent.name, to, number, key, text, time.monotonic()))
            tell(agent, journal, to, key, text)
            if number and dice.randrange(LOOK_BACK) == 0:
                tell(agent, journal, to, f"{agent.name}-{to}-{dice.randrange(number):06}")


def tell(agent: Agent, journal: Journal, to: str, key: str, text: str | None = None) -> None:
    """Sends, or without a text only asks; until there is an answer."""
    while True:
        asked = time.monotonic()
        try:
            receipt = agent.status(key, to) if text is None else agent.send(to, text, key=key)
            break
        except (PeerAbsent, TimedOut):
            pass  # unknown: say it again
    stage, duplicate = receipt.stage.value, receipt.duplicate
    assert receipt.mailbox_id is not None, "the storm's agents push directly"
    assert receipt.msg_no is not None
    place = (receipt.mailbox_id, receipt.msg_no)
    journal.write(Told(agent.name, to, key, text is not None, stage, duplicate, *place, asked, time.monotonic()))


def receive_all(agent: Agent, journal: Journal, expected: int, prefetch: int) -> None:
    while not has_all(agent, expected):
        try:
            for delivery in agent.receive(wait=0.2, prefetch=prefetch):
                sender, key, number = delivery.sender, delivery.id, delivery.delivery
                journal.write(Handed(agent.name, sender, key, delivery.text, number, delivery.msg_no, time.monotonic()))
                delivery.ack()
                journal.write(Acked(agent.name, sender, key, number, time.monotonic()))
        except (PeerAbsent, TimedOut, Refused):
            pass  # what was not acked comes again


def has_all(agent: Agent, expected: int) -> bool:
    """Whether everything that will ever be sent to us has been acked."""
    try:
        status = run(calls.status(agent._caller, agent.name))
    except (PeerAbsent, TimedOut):
        return False
    return status["counters"].get("total", 0) == expected and not status["backlog"]


if __name__ == "__main__":
    main()
