"""Who sent it is the kernel's word and the agent's key, never the text; and a repeated id is one message."""

import os

import pytest

from ..world import STRANGER, Failed, World, eventually, request


def refusal(world: World, to: str, **params: object) -> Failed:
    with pytest.raises(Failed) as failed:
        world.call(to, "push", {"to": to, "text": "I am somebody else"} | params)
    return failed.value


@pytest.fixture
def pair(world: World) -> World:
    world.start("alice", "bob")
    return world


# --- whose word it is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", [None, "", "0" * 64, "wrong", "\u00e9" * 64, "x" * 10_000])
def test_a_name_without_its_key_is_refused(pair: World, auth: str | None) -> None:
    refused = refusal(pair, "bob", **{"from": "alice", "auth": auth})
    assert refused.code == "not_permitted"
    assert not refused.retry
    assert "alice" in str(refused)
    assert pair.texts("bob") == []


def test_another_agents_key_is_the_wrong_key(pair: World) -> None:
    assert refusal(pair, "bob", **{"from": "alice", "auth": pair.key("bob")}).code == "not_permitted"


def test_a_key_almost_right_is_wrong(pair: World) -> None:
    key = pair.key("alice")
    for wrong in (key[:-1], key + "0", key.upper() + " ", " " + key):
        assert refusal(pair, "bob", **{"from": "alice", "auth": wrong}).code == "not_permitted"


def test_nobody_speaks_for_an_agent_that_does_not_exist(pair: World) -> None:
    refused = refusal(pair, "bob", **{"from": "mallory", "auth": "0" * 64})
    assert refused.code == "not_permitted"
    assert "mallory" in str(refused)


def test_not_even_to_its_own_mailbox(pair: World) -> None:
    assert refusal(pair, "bob", **{"from": "bob"}).code == "not_permitted"


def test_with_its_key_an_agent_is_believed(pair: World) -> None:
    assert pair.push("bob", sender="alice")["from"] == "alice"
    (message,) = pair.take("bob")
    assert message["from"] == "alice"
    assert message["uid"] == os.geteuid()
    assert message["pid"] == os.getpid()


def test_a_process_that_is_no_agent_speaks_as_user(pair: World) -> None:
    assert pair.push("bob")["from"] == "@user"
    (message,) = pair.take("bob")
    assert (message["from"], message["uid"], message["gid"]) == ("@user", os.geteuid(), os.getegid())


def test_the_kernels_word_cannot_be_overwritten_from_inside(pair: World) -> None:
    pair.push("bob", "x", uid=0, gid=0, pid=1, msg_no=99, delivery=7, sender="alice", mailbox_id="mine")
    (message,) = pair.take("bob")
    assert (message["pid"], message["msg_no"], message["delivery"]) == (os.getpid(), 1, 1)
    assert message["kind"] == "message"
    assert message["mailbox_id"] == pair.call("bob", "ping")["mailbox_id"]


def test_a_key_is_never_handed_on(pair: World) -> None:
    pair.push("bob", sender="alice")
    key = pair.key("alice").encode()
    link = pair.control("bob")
    link.ask("take")
    line = link.line()
    assert b'"alice"' in line
    assert key not in line
    for path in (pair.state / "bob").iterdir():
        assert key not in path.read_bytes(), path


def test_a_new_key_takes_the_place_of_the_old_one_at_once(pair: World) -> None:
    pair.push("bob", sender="alice")
    old = pair.key("alice")
    fresh = pair.state / "alice" / "fresh"
    fresh.write_text("1" * 64 + "\n")
    fresh.chmod(0o600)
    fresh.rename(pair.state / "alice" / "key")
    assert pair.push("bob", sender="alice")["from"] == "alice"
    assert refusal(pair, "bob", **{"from": "alice", "auth": old}).code == "not_permitted"


def test_an_agent_that_was_removed_cannot_be_spoken_for(pair: World) -> None:
    pair.push("bob", sender="alice")
    key = pair.key("alice")
    (pair.state / "alice" / "key").unlink()
    # A look at a key is saved for some milliseconds of a burst.
    eventually(lambda: is_refused(pair, key), "her old key means nothing", within=2)


