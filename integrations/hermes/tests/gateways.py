"""Real Hermes gateways as profiles of a private home, and the human at their desks."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backchannel.testing import World, command
from model import Model

HERE = Path(__file__).parent
START_S = 40.0

CONFIG = """\
model: {{default: fake-model, provider: custom, base_url: "{url}", api_key: sk-fake}}
onboarding: {{profile_build: "off"}}
security: {{allow_lazy_installs: false}}
agent: {{restart_drain_timeout: 1, api_max_retries: 1}}
approvals: {{mode: manual}}
memory: {{nudge_interval: 0}}
skills: {{creation_nudge_interval: 0}}
plugins: {{enabled: [desk]}}
platforms:
  desk: {{enabled: true}}
"""


class Gateway:
    """One profile, and its gateway process while it runs."""

    def __init__(self, hermes: str, world: World, root: Path, name: str) -> None:
        self.name = name
        self.home = root / ".hermes" / "profiles" / name
        self._hermes = hermes
        self._process: subprocess.Popen[bytes] | None = None
        self._env = world.env | {"HOME": str(root), "PYTHONDONTWRITEBYTECODE": "1", "HERMES_PLUGINS_DEBUG": "0"}
        self._env.pop("HERMES_HOME", None)

    def make(self, model: Model, more: str = "") -> None:
        """A fresh profile, with a desk for the human; `more` is added to its config.yaml."""
        self.home.mkdir(parents=True)
        (self.home / "config.yaml").write_text(CONFIG.format(url=model.url(self.name)) + more)
        shutil.copytree(HERE / "desk", self.home / "plugins" / "desk", ignore=shutil.ignore_patterns("__pycache__"))

    def set_up(self, **settings: Any) -> None:
        """By `backchannel init hermes`; then the plugin's settings."""
        done = subprocess.run(
            [command(), "init", "hermes", "--profile", self.name, "--hermes", self._hermes, "--yes"],
            env=self._env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        for key, value in settings.items():
            self.run("config", "set", f"platforms.backchannel.extra.{key}", str(value))

    def run(self, *args: str) -> str:
        """`hermes -p NAME ARGS`."""
        done = subprocess.run(
            [self._hermes, "-p", self.name, *args],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, platforms: int = 2) -> None:
        self.launch()
        self.wait_ready(platforms)

    def launch(self) -> None:
        assert self._process is None
        with open(self.home / "gateway.out", "ab") as out:
            self._process = subprocess.Popen(
                [self._hermes, "-p", self.name, "gateway", "run"],
                env=self._env, cwd=self.home, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self._seen_bytes = self._log_bytes()

    def wait_ready(self, platforms: int = 2) -> None:
        """The human's desk and Backchannel are connected."""

        def is_ready() -> bool:
            return self._log().count(" connected") >= platforms and (self.home / "desk.sock").exists()

        until(is_ready, START_S, self._log)

    def stop(self) -> None:
        """In order, as systemd would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_dead(self) -> None:
        """It killed itself."""
        assert self._process is not None
        self._process.wait(30)
        self._process = None
        (self.home / "desk.sock").unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        os.killpg(self._process.pid, number)
        self._process.wait(30)
        self._process = None
        (self.home / "desk.sock").unlink(missing_ok=True)

    # --- the human ----------------------------------------------------------------------------------------------------

    def say(self, text: str, chat: str = "ann") -> None:
        """The human writes."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.home / "desk.sock"))
            sock.sendall(json.dumps({"chat": chat, "text": text, "id": uuid.uuid4().hex}).encode() + b"\n")
            sock.settimeout(START_S)
            assert sock.recv(10)

    def desk(self, chat: str = "ann") -> list[str]:
        """What the human was told as an answer, oldest first."""
        try:
            lines = (self.home / "desk.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        told = [json.loads(line) for line in lines]
        return [line["text"] for line in told if line["chat"] == chat and line["final"]]

    def wait_told(self, part: str, chat: str = "ann", timeout: float = 30.0) -> str:
        """The answer that has this in it."""

        def found() -> str | None:
            return next((text for text in self.desk(chat) if part in text), None)

        until(found, timeout, lambda: f"{part!r} is not in {self.desk(chat)}\n{self._log()[-3000:]}")
        return found() or ""

    # --- its log ------------------------------------------------------------------------------------------------------

    def _log_bytes(self) -> int:
        log = self.home / "logs" / "agent.log"
        return log.stat().st_size if log.exists() else 0

    def _log(self) -> str:
        log = self.home / "logs" / "agent.log"
        return log.read_bytes()[self._seen_bytes :].decode(errors="replace") if log.exists() else ""


def until(is_so: Callable[[], Any], timeout: float, why: Callable[[], str] = lambda: "") -> Any:
    """Waits until it is so."""
    deadline = time.monotonic() + timeout
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {why()[-6000:]}"
        time.sleep(0.02)
    return found
