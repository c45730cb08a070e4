"""The real command lines, as npm has them: brought into a cache once, and started in a home of their own.

Nothing of a user's is read: HOME is a new directory, the environment is empty but for what stands here, and the model
is ours, on loopback.
"""

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sysconfig
import termios
import threading
import time
from pathlib import Path
from typing import Any

from backchannel import Agent
from backchannel.testing import World

from .models import Model

PACKAGES = {
    "claude": ("@anthropic-ai/claude-code-linux-x64", "2.1.332"),
    "codex": ("@openai/codex", "0.169.0"),
    "gemini": ("@google/gemini-cli", "0.61.0"),
}
API_KEY = "sk-ant-api03-none-of-anybody-at-all"
INSTALL_S = 900.0
END_S = 60.0
COLUMNS, LINES = 120, 40  # of a terminal
CACHE = Path(os.environ.get("BACKCHANNEL_E2E_CACHE") or Path.home() / ".cache/backchannel-e2e")


def installed(program: str) -> list[str]:
    """The command that starts it; brought from npm the first time."""
    name, version = PACKAGES[program]
    place = CACHE / f"{program}-{version}"
    if not (place / "node_modules").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text('{"private": true}')
        npm = shutil.which("npm")
        assert npm, "npm is needed for `nox -s e2e`"
        command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", f"{name}@{version}"]
        subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=INSTALL_S)
    modules = place / "node_modules"
    if program == "claude":
        return [str(modules / name / "claude")]
    if program == "gemini":
        return [_node(), str(modules / name / "bundle" / "gemini.js")]
    (binary,) = modules.glob("@openai/codex-*/vendor/*/bin/codex")
    return [str(binary)]


def _node() -> str:
    node = shutil.which("node")
    assert node, "node is needed for Gemini CLI"
    return node


class Home:
    """One program's home, its project directory, and a private world of agents beside it."""

    def __init__(self, program: str, root: Path, model: Model) -> None:
        self.program = program
        self.model = model
        self.command = installed(program)
        self.home = root / "home"
        self.project = root / "shop"
        self.home.mkdir()
        self.project.mkdir()
        (self.project / ".git").mkdir()  # its root, whatever lies above
        self.world = World()
        self.processes: list[Running] = []
        bin_ = root / "bin"
        bin_.mkdir()
        (bin_ / program).write_text('#!/bin/sh\nexec "' + '" "'.join(self.command) + '" "$@"\n')
        (bin_ / program).chmod(0o755)
        self.env = {
            "HOME": str(self.home),
            "PATH": f"{bin_}:{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "BACKCHANNEL_STATE": self.world.paths.state_dir,
            "BACKCHANNEL_DIR": self.world.paths.socket_dir,
            **_ENVIRONMENT[program](model, self.home),
        }
        _SETTINGS[program](self)

    def init(self, *what: str) -> None:
        """As a person does it: the program's hooks, or `what`."""
        done = subprocess.run(
            ["backchannel", "init", *(what or [self.program]), "--yes"], cwd=self.project, env=self.env,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def backchannel(self, *words: str) -> str:
        done = subprocess.run(
            ["backchannel", *words], env=self.env, cwd="/", capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *words: str, tty: bool = False) -> "Running":
        running = Running([*self.command, *words], self.env, self.project, has_tty=tty)
        self.processes.append(running)
        return running

    def agent(self, name: str) -> Agent:
        return self.world.agent(name)

    def log(self) -> str:
        path = Path(self.world.paths.state("shop", "hooks.log"))
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.world.close()


class Running:
    """A started program; its output is kept."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: Path, *, has_tty: bool) -> None:
        self.output = ""
        self._tty: int | None = None
        if has_tty:
            self._tty, child = pty.openpty()
            fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
            streams: dict[str, Any] = {"stdin": child, "stdout": child, "stderr": child}
        else:
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(command, env=env, cwd=cwd, start_new_session=True, **streams)
        if has_tty:
            os.close(child)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        fd = self._tty if self._tty is not None else self.process.stdout.fileno()  # type: ignore[union-attr]
        while True:
            try:
                chunk = os.read(fd, 65536)
            except OSError:
                return
            if not chunk:
                return
            self.output += chunk.decode("utf-8", "replace")
            for question, reply in _ASKED_OF_A_TERMINAL.items():
                if self._tty is not None and question in chunk:
                    os.write(self._tty, reply)

    def type(self, keys: str, *, enter: bool = False) -> None:
        """Keys of a person, who takes a moment before the last."""
        assert self._tty is not None
        os.write(self._tty, keys.encode())
        if enter:
            time.sleep(1)
            os.write(self._tty, b"\r")

    def until(self, words: str, timeout: float = 90.0) -> None:
        """Waits until these words stand on its screen."""
        deadline = time.monotonic() + timeout
        while words not in self.screen():
            assert time.monotonic() < deadline, f"{words!r} is not on its screen:\n{self.screen()}"
            time.sleep(0.2)

    def screen(self) -> str:
        """What a person sees. Programs draw only what changed, so the output itself does not tell."""
        import pyte

        screen = pyte.Screen(COLUMNS, LINES)
        pyte.Stream(screen).feed(_NO_DRAWING.sub("", self.output))
        return "\n".join(line.rstrip() for line in screen.display).strip()

    def end(self, timeout: float = END_S) -> int:
        """Waits for its own end."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; it said:\n{self.output[-3000:]}") from None

    def kill(self) -> None:
        """It, and everything it started that did not leave its session."""
        try:
            os.killpg(self.process.pid, 9)
        except ProcessLookupError:
            pass
        self.process.wait(END_S)
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self._tty is not None:
            os.close(self._tty)
            self._tty = None


