"""One case, once, in a process of its own: `python -m benchmarks.one SETTINGS` prints what it found, as JSON.

The runner starts it with the interpreter that the case needs, pinned or not; servers and helpers inherit the CPU.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from .bench import Bench
from .sizes import Sizes


def main() -> None:
    settings = json.loads(sys.argv[1])
    if settings["cpu"] is not None:
        os.sched_setaffinity(0, {settings["cpu"]})
    sizes = Sizes(**settings["sizes"])
    bench = Bench(Path(settings["folder"]), Path(settings["shared"]), sizes, settings["tools"])
    try:
        found = measure(settings["measure"], bench, settings["options"])
    finally:
        bench.close()
    json.dump({"values": found.values, "note": found.note}, sys.stdout)


def measure(where: str, bench: Bench, options: dict[str, Any]) -> Any:
    module, _, function = where.partition(":")
    return getattr(import_module(f"benchmarks.{module}"), function)(bench, **options)


if __name__ == "__main__":
    main()
