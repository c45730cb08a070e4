"""The guides say what is so: every block of them is run as written, in a private world with real daemons.

A comment before a fence says what the block is:

* `file: PATH`   a file the reader saves; all files of a document are there before its first block runs
* `run: NAME`    typed in a shell. All blocks of one `##` section are one session of `bash -eu`
* `prints`       what the block before printed. Ids, times and places may differ; a line `...` stands for any lines
* `shown`        not run

A fence of code without such a comment is a mistake: it could rot unseen.
"""

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from .documents import ROOT, World, private_world

DOCUMENTS = sorted([*(ROOT / "docs/guides").glob("*.md"), ROOT / "docs/configuration.md"])
SECTION_S = 45.0
PROGRAMS = {"node": "Node", "nc": "netcat (netcat-openbsd)", "jq": "jq"}

_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_CUT = "--8<-- block "


class Block(NamedTuple):
    kind: str  # file, run, prints, shown, or nothing
    name: str
    code: str


class Section(NamedTuple):
    document: Path
    title: str
    blocks: list[Block]

    def __str__(self) -> str:
        return f"{self.document.stem}: {self.title}"


def blocks(text: str) -> list[Block]:
    found = []
    for match in _FENCE.finditer(text):
        kind, _, name = (match["mark"] or "").partition(": ")
        found.append(Block(kind, name, match["code"]))
    return found


def sections(document: Path) -> list[Section]:
    """The `##` sections that have something to run."""
    parts = re.split(r"^## (.*)$", document.read_text(), flags=re.MULTILINE)
    found = [Section(document, title, blocks(body)) for title, body in zip(parts[1::2], parts[2::2], strict=True)]
    return [section for section in found if any(block.kind == "run" for block in section.blocks)]


@pytest.mark.parametrize("section", [s for d in DOCUMENTS for s in sections(d)], ids=str)
def test_a_section_runs_as_it_is_written(section: Section) -> None:
    _require_programs(section)
    with private_world() as world:
        os.mkdir(world.state, 0o700)
        for block in blocks(section.document.read_text()):
            if block.kind == "file":
                _save(world, block)
        printed = _play(world, [block for block in section.blocks if block.kind == "run"])
        for block, told in zip(section.blocks, section.blocks[1:], strict=False):
            if told.kind == "prints":
                assert block.kind == "run"
                assert _matches(told.code, printed[block.name], world), (
                    f"{block.name!r} printed\n{_normal(printed[block.name], world)}\nand the guide says\n"
                    f"{_normal(told.code, world)}"
                )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_no_block_of_a_guide_can_rot_unseen(document: Path) -> None:
    for block in blocks(document.read_text()):
        assert block.kind in ("file", "run", "prints", "shown"), f"say what this is:\n{block.code}"
        assert bool(block.name) == (block.kind in ("file", "run")), block.code


def test_every_guide_runs_something() -> None:
    assert DOCUMENTS
    assert all(sections(document) for document in DOCUMENTS)


STARTER = """
import { Agent } from "./backchannel.mjs";
const me = new Agent("writer");
console.log((await me.push("reader", "hello", { id: "note-1" })).stage);
await me.push("nobody", "hello").catch((error) => console.log(error.code));
"""


def test_the_node_client_starts_a_daemon_that_does_not_run() -> None:
    """Or one that was killed: what is left of it are its sockets and the name of their place."""
    document = ROOT / "docs/guides/other-languages.md"
    if shutil.which("node") is None:
        pytest.fail("Node is not installed, and this guide cannot be proved without it", pytrace=False)
    with private_world() as world:
        world.succeed("backchannel", "up", "reader", "writer")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(f"{world.dir}/reader/control.sock")
            pid, _, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            os.kill(pid, signal.SIGKILL)
            with suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        for block in blocks(document.read_text()):
            if block.name == "backchannel.mjs":
                _save(world, block)
        Path(world.folder, "starter.mjs").write_text(STARTER)
        assert world.succeed("node", "starter.mjs").split() == ["stored", "unknown_agent"]


# --- playing a section ------------------------------------------------------------------------------------------------


def _require_programs(section: Section) -> None:
    code = "".join(block.code for block in blocks(section.document.read_text()) if block.kind in ("file", "run"))
    for program, name in PROGRAMS.items():
        if re.search(rf"(^|[|(] ?)\s*{program} ", code, re.MULTILINE) and shutil.which(program) is None:
            pytest.fail(f"{name} is not installed, and this guide cannot be proved without it", pytrace=False)


def _save(world: World, block: Block) -> None:
    path = Path(world.folder, block.name.replace("STATE/", "state/", 1))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(block.code)


def _play(world: World, run: list[Block]) -> dict[str, str]:
    """Runs the blocks as one shell session. What each printed on both outputs, by its name."""
    script = "".join(f"printf '\\n{_CUT}%s\\n' {block.name}\n{block.code}" for block in run)
    # A file, no pipe: what runs on in the background may keep it open.
    output = Path(world.folder, ".output")
    with output.open("w") as file:
        session = subprocess.Popen(
            ["bash", "-eu", "-o", "pipefail", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=world.env | {"STATE": world.state, "DIR": world.dir, "PYTHONUNBUFFERED": "1"},
            cwd=world.folder,
            start_new_session=True,
        )
        try:
            status: int | None = session.wait(SECTION_S)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with suppress(ProcessLookupError):  # nothing ran on in the background
                os.killpg(session.pid, signal.SIGKILL)
            session.wait()
    text = output.read_text()
    assert status is not None, f"not over within {SECTION_S:g} s; it printed\n{text}"
    assert status == 0, f"ended with {status}; it printed\n{text}"
    parts = re.split(rf"^{_CUT}(.*)$\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# --- comparing --------------------------------------------------------------------------------------------------------


def _matches(told: str, printed: str, world: World) -> bool:
    lines = [r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in _normal(told, world).splitlines()]
    return re.fullmatch("".join(lines), _normal(printed, world) + "\n") is not None


def _normal(text: str, world: World) -> str:
    """Without what differs from run to run and from machine to machine."""
    for pattern, instead in (
        (r"^bash: line \d+: +\d+ (Killed|Terminated) .*\n", ""),  # the shell's own word
        (re.escape(world.state), "/home/you/.local/state/backchannel"),
        (re.escape(world.dir), "/run/user/1000/backchannel"),
        (re.escape(world.folder), "/home/you"),
        (r"\b([ms])-[0-9a-f]{32}\b", r"\1-ID"),
        (r"\b\d\d:\d\d:\d\d\.\d\d\d\b", "TIME"),
        (r"\b\d{4}-\d\d-\d\d[T ]", "DATE "),
        (r"\b\d\d:\d\d:\d\d\b", "TIME"),
        (r'"mailbox_id":"[0-9a-f]{32}"', '"mailbox_id":"ID"'),
        (r'"(sent_at|uid|gid|pid|stored_at|ended_at|at)":[0-9.e+]+', r'"\1":N'),
        (r"\b\d+ us\b|\b\d+\.\d ms\b", "N us"),
        (r"\b\d+ bytes, checked\b", "N bytes, checked"),
        (r" @\d+ ", " @UID "),
        (r"\bDATE \d\d:\d\d\b(?!:)", "DATE TIME"),
        (r"\b\d{8}T\d{6}Z\b", "STAMP"),
        (r"\b(for|idle|away) \d+ s\b", r"\1 N s"),
    ):
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text.strip("\n")
