"""docs/protocol.md is the truth about the wire: its conversation runs as written, its tables equal the code's."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backchannel.daemon import courier, sessioncalls
from backchannel.daemon.config import MODEL_SESSION_MESSAGES
from backchannel.daemon.guard import HOPS_MAX, RATE_A_MINUTE, RATE_BURST, Traces
from backchannel.mailbox.outbox import ROWS_MAX
from backchannel.protocol import endpoint, frame, sessionwire, task, timers
from backchannel.protocol.codes import CODES
from backchannel.protocol.envelope import KINDS, PATH_MAX, SESSION_KINDS
from backchannel.protocol.recvqueue import DIGESTS_KEPT
from backchannel.protocol.sendqueue import WINDOW
from backchannel.protocol.sessionframe import Limits
from backchannel.protocol.states import TABLE, Cause, Input, Outcome, State
from backchannel.protocol.synnumbers import SYN_WINDOW

from .documents import ROOT, Wire, World, marked, private_world
from .inside import Bench

DOCUMENT = (ROOT / "docs/protocol.md").read_text()
PARAMS: dict[str, type[msgspec.Struct]] = {
    "push": frame.Push,
    "receipt": frame.Find,
    "wait": frame.Wait,
    "cancel": frame.Find,
    "frame": sessionwire.Frame,
    "probe": sessionwire.ProbeFrame,
    "ping": frame.Nothing,
    "take": frame.Take,
    "ack": frame.Ack,
    "reject": frame.Reject,
    "release": frame.Release,
    "renew": frame.Renew,
    "commit": frame.Commit,
    "claim": frame.Claim,
    "sessions": sessionwire.Sessions,
    "open": sessionwire.Open,
    "accept": sessionwire.Accept,
    "say": frame.Say,
    "close": frame.Close,
    "abort": sessionwire.Abort,
    "trace": sessionwire.Trace,
    "pause": frame.Nothing,
    "resume": frame.Nothing,
    "peek": frame.Peek,
    "log": frame.Log,
    "tap": frame.Tap,
    "config": frame.Nothing,
    "status": frame.Nothing,
    "check": frame.Check,
    "metrics": frame.Nothing,
    "audit": frame.Nothing,
    "backup": frame.Backup,
    "purge": frame.Purge,
    "purges": frame.Nothing,
    "stop": frame.Nothing,
}
ITEMS: dict[str, type[msgspec.Struct]] = {  # of the lists in a commit
    "acks": frame.Ack,
    "replies": frame.Reply,
    "sends": frame.Send,
    "says": frame.Say,
    "closes": frame.Close,
}
SESSION = "s-0198c0ffee0000000000000000000001"  # of the document's own conversation


@pytest.fixture
def world() -> Iterator[World]:
    with private_world() as world:
        world.succeed("backchannel", "up", "alice", "bob")
        yield world


def test_the_conversation_runs_as_written(world: World) -> None:
    pushed, first, taken, acked, last = run("conversation", world)
    assert [answer["stage"] for answer in (pushed, first, acked, last)] == ["stored", "stored", "acked", "acked"]
    (message,) = taken["messages"]
    assert (message["text"], message["from"], message["delivery"]) == ("use port 8080", "@user", 1)
    assert taken["take_id"] == "shell-1"


def test_the_conversation_of_a_session_runs_as_written(world: World) -> None:
    results = run("session", world)
    assert len(results) == 20
    opened, _, _, accepted = results[:4]
    assert (opened["id"], opened["state"]) == (SESSION, "SYN-SENT")
    assert (accepted["state"], accepted["task_state"]) == ("ESTABLISHED", "working")
    taken = [result["messages"][0] for result in results if "take_id" in result]
    assert [(mail["from"], mail["kind"], mail["text"]) for mail in taken] == [
        ("alice", "offer", "review PR 42"),
        ("bob", "accepted", ""),
        ("alice", "data", "focus on the auth module"),
        ("alice", "finished", ""),
        ("bob", "data", "the token is never checked"),
        ("bob", "finished", "one finding"),
    ]
    (end,) = results[-2]["sessions"]
    assert [end[key] for key in ("state", "cause", "status", "result")] == ["CLOSED", "finished", "ok", "one finding"]
    kinds = [(event["direction"], event["kind"]) for event in results[-1]["events"]]
    assert kinds == [("in", "SYN"), ("out", "SYN-ACK"), ("in", "DATA"), ("in", "FIN"), ("out", "DATA"), ("out", "FIN")]


def run(name: str, world: World) -> list[dict[str, Any]]:
    """The results that one of the document's conversations brought, in order."""
    nc = shutil.which("nc")
    assert nc, "this test needs OpenBSD's netcat: apt install netcat-openbsd"
    usage = subprocess.run([nc, "-h"], capture_output=True, text=True, timeout=10, check=False)
    assert "-U" in usage.stdout + usage.stderr, f"{nc} knows no Unix sockets: apt install netcat-openbsd"
    script = marked("docs/protocol.md")[name]
    printed = world.succeed("bash", "-eu", "-c", script, DIR=world.dir)
    return [json.loads(line)["result"] for line in printed.splitlines()]


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


