"""Between the two ends: batches whose answers overtake each other, receipts that wait for the disk, takes asked again,
and what one end accepts but the other could not read."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from backchannel import Agent, OverLimit, Receipt
from backchannel.transport.paths import Places

from .documents import Wire, World, private_world


@pytest.fixture
def world() -> Iterator[World]:
    with private_world() as world:
        yield world


def test_a_batch_that_meets_a_full_mailbox_tells_of_each_text_what_became_of_it(world: World) -> None:
    world.configure("bob", "messages_max = 20\n")
    world.succeed("backchannel", "up", "bob")
    texts = [f"text {number}" for number in range(15)]
    with Agent("alice", places=Places(world.dir, world.state)) as alice:
        with pytest.raises(OverLimit) as caught:
            # The refusals do not wait for the disk, and are here before the receipts.
            alice.send_many("bob", texts, durability="power")
        outcomes: list[Any] = caught.value.receipts  # type: ignore[attr-defined]
    stored = [text for text, outcome in zip(texts, outcomes, strict=True) if isinstance(outcome, Receipt)]
    printed = world.succeed("backchannel", "recv", "--json", BACKCHANNEL_AGENT="bob").splitlines()
    assert [json.loads(line)["text"] for line in printed] == stored == texts[:10]


def test_a_line_too_long_among_others_is_the_only_one_refused(world: World) -> None:
    world.configure("bob", "line_bytes_max = 4096\n")
    world.succeed("backchannel", "up", "bob")
    with Agent("alice", places=Places(world.dir, world.state)) as alice:
        with pytest.raises(OverLimit) as caught:
            alice.send_many("bob", ["first", "x" * 5000, "last"])
        first, middle, last = caught.value.receipts  # type: ignore[attr-defined]
    assert isinstance(first, Receipt)
    assert isinstance(middle, OverLimit)
    assert isinstance(last, Receipt)


def test_a_repeated_push_is_answered_with_power_though_nothing_new_was_stored(world: World) -> None:
    world.configure("bob", "messages_max = 4\n")
    world.succeed("backchannel", "up", "bob")
    with Agent("alice", places=Places(world.dir, world.state)) as alice:
        alice.send("bob", "hello", key="one")
        alice.send("bob", "hello", key="two", durability="power")  # from here on nothing is left to flush
        with pytest.raises(OverLimit):
            alice.send("bob", "hello", key="three")
        again = alice.send("bob", "hello", key="one", durability="power", timeout=5)
    assert (again.duplicate, again.durability) == (True, "power")


def test_a_detached_lease_asked_for_again_as_a_held_one_stays_detached_and_falls(world: World) -> None:
    world.configure("bob", "lease_s = 1\n")
    world.succeed("backchannel", "up", "bob")
    world.succeed("backchannel", "send", "bob", "hello")
    with Wire(world, "bob") as bob:
        (first,) = bob.call("take", take_id="t-1", detached=True)["result"]["messages"]
        (same,) = bob.call("take", take_id="t-1")["result"]["messages"]
        (later,) = bob.call("take", take_id="t-2", wait=8)["result"]["messages"]
    assert (first["delivery"], same["delivery"], later["delivery"]) == (1, 1, 2)


def test_what_a_push_may_nest_a_reader_can_read(world: World) -> None:
    world.succeed("backchannel", "up", "bob")
    with Wire(world, "bob") as bob:
        deep: object = []
        levels = 1
        while "result" in bob.call("push", to="bob", text=f"{levels} levels", note=deep):
            deep, levels = [deep], levels + 1
            assert levels < 64, "there is a limit"
    printed = world.succeed("backchannel", "recv", "--json", BACKCHANNEL_AGENT="bob").splitlines()
    assert [json.loads(line)["text"] for line in printed] == [f"{n} levels" for n in range(1, levels)]


def test_a_taker_that_is_gone_gets_nothing_even_if_its_take_is_read_with_the_push(world: World) -> None:
    world.succeed("backchannel", "up", "bob")
    with Wire(world, "bob") as sender:
        with Wire(world, "bob") as taker:
            taker.call("ping")
            os.kill(sender.daemon_pid, signal.SIGSTOP)  # so that all that follows is one pass of the daemon's loop
            taker.ask("take", wait=60)
        sender.ask("push", to="bob", text="hello", id="m-1")
        os.kill(sender.daemon_pid, signal.SIGCONT)
        assert sender.answer()["result"]["stage"] == "stored"
        receipt = sender.call("receipt", id="m-1")["result"]
    assert (receipt["stage"], receipt["delivery"]) == ("stored", 0)
