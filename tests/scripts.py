"""Plays the session scripts of `conformance/sessions/`: at t this comes in, that goes out.

The format is explained there, for any implementation. A script that does not go as written is told as a list of
differences, so that tests, mutants and people can all use it.
"""

import json
from pathlib import Path
from typing import Any

from backchannel.errors import BackchannelError
from backchannel.protocol import sessionframe as frames
from backchannel.protocol.effects import (
    Answer,
    Deliver,
    Effect,
    Enqueue,
    Forget,
    Report,
    Resume,
    Saying,
    Strike,
    StrikeAll,
    Transmit,
)
from backchannel.protocol.events import (
    DataAcknowledged,
    PeerProgressed,
    SessionAccepted,
    SessionClosed,
    SessionOffered,
)
from backchannel.protocol.session import Local, Session, Snapshot
from backchannel.protocol.sessionframe import FrameId, Limits, SynNumber
from backchannel.protocol.states import Outcome

FOLDER = Path(__file__).parents[1] / "conformance" / "sessions"
KINDS = {
    "SYN": frames.Syn, "SYN-ACK": frames.SynAck, "REJ": frames.Rej, "DATA": frames.Data,
    "FIN": frames.Fin, "ACK": frames.Ack, "RST": frames.Rst, "PROBE": frames.Probe,
}  # fmt: skip


def scripts() -> list[Path]:
    return sorted(FOLDER.glob("*.json"))


def differences(path: Path) -> list[str]:
    """Where the scripts of a file do not go as written."""
    book = json.loads(path.read_text())
    return [said for script in book["scripts"] for said in play(script, book["starts"])]


def play(script: dict[str, Any], starts: dict[str, list[Any]]) -> list[str]:
    """Where one script does not go as written: the first such step, or nothing."""
    session = Session(Local("L1", 1), Snapshot("s1", "peer"))
    for step in starts[script["start"]]:
        session, _ = take(session, step)
    for number, step in enumerate(script["steps"], 1):
        session, out = take(session, step)
        state = session.state.value + (f" {session.cause.value}" if session.cause else "")
        for name, was, wanted in (("out", out, step["out"]), ("state", state, step["state"])):
            if was != wanted:
                return [f"{script['name']}, step {number}: {name} is {was}, not {wanted}"]
        if "deadline" in step and session.deadline != step["deadline"]:
            return [f"{script['name']}, step {number}: deadline is {session.deadline}, not {step['deadline']}"]
    return []


def take(session: Session, step: dict[str, Any]) -> tuple[Session, list[str]]:
    """One step: the session after it (another object after a restart), and what went out, in words."""
    now, given = step.get("at", 0.0), dict(step["in"])
    what = next(iter(given))
    try:
        if what == "restart":
            local = Local(given.get("mailbox", "L1"), given["restart"])
            return Session.restore(local, session.snapshot(), now, shift=given.get("shift", 0.0)), []
        effects: list[Effect | Saying] = [*enter(session, what, given, now)]
    except BackchannelError as error:
        return session, [f"error {error.code}"]
    if step.get("committed", True):
        effects += session.committed(session.version, now)
    return session, [in_words(effect) for effect in effects]


def enter(session: Session, what: str, given: dict[str, Any], now: float) -> list[Effect]:
    match what:
        case "frame":
            return session.receive(read_frame(given), now)
        case "answer":
            kind, number = given.pop("answer").split()
            given["outcome"] = Outcome(given["outcome"])
            counts = given.pop("probe", None)
            probe = read_frame({"frame": "PROBE", **counts}) if counts else None
            said = {"mailbox": "P1", "epoch": 1, **given, "probe": probe}
            return session.answered(Answer(FrameId("s1", kind, int(number)), **said), now)
        case "timer":
            return session.handle_timer(now)
        case "commit":
            return []
    call, arguments = given.pop("call"), given
    if "limits" in arguments:
        arguments["limits"] = Limits(**arguments["limits"])
    if call == "open":
        arguments = {"number": SynNumber(1, 1), "task": "task", "limits": Limits(), **arguments}
    effects: list[Effect] = getattr(session, call)(**arguments, now=now)
    return effects


def read_frame(given: dict[str, Any]) -> frames.SessionFrame:
    kind = KINDS[given["frame"]]
    header: dict[str, Any] = {"session": "s1", "from_mailbox": "P1", "to_mailbox": "L1", "epoch": 1, "to_epoch": 1}
    if kind is frames.Probe:
        header["began"] = 1
    if kind is frames.Syn:
        header["to_epoch"] = None
    fields = {**header, **{name: value for name, value in given.items() if name != "frame"}}
    if kind is frames.Syn:
        fields = {"number": [1, 1], "task": "task", **fields}
        fields["limits"] = Limits(**fields.get("limits", {}))
    if fields.get("number"):
        fields["number"] = SynNumber(*fields["number"])
    frame: frames.SessionFrame = kind(**fields)
    return frame


def in_words(effect: Effect | Saying) -> str:
    """One effect on one line; the README lists them."""
    match effect:
        case Enqueue(frame=frame):
            return f"enqueue {frame_in_words(frame)}"
        case Transmit(frame=frame):
            return f"transmit {frame_in_words(frame)}"
        case Strike(frame=frame_id, why=why):
            return f"strike {frame_id.kind} {frame_id.number} {why.value}"
        case StrikeAll(why=why):
            return f"strike all {why.value}"
        case Deliver(seq=seq, frame=frame):
            return f"deliver {seq} {text_in_words(frame) if isinstance(frame, frames.Data) else frame.result}".strip()
        case Answer(frame=frame_id, outcome=outcome, reason=reason, retry=retry, probe=probe):
            words = [f"answer {frame_id.kind} {frame_id.number} {outcome.value}", reason, "retry" if retry else ""]
            words.append(frame_in_words(probe).removeprefix("PROBE 0 ") if probe else "")
            return " ".join(word for word in words if word)
        case Report(event=SessionOffered(task=task)):
            return f"report offered {task}"
        case Report(event=SessionAccepted()):
            return "report accepted"
        case Report(event=DataAcknowledged(acked=acked)):
            return f"report acknowledged {acked}"
        case Report(event=PeerProgressed(note=note)):
            return f"report progressed {note}"
        case Report(event=SessionClosed() as closed):
            upto = f"stored {closed.stored_upto} acked {closed.acked_upto}"
            return f"report closed {closed.cause.value} ({closed.reason}) {upto}"
        case Forget() | Resume():
            return type(effect).__name__.lower()
        case _:
            raise AssertionError(effect)


def frame_in_words(frame: frames.SessionFrame) -> str:
    name = f"{frame.id.kind} {frame.id.number}"
    match frame:
        case frames.Data():
            return f"{name} {text_in_words(frame)}".strip()
        case frames.Rej(reason=said) | frames.Rst(reason=said) | frames.Syn(task=said):
            return f"{name} {said}".strip()
        case frames.Fin(status=status, result=result):
            return f"{name} {status} {result}".strip()
        case frames.Probe(rcv_nxt=rcv_nxt, acked=acked, receipted=receipted, note=note):
            return f"{name} rcv_nxt {rcv_nxt} acked {acked} receipted {receipted} {note}".strip()
        case _:
            return name


def text_in_words(data: frames.Data) -> str:
    return data.body + (" (input required)" if data.input_required else "")
