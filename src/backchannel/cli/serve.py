"""`backchannel serve NAME --exec COMMAND...`: any program as an agent, one run of it for each session.

The task is the first line on the program's stdin, then the peer's texts as they come, and the end of the input when the
peer has said all. Every line it prints is said back. Its exit closes the session: 0 as `ok`; anything else as `failed`,
with the last lines of its stderr as the result.

What a crash costs. An offer is not accepted before there is room to run it, so what waits loses nothing. A program that
dies is a session that failed: its peer is told. If `serve` itself dies, its programs are ended by the kernel, and the
sessions stay open in the daemon; the next `serve` runs each of them again, from the beginning: it gets the task, every
text that came before (from the daemon's history), and what is new. What the first run printed is not said twice as long
as the second prints the same lines in the same order; from the first line that differs everything is said. Effects
beside the session happen again: `BACKCHANNEL_AGAIN=1` tells the program so.
"""

import argparse
import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from typing import Any, NoReturn

from ..client import sessioncalls
from ..client.aio import AsyncAgent
from ..client.aiodrive import run
from ..client.aiosessions import AsyncSession
from ..errors import BackchannelError, LocalProtocolError, OverLimit, Refused
from ..protocol.codec import encode
from .common import first_line
from .main import report

LINE_BYTES_MAX = 1 << 20  # of what a program prints; the wire takes no longer text
STDERR_LINES = 10  # of a program that failed, for its peer
STDERR_CHARS_MAX = 2000
STOP_S = 2.0  # for a program to end when it is told to
SLOWLY_S = 1.0  # until a daemon that said "too fast" or "full" is asked again
LINGERING_MAX = 32  # sessions that we closed and whose peer has not; each costs a connection
TASK_CHARS_MAX = 60
PR_SET_PDEATHSIG = 1


def serve_sessions(options: argparse.Namespace) -> int:
    """Serves until it is stopped: by SIGTERM (0), an interruption (130), or because the agent is down (5)."""
    if not options.program or shutil.which(options.program[0]) is None:
        named = " ".join(options.program[:1]) or "nothing"
        raise LocalProtocolError(
            f"--exec names no program that can be run ({named})", code="usage", hint="--exec COMMAND ARGUMENT..."
        )
    try:
        asyncio.run(_Server(options).serve())
    except asyncio.CancelledError:
        pass  # told to stop; the sessions stay, for the next one
    return 0