def test_records_answers_and_events_of_a_session_have_the_members_that_are_documented(world: World) -> None:
    with Wire(world, "alice") as alice, Wire(world, "bob") as bob:
        opened = alice.call("open", to="bob", text="review PR 42")["result"]
        id = opened["id"]
        (offered,) = bob.call("sessions", state="SYN-RECEIVED", wait=10)["result"]["sessions"]
        bob.call("accept", session=id)
        said = bob.call("say", session=id, text="hello")["result"]
        committed = bob.call("commit", says=[{"session": id, "text": "once more"}], closes=[{"session": id}])["result"]
        (mail,) = alice.call("take", kinds=["accepted"], wait=10)["result"]["messages"]
        traced = bob.call("trace", session=id, text=True)["result"]
        claimed = bob.call("claim", session=id)["result"]
        key = Path(world.state, "alice", "key").read_text().strip()
        shown = {"to": "bob", "from": "alice", "auth": key, "session": id, "from_mailbox": "M", "epoch": 1}
        framed = bob.call("frame", kind="SYN-ACK", **shown)["result"]
        probed = bob.call("probe", rcv_nxt=0, acked=1, receipted=0, began=1, **shown)["result"]
    record = _names(_section("### The record"), heading="member")
    assert set(opened) == set(offered) == set(traced["session"]) == set(committed["closes"][0]) == record
    assert set(said) == set(committed["says"][0]) == _names(_section("### `say`"), heading="member")
    assert set(mail) | {"extra"} == _names(_section("### `take`"), heading="member")
    assert all(set(event) == _names(_section("### `trace`"), heading="member") for event in traced["events"])
    assert set(claimed) <= set(re.findall(r"`(\w+)`", _section("### `claim`")))
    assert set(framed) == set(probed) == _names(_section("### `frame`"), heading="member")


