"""The MCP adapter before the programs that judge servers: the Inspector's command line, and the conformance suite."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from backchannel.testing import World, command

from .node import node, program

pytestmark = pytest.mark.timeout(1200)  # the first run brings them
pytest.importorskip("mcp.server.mcpserver", reason="the extra [mcp] is not installed")

INSPECTOR = ("@modelcontextprotocol/inspector", "2.12.0", "mcp-inspector")
CONFORMANCE = ("@modelcontextprotocol/conformance", "0.1.16", "conformance")  # specifications to 2025-11-25
CONFORMANCE_MODERN = ("@modelcontextprotocol/conformance", "0.2.0-alpha.12", "conformance")  # and 2026-07-28
# What asks for no tool, resource or prompt of the suite's own invention.
SCENARIOS = ("server-initialize", "ping", "tools-list", "resources-list", "prompts-list", "dns-rebinding-protection")
MODERN_SCENARIOS = (
    "tools-list", "resources-list", "prompts-list", "dns-rebinding-protection", "http-header-validation", "caching"
)  # fmt: skip


@pytest.fixture
def world() -> Iterator[World]:
    with World() as found:
        found.up("analyst", "executor")
        yield found


def inspected(world: World, *args: str) -> dict[str, Any]:
    """What the Inspector prints of one request; it starts the server, and passes on no variable that is not named."""
    places = [f"-e{key}={world.env[key]}" for key in ("BACKCHANNEL_STATE", "BACKCHANNEL_DIR")]
    server = [command(), "mcp", "--as", "analyst"]
    done = subprocess.run(
        [*program(*INSPECTOR), "--cli", *places, *server, *args],
        env=world.env | {"PATH": f"{os.path.dirname(node())}:{world.env['PATH']}"},
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def called(world: World, tool: str, **arguments: str) -> dict[str, Any]:
    pairs = [word for key, value in arguments.items() for word in ("--tool-arg", f"{key}={value}")]
    return inspected(world, "--method", "tools/call", "--tool-name", tool, *pairs)


def test_the_inspector_lists_and_calls_the_tools(world: World) -> None:
    tools = {tool["name"]: tool for tool in inspected(world, "--method", "tools/list")["tools"]}
    assert len(tools) == 12
    assert tools["send"]["inputSchema"]["required"] == ["to", "text"]
    sent = called(world, "send", to="executor", text="8080 or 3000?")
    assert not sent["isError"]
    with world.agent("executor") as executor:
        for question in executor.receive(wait=20):
            question.reply("8080")
            break
        shown = called(world, "inbox", wait_s="20")["structuredContent"]
        (answer,) = shown["messages"]
        assert answer["answers"] == sent["structuredContent"]["id"]
        # The Inspector ended with that: no model has gone on, so nothing was acknowledged.
        assert executor.status(answer["id"], to="analyst").stage == "stored"
    refused = called(world, "send", to="nobody", text="hello")
    assert refused["isError"]
    assert json.loads(refused["content"][0]["text"])["code"] == "unknown_agent"


@contextmanager
def served(world: World) -> Iterator[str]:
    """The adapter over HTTP; yields its address."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.serve_http", "analyst", str(port)], env=world.env
    ) as server:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, "it does not serve"
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("suite", "options", "scenarios"),
    [
        (CONFORMANCE, (), SCENARIOS),
        (CONFORMANCE_MODERN, ("--spec-version", "2026-07-28"), MODERN_SCENARIOS),
    ],
    ids=["2025-11-25", "2026-07-28"],
)
def test_the_conformance_suite_finds_nothing_wrong(
    world: World, suite: tuple[str, str, str], options: tuple[str, ...], scenarios: tuple[str, ...]
) -> None:
    conformance = program(*suite)
    with served(world) as url:
        for scenario in scenarios:
            done = subprocess.run(
                [*conformance, "server", "--url", url, "--scenario", scenario, *options],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{scenario}: {done.stdout}\n{done.stderr}"
