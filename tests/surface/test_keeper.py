"""What a busy program holds stays its own: over a restart of the daemon, beside idle loops, and after a fork."""

import os
import threading
import time

import pytest

from backchannel.testing import World

from .helpers import Refusal, control, kill, status, until


def test_an_idle_loop_does_not_keep_a_busy_one_from_its_lease(world: World) -> None:
    bob = world.agent("bob")
    idle = threading.Thread(target=lambda: list(bob.receive(wait=8, kinds=("bounce",))), daemon=True)
    idle.start()
    until(lambda: status(world, "bob")["receiving"], "the idle loop waits")
    bob.send("bob", "think long")
    for delivery in bob.receive(wait=5):
        kill(world, "bob")
        # Held leases wait 5 s for their client: after that it would have fallen.
        fallen_by = time.monotonic() + 6.5
        until(lambda by=fallen_by: time.monotonic() > by, "the time a held lease has")  # type: ignore[misc]
        assert bob.status(delivery.id, "bob").stage == "taken"
        assert delivery.ack().stage == "acked"
        break
    idle.join(timeout=15)


def test_what_is_taken_right_after_a_restart_stays_taken(world: World) -> None:
    bob = world.agent("bob")
    alice = world.agent("alice")
    found = []

    def work() -> None:
        for delivery in bob.receive(wait=10):
            found.append(delivery)
            until(lambda: len(found) > 1 or release.is_set(), "the test to look")
            delivery.ack()
            break

    release = threading.Event()
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    until(lambda: status(world, "bob")["receiving"], "the loop waits")
    kill(world, "bob")
    receipt = alice.send("bob", "first after the restart")
    until(lambda: found, "the message is in the program's hands")
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        assert receipt.refresh().stage == "taken"
    release.set()
    worker.join(timeout=10)
    assert receipt.refresh().stage == "acked"


def test_a_forks_child_gives_nothing_back(world: World) -> None:
    bob = world.agent("bob")
    bob.send("bob", "the parent's")
    for delivery in bob.receive(wait=5):
        child = os.fork()
        if child == 0:
            try:
                bob.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert bob.status(delivery.id, "bob").stage == "taken"
        assert delivery.ack().stage == "acked"
        break


def test_a_name_whose_outbox_is_not_empty_is_not_removed(world: World) -> None:
    bob = world.agent("bob")
    world.up("carl")
    assert world.cli("down", "carl").returncode == 0
    bob.commit(sends=[("carl", "not yet delivered")])
    refused = world.cli("remove", "bob")
    assert refused.returncode == 3
    assert "1 messages waiting" in refused.stderr


def test_two_replies_do_not_share_an_id(world: World) -> None:
    world.up("bob")
    alice = world.agent("alice")
    first, second = alice.send("bob", "one"), alice.send("bob", "two")
    control(world, "bob", "take", max=2, detached=True, wait=5)
    replies = [
        {"id": first.id, "text": "answer one", "reply_id": "same"},
        {"id": second.id, "text": "answer two", "reply_id": "same"},
    ]
    with pytest.raises(Refusal) as refused:
        control(world, "bob", "commit", replies=replies)
    assert refused.value.code == "key_reused"
    assert first.refresh().stage == second.refresh().stage == "taken"
