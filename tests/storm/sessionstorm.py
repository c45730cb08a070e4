"""The storm over sessions: who talks is `talker`, who judges `sessionhistory`."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from backchannel import PeerAbsent, TimedOut
from backchannel.client import calls, wire
from backchannel.client.drive import run
from backchannel.protocol.codec import encode
from backchannel.transport.paths import register, write_private

from . import nursery
from .journal import Kinds, parse
from .sessionhistory import ANSWERS, CAUSES, KINDS, End, Frame, Mail, SessionHistory
from .storm import NAMES, ROOT, Kills, Storm


class Outcome(NamedTuple):
    history: SessionHistory
    kills: Kills
    seconds: float
    wrong: list[str]  # what the audit found


class SessionStorm(Storm):
    """Each opens sessions with each other one, for as long as it storms. Who is killed is born again in the nursery."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        os.mkfifo(folder / nursery.BIRTHS)
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", nursery.__name__, str(folder)],
            cwd=ROOT, env=self.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def start(self, name: str) -> None:
        others = ",".join(other for other in NAMES if other != name)
        self._tell("agent", name, others, str(self.folder))

    def kill_agent(self, name: str) -> bool:
        is_killed = bool(self._tell("kill", "agent", name))
        if is_killed:
            self.start(name)
        return is_killed

    def kill_daemon(self, name: str) -> bool:
        return bool(self._tell("kill", "daemon", name))

    def ended(self) -> dict[str, int]:
        found: dict[str, int] = self._tell("ended")
        return found

    def end(self) -> None:
        self._nursery.communicate()  # it ends when nobody speaks to it any more

    def _tell(self, *words: str) -> Any:
        assert self._nursery.stdin
        assert self._nursery.stdout
        self._nursery.stdin.write(json.dumps(words).encode() + b"\n")
        self._nursery.stdin.flush()
        return json.loads(self._nursery.stdout.readline())

    def blow(self, kills: int, *, rest_s: float) -> Outcome:
        """So many kills; then everything has to come to rest within `rest_s` seconds."""
        for name in NAMES:
            register(self.places, name)
            argv = nursery.command(self.folder, name, self.places.state_dir)
            write_private(self.places.state(name, "run"), encode(argv))
        began = time.monotonic()
        try:
            for name in NAMES:
                self.start(name)
            killed = self.kill_some(kills)
            (self.folder / "enough").touch()
            self._wait_for_rest(rest_s)
            (self.folder / "over").touch()
            self.wait_for_all(30)
            seconds = time.monotonic() - began
            caller = wire.Caller(None, self.places)
            wrong = self.audit(caller)
            for name in NAMES:
                assert run(calls.stop(caller, name))
            caller.close()
            return Outcome(self._collect(), killed, seconds, wrong)
        finally:
            self.end()

    def _wait_for_rest(self, patience_s: float) -> None:
        caller = wire.Caller(None, self.places)
        deadline = time.monotonic() + patience_s
        while busy := [why for name in NAMES if (why := self._is_busy(caller, name))]:
            assert time.monotonic() < deadline, f"nobody kills any more, and there is no rest: {busy}"
            assert not self.ended_well()
            time.sleep(0.2)
        caller.close()

    def _is_busy(self, caller: wire.Caller, name: str) -> str:
        """Why this agent is not at rest; empty if it is."""
        try:
            status = run(calls.status(caller, name))
        except (PeerAbsent, TimedOut) as error:
            return f"{name}: {error}"
        is_open = {state: count for state, count in status["sessions"].items() if state != "CLOSED"}
        is_idle = (self.folder / f"{name}.idle").exists()
        if is_idle and not is_open and not status["outbox"] and not status["backlog"]:
            return ""
        return f"{name}: {is_open}, {status['outbox']} queued, {status['backlog']} waiting, idle {is_idle}"

    def _collect(self) -> SessionHistory:
        ends, frames, mail, counters = [], [], [], {}
        for name in NAMES:
            db = sqlite3.connect(f"file:{self.places.state(name, 'mailbox.db')}?mode=ro", uri=True)
            ends += [End(name, *row) for row in db.execute(ENDS)]
            frames += [
                Frame(name, session, kind, number, _text(params), stage)
                for session, kind, number, params, stage in db.execute(FRAMES)
            ]
            mail += [_mail(name, *row) for row in db.execute(MAIL)]
            counters[name] = {
                role: dict(zip(("opened", *CAUSES, "open"), counts, strict=True))
                for role, *counts in db.execute(COUNTERS)
            }
            db.close()
        journals = {name: _read(self.journal(name), KINDS) for name in NAMES}
        answers = [e for name in NAMES for e in _read(f"{self.places.state_dir}/{name}.answers", ANSWERS)]
        return SessionHistory(journals, answers, ends, frames, mail, counters)


ENDS = (
    "SELECT id, peer, role, state, cause, reason, retry_after, status, result, peer_status, peer_result FROM sessions"
)
FRAMES = "SELECT session, kind, number, params, stage FROM frames"
MAIL = "SELECT id, session, kind, text, stage, delivery FROM messages"
COUNTERS = (
    "SELECT role, opened, finished, rejected, aborted, reset, expired,"
    " (SELECT count(*) FROM sessions s WHERE s.role = c.role AND s.state <> 'CLOSED') FROM session_counters c"
)


def _text(params: bytes) -> str:
    return str(json.loads(params).get("text", ""))


def _mail(agent: str, mail_id: str, session: str | None, kind: str, text: Any, stage: str, delivery: int) -> Mail:
    place = mail_id.partition("/")[2] if session else mail_id
    return Mail(agent, session, kind, place, json.loads(text), stage, delivery)


def _read(path: str, kinds: Kinds) -> list[Any]:
    return parse(Path(path).read_bytes(), kinds)
