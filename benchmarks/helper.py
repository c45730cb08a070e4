"""The other processes of a case: `python -m benchmarks.helper MODULE:FUNCTION ARGUMENT...` plays one role.

A role says `ready` when it can be used, and may wait for `go` and tell times; `bench.Helper` is the other end.
"""

import os
import sys
import time
from collections.abc import Callable
from importlib import import_module

from .bench import READY


def ready() -> None:
    os.write(1, READY)


def wait_for_go() -> None:
    if not os.read(0, 1):
        sys.exit(0)  # whoever started us is gone


def tell(now_ns: int) -> None:
    os.write(1, now_ns.to_bytes(8, "little"))


def flood(once: Callable[[], object], count: int) -> None:
    """The sender's half of `bench.flood`."""
    ready()
    wait_for_go()
    began = time.monotonic_ns()
    for _ in range(count):
        once()
    ended = time.monotonic_ns()
    tell(began)
    tell(ended)


def main() -> None:
    module, _, function = sys.argv[1].partition(":")
    getattr(import_module(module), function)(*sys.argv[2:])


if __name__ == "__main__":
    main()
