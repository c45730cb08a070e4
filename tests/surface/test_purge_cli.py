"""`purge`: a person lets what is finished go, while the agent goes on."""

import json
import threading

import pytest

from backchannel.testing import World

from .helpers import collect, status, texts


def test_what_is_finished_goes_and_what_waits_stays(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    alice.send_many("bob", [f"secret {number}" for number in range(120)])
    collect(bob, 100)
    before = status(world, "bob")["counters"]
    counted = world.cli("purge", "bob", "--older-than", "0", "--keep", "30", "--dry-run", "--json")
    assert json.loads(counted.stdout)["contents"] == 90
    done = json.loads(world.cli("purge", "bob", "--older-than", "0", "--keep", "30", "--json").stdout)
    assert (done["name"], done["did"], done["contents"], done["rows"]) == ("bob", "left", 90, 0)
    logged = [json.loads(line) for line in world.cli("log", "bob", "--text", "--json").stdout.splitlines()]
    assert [entry["text"] for entry in logged[88:92]] == [None, None, "secret 90", "secret 91"]
    assert status(world, "bob")["counters"] == before
    assert world.cli("audit", "bob").returncode == 0
    assert texts(collect(bob, 20)) == [f"secret {number}" for number in range(100, 120)]
    (record,) = map(json.loads, world.cli("purge", "bob", "--list", "--json").stdout.splitlines())
    assert (record["purge_no"], record["contents"], record["bytes"]) == (done["purge_no"], 90, done["bytes"])
    assert "90 contents" in world.cli("purge", "bob", "--list").stdout


def test_nothing_old_enough_leaves_nothing_and_no_record(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    alice.send_many("bob", ["hello"] * 3)
    collect(bob, 3)
    done = world.cli("purge", "bob")
    assert (done.returncode, done.stdout) == (0, "bob  the content of 0 messages left, 0 bytes\n")
    assert world.cli("purge", "bob", "--list").stdout == ""
    for words in (["--older-than", "soon"], ["--older-than", "-1d"], ["--keep", "-1"]):
        assert world.cli("purge", "bob", *words).returncode == 2
    assert world.cli("purge", "bbo").returncode == 5


def test_mail_goes_on_while_a_purge_does(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    alice.send_many("bob", ["x" * 2000] * 1500)
    collect(bob, 1500)
    came: list[str] = []

    def talk() -> None:
        for number in range(100):
            alice.send("bob", f"news {number}")
            came.extend(texts(collect(bob, 1)))

    talking = threading.Thread(target=talk)
    talking.start()
    purged = world.cli("purge", "bob", "--older-than", "0", "--keep", "200", "--json")
    talking.join()
    assert json.loads(purged.stdout)["contents"] >= 1300
    assert came == [f"news {number}" for number in range(100)]


def test_a_key_used_before_a_purge_still_is_a_repetition(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    first = alice.send("bob", "deploy 42", key="deploy-42")
    collect(bob, 1)
    assert world.cli("purge", "bob", "--older-than", "0").returncode == 0
    world.kill("bob")
    again = alice.send("bob", "deploy 42", key="deploy-42")
    assert (again.duplicate, again.msg_no, again.stage) == (True, first.msg_no, "acked")
    assert world.cli("send", "bob", "deploy 43", "--as", "alice", "--key", "deploy-42").returncode == 3


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--keep", "-1"), "'-1' is not a number from 0 on"),
        (("--older-than", "1x"), "'1x' is not a length of time such as 90s, 12h or 30d"),
        (("--older-than", "999999d"), "'999999d' is not a length of time"),
        (("--older-than", "99999d"), "no more than since 1970"),
    ],
)
def test_a_wrong_number_is_told_in_words(world: World, words: tuple[str, ...], complaint: str) -> None:
    world.up("bob")
    done = world.cli("purge", "bob", *words)
    assert done.returncode == 2
    assert complaint in done.stderr
