"""Files that are looked for: written aside, renamed into place, found by whoever polls.

It polls every 10 ms here. What it costs is nearly all waiting: on average half the interval a way, so whoever polls
every second waits a hundred times longer; that needs no measuring.
"""

import os
import time

from ..bench import Bench, Samples, timed, timed_elsewhere
from ..helper import ready, tell
from ..sizes import TEXT

POLL_S = 0.01


def one_way(bench: Bench, idle_s: float) -> Samples:
    """Until the poller has read the text."""
    receiver = bench.helper(f"{__name__}:receiver", bench.path("request"))
    return timed_elsewhere(lambda: _write(bench.path("request"), TEXT), receiver, -(-bench.sizes.one_way // 3), idle_s)


def round_trips(bench: Bench) -> Samples:
    """A text in a file, and an answer in another; both sides poll."""
    request, answer = bench.path("request"), bench.path("answer")
    bench.helper(f"{__name__}:answerer", request, answer)

    def once() -> None:
        _write(request, TEXT)
        _poll(answer)

    return timed(once, -(-bench.sizes.one_way // 3))


def receiver(request: str) -> None:
    """A role: tells when it has read each text."""
    ready()
    while True:
        _poll(request)
        tell(time.monotonic_ns())


def answerer(request: str, answer: str) -> None:
    """A role: answers each text with the same."""
    ready()
    while True:
        _write(answer, _poll(request))


def _write(path: str, text: str) -> None:
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


def _poll(path: str) -> str:
    while True:
        try:
            with open(path) as file:
                text = file.read()
        except FileNotFoundError:
            time.sleep(POLL_S)
            continue
        os.unlink(path)
        return text
