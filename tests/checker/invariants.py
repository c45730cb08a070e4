"""What must be true in every world, by the names of `docs/protocol.md` 5.4.

`broken` names all that are not. P1 is not here: it speaks of ways, not of worlds.
"""

from collections.abc import Iterator

from backchannel.protocol import sendqueue
from backchannel.protocol.states import Cause, State

from .node import Agent, Node, said
from .world import Config

UNANSWERED = (State.NONE, State.SYN_SENT)
LAST_WORDS = {
    Cause.FINISHED: {"ACK"},
    Cause.REJECTED: {"REJ"},
    Cause.ABORTED: {"RST"},
    Cause.EXPIRED: {"RST"},
    Cause.RESET: {"RST"},
}
"""What may still lie in the outbox of a session that ended so."""
EARLY = (Cause.RESET, Cause.ABORTED, Cause.EXPIRED)


def broken(config: Config, a: Node, b: Node, faults: tuple[int, int], quiet: bool) -> Iterator[str]:
    for me, peer in ((a, b), (b, a)):
        if me.unforeseen:
            yield f"exception: {me.unforeseen}"
        for name, holds in of_one_end(config, me, peer, any(faults)).items():
            if not holds:
                yield name
    if not causes_agree(config, a, b, any(faults)):
        yield "I8"
    if quiet:
        yield from at_rest(a, b, any(faults))


def of_one_end(config: Config, me: Node, peer: Node, faulty: bool) -> dict[str, bool]:
    mine, truth = me.session, peer.agent
    send, recv = mine.send, mine.recv
    rows = [said(row) for row in me.disk.mail] + list(me.agent.processed)
    excused = faulty or truth.forgot or peer.disk.session is None or mine.cause is Cause.REJECTED
    sequence = [row for row in me.agent.processed if row != "FIN"]
    return {
        "I1": me.agent.offers <= 1 or (faulty and any(config.rolls_back)),
        "I2": all((row == "FIN" and truth.closed) or row in bodies(peer) for row in rows),
        "order": (sequence == sorted(sequence) and len(set(rows)) == len(rows)) or faulty,
        "I3": send.snd_una - 1 <= len(truth.processed),
        "I4": mine.cause is not Cause.FINISHED or is_finished(me, peer, faulty),
        "I5": me.name == "b" or mine.state in UNANSWERED or mine.state is State.CLOSED or truth.accepted,
        "I6": me.name == "b" or mine.cause is not Cause.REJECTED or truth.rejected,
        "I7": not (truth.accepted and truth.rejected) or faulty,
        "I9": mine.cause not in EARLY or config.ends_early or faulty,
        "I10": recv.acked <= max(recv.rcv_nxt, 1),
        "window": send.snd_nxt - send.snd_una - (send.fin is not None) <= sendqueue.WINDOW,
        "rows": not mine.state.is_open or numbered_rows(me) == list(range(send.receipted, send.snd_nxt)),
        "last words": mine.cause is None or {row.id.kind for row in me.disk.outbox} <= LAST_WORDS[mine.cause],
        "receipts": excused or send.receipted <= peer.session.recv.rcv_nxt,
        "mail": not mine.state.is_open or len(me.disk.mail) == max(recv.rcv_nxt, 1) - recv.acked,
    }


def causes_agree(config: Config, a: Node, b: Node, faulty: bool) -> bool:
    causes = {node.session.cause for node in (a, b)}
    return len(causes) == 1 or None in causes or config.ends_early or faulty


def at_rest(a: Node, b: Node, faulty: bool) -> Iterator[str]:
    """Nothing is under way: neither may wait for what the other will not do, and both count the same.

    An agent whose daemon lost the note of its ack is handed the message again: until it acks that, the peer's count is
    higher, and the peer may have finished.
    """
    if a.session.state.is_open != b.session.state.is_open:
        left = a if a.session.state.is_open else b
        if not (faulty and left.disk.mail):
            yield "I11"
    elif a.session.state.is_open:
        for me, peer in ((a, b), (b, a)):
            send, recv = me.session.send, peer.session.recv
            if send.snd_nxt != recv.rcv_nxt or (
                send.snd_una != recv.acked and not (faulty and send.snd_una > recv.acked)
            ):
                yield "I12"


def is_finished(me: Node, peer: Node, faulty: bool) -> bool:
    """Both said FIN, and each agent processed all that the other sent.

    After a fault, all that the other was promised to be stored: what was lost with the disk it was written on is lost.
    """
    if not (me.agent.closed and peer.agent.closed):
        return False
    return all(has_all(x.agent, y, faulty) for x, y in ((me, peer), (peer, me)))


def has_all(reader: Agent, writer: Node, faulty: bool) -> bool:
    owed = {*writer.agent.receipted, "FIN"} if faulty else {*bodies(writer), "FIN"}
    return owed <= set(reader.processed)


def bodies(node: Node) -> list[str]:
    return [f"{node.name}{n + 1}" for n in range(node.agent.sent)]


def numbered_rows(node: Node) -> list[int]:
    return [row.id.number for row in node.disk.outbox if row.id.kind != "ACK"]
