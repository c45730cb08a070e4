"""Who may do what at an inbox when other uids come to it, on the bench: their word against the policy's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backchannel.daemon.callers import Caller
from backchannel.daemon.inbox import WAITS_OF_ANOTHER_UID
from backchannel.daemon.senders import Senders
from backchannel.transport.paths import Places
from backchannel.transport.policy import Policy

from .inside import UID, Bench, close_all

WRITER, MALLORY, ADA, NOBODY = 4001, 4002, 4003, 4004
OWNERS = {"executor": UID, "writer": WRITER, "mallory": MALLORY}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "mailbox.db")
    bench.keys = {"executor": "c" * 64, "analyst": "a" * 64}  # what this uid can read
    policy = Policy("/etc/backchannel/policy.toml", "/run/backchannel", "g", 1, OWNERS, frozenset({ADA}), frozenset())
    bench.host.policy = lambda: policy
    yield bench
    close_all()


def push(bench: Bench, uid: int, sender: str | None = None, **params: Any) -> str:
    """What becomes of a push: its sender as it is stored, or the code of the refusal."""
    params = {"to": "executor", "text": "hello"} | params | ({"from": sender} if sender else {})
    answer = bench.ask(bench.connect(uid=uid), "push", **params)
    return str(answer["result"]["from"] if "result" in answer else answer["error"]["data"]["code"])


@pytest.mark.parametrize(
    ("uid", "sender", "becomes"),
    [
        (WRITER, "writer", "writer"),
        (WRITER, None, "@user"),
        (ADA, None, "@user"),
        (MALLORY, "writer", "not_permitted"),
        (MALLORY, "executor", "not_permitted"),
        (MALLORY, "analyst", "not_permitted"),
        (MALLORY, "unheard-of", "not_permitted"),
        (ADA, "writer", "not_permitted"),
        (NOBODY, None, "not_permitted"),
        (NOBODY, "writer", "not_permitted"),
        (0, "writer", "not_permitted"),
        (UID, "writer", "not_permitted"),
        (UID, "executor", "not_permitted"),  # without its key
    ],
)
def test_a_name_belongs_to_its_uid(bench: Bench, uid: int, sender: str | None, becomes: str) -> None:
    assert push(bench, uid, sender) == becomes


def test_between_uids_a_key_proves_nothing_and_within_one_it_is_still_needed(bench: Bench) -> None:
    for key in bench.keys.values():
        assert push(bench, MALLORY, "analyst", auth=key) == "not_permitted"
        assert push(bench, MALLORY, "executor", auth=key) == "not_permitted"
    assert push(bench, UID, "analyst", auth=bench.keys["analyst"]) == "analyst"
    assert push(bench, UID, "executor", auth=bench.keys["executor"]) == "executor"


@pytest.mark.parametrize("sender", [None, "writer"])
def test_a_receipt_is_for_who_sent_it(bench: Bench, sender: str | None) -> None:
    assert push(bench, WRITER, sender, id="m-1") == (sender or "@user")
    for method, params in (("receipt", {}), ("wait", {"stage": "done", "timeout": 0}), ("cancel", {})):
        for uid in (MALLORY, ADA):
            assert bench.refusal(bench.connect(uid=uid), method, id="m-1", **params) == "no_such_message"
        if method != "cancel":
            assert bench.call(bench.connect(uid=WRITER), method, id="m-1", **params)["stage"] == "stored"
    assert bench.call(bench.connect(uid=WRITER), "cancel", id="m-1")["stage"] == "cancelled"


def test_what_lies_in_the_outbox_is_nobodys_business(bench: Bench) -> None:
    bench.host.registered = lambda: ["executor", "writer"]
    bench.call(bench.control(), "commit", sends=[{"to": "writer", "text": "secret", "id": "m-1"}])
    assert bench.call(bench.connect(), "receipt", id="m-1")["stage"] == "queued"
    for uid in (WRITER, MALLORY):
        assert bench.refusal(bench.connect(uid=uid), "receipt", id="m-1") == "no_such_message"


def test_only_the_own_uid_and_root_have_the_control_socket(bench: Bench) -> None:
    for uid in (WRITER, MALLORY, ADA, NOBODY):
        caller = bench.connect(is_control=True, uid=uid)
        for method in ("take", "peek", "status", "stop", "ping", "push"):
            assert bench.refusal(caller, method, to="executor", text="x") == "not_permitted"
    for uid in (UID, 0):
        assert bench.call(bench.connect(is_control=True, uid=uid), "status")["agent"] == "executor"


def test_one_uid_does_not_take_all_the_places_to_wait(bench: Bench) -> None:
    assert push(bench, MALLORY, id="m-1") == "@user"
    wait: dict[str, Any] = {"id": "m-1", "stage": "done", "timeout": 600}
    callers: list[Caller] = [bench.connect(uid=MALLORY) for _ in range(WAITS_OF_ANOTHER_UID)]
    for caller in callers:
        bench.receive(caller, "wait", **wait)
    assert bench.finish() == {}
    assert bench.refusal(bench.connect(uid=MALLORY), "wait", **wait) == "again"
    bench.receive(bench.connect(), "wait", **wait)
    assert bench.finish() == {}, "its owner waits beside them"
    bench.hang_up(callers[0])
    bench.receive(bench.connect(uid=MALLORY), "wait", **wait)
    assert bench.finish() == {}


def test_without_a_policy_no_other_uid_gets_in(bench: Bench) -> None:
    bench.host.policy = lambda: None
    for uid in (WRITER, ADA):
        assert push(bench, uid) == "not_permitted"


@pytest.mark.parametrize("text", ["[agents", 'group = "nobody-has-this-group"', "users = 1"])
def test_a_policy_that_says_nothing_now_refuses_nobody_for_good(bench: Bench, tmp_path: Path, text: str) -> None:
    places = Places(str(tmp_path), str(tmp_path))
    places.policy_path = str(tmp_path / "policy.toml")
    Path(places.policy_path).write_text(text)
    bench.host.policy = Senders(places).policy
    params = {"to": "executor", "from": "writer", "text": "hello", "outbox": True}
    refused = bench.ask(bench.connect(uid=WRITER), "push", **params)["error"]
    assert (refused["data"]["code"], refused["data"]["retry"]) == ("busy", True)
    assert places.policy_path in refused["message"]


def test_frames_of_a_session_come_from_the_uid_of_their_agent(bench: Bench) -> None:
    header: dict[str, Any] = {"to": "executor", "from": "writer", "from_mailbox": "M", "epoch": 1}
    header |= {"session": "s-" + "0" * 32}
    syn = header | {"kind": "SYN", "number": [1, 1], "text": "review it"}
    assert bench.refusal(bench.connect(uid=MALLORY), "frame", **syn) == "not_permitted"
    assert bench.call(bench.connect(uid=WRITER), "frame", **syn)["outcome"] == "stored"
    rst = {"kind": "RST", "reason": "mine now", "to_mailbox": bench.mailbox.mailbox_id, "to_epoch": 1}
    assert bench.refusal(bench.connect(uid=MALLORY), "frame", **header, **rst) == "not_permitted"
    other = header | {"from": "mallory"}
    assert bench.call(bench.connect(uid=MALLORY), "frame", **other, **rst)["outcome"] == "bad"
    (record,) = bench.call(bench.control(), "sessions")["sessions"]
    assert record["state"] == "SYN-RECEIVED"
