"""Where agents and daemons of a storm are born: `tests.storm.nursery FOLDER`, a process that has imported all they
need, and forks. An interpreter's start costs ten times as much as what a process of the storm does until it is killed.

Agents are started by whoever holds our stdin; daemons by whoever needs one, as always: the command that is recorded
with the name writes its arguments into the FIFO `births`. All of them end with our stdin.
"""

import gc
import json
import os
import select
import shlex
import signal
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from backchannel.transport.paths import Places

from . import daemon, talker

BIRTHS = "births"
LOOK_S = 0.05


def command(folder: Path, name: str, state: str) -> list[str]:
    """What is to be recorded as the start of a daemon."""
    births = shlex.quote(str(folder / BIRTHS))
    # Opened for reading too, it waits for nobody: the nursery may be gone.
    return ["/bin/sh", "-c", f'printf "%s\\n" "$*" 1<> {births}', "sh", name, "--state", state]


def main() -> None:
    folder = Path(sys.argv[1])
    gc.freeze()
    Nursery(folder).work()


class Nursery:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._births = os.open(folder / BIRTHS, os.O_RDWR | os.O_NONBLOCK)  # for writing too, so that it has no end
        self._alive: dict[tuple[str, str], set[int]] = defaultdict(set)
        self._ended: dict[str, int] = {}  # agents that were not killed, and their status

    def work(self) -> None:
        """Until our stdin ends; then nobody is left."""
        poll = select.poll()
        poll.register(self._births, select.POLLIN)
        poll.register(0, select.POLLIN)
        try:
            while True:
                for fd, _ in poll.poll(LOOK_S * 1000):
                    if fd == self._births:
                        for birth in os.read(fd, 65536).decode().splitlines():
                            self._daemon(birth.split(" "))
                    elif line := sys.stdin.buffer.readline():
                        self._answer(*json.loads(line))
                    else:
                        return
                self._bury()
        finally:
            for pids in self._alive.values():
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)

    def _answer(self, what: str, *words: str) -> None:
        answer: object = None
        match what:
            case "agent":
                name, *_ = words
                log = str(self._folder / f"{name}.err")
                self._fork(("agent", name), log, lambda: self._run(talker.main, list(words)))
            case "kill":
                answer = self._kill(*words)
            case "ended":
                answer = self._ended
        print(json.dumps(answer), flush=True)

    def _daemon(self, argv: list[str]) -> None:
        name, state = argv[0], argv[2]
        log = Places("", state).state(name, "log")
        self._fork(("daemon", name), log, lambda: self._run(daemon.main, argv))

    @staticmethod
    def _run(main: Callable[[], None], argv: list[str]) -> None:
        sys.argv[1:] = argv
        main()

    def _fork(self, who: tuple[str, str], log: str, work: Callable[[], None]) -> None:
        if pid := os.fork():
            self._alive[who].add(pid)
            return
        status = 1
        try:
            os.setsid()
            os.close(self._births)
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.dup2(out, 1)
            os.dup2(out, 2)
            work()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _kill(self, kind: str, name: str) -> int:
        """How many there were."""
        self._bury()
        pids = self._alive[kind, name]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        killed = len(pids)
        pids.clear()
        return killed

    def _bury(self) -> None:
        """Those that ended by themselves."""
        for (kind, name), pids in self._alive.items():
            for pid in list(pids):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    pids.remove(pid)
                    if kind == "agent":
                        self._ended[name] = os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
