"""A session as a document, and a trace of a part of it."""

import json
import re

import pytest

from backchannel.testing import World

from .helpers import established, heard, reached

NASTY = "first\n```\n# not a heading\n````\nand a | bar; a # and <b>\x0bend"


@pytest.fixture
def session(world: World) -> str:
    """The id of a finished session between analyst and executor; one text tries to break out."""
    analyst, executor = world.agent("analyst"), world.agent("executor")
    opened, accepted = established(analyst, executor, "review PR #42")
    opened.send("focus on the auth module")
    assert heard(accepted, 1) == ["focus on the auth module"]
    accepted.send(NASTY)
    assert heard(opened, 1) == [NASTY]
    accepted.close("one finding")
    list(opened)
    opened.close("")
    list(accepted)
    reached(opened, "CLOSED")
    return str(opened.id)


def test_as_markdown_no_text_can_pass_for_the_document(world: World, session: str) -> None:
    done = world.cli("export", session, agent="analyst")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"# Session {session}\n")
    assert "| task_state | completed |" in done.stdout
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", done.stdout, flags=re.MULTILINE | re.DOTALL)
    headings = [line for line in outside.splitlines() if line.startswith("## ")]
    assert headings[0] == "## SYN: analyst to executor"
    assert "## DATA 1: executor to analyst" in headings
    assert "not a heading" not in outside
    assert NASTY in done.stdout
    assert "one finding" in done.stdout


def test_in_a_table_of_markdown_a_result_stays_in_its_cell_and_is_only_text(world: World) -> None:
    analyst, executor = world.agent("analyst"), world.agent("executor")
    opened, accepted = established(analyst, executor, "review PR #42")
    accepted.close("one\r\r# forged\r\n| state | ![x](http://x.example/) <img src=x> |")
    list(opened)
    opened.close("")
    list(accepted)
    reached(opened, "CLOSED")
    said = world.cli("export", str(opened.id), agent="analyst").stdout
    table = said.partition("\n## ")[0]
    assert (
        "\n| peer_result | one<br><br># forged<br>\\| state \\| !\\[x\\](http://x.example/) \\<img src=x\\> \\| |\n"
        in table
    )
    assert "\r" not in table


def test_as_json_lines_the_record_comes_first(world: World, session: str) -> None:
    done = world.cli("export", session, "--format", "jsonl", agent="executor")
    first, *events = map(json.loads, done.stdout.splitlines())
    assert (first["agent"], first["session"]["id"], first["session"]["cause"]) == ("executor", session, "finished")
    assert [event["text"] for event in events if event["kind"] == "DATA"] == ["focus on the auth module", NASTY]


def test_as_mermaid_every_line_is_of_the_diagram(world: World, session: str) -> None:
    done = world.cli("export", session, "--format", "mermaid", agent="analyst")
    head, *lines = done.stdout.splitlines()
    assert head == "sequenceDiagram"
    assert lines[:2] == ["    participant a as analyst", "    participant b as executor"]
    arrow = re.compile(r"    (a|b)(->>|-x|--\))(a|b): [^;#<>]*((#\d+;)[^;#<>]*)*")
    assert all(arrow.fullmatch(line) for line in lines[2:-1]), done.stdout
    assert lines[-1] == "    Note over a,b: CLOSED (finished)"
    assert "    a->>b: DATA 1: focus on the auth module" in lines


def test_a_session_that_nobody_knows_is_an_error(world: World) -> None:
    world.up("analyst")
    done = world.cli("export", "s-" + "0" * 32, agent="analyst")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.count("\n") == 1


def test_a_trace_shows_only_what_is_asked_for(world: World, session: str) -> None:
    def kinds(*args: str) -> list[str]:
        done = world.cli("trace", session, "--json", *args, agent="analyst")
        return [json.loads(line)["kind"] for line in done.stdout.splitlines()]

    assert set(kinds()) == {"SYN", "SYN-ACK", "DATA", "FIN"}
    assert kinds("--kind", "DATA") == ["DATA", "DATA"]
    assert kinds("--until", "1h") == []
    assert len(kinds("--since", "1h")) == len(kinds())
