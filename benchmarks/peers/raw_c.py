"""Raw sockets in C, both ends (`echo.c`): the floor, and with a flushed log the floor of what survives a power cut."""

import subprocess

from ..bench import Bench, Samples, microseconds
from ..sizes import TEXT, WARM_UP


def echoes(bench: Bench, connection: str, is_flushed: bool = False) -> Samples:
    """Send, and receive the same. With `is_flushed` the server has written it to a file and flushed that before."""
    echo = bench.tool("echo")
    log = [bench.path("log")] if is_flushed else []
    bench.server(echo, "server", bench.path("echo"), *log, address=bench.path("echo"))
    count = bench.sizes.slow_messages if is_flushed else bench.sizes.messages
    warm_up = min(WARM_UP, count)
    found = subprocess.run(
        [echo, "client", bench.path("echo"), connection, str(count + warm_up), str(len(TEXT))],
        check=True, capture_output=True,
    )  # fmt: skip
    return microseconds([int(line) for line in found.stdout.split()][warm_up:])
