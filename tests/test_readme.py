"""The README says what is so: its examples run as written, its test command is the one that is run, its links lead
somewhere."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .documents import ROOT, World, marked, private_world

BLOCKS = marked("README.md")
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("conformance/**/*.md"))
    if path.is_file()
)


@pytest.fixture
def world() -> Iterator[World]:
    with private_world() as world:
        yield world


def bash(world: World, name: str) -> list[str]:
    return world.succeed("bash", "-eu", "-o", "pipefail", "-c", BLOCKS[name]).splitlines()


def python(world: World, name: str) -> list[str]:
    return world.succeed("python", "-", stdin=BLOCKS[name]).splitlines()


def test_the_first_message_arrives(world: World) -> None:
    made_alice, made_bob, receipt, header, text = bash(world, "first-message")
    assert made_alice.split() == ["alice", "made", "and", "started"]
    assert made_bob.split() == ["bob", "made", "and", "started"]
    stage, to, message_id = receipt.split()
    assert (stage, to) == ("stored", "bob")
    assert header.startswith("alice  ")
    assert header.endswith(message_id)
    assert text == "use port 8080, not 3000"


def test_the_sender_sees_the_acknowledgement(world: World) -> None:
    bash(world, "first-message")
    lines = bash(world, "wait-for-ack")
    assert "the build is green" in lines
    assert any(line.startswith("acked  bob  ") for line in lines)


def test_the_python_example_runs(world: World) -> None:
    assert python(world, "python") == ["stored", "analyst says use port 8080, not 3000", "acked"]


def test_the_question_is_answered(world: World) -> None:
    assert python(world, "ask") == ["8080: something listens on 3000"]


def test_the_commit_example_runs(world: World) -> None:
    assert python(world, "commit") == ["queued", "builder says test 42"]


def test_the_asyncio_example_runs(world: World) -> None:
    assert python(world, "async-python") == ["refused: not before noon"]


def test_the_shell_example_runs(world: World) -> None:
    said = "\n".join(bash(world, "shell"))
    assert "stored  bob  deploy-42\n" in said
    assert "stored  bob  deploy-42  (a duplicate)" in said
    assert '"text":"deploy 42"' in said
    assert "rejected  bob  deploy-42  delivery 1  (frozen until Monday)" in said


def test_a_question_is_answered_from_the_shell(world: World) -> None:
    said = bash(world, "shell-ask")
    assert "8080" in said
    assert any(line.startswith("queued  alice  ") for line in said)
    assert said[-1].startswith("done  bob  ")


def test_the_review_is_refused_once_and_done_then(world: World) -> None:
    assert python(world, "session") == [
        "refused: busy, again in 0.5 s",
        "auth.py: line 7 compares with ==",
        "login.py: line 7 compares with ==",
        "2 files, 2 findings",
    ]


def test_a_session_is_held_from_the_shell(world: World) -> None:
    said = "\n".join(bash(world, "shell-session"))
    for line in (r"s-\w+/offer  offer\nreview PR #42\n  -> backchannel accept s-", r"ESTABLISHED  alice  s-",
                 r"line 7 compares with ==", r"finished \(ok\)\none finding", r"\|<-+ SYN-ACK ----\|"):  # fmt: skip
        assert re.search(line, said), (line, said)


def test_a_program_is_an_agent(world: World) -> None:
    assert bash(world, "serve")[-1] == "HELLO"


def test_the_readme_names_every_command(world: World) -> None:
    """The rows of its tables."""
    table = "\n".join(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `"))
    documented = set(re.findall(r"`([a-z]+)[ `]", table))
    usage = world.succeed("backchannel", "--help")
    commands = set(re.findall(r"^    ([a-z]+)", usage, re.MULTILINE))
    assert commands
    assert commands <= documented


def test_the_readme_and_continuous_integration_run_the_same_command() -> None:
    command = BLOCKS["tests"].strip()
    script = ROOT / ".ci/run"
    assert command in script.read_text().splitlines()
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = [link for link in _links(document) if not _resolves(document, link)]
    assert not broken


def _links(document: Path) -> list[str]:
    prose = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in link]


def _resolves(document: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    return target.exists() and (not anchor or anchor in _anchors(target))


def _anchors(document: Path) -> set[str]:
    """The headings as a forge turns them into anchors."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
