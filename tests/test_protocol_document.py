"""docs/protocol.md is the truth about the wire: its conversation runs as written, its tables equal the code's."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from backchannel.daemon.guard import HOPS_MAX, RATE_A_MINUTE, RATE_BURST, Traces
from backchannel.mailbox.outbox import ROWS_MAX
from backchannel.protocol import frame
from backchannel.protocol.codes import CODES
from backchannel.protocol.envelope import KINDS, PATH_MAX

from .documents import ROOT, Wire, World, marked, private_world
from .inside import Bench

DOCUMENT = (ROOT / "docs/protocol.md").read_text()
PARAMS: dict[str, type[msgspec.Struct]] = {
    "push": frame.Push,
    "receipt": frame.Find,
    "wait": frame.Wait,
    "cancel": frame.Find,
    "ping": frame.Nothing,
    "take": frame.Take,
    "ack": frame.Ack,
    "reject": frame.Reject,
    "release": frame.Release,
    "renew": frame.Token,
    "commit": frame.Commit,
    "claim": frame.Claim,
    "pause": frame.Nothing,
    "resume": frame.Nothing,
    "peek": frame.Look,
    "log": frame.Look,
    "tap": frame.Tap,
    "config": frame.Nothing,
    "status": frame.Nothing,
    "stop": frame.Nothing,
}
ITEMS: dict[str, type[msgspec.Struct]] = {  # of the lists in a commit
    "acks": frame.Ack,
    "replies": frame.Reply,
    "sends": frame.Send,
}


@pytest.fixture
def world() -> Iterator[World]:
    with private_world() as world:
        world.succeed("backchannel", "up", "bob")
        yield world


def test_the_conversation_runs_as_written(world: World) -> None:
    nc = shutil.which("nc")
    assert nc, "this test needs OpenBSD's netcat: apt install netcat-openbsd"
    usage = subprocess.run([nc, "-h"], capture_output=True, text=True, timeout=10, check=False)
    assert "-U" in usage.stdout + usage.stderr, f"{nc} knows no Unix sockets: apt install netcat-openbsd"
    script = marked("docs/protocol.md")["conversation"]
    lines = world.succeed("bash", "-eu", "-c", script, DIR=world.dir).splitlines()
    pushed, first, taken, acked, last = [json.loads(line)["result"] for line in lines]
    assert [answer["stage"] for answer in (pushed, first, acked, last)] == ["stored", "stored", "acked", "acked"]
    (message,) = taken["messages"]
    assert (message["text"], message["from"], message["delivery"]) == ("use port 8080", "@user", 1)
    assert taken["take_id"] == "shell-1"


def test_the_methods_are_those_of_the_daemon(tmp_path: Path) -> None:
    rows = [row for row in _rows(_section("## 8. Methods of both sockets")) if row[0].startswith("`")]
    documented = {name.strip("`"): (inbox == "yes", control == "yes") for name, inbox, control, _ in rows}
    bench = Bench(tmp_path / "mailbox.db")
    host = bench.host
    assert documented == {name: (name in host._inbox, name in host._control) for name in host._control}
    assert set(PARAMS) == set(documented)
    bench.close()


@pytest.mark.parametrize("method", PARAMS)
def test_the_params_of_a_method_are_those_of_its_struct(method: str) -> None:
    assert _documented_params(f"### `{method}`") == _params(PARAMS[method])


@pytest.mark.parametrize("items", ITEMS)
def test_the_items_of_a_commit_are_those_of_their_structs(items: str) -> None:
    assert _documented_params(f"#### `{items}`") == _params(ITEMS[items])


def test_the_error_codes_are_those_of_the_code() -> None:
    rows = [row for row in _rows(_section("### Error codes")) if row[0].startswith("`")]
    documented = {code.strip("`"): (int(number), int(exit_code)) for code, number, exit_code, _, _ in rows}
    assert documented == {code: (number, exit_code) for code, (number, _, exit_code) in CODES.items()}


def test_receipts_and_messages_have_the_members_that_are_documented(world: World) -> None:
    with Wire(world, "bob") as bob:
        receipt = bob.call("push", to="bob", text="hello", unknown=1)["result"]
        (message,) = bob.call("take")["result"]["messages"]
        ping, status = bob.call("ping")["result"], bob.call("status")["result"]
        done = _answered_by(bob)
        peeked, logged = (bob.call(method, max=1)["result"]["messages"][0] for method in ("peek", "log"))
        settings = bob.call("config")["result"]["settings"]
        event, tapped = _an_event(bob)
    assert set(receipt) == _names(_section("## 7. Receipts"), heading="member")
    assert set(message) == _names(_section("### `take`"), heading="member")
    assert set(done) == set(receipt) | {"reply_text"}
    assert "`reply_text`" in _section("## 7. Receipts")
    assert set(peeked["message"]) == set(logged["message"]) == set(message)
    assert set(peeked) == _names(_section("### `peek`"), heading="member")
    assert set(logged) == _names(_section("### `log`"), heading="member")
    assert set(event) | {"text"} == _names(_section("### `tap`"), heading="member")
    assert set(tapped) <= set(re.findall(r"`(\w+)`", _section("### `tap`")))
    assert all(set(setting) == _names(_section("### `config`"), heading="member") for setting in settings)
    assert set(ping) <= set(re.findall(r"`(\w+)`", _section("### `ping`")))
    assert set(status) | set(status["counters"]) <= set(re.findall(r"`(\w+)`", _section("### `status`")))


def test_reserved_methods_are_refused_as_unknown(world: World) -> None:
    listed = _section("## 13. Reserved names").partition("Also reserved")[0]
    reserved = [name for name in re.findall(r"`(\w+)`", listed) if name != "unknown_method"]
    assert {"frame", "probe", "open", "accept"} <= set(reserved)
    assert not set(reserved) & set(PARAMS)
    with Wire(world, "bob") as bob:
        codes = {name: bob.call(name)["error"]["data"]["code"] for name in reserved}
    assert codes == dict.fromkeys(reserved, "unknown_method")


def test_the_numbers_of_the_loop_guard_and_the_outbox_are_those_of_the_code() -> None:
    guard, outbox = _section("## 16. The loop guard"), _section("## 14. The outbox")
    assert f"`hops` is above {HOPS_MAX} " in guard
    assert f"{Traces.MESSAGES_MAX} messages of one trace" in guard
    assert f"{RATE_A_MINUTE:.0f} a minute and at most {RATE_BURST:.0f} at once" in guard
    assert f"{ROWS_MAX:,} rows" in outbox
    push = {row[0]: row[3] for row in _rows(_section("### `push`")) if len(row) == 4}
    assert f"at most {PATH_MAX} names" in push["`path`"]
    assert {kind for kind in KINDS if f"`{kind}`" in push["`kind`"]} == set(KINDS)


def _answered_by(bob: Wire) -> dict[str, object]:
    """The receipt of a question of nobody in particular, after bob answered it."""
    bob.call("push", to="bob", id="question", text="8080 or 3000?")
    bob.call("take")
    bob.call("commit", replies=[{"id": "question", "text": "8080"}])
    receipt: dict[str, object] = bob.call("receipt", id="question")["result"]
    return receipt


def _an_event(bob: Wire) -> tuple[dict[str, object], dict[str, object]]:
    """The event of a message being stored, and the answer it came in."""
    last = bob.call("tap")["result"]["last"]
    bob.call("push", to="bob", text="look")
    tapped = bob.call("tap", after=last)["result"]
    return tapped["events"][0], tapped


def _documented_params(heading: str) -> dict[str, str]:
    documented = {row[0].strip("`"): row[2] for row in _rows(_section(heading)) if len(row) == 4}
    documented.pop("param", None)
    return documented


def _params(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {field.encode_name: _default(field) for field in msgspec.structs.fields(struct)}


def _section(heading: str) -> str:
    """From a heading to the next one of any level."""
    _, found, rest = DOCUMENT.partition(f"\n{heading}\n")
    assert found, f"docs/protocol.md has no {heading!r}"
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def _rows(text: str) -> list[list[str]]:
    """The rows of a section's tables, their heads included."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|") and "|--" not in line]
    return [[cell.strip() for cell in row] for row in rows]


def _names(text: str, *, heading: str) -> set[str]:
    """The names in the first column of the table with this heading; a cell may hold several."""
    rows = _rows(text)
    first = next(i for i, row in enumerate(rows) if row[0] == heading)
    return {name for row in rows[first + 1 :] for name in re.findall(r"`(\w+)`", row[0])}


def _default(field: msgspec.structs.FieldInfo) -> str:
    """A default as the document writes it."""
    if field.default_factory is not msgspec.NODEFAULT:
        return json.dumps(field.default_factory())
    if field.default is msgspec.NODEFAULT:
        return "required"
    if isinstance(field.default, msgspec.Raw):
        return bytes(field.default).decode()
    if isinstance(field.default, str):
        return f'`"{field.default}"`'
    if isinstance(field.default, float):
        return f"{field.default:g}"
    return json.dumps(field.default)
