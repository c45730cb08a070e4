"""Edits of other programs' settings: what is not ours stays as it was, and what we put in can be taken out again."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.cli import coding, settings
from backchannel.errors import LocalProtocolError
from backchannel.hooks.dialects import DIALECTS

EVERY = tuple(DIALECTS)
THEIRS = """{
    "model": "opus", "permissions": {"allow": ["Bash(ls:*)"]},
    "hooks": {
        "Stop": [{"hooks": [{"type": "command", "command": "say done"}]}],
        "PreToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "guard", "args": ["hook", "x"]}]}]
    }
}
"""
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def _this_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding, "own_command", lambda: "/opt/bin/backchannel")


def put(text: str | None, dialect: str = "claude", agent: str = "shop") -> str | None:
    return settings.edit_json("f", text, lambda found: coding._put(found, DIALECTS[dialect], agent))


def taken_out(text: str | None) -> str | None:
    return settings.edit_json("f", text, coding._take_out)


@pytest.mark.parametrize("dialect", EVERY)
def test_our_hooks_stand_beside_theirs(dialect: str) -> None:
    after = json.loads(put(THEIRS, dialect) or "")
    assert after["model"] == "opus"
    assert after["permissions"] == {"allow": ["Bash(ls:*)"]}
    assert after["hooks"]["PreToolUse"] == json.loads(THEIRS)["hooks"]["PreToolUse"]
    assert json.loads(THEIRS)["hooks"]["Stop"][0] in after["hooks"]["Stop"]
    assert coding.named_in(put(THEIRS, dialect)) == "shop"


@pytest.mark.parametrize("dialect", EVERY)
def test_a_second_time_changes_nothing(dialect: str) -> None:
    once = put(THEIRS, dialect)
    assert put(once, dialect) == once


@pytest.mark.parametrize("dialect", EVERY)
def test_what_was_put_in_comes_out(dialect: str) -> None:
    assert json.loads(taken_out(put(THEIRS, dialect)) or "") == json.loads(THEIRS)
    assert taken_out(put(None, dialect)) is None  # a file that was ours alone is gone


def test_a_hook_of_theirs_in_a_group_of_ours_stays() -> None:
    mixed = json.loads(put(None) or "")
    mixed["hooks"]["Stop"][0]["hooks"].append({"type": "command", "command": "say done"})
    left = json.loads(taken_out(json.dumps(mixed)) or "")
    assert left == {"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "say done"}]}]}}


@pytest.mark.parametrize(("indent", "line"), [("    ", '    "model"'), ("\t", '\t"model"'), ("  ", '  "model"')])
def test_the_files_own_indentation_is_kept(indent: str, line: str) -> None:
    assert line in (put("{\n" + indent + '"model": "opus"\n}\n') or "").splitlines()[1]


@pytest.mark.parametrize("text", ["{ // a comment\n}", "[]", '{"hooks": 5}', '{"hooks": {"Stop": "x"}}'])
def test_what_we_do_not_understand_is_refused(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="f "):
        put(text)


@given(st.dictionaries(st.text(max_size=5).filter(lambda key: key != "hooks"), plain, max_size=4))
def test_nothing_else_is_lost(theirs: dict[str, Any]) -> None:
    text = json.dumps(theirs)
    after = json.loads(put(text) or "{}")
    del after["hooks"]
    assert after == theirs
    assert json.loads(taken_out(put(text)) or "{}") == theirs


# --- TOML -------------------------------------------------------------------------------------------------------------

TABLE = ("mcp_servers", "backchannel")
VALUES = {"command": "/bin/backchannel", "args": ["mcp", "--as", "shop"], "tool_timeout_sec": 600}
CONFIG = """# mine
model = "o3"  # the good one
matrix = [
  [1, 2],
  [3],
]

[mcp_servers.other]
command = "other"

[profiles.fast] # quick
model = "o4-mini"
"""


def test_a_table_is_added_and_all_lines_stay() -> None:
    after = settings.with_table("f", CONFIG, TABLE, VALUES)
    assert after.startswith(CONFIG)
    assert tomllib.loads(after)["mcp_servers"]["backchannel"] == VALUES
    assert settings.with_table("f", after, TABLE, VALUES) == after
    assert settings.without_table("f", after, TABLE) == CONFIG


def test_a_table_in_the_middle_is_cut_out_with_what_is_below_it() -> None:
    ours = '[mcp_servers.backchannel]\ncommand = "x"\n[mcp_servers.backchannel.env]\nA = "b"\n'
    assert settings.without_table("f", ours + CONFIG.partition("\n\n")[2], TABLE) == CONFIG.partition("\n\n")[2]


def test_a_comment_above_the_next_table_is_not_cut_out_with_ours() -> None:
    theirs = "# of mine\n[mine]\na = 1\n# the end\n"
    before = f"[mcp_servers.backchannel]\n# of ours\ncommand = 'x'\n{theirs}"
    assert settings.without_table("f", before, TABLE) == theirs


def test_a_file_that_was_ours_alone_is_gone() -> None:
    assert settings.without_table("f", settings.with_table("f", None, TABLE, VALUES), TABLE) is None


@pytest.mark.parametrize(
    "text",
    [
        "mcp_servers = { backchannel = { command = 'x' } }",
        "[mcp_servers]\nbackchannel.command = 'x'",
        "mcp_servers = []",
        "= 5",
    ],
)
def test_a_form_that_we_do_not_know_is_refused(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="f "):
        settings.with_table("f", text, TABLE, VALUES)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("/home/me/shop", "shop"),
        ("/src/My Project", "my-project"),
        ("/x/_Ünïcode.js", "n-code-js"),
        ("/a/" + "b" * 99, "b" * 63),
    ],
)
def test_an_agent_is_named_by_its_directory(directory: str, name: str) -> None:
    assert coding.named_by(directory) == name


def test_a_directory_without_a_letter_gives_no_name() -> None:
    with pytest.raises(LocalProtocolError, match="--agent NAME"):
        coding.named_by("/")