_ASKED_OF_A_TERMINAL = {b"\x1b[6n": b"\x1b[1;1R", b"\x1b[c": b"\x1b[?62;c"}  # where the cursor is, what it is
_NO_DRAWING = re.compile(r"\x1b\[[<>=][0-9;]*[a-zA-Z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")  # questions to a terminal


# --- how each is told to talk to our model, and asks no questions -----------------------------------------------------


def _claude_environment(model: Model, home: Path) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": model.url,
        "ANTHROPIC_API_KEY": API_KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "ENABLE_TOOL_SEARCH": "false",  # the tools of a server stand in the request, and need not be looked for
    }


def _codex_environment(model: Model, home: Path) -> dict[str, str]:
    return {"CODEX_HOME": str(home / ".codex")}


def _gemini_environment(model: Model, home: Path) -> dict[str, str]:
    return {
        "GEMINI_API_KEY": "none",
        "GOOGLE_GEMINI_BASE_URL": model.url,
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
        "GEMINI_CLI_NO_RELAUNCH": "true",
    }


def _claude_settings(home: Home) -> None:
    """As a user has it who let it answer without asking."""
    command = os.path.join(sysconfig.get_path("scripts"), "backchannel")
    allowed = [f"Bash({command} reply:*)", "Bash(echo:*)", "mcp__backchannel"]
    permissions = {"allow": allowed, "defaultMode": "default"}
    place = home.project / ".claude"
    place.mkdir()
    (place / "settings.local.json").write_text(
        json.dumps({"permissions": permissions, "enabledMcpjsonServers": ["backchannel"]})
    )
    trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    state = {
        "hasCompletedOnboarding": True, "theme": "dark", "customApiKeyResponses": {"approved": [API_KEY[-20:]]},
        "projects": {str(home.project): trusted},
    }  # fmt: skip
    (home.home / ".claude.json").write_text(json.dumps(state))


def _codex_settings(home: Home) -> None:
    place = home.home / ".codex"
    place.mkdir()
    (place / "config.toml").write_text(
        f'model = "fake"\nmodel_provider = "mock"\n'
        f'[model_providers.mock]\nname = "mock"\nbase_url = "{home.model.url}/v1"\nwire_api = "responses"\n'
        f"requires_openai_auth = false\nrequest_max_retries = 0\n"
        f'[projects."{home.project}"]\ntrust_level = "trusted"\n'
    )


def _gemini_settings(home: Home) -> None:
    place = home.home / ".gemini"
    place.mkdir()
    settings = {"security": {"auth": {"selectedType": "gemini-api-key"}}, "privacy": {"usageStatisticsEnabled": False}}
    (place / "settings.json").write_text(json.dumps(settings))


_ENVIRONMENT = {"claude": _claude_environment, "codex": _codex_environment, "gemini": _gemini_environment}
_SETTINGS = {"claude": _claude_settings, "codex": _codex_settings, "gemini": _gemini_settings}


def until(look: Any, what: str, timeout: float = 30.0) -> Any:
    """What `look` returns once that is true."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.02)
    return found