def test_the_counts_in_an_answer_are_the_params_of_a_PROBE(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db")
    header = {"to": "executor", "from": "analyst", "auth": "a" * 64, "session": SESSION, "from_mailbox": "M"}
    bench.call(bench.connect(), "frame", kind="SYN", epoch=1, number=[1, 1], **header)
    probe = {"epoch": 1, "rcv_nxt": 0, "acked": 1, "receipted": 1, "began": 1}
    alive = bench.call(bench.connect(), "probe", **header, **probe)
    assert alive["outcome"] == "alive"
    assert set(alive["counts"]) <= set(_documented_params("### `probe`")) - {"from", "auth"}
    bench.close()


def test_what_is_reserved_cannot_be_used(world: World) -> None:
    reserved = _section("## 13. Reserved names")
    assert set(re.findall(r"`(\w+)`", reserved)) == {"unknown_method", "bad_id", "bad_params", "ping"}
    with Wire(world, "bob") as bob:
        assert _code(bob.call("speak")) == "unknown_method"
        for id in (SESSION, f"{SESSION}/1", f"{SESSION}/offer"):
            assert _code(bob.call("push", to="bob", text="mine", id=id)) == "bad_id"
        for kind in SESSION_KINDS:
            assert _code(bob.call("push", to="bob", text="mine", kind=kind)) == "bad_params"


def test_the_numbers_of_the_loop_guard_and_the_outbox_are_those_of_the_code() -> None:
    guard, outbox = _section("## 16. The loop guard"), _section("## 14. The outbox")
    assert f"`hops` is above {HOPS_MAX} " in guard
    assert f"{Traces.MESSAGES_MAX} messages of one trace" in guard
    assert f"{RATE_A_MINUTE:.0f} a minute and at most {RATE_BURST:.0f} at once" in guard
    assert f"{ROWS_MAX:,} rows" in outbox
    push = {row[0]: row[3] for row in _rows(_section("### `push`")) if len(row) == 4}
    assert f"at most {PATH_MAX} names" in push["`path`"]
    assert {kind for kind in KINDS if f"`{kind}`" in push["`kind`"]} == set(KINDS)


def test_the_table_of_a_sessions_machine_is_that_of_the_code() -> None:
    documented: dict[tuple[State, Input], tuple[State, Cause | None, Outcome]] = {}
    for heading in ("### What our own side does", "### What a frame of the peer does"):
        for head, *rows in _tables(_section(heading)):
            for state, *cells in rows:
                row = State(state.strip("`"))
                for column, cell in zip(head[1:], cells, strict=True):
                    if cell not in ("-", "bad"):
                        documented[row, Input(column.strip("`"))] = _read_cell(row, cell)
    of_code = {at: (step.state, step.cause, step.outcome) for at, step in TABLE.items() if step.outcome != Outcome.BAD}
    assert documented == of_code


def test_every_word_of_a_session_is_documented() -> None:
    states = {row[0] for row in _rows(_section("## 20. The session machine"))}
    assert {state.value for state in State} <= states
    outcomes = _names(_section("### `frame`"), heading="outcome")
    assert outcomes - {"retry"} == {outcome.value for outcome in Outcome}
    kinds = _names(_section("### The mail of a session"), heading="kind")
    assert kinds == set(SESSION_KINDS)
    words = {value for name, value in vars(task).items() if name.isupper()}
    assert {row[0].strip("`") for row in _rows(_section("### Task states"))[1:]} == words
    record = next(row[1] for row in _rows(_section("### The record")) if row[0] == "`cause`")
    assert set(re.findall(r"`(\w+)`", record)) == {cause.value for cause in Cause}
    reasons = {timers.Timer.DEADLINE, timers.Timer.ACCEPT, timers.Timer.IDLE}
    assert {timer.value for timer in reasons} <= _names(_section("## 21. Rules of a session"), heading="reason")
    take = {row[0]: row[3] for row in _rows(_section("### `take`")) if len(row) == 4}
    assert set(re.findall(r"`(\w+)`", take["`kinds`"])) == {*KINDS, *SESSION_KINDS}


def test_the_numbers_of_sessions_are_those_of_the_code() -> None:
    rules, limits = _section("## 21. Rules of a session"), dict(_rows(_section("## 2. Lines"))[1:])
    assert f"At most {WINDOW:,} frames may wait" in rules
    assert f"heard of a session's peer for {timers.KEEPALIVE:.0f} s" in rules
    assert f"repeated every {timers.PROBE_AGAIN:.0f} s" in rules
    assert f"unreachable for {courier.REPORT_AFTER_S:.0f} s" in rules
    assert f"{timers.TOMBSTONE / 86_400:.0f} days from the end, the last {endpoint.TOMBSTONES:,}" in rules
    assert f"which of the {SYN_WINDOW:,} numbers" in rules
    assert f"The numbers of {endpoint.MAILBOXES:,} mailboxes" in rules
    assert f"{endpoint.OFFERS_PER_PEER} of one peer and {endpoint.OFFERS} of all" in rules
    assert limits["offers that wait"] == f"{endpoint.OFFERS_PER_PEER} of one peer, {endpoint.OFFERS} in all"
    assert limits["open sessions of an agent"].startswith(f"{sessioncalls.OPEN_MAX:,} ")
    assert limits["sessions in one `sessions`"] == f"{sessioncalls.LIST_MAX}"
    assert limits["a note"] == f"{sessionwire.NOTE_CHARS_MAX} characters"
    assert limits["a text in a session"].startswith(f"`line_bytes_max` less {sessioncalls.FRAME_BYTES} bytes")
    assert f"`max_messages` {MODEL_SESSION_MESSAGES}" in _section("## 16. The loop guard")
    assert f"at most {courier.ERRANDS_A_TARGET} errands" in _section("## 14. The outbox")
    assert f"after {courier.RETRY_FIRST_S} s" in _section("## 14. The outbox")
    assert f"The last {DIGESTS_KEPT} are compared" in _section("### What is looked at first")
    assert _documented_params("### `open`")["accept_timeout"] == f"{Limits().accept_timeout:g}"


def _read_cell(row: State, cell: str) -> tuple[State, Cause | None, Outcome]:
    if cell in {outcome.value for outcome in Outcome}:
        return row, None, Outcome(cell)
    if cell == "=":
        return row, None, Outcome.STORED
    state, _, cause = cell.partition(" ")
    return State(state), Cause(cause.strip("()")) if cause else None, Outcome.STORED


def _code(answer: dict[str, Any]) -> str:
    return str(answer["error"]["data"]["code"])


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
    rows = [line.strip("|").split("|") for line in text.splitlines() if re.match(r"\|(?! ?---)", line)]
    return [[cell.strip() for cell in row] for row in rows]


def _tables(text: str) -> list[list[list[str]]]:
    """The tables of a section, each as its rows; what stands between them parts them."""
    return [_rows(part) for part in re.split(r"\n\n", text) if part.lstrip().startswith(("|", "<!-- made"))]


def _names(text: str, *, heading: str) -> set[str]:
    """The names in the first column of the table with this heading; a cell may hold several."""
    rows = _rows(text)
    first = next(i for i, row in enumerate(rows) if row[0] == heading)
    width = len(rows[first])
    return {name for row in rows[first + 1 :] if len(row) == width for name in re.findall(r"`(\w+)`", row[0])}


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
