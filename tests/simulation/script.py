"""One end of one session, as a script in the format of `conformance/sessions`.

It listens at the endpoint: calls, frames, answers, timers and restarts, as far as they were committed and not lost with
the disk. Played again alone (`tests/scripts.py`) they give what the machine then did, so a failing seed becomes a few
lines that can be read, shortened, and kept. What happened outside the machine is not in it, nor a commit whose daemon
died before it heard of it.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from msgspec import to_builtins

from backchannel.protocol import sessionframe as frames
from backchannel.protocol.effects import Answer
from backchannel.protocol.endpoint import Endpoint
from backchannel.protocol.session import Local, Session, Snapshot
from backchannel.protocol.sessionframe import Limits, SessionFrame
from tests import scripts

if TYPE_CHECKING:
    from .daemon import Daemon
    from .world import World

Step = dict[str, Any]

# Each call of the endpoint, and the names that its arguments have in a script.
CALLS = {
    "open": ("session", "peer", "task", "limits", "at"),
    "accept": ("session", "at", "limits"),
    "reject": ("session", "reason", "at", "retry_after"),
    "send": ("session", "body", "at"),
    "close": ("session", "at", "status", "result"),
    "ack": ("session", "seq", "at"),
    "abort": ("session", "reason", "at"),
    "fail": ("session", "reason", "at"),
    "progress": ("session", "note", "at"),
    "probe": ("session", "at"),
}


class Recorder:
    """Listens while `listening`; `script` tells one end's story afterwards."""

    def __init__(self) -> None:
        self.world: World | None = None
        self._steps: dict[tuple[str, str], list[tuple[int, Step]]] = {}  # by daemon and session: pass, step

    @contextmanager
    def listening(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, arguments in CALLS.items():
                stack.enter_context(patch.object(Endpoint, name, self._call(name, arguments)))
            for name, hears in (
                ("receive", self._hear_frame), ("answered", self._hear_answer), ("handle_timer", self._hear_timer),
                ("committed", self._hear_commit),
            ):  # fmt: skip
                stack.enter_context(patch.object(Endpoint, name, heard(getattr(Endpoint, name), hears)))
            stack.enter_context(patch.object(Endpoint, "restore", self._restored()))
            yield

    def script(self, name: str, session: str) -> dict[str, Any]:
        """The file that tells what `name` saw of the session."""
        assert self.world is not None
        daemon = self.world.daemons[name]
        kept = [step for passed, step in self._steps.get((name, session), []) if not daemon.is_lost(passed)]
        told = Names(session, daemon)
        steps = []
        live = Session(Local("L1", 1), Snapshot("s1", "peer"))
        for step in kept:
            step = {"at": round(step["at"], 4), "in": told.plainly(step["in"])}
            live, out = scripts.take(live, json.loads(json.dumps(step)))
            state = live.state.value + (f" {live.cause.value}" if live.cause else "")
            steps.append({**step, "out": out, "state": state})
        title = f"seed_{self.world.seed}_{name}"
        return {"starts": {"NONE": []}, "scripts": [{"name": title, "start": "NONE", "steps": steps}]}

    # --- listening ----------------------------------------------------------------------------------------------------

    def _note(self, endpoint: Endpoint, session: str, now: float, what: Step) -> None:
        assert self.world is not None
        daemon = self.world.at_work
        if endpoint is not self.world.endpoint_at_work:
            return
        steps = self._steps.setdefault((daemon.name, session), [])
        if not steps and endpoint.local.epoch != 1:  # a script begins in the first
            steps.append((-1, {"at": now, "in": {"restart": endpoint.local.epoch}}))
        steps.append((-1, {"at": now, "in": what}))

    def _call(self, name: str, names: tuple[str, ...]) -> Callable[..., Any]:
        original = getattr(Endpoint, name)

        @wraps(original)
        def call(endpoint: Endpoint, *given: Any, **options: Any) -> Any:
            effects = original(endpoint, *given, **options)  # a refused call changes nothing, and is no step
            said = dict(zip(names, given, strict=False)) | options
            session, at = said.pop("session"), said.pop("at")
            said.pop("peer", None)
            if isinstance(said.get("limits"), Limits):
                said["limits"] = to_builtins(said["limits"])
            self._note(endpoint, session, at, {"call": name, **{k: v for k, v in said.items() if v is not None}})
            return effects

        return call

    def _hear_frame(self, endpoint: Endpoint, peer: str, frame: SessionFrame, now: float) -> None:
        self._note(endpoint, frame.session, now, {"frame": frame})

    def _hear_answer(self, endpoint: Endpoint, answer: Answer, now: float) -> None:
        self._note(endpoint, answer.frame.session, now, {"answer": answer})

    def _hear_timer(self, endpoint: Endpoint, now: float) -> None:
        for session in endpoint.sessions():
            if session.deadline is not None and session.deadline <= now:
                self._note(endpoint, session.id, now, {"timer": True})

    def _hear_commit(self, endpoint: Endpoint, pass_number: int, now: float) -> None:
        """What came since the last commit is on the disk."""
        assert self.world is not None
        for steps in self._of(self.world.at_work):
            steps[:] = [(self.world.at_work.passes if passed < 0 else passed, step) for passed, step in steps]

    def _restored(self) -> Any:
        original = Endpoint.restore.__func__  # type: ignore[attr-defined]

        def restore(cls: type[Endpoint], local: Local, *given: Any, shift: float = 0.0) -> Endpoint:
            assert self.world is not None
            endpoint: Endpoint = original(cls, local, *given, shift=shift)
            daemon, now = self.world.at_work, given[-1]
            for steps in self._of(daemon):
                steps[:] = [(passed, step) for passed, step in steps if passed >= 0]
                if steps:
                    restart = {"restart": local.epoch} | ({"shift": shift} if shift else {})
                    steps.append((daemon.passes + 1, {"at": now, "in": restart}))
            self.world.endpoint_at_work = endpoint
            return endpoint

        return classmethod(restore)

    def _of(self, daemon: "Daemon") -> list[list[tuple[int, Step]]]:
        return [steps for (name, _), steps in self._steps.items() if name == daemon.name]


class Names:
    """The short names that a script uses: our mailbox is L1, the peer's P1 and, once it lost that, P2 and so on."""

    def __init__(self, session: str, daemon: "Daemon") -> None:
        self._session = session
        self._mailboxes: dict[str | None, str | None] = {None: None}
        if daemon.host is not None:
            self._mailboxes[daemon.host.mailbox.mailbox_id] = "L1"

    def plainly(self, given: Step) -> Step:
        if isinstance(given.get("frame"), SessionFrame):
            return self._frame(given["frame"])
        if isinstance(given.get("answer"), Answer):
            answer = given["answer"]
            said: Step = {"answer": f"{answer.frame.kind} {answer.frame.number}", "outcome": answer.outcome.value}
            said |= {"mailbox": self._mailbox(answer.mailbox), "epoch": answer.epoch}
            said |= {"reason": answer.reason} if answer.reason else {}
            said |= {"retry": True} if answer.retry else {}
            if answer.probe is not None:
                said["probe"] = {k: v for k, v in self._frame(answer.probe).items() if k != "frame"}
            return said
        return given

    def _frame(self, frame: SessionFrame) -> Step:
        kind = next(word for word, known in scripts.KINDS.items() if isinstance(frame, known))
        said = to_builtins(frame)
        del said["session"]
        said["from_mailbox"] = self._mailbox(frame.from_mailbox)
        said["to_mailbox"] = self._mailbox(frame.to_mailbox)
        if isinstance(frame, frames.Syn | frames.Rst) and frame.number is not None:
            said["number"] = list(frame.number)
        return {"frame": kind, **said}

    def _mailbox(self, mailbox: str | None) -> str | None:
        if mailbox not in self._mailboxes:
            peers = sum(str(name).startswith("P") for name in self._mailboxes.values())
            self._mailboxes[mailbox] = f"P{peers + 1}"
        return self._mailboxes[mailbox]


def heard(original: Any, hears: Callable[..., None]) -> Any:
    @wraps(original)
    def method(endpoint: Endpoint, *given: Any, **options: Any) -> Any:
        hears(endpoint, *given, **options)
        return original(endpoint, *given, **options)

    return method


def write(path: Path, book: dict[str, Any]) -> None:
    """One step on a line, as the files of `conformance/sessions` have it."""
    script = book["scripts"][0]
    steps = ",\n".join("   " + json.dumps(step) for step in script["steps"])
    head = f'  {{"name": {json.dumps(script["name"])}, "start": "NONE", "steps": ['
    path.write_text(f'{{\n "starts": {{"NONE": []}},\n "scripts": [\n{head}\n{steps}\n  ]}}\n ]\n}}\n')
