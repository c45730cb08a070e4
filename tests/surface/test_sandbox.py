"""A process that may not use Unix sockets is told exactly that, and what allows them where it runs."""

import errno
import json
import platform
import subprocess
import sys

import pytest

from backchannel.client.sandbox import allow_line, refused
from backchannel.testing import World, command

# By machine: AUDIT_ARCH, and the numbers of socket() and connect().
MACHINES = {"x86_64": (0xC000003E, 41, 42), "aarch64": (0xC00000B7, 198, 203)}

# A filter of the kernel that answers EPERM to what the sandboxes of coding agents forbid, then the command.
CONFINED = """
import ctypes, os, struct, sys

def statement(code, k, yes=0, no=0):
    return struct.pack("HBBI", code, yes, no, k)

LOAD, IS, RETURN = 0x20, 0x15, 0x06
ARCH, NUMBER, FIRST_ARGUMENT = 4, 0, 16
ALLOW, EPERM = 0x7FFF0000, 0x00050000 | 1
arch, socket, connect, AF_UNIX = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), 1
program = b"".join(
    {
        "socket": [
            statement(LOAD, ARCH), statement(IS, arch, 0, 4),
            statement(LOAD, NUMBER), statement(IS, socket, 0, 2),
            statement(LOAD, FIRST_ARGUMENT), statement(IS, AF_UNIX, 1, 0),
            statement(RETURN, ALLOW), statement(RETURN, EPERM),
        ],
        "connect": [
            statement(LOAD, ARCH), statement(IS, arch, 0, 2),
            statement(LOAD, NUMBER), statement(IS, connect, 1, 0),
            statement(RETURN, ALLOW), statement(RETURN, EPERM),
        ],
    }[sys.argv[4]]
)
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(program, len(program))
filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)))
for call in ((38, 1, 0, 0, 0), (22, 2, ctypes.addressof(filter_), 0, 0)):  # NO_NEW_PRIVS, SECCOMP
    if libc.prctl(*(ctypes.c_ulong(number) for number in call)):
        sys.exit(f"no filter: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[5], sys.argv[5:])
"""


def confined(
    world: World, what: str, *args: str, agent: str | None = None, **environ: str
) -> "subprocess.CompletedProcess[str]":
    """`backchannel ARGS` where the system call `what` is forbidden for Unix sockets."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        pytest.skip(f"no filter is written for {sys.platform} on {platform.machine()}")
    numbers = [str(number) for number in MACHINES[platform.machine()]]
    clean = {k: v for k, v in world.env_of(agent).items() if not k.startswith(("CLAUDE", "CODEX", "GEMINI", "INVOC"))}
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, *numbers, what, command(), *args],
        env=clean | environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, check=False,
    )  # fmt: skip
    if "no filter: " in done.stderr:
        pytest.skip(f"this kernel takes no filter here: {done.stderr.strip()}")
    return done


@pytest.mark.parametrize("what", ["socket", "connect"])
def test_send_says_that_a_sandbox_forbids_it_and_what_allows_it(shared: World, what: str) -> None:
    done = confined(shared, what, "send", "executor", "hello", agent="analyst", CLAUDECODE="1")
    assert done.returncode == 7
    where = f"{shared.paths.socket_dir}/executor/inbox.sock"
    assert done.stderr == (
        f"backchannel: a sandbox keeps this process from Unix sockets (EPERM for {where}): "
        'in ~/.claude/settings.json: {"sandbox": {"network": {"allowAllUnixSockets": true}}}\n'
    )
    assert shared.cli("peek", "--json", agent="executor").stdout == ""


def test_a_program_reads_the_same_as_json(shared: World) -> None:
    done = confined(shared, "socket", "send", "executor", "hello", "--json", CODEX_SANDBOX_NETWORK_DISABLED="1")
    said = json.loads(done.stderr)
    assert (said["error"], said["code"]) == ("NotPermitted", "sandbox")
    assert said["hint"] == "in ~/.codex/config.toml: [sandbox_workspace_write] network_access = true"


@pytest.mark.parametrize("words", [("agents",), ("status", "m-1"), ("recv",), ("ask", "executor", "?")])
def test_no_command_mistakes_it_for_an_absence(shared: World, words: tuple[str, ...]) -> None:
    done = confined(shared, "socket", *words, agent="analyst")
    assert (done.returncode, done.stdout) == (7, "")
    assert "a sandbox keeps this process from Unix sockets" in done.stderr


def test_doctor_checks_it(shared: World) -> None:
    found = [json.loads(line) for line in confined(shared, "connect", "doctor", "--json").stdout.splitlines()]
    (verdict,) = [f for f in found if f["subject"] == "sandbox"]
    assert (verdict["verdict"], verdict["mend"]) == (
        "fail", f"allow Unix sockets below {shared.paths.socket_dir} in what confines it"
    )  # fmt: skip
    free = [json.loads(line) for line in shared.cli("doctor", "--json").stdout.splitlines()]
    assert [f["verdict"] for f in free if f["subject"] == "sandbox"] == ["ok"]


@pytest.mark.parametrize(
    ("environ", "platform", "line"),
    [
        ({"CLAUDECODE": "1"}, "darwin", '{"sandbox": {"network": {"allowUnixSockets": ["/run/bc"]}}}'),
        ({"CODEX_SANDBOX": "seatbelt"}, "darwin", '[permissions.NAME.network.unix_sockets] "/run/bc" = "allow"'),
        ({"GEMINI_CLI": "1"}, "darwin", "SEATBELT_PROFILE=permissive-open"),
        ({"INVOCATION_ID": "0"}, "linux", "RestrictAddressFamilies=AF_UNIX"),
        ({}, "linux", "below /run/bc"),
        ({"CLAUDECODE": "1", "CODEX_SANDBOX_NETWORK_DISABLED": "1"}, "linux", "~/.codex/config.toml"),
    ],
)
def test_the_line_is_for_the_program_around_us(environ: dict[str, str], platform: str, line: str) -> None:
    assert line in allow_line("/run/bc", environ, platform)


def test_a_socket_of_another_user_is_not_taken_for_a_sandbox(world: World) -> None:
    world.up("executor")
    assert "not ours to open" in refused("/no/such/executor/inbox.sock", errno.EACCES).message
    assert "a sandbox" in refused(f"{world.paths.sockets('executor')}/inbox.sock", errno.EACCES).message
