"""The moments of a program's window, as the program makes them: our command, JSON in, and what comes out."""

import json
import subprocess
import sys
from typing import Any

from backchannel.testing import World, command

# What each program calls its moments, and says of them: as the real ones were seen to.
CLAUDE = {"transcript_path": "/t.jsonl", "cwd": "/shop", "prompt_id": "p-1", "permission_mode": "default"}
CODEX = {"transcript_path": "/t.jsonl", "cwd": "/shop", "turn_id": "u-1", "model": "m", "permission_mode": "default"}
GEMINI = {"transcript_path": "/t.json", "cwd": "/shop", "timestamp": "2026-11-26T01:00:00Z"}
SAID: dict[tuple[str, str], dict[str, Any]] = {
    ("claude", "session-start"): CLAUDE | {"hook_event_name": "SessionStart", "source": "startup"},
    ("claude", "prompt"): CLAUDE | {"hook_event_name": "UserPromptSubmit", "prompt": "hello"},
    ("claude", "tool"): CLAUDE | {"hook_event_name": "PostToolBatch", "tool_calls": [{"tool_name": "Bash"}]},
    ("claude", "stop"): CLAUDE | {"hook_event_name": "Stop", "stop_hook_active": False, "last_assistant_message": "ok"},
    ("claude", "session-end"): CLAUDE | {"hook_event_name": "SessionEnd", "reason": "other"},
    ("claude", "wait"): CLAUDE | {"hook_event_name": "Stop", "stop_hook_active": False},
    ("codex", "session-start"): CODEX | {"hook_event_name": "SessionStart", "source": "startup"},
    ("codex", "prompt"): CODEX | {"hook_event_name": "UserPromptSubmit", "prompt": "hello"},
    ("codex", "tool"): CODEX | {"hook_event_name": "PostToolUse", "tool_name": "Bash", "tool_use_id": "call_1"},
    ("codex", "stop"): CODEX | {"hook_event_name": "Stop", "stop_hook_active": False, "last_assistant_message": "ok"},
    ("codex", "session-end"): CODEX | {"hook_event_name": "SessionEnd", "reason": "exit"},
    ("codex", "wait"): CODEX | {"hook_event_name": "Stop"},
    ("gemini", "session-start"): GEMINI | {"hook_event_name": "SessionStart", "source": "startup"},
    ("gemini", "prompt"): GEMINI | {"hook_event_name": "BeforeAgent", "prompt": "hello"},
    ("gemini", "tool"): GEMINI | {"hook_event_name": "AfterTool", "tool_name": "run_shell_command"},
    ("gemini", "stop"): GEMINI | {"hook_event_name": "AfterAgent", "stop_hook_active": False, "prompt_response": "ok"},
    ("gemini", "session-end"): GEMINI | {"hook_event_name": "SessionEnd", "reason": "exit"},
    ("gemini", "wait"): GEMINI | {"hook_event_name": "AfterAgent"},
}
IN_A_CHILD = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"


class Moments:
    """Moments of windows of the agent `shop`. The program is this process, or, `in_child`, one that is gone after."""

    def __init__(self, world: World) -> None:
        self.world = world

    def at(
        self, dialect: str, event: str, session: str = "w1", *, in_child: bool = False, **more: Any
    ) -> dict[str, Any] | None:
        """What the hook answers, or None. It must end well, and say nothing on stderr."""
        done = self.run(dialect, event, json.dumps(SAID[dialect, event] | {"session_id": session} | more), in_child)
        assert (done.returncode, done.stderr) == (0, "")
        answer: dict[str, Any] | None = json.loads(done.stdout) if done.stdout else None
        return answer

    def run(self, dialect: str, event: str, said: str, in_child: bool = False) -> "subprocess.CompletedProcess[str]":
        words = [command(), "hook", dialect, event, "--as", "shop"]
        if in_child:
            words = [sys.executable, "-c", IN_A_CHILD, *words]
        return subprocess.run(words, input=said, capture_output=True, text=True, env=self.world.env, timeout=30)

    def waiting(self, session: str = "w1", *, in_child: bool = False, **env: str) -> "subprocess.Popen[str]":
        """The process that waits for an idle window of Claude Code."""
        words = [command(), "hook", "claude", "wait", "--as", "shop"]
        if in_child:
            words = [sys.executable, "-c", IN_A_CHILD, *words]
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.world.env | env, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(SAID["claude", "wait"] | {"session_id": session}))
        process.stdin.close()
        process.stdin = None
        return process

    def send(self, text: str, to: str = "shop") -> str:
        """A message of the analyst. Returns its id."""
        done = self.world.cli("send", to, text, "--json", agent="analyst")
        assert done.returncode == 0, done.stderr
        message_id: str = json.loads(done.stdout)["id"]
        return message_id

    def stage(self, message_id: str, to: str = "shop") -> str:
        done = self.world.cli("status", message_id, "--to", to, "--json")
        stage: str = json.loads(done.stdout)["stage"]
        return stage

    def log(self) -> str:
        try:
            with open(self.world.paths.state("shop", "hooks.log")) as file:
                return file.read()
        except FileNotFoundError:
            return ""


def context(answer: dict[str, Any] | None) -> str:
    """What an answer puts before the model."""
    assert answer is not None
    text: str = answer["hookSpecificOutput"]["additionalContext"]
    return text