class _Server:
    """Takes sessions up as there is room, and looks after their runs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._name = options.name
        self._program = options.program
        self._as_json = options.json
        self._room = asyncio.Semaphore(options.max)
        self._tasks = asyncio.TaskGroup()
        self._lingering: deque[asyncio.Task[None]] = deque()

    async def serve(self) -> None:
        this = asyncio.current_task()
        assert this is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
        try:
            async with AsyncAgent(self._name) as me, self._tasks:
                await self._take_up_again(me)
                await self._take_requests(me)
        except BaseExceptionGroup as group:
            for error in group.exceptions:
                if isinstance(error, BackchannelError):
                    raise error from None
            raise

    async def _take_requests(self, me: AsyncAgent) -> None:
        """An offer is accepted when there is room for it, and not before."""
        requests = me.requests()
        while True:
            await self._room.acquire()
            request = await anext(requests)
            try:
                session = await request.accept()
            except LocalProtocolError:  # answered or given up meanwhile
                self._room.release()
                continue
            self._tell("accepted", session, peer=session.peer, task=session.task)
            self._tasks.create_task(self._run(session, is_again=False))

    async def _take_up_again(self, me: AsyncAgent) -> None:
        """What this agent accepted, and no process of it holds: its program died with an earlier `serve`."""
        for record in reversed(await me.sessions(is_open=True)):
            if record.role != "acceptor" or record.state in sessioncalls.UNANSWERED:
                continue
            await self._room.acquire()
            try:
                session = await me.session(record.id)
            except Refused:  # another process is at it
                self._room.release()
                continue
            if session.state in sessioncalls.TALKING:
                self._tell("again", session, peer=session.peer, task=session.task)
                self._tasks.create_task(self._run(session, is_again=True))
            else:
                self._room.release()
                self._linger(session)

    async def _run(self, session: AsyncSession, *, is_again: bool) -> None:
        try:
            program = _Program(session, self._program, as_json=self._as_json, is_again=is_again)
            status, result = await program.run()
            await session.close(result, status)
            self._tell("closed", session, status=status, result=result)
            self._linger(session)
        except BackchannelError as error:  # the session ended before its program did
            report(error, as_json=self._as_json)
        finally:
            self._room.release()

    def _linger(self, session: AsyncSession) -> None:
        """Processes what the peer still says until it closes too, so that the session can finish."""
        while len(self._lingering) >= LINGERING_MAX:
            self._lingering.popleft().cancel()
        task = self._tasks.create_task(_read_to_the_end(session))
        self._lingering.append(task)
        task.add_done_callback(lambda done: self._lingering.remove(done) if done in self._lingering else None)

    def _tell(self, event: str, session: AsyncSession, **facts: str) -> None:
        if self._as_json:
            print(encode({"event": event, "session": session.id, **facts}), flush=True)
        else:
            told = "  ".join(first_line(fact, TASK_CHARS_MAX) for fact in facts.values() if fact)
            print(f"{session.id}  {event}  {told}".rstrip(), flush=True)


async def _read_to_the_end(session: AsyncSession) -> None:
    try:
        async for _ in session:
            pass
        await session.wait()
    except BackchannelError:
        pass  # it ended otherwise; our result was said


class _Program:
    """One run of the program for one session."""

    def __init__(self, session: AsyncSession, command: list[str], *, as_json: bool, is_again: bool) -> None:
        self._session = session
        self._command = command
        self._as_json = as_json
        self._is_again = is_again
        self._heard: list[str] = []  # what an earlier run was told already
        self._said: deque[str] = deque()  # what an earlier run printed, as long as this one prints the same
        self._last_words: deque[str] = deque(maxlen=STDERR_LINES)
        self._process: asyncio.subprocess.Process

    async def run(self) -> tuple[str, str]:
        """Status and result. Raises what ended the session meanwhile; the program does not outlive this call."""
        if self._is_again:
            await self._remember()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment(),
                limit=LINE_BYTES_MAX,
                start_new_session=True,  # an interruption is ours to hear; and whatever it starts ends with it
                preexec_fn=_end_with_parent,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return "failed", f"the program could not be started: {error}"
        feeding, work = asyncio.create_task(self._feed()), asyncio.create_task(self._listen())
        try:
            await asyncio.wait({feeding, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await feeding  # raises how the session ended
            return work.result()
        finally:
            for task in (feeding, work):
                task.cancel()
            await asyncio.gather(feeding, work, return_exceptions=True)
            await self._end()

    async def _remember(self) -> None:
        caller, session_id = self._session._caller, self._session.id
        _, events = await run(sessioncalls.history(caller, session_id, text=True))
        for event in events:
            if event["kind"] == "DATA" and event["direction"] == "out":
                self._said.append(event["text"])
            elif event["kind"] == "DATA" and event["acked_at"] is not None:
                self._heard.append(event["text"])

    def _environment(self) -> dict[str, str]:
        session = self._session
        own = {"AGENT": session._caller.me(), "SESSION": session.id, "PEER": session.peer}
        found = os.environ | {f"BACKCHANNEL_{key}": value for key, value in own.items()}
        return found | ({"BACKCHANNEL_AGAIN": "1"} if self._is_again else {})

    async def _feed(self) -> NoReturn:
        """The task, then the texts; each is acknowledged when it was written and the next is asked for.

        Never returns: when there is nothing more to feed it watches for the peer ending the session, and raises that.
        """
        stdin = self._process.stdin
        assert stdin is not None
        try:
            for kind, text in (("task", self._session.task), *(("data", text) for text in self._heard)):
                stdin.write(self._line(kind, text))
            await stdin.drain()
            async for data in self._session:
                stdin.write(self._line("data", data.text))
                await stdin.drain()
            stdin.close()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it reads no more; it may go on without
        session = await self._session.refresh()
        caller, record = session._caller, dict(session.record.raw)
        raise sessioncalls.ended(await run(sessioncalls.watch_until(caller, record, sessioncalls.is_closed, None)))

    def _line(self, kind: str, text: str) -> bytes:
        if self._as_json:
            text = encode({"kind": kind, "session": self._session.id, "from": self._session.peer, "text": text})
        return (text + "\n").encode()

    async def _listen(self) -> tuple[str, str]:
        """Says what it prints until it ends. Status and result."""
        complaint = ""
        hearing = asyncio.create_task(self._hear_last_words())
        try:
            await self._say_lines()
        except OverLimit as error:
            complaint = str(error)
        except ValueError:
            complaint = f"it printed a line of more than {LINE_BYTES_MAX} bytes"
        if complaint:
            await self._end()
        code = await self._process.wait()
        await hearing
        if code == 0 and not complaint:
            return "ok", ""
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        words = "\n".join(self._last_words)[-STDERR_CHARS_MAX:]
        return "failed", complaint or words or ended

    async def _say_lines(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode(errors="replace").removesuffix("\n")
            if self._said and self._said[0] == text:
                self._said.popleft()
                continue
            self._said.clear()
            await self._say(text)

    async def _say(self, text: str) -> None:
        """Waits as long as it takes: the program is held back by its own full pipe."""
        while True:
            try:
                await self._session.send(text, timeout=None)
                return
            except OverLimit as error:
                if not error.retry:
                    raise
            await asyncio.sleep(SLOWLY_S)

    async def _hear_last_words(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        rest = b""
        while chunk := await stderr.read(LINE_BYTES_MAX):
            sys.stderr.buffer.write(chunk)
            sys.stderr.buffer.flush()
            *lines, rest = (rest + chunk[-LINE_BYTES_MAX:]).split(b"\n")
            self._last_words.extend(line.decode(errors="replace") for line in lines)
        if rest:
            self._last_words.append(rest.decode(errors="replace"))

    async def _end(self) -> None:
        """Ends the program and what it started, if they run."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.returncode is not None:
                return
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                return
            try:
                await asyncio.wait_for(asyncio.shield(self._process.wait()), STOP_S)
            except TimeoutError:
                pass


def _end_with_parent() -> None:
    """In the child: the kernel ends it when `serve` is gone. An input that was cut off is no end of the input."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


_LIBC: Any = ctypes.CDLL(None)
