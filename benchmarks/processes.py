"""What the kernel says of a process, and how long whole processes take."""

import os
import subprocess
import time

from .bench import Samples


def memory_mb(pid: int) -> float:
    """Resident memory, in millions of bytes."""
    return _status(f"/proc/{pid}/status")["VmRSS"] * 1024 / 1e6


def wakeups(pid: int) -> int:
    """How often its threads have given up the CPU of their own will: an idle one does so once each time it wakes."""
    return sum(
        _status(f"/proc/{pid}/task/{tid}/status")["voluntary_ctxt_switches"] for tid in os.listdir(f"/proc/{pid}/task")
    )


def timed_commands(argv: list[str], environment: dict[str, str] | None, count: int, said: bytes = b"") -> Samples:
    """Milliseconds from before the start until the exit; every run must succeed. `said` is on standard input."""
    found = []
    for i in range(count + 1):
        began = time.perf_counter()
        subprocess.run(argv, env=environment, input=said, stdout=subprocess.DEVNULL, check=True)
        if i:  # the first reads its files from the disk
            found.append((time.perf_counter() - began) * 1000)
    return Samples(found)


def _status(path: str) -> dict[str, int]:
    """The lines of a status file that begin with a number."""
    with open(path) as file:
        pairs = (line.partition(":") for line in file)
        return {key: int(words[0]) for key, _, rest in pairs if (words := rest.split()) and words[0].isdigit()}