def is_refused(world: World, key: str) -> bool:
    try:
        world.call("bob", "push", {"to": "bob", "text": "x", "from": "alice", "auth": key})
    except Failed as failed:
        return failed.code == "not_permitted"
    return False


def test_a_key_that_is_a_link_or_another_users_is_no_key(pair: World) -> None:
    (pair.state / "alice" / "key").rename(pair.root / "key")
    (pair.state / "alice" / "key").symlink_to(pair.root / "key")
    assert refusal(pair, "bob", **{"from": "alice", "auth": pair.key("alice")}).code == "not_permitted"


# --- one id, one message ----------------------------------------------------------------------------------------------


def test_a_repeated_id_is_one_message_and_says_so(pair: World) -> None:
    first = pair.push("bob", "once", id="k1", sender="alice")
    again = pair.push("bob", "once", id="k1", sender="alice")
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert again | {"duplicate": False} == first
    assert pair.texts("bob") == ["once"]


def test_it_stays_one_message_after_it_was_acked(pair: World) -> None:
    pair.push("bob", "once", id="k1")
    assert pair.texts("bob") == ["once"]
    again = pair.push("bob", "once", id="k1")
    assert again["duplicate"]
    assert again["stage"] == "acked"
    assert pair.texts("bob") == []


@pytest.mark.parametrize("change", [{"text": "two"}, {"headers": {"a": "2"}}, {"headers": None}])
def test_the_same_id_with_something_else_is_refused_never_called_a_duplicate(
    pair: World, change: dict[str, object]
) -> None:
    first = {"to": "bob", "text": "one", "id": "k1", "headers": {"a": "1"}}
    pair.call("bob", "push", first)
    with pytest.raises(Failed) as failed:
        pair.call("bob", "push", first | change)
    assert failed.value.code == "key_reused"
    assert pair.texts("bob") == ["one"]


def test_the_same_text_written_otherwise_is_the_same_text(pair: World) -> None:
    pair.push("bob", "\u00e9", id="k1")
    link = pair.link("bob")
    link.send('{"jsonrpc":"2.0","id":1,"method":"push","params":{"id":"k1","text":"\u00e9","to":"bob"}}\n'.encode())
    assert link.answer()["result"]["duplicate"]


def test_two_senders_may_use_the_same_id(pair: World) -> None:
    pair.push("bob", "from alice", id="k1", sender="alice")
    assert not pair.push("bob", "from bob", id="k1", sender="bob")["duplicate"]
    assert not pair.push("bob", "from a user", id="k1")["duplicate"]
    with pytest.raises(Failed) as failed:
        pair.receipt("bob", "k1")
    assert failed.value.code == "ambiguous"
    assert pair.receipt("bob", "k1", **{"from": "alice"})["from"] == "alice"
    assert pair.receipt("bob", "k1", **{"from": "@user"})["from"] == "@user"
    assert len(pair.texts("bob")) == 3


def test_two_users_may_use_the_same_id(world: World, other_uid: list[str]) -> None:
    """Root may push to anybody's agent; it is another `@user` than the agent's owner."""
    world.root.chmod(0o711)
    for folder in (world.state, world.dir):
        folder.mkdir(mode=0o700)
        os.chown(folder, STRANGER, STRANGER)
    world.start("bob", wrap=other_uid)
    assert not world.push("bob", "from root", id="k1")["duplicate"]
    script = (
        "import socket, sys\nwith socket.socket(socket.AF_UNIX) as sock:\n"
        "    sock.connect(sys.argv[1])\n    sock.sendall(sys.argv[2].encode())\n    print(sock.recv(65536).decode())"
    )
    params = {"to": "bob", "text": "from the owner", "id": "k1"}
    for duplicate in ("false", "true"):
        said = world.run(script, world.path("bob"), request("push", params).decode(), wrap=other_uid)
        assert f'"duplicate":{duplicate}' in said
    messages = world.take("bob", 10)
    assert [(m["text"], m["uid"]) for m in messages] == [("from root", 0), ("from the owner", STRANGER)]


def test_without_an_id_every_push_is_a_message_of_its_own(pair: World) -> None:
    assert len({pair.push("bob", "same")["id"] for _ in range(3)}) == 3
    assert pair.texts("bob") == ["same"] * 3
