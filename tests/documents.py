"""What the documentation's tests share: the marked blocks of a document, and a private world to run them in.

A block that a test runs has a comment of its own line before it, `<!-- run: NAME -->`; what follows in the fence is run
as it is written.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent
COMMANDS = Path(sys.executable).parent  # where the package under test put `backchannel`
PATIENCE_S = 40.0

_MARKED = re.compile(r"^<!-- run: (?P<name>[\w-]+) -->\n```\w*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def marked(document: str) -> dict[str, str]:
    """The marked blocks of a document, by name."""
    found = [(m["name"], m["code"]) for m in _MARKED.finditer((ROOT / document).read_text())]
    assert len(found) == len(dict(found)), f"{document} marks two blocks with one name"
    return dict(found)


class World:
    """A place for agents of its own: STATE and DIR in a new directory, the commands on PATH, nothing else inherited."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.state = f"{folder}/state"
        self.dir = f"{folder}/run"
        self.env = {
            "PATH": f"{COMMANDS}:{os.environ.get('PATH', os.defpath)}",
            "HOME": folder,
            "LANG": "C.UTF-8",
            "BACKCHANNEL_STATE": self.state,
            "BACKCHANNEL_DIR": self.dir,
        }

    def configure(self, name: str, settings: str) -> None:
        """Writes an agent's config.toml before its first start."""
        for folder in (self.state, f"{self.state}/{name}"):
            os.makedirs(folder, 0o700, exist_ok=True)
        Path(self.state, name, "config.toml").write_text(settings)

    def run(self, *command: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Runs a command here; its exit status is the caller's to judge."""
        return subprocess.run(
            command,
            input=stdin,
            env=self.env | env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def succeed(self, *command: str, stdin: str = "", **env: str) -> str:
        """What a command printed; it has to end with 0."""
        done = self.run(*command, stdin=stdin, **env)
        assert done.returncode == 0, f"{' '.join(command)[:200]} ended with {done.returncode}:\n{done.stderr}"
        return done.stdout

    def end(self) -> None:
        self.run("backchannel", "down", "--all")
        shutil.rmtree(self.folder, ignore_errors=True)


class Wire:
    """A connection to an agent's control socket, without the library."""

    def __init__(self, world: World, name: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(10)
        self._sock.connect(f"{world.dir}/{name}/control.sock")
        self._lines = self._sock.makefile("rwb")

    def call(self, method: str, **params: object) -> Any:
        """The whole answer to one request."""
        self.ask(method, **params)
        return self.answer()

    def ask(self, method: str, **params: object) -> None:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        self._lines.write(json.dumps(request).encode() + b"\n")
        self._lines.flush()

    def answer(self) -> Any:
        return json.loads(self._lines.readline())

    @property
    def daemon_pid(self) -> int:
        return int.from_bytes(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._sock.close()


@contextmanager
def private_world() -> Iterator[World]:
    """A world that is gone afterwards, with the daemons that were started in it."""
    world = World(tempfile.mkdtemp(prefix="backchannel-test-"))
    try:
        yield world
    finally:
        world.end()
