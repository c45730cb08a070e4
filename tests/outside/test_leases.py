"""Handing out: a message is with one taker at a time, comes back when he dies, and is dead when it kills everybody."""

import os
import signal
import time
from typing import Any

import pytest

from ..world import Failed, Link, World, eventually, result, stays

HELD_GRACE_S = 5.0  # how long held leases wait for their client after a daemon's restart


@pytest.fixture
def bob(world: World) -> World:
    world.start("bob")
    return world


def take(link: Link, **params: Any) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = link.call("take", params)["messages"]
    return messages


def seen(messages: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(message["id"], message["delivery"]) for message in messages]


def refused(link: Link, method: str, **params: Any) -> str:
    with pytest.raises(Failed) as failed:
        link.call(method, params)
    return failed.value.code


# --- handing out ------------------------------------------------------------------------------------------------------


def test_messages_are_handed_out_in_order_each_to_one_taker(bob: World) -> None:
    ids = [bob.push("bob", str(number))["id"] for number in range(10)]
    one, two = bob.control("bob"), bob.control("bob")
    taken = [seen(take(link, max=2)) for link in (one, two, one, two, one, two)]
    assert [pair for batch in taken for pair in batch] == [(key, 1) for key in ids]


def test_urgent_goes_first_and_low_last(bob: World) -> None:
    for priority in ("low", "normal", "urgent", "low", "urgent"):
        bob.push("bob", priority, priority=priority)
    assert bob.texts("bob") == ["urgent", "urgent", "normal", "low", "low"]


def test_a_taker_who_waits_gets_the_message_as_it_comes(bob: World) -> None:
    control = bob.control("bob")
    asked = control.ask("take", {"wait": 30})
    receipt = bob.push("bob", "there you are")
    assert receipt["stage"] == "stored", "a receipt of stored says stored"
    answer = control.answer()
    assert answer["id"] == asked
    assert seen(result(answer)["messages"]) == [(receipt["id"], 1)]
    assert bob.receipt("bob", receipt["id"])["stage"] == "taken"


def test_a_taker_whose_time_is_over_gets_an_empty_answer(bob: World) -> None:
    begin = time.monotonic()
    assert take(bob.control("bob"), wait=0.2) == []
    assert 0.19 < time.monotonic() - begin < 2


def test_those_who_wait_for_a_stage_are_told_at_once(bob: World) -> None:
    receipt = bob.push("bob")
    sender, control = bob.link("bob"), bob.control("bob")
    for stage, move in (("taken", ("take", {})), ("acked", ("ack", {"id": receipt["id"]}))):
        sender.ask("wait", {"id": receipt["id"], "stage": stage, "timeout": 30})
        control.call(*move)
        assert result(sender.answer())["stage"] == stage


def test_a_wait_for_done_ends_when_it_can_never_come(bob: World) -> None:
    receipt = bob.push("bob")
    sender, control = bob.link("bob"), bob.control("bob")
    sender.ask("wait", {"id": receipt["id"], "stage": "done", "timeout": 30})
    take(control)
    control.call("reject", {"id": receipt["id"], "reason": "not my job"})
    answer = result(sender.answer())
    assert (answer["stage"], answer["reason"]) == ("rejected", "not my job")


def test_a_message_is_cancelled_only_while_nobody_has_it(bob: World) -> None:
    waiting, taken, acked = (bob.push("bob", key, id=key, priority="urgent")["id"] for key in ("w", "t", "a"))
    inbox, control = bob.link("bob"), bob.control("bob")
    assert inbox.call("cancel", {"id": waiting})["stage"] == "cancelled"
    assert inbox.call("cancel", {"id": waiting})["stage"] == "cancelled", "and once more does no harm"
    assert [message["id"] for message in take(control, max=9)] == [taken, acked]
    control.call("ack", {"id": acked})
    assert refused(inbox, "cancel", id=taken) == "taken"
    assert refused(inbox, "cancel", id=acked) == "ended"


# --- coming back ------------------------------------------------------------------------------------------------------


def test_a_held_lease_falls_when_its_connection_closes(bob: World) -> None:
    receipt = bob.push("bob")
    first = bob.control("bob")
    assert seen(take(first)) == [(receipt["id"], 1)]
    second = bob.control("bob")
    second.ask("take", {"wait": 30})
    first.close()
    assert seen(result(second.answer())["messages"]) == [(receipt["id"], 2)]


TAKER = """
import sys
from backchannel import Agent
with Agent("bob") as me:
    for delivery in me.receive(wait=10):
        print(delivery.id, delivery.delivery, flush=True)
        sys.stdin.read()
"""


def test_an_agent_killed_after_taking_leaves_the_message_to_the_next_one(bob: World) -> None:
    receipt = bob.push("bob")
    for delivery in (1, 2):
        with bob.python(TAKER) as taker:
            assert taker.stdout
            assert taker.stdout.readline().split() == [receipt["id"], str(delivery)]
            assert bob.receipt("bob", receipt["id"])["stage"] == "taken"
            os.kill(taker.pid, signal.SIGKILL)
    eventually(lambda: bob.receipt("bob", receipt["id"])["stage"] == "stored")
    assert seen(bob.take("bob")) == [(receipt["id"], 3)]


def test_what_five_takers_did_not_survive_is_dead_and_says_so(bob: World) -> None:
    receipt = bob.push("bob", "poison")
    bob.push("bob", "the next one")
    sender = bob.link("bob")
    sender.ask("wait", {"id": receipt["id"], "stage": "acked", "timeout": 60})
    for delivery in range(1, 6):
        victim = bob.control("bob")
        assert seen(take(victim, wait=10)) == [(receipt["id"], delivery)]
        victim.close()
        if delivery < 5:
            eventually(lambda: bob.receipt("bob", receipt["id"])["stage"] == "stored")
    answer = result(sender.answer())
    assert (answer["stage"], answer["delivery"]) == ("dead", 5)
    assert "5 deliveries" in answer["reason"]
    assert bob.texts("bob") == ["the next one"]


def test_how_many_deliveries_is_a_setting(world: World) -> None:
    world.configure("bob", "deliveries_max = 1\n")
    world.start("bob")
    receipt = world.push("bob")
    control = world.control("bob")
    take(control)
    assert control.call("release", {"id": receipt["id"]})["stage"] == "dead"


def test_a_released_message_comes_again_and_an_unseen_one_is_not_counted(bob: World) -> None:
    receipt = bob.push("bob")
    control = bob.control("bob")
    for delivery, unseen in ((1, False), (2, True), (3, True), (4, False), (5, False)):
        assert seen(take(control)) == [(receipt["id"], delivery)]
        control.call("release", {"id": receipt["id"], "delivery": delivery, "unseen": unseen})


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_an_old_delivery_cannot_be_settled(bob: World) -> None:
    key = bob.push("bob")["id"]
    zombie = bob.control("bob")
    take(zombie)
    zombie.call("release", {"id": key})
    current = bob.control("bob")
    assert seen(take(current)) == [(key, 2)]
    for method in ("ack", "release", "renew"):
        assert refused(zombie, method, id=key, delivery=1) == "stale"
    assert refused(zombie, "reject", id=key, delivery=1, reason="too late") == "stale"
    assert current.call("ack", {"id": key, "delivery": 2})["stage"] == "acked"
    assert refused(zombie, "ack", id=key, delivery=1) == "ended"


def test_an_ack_whose_answer_was_lost_may_be_said_again(bob: World) -> None:
    key = bob.push("bob")["id"]
    control = bob.control("bob")
    take(control)
    control.call("ack", {"id": key, "delivery": 1})
    again = bob.control("bob").call("ack", {"id": key, "delivery": 1})
    assert (again["stage"], again["duplicate"]) == ("acked", True)


def test_a_reject_may_be_said_again_but_not_otherwise(bob: World) -> None:
    key = bob.push("bob")["id"]
    control = bob.control("bob")
    take(control)
    control.call("reject", {"id": key, "delivery": 1, "reason": "busy"})
    assert control.call("reject", {"id": key, "delivery": 1, "reason": "busy"})["duplicate"]
    assert refused(control, "reject", id=key, delivery=1, reason="lazy") == "ended"
    assert refused(control, "ack", id=key, delivery=1) == "ended"


def test_what_was_never_handed_out_cannot_be_acked(bob: World) -> None:
    key = bob.push("bob")["id"]
    assert refused(bob.control("bob"), "ack", id=key) == "stale"
    assert refused(bob.control("bob"), "ack", id=key, delivery=0) == "stale"
    assert bob.receipt("bob", key)["stage"] == "stored"


def test_a_take_whose_answer_was_lost_is_answered_again_with_the_same(bob: World) -> None:
    ids = [bob.push("bob", str(number))["id"] for number in range(4)]
    control = bob.control("bob")
    first = take(control, take_id="t-1", max=2)
    assert take(control, take_id="t-1", max=2) == first, "the very same, delivery and all"
    assert seen(take(control, take_id="t-2", max=2)) == [(ids[2], 1), (ids[3], 1)]
    control.call("ack", {"id": ids[0]})
    assert seen(take(control, take_id="t-1", max=2)) == [(ids[1], 1)], "what is left of it"


# --- detached ---------------------------------------------------------------------------------------------------------


def test_a_detached_lease_outlives_its_connection_and_any_process_may_ack_it(bob: World) -> None:
    key = bob.push("bob")["id"]
    assert seen(bob.take("bob", take_id="t-1")) == [(key, 1)]
    assert bob.take("bob") == []
    assert bob.receipt("bob", key)["stage"] == "taken"
    assert seen(bob.take("bob", take_id="t-1")) == [(key, 1)], "a lost answer is given again"
    assert bob.control("bob").call("ack", {"id": key, "delivery": 1})["stage"] == "acked"


def test_a_detached_lease_falls_after_its_time_and_renewing_lengthens_it(world: World) -> None:
    world.configure("bob", "lease_s = 1\n")
    world.start("bob")
    key = world.push("bob")["id"]
    begin = time.monotonic()
    world.take("bob")
    control = world.control("bob")
    assert stays(lambda: control.call("renew", {"id": key, "delivery": 1})["stage"] == "taken", during=1.5)
    assert seen(take(control, wait=10)) == [(key, 2)]
    assert time.monotonic() - begin > 2.4
    control.call("ack", {"id": key})


def test_a_detached_lease_survives_a_kill_of_the_daemon(world: World) -> None:
    daemon = world.start("bob")
    key = world.push("bob")["id"]
    world.take("bob")
    daemon.kill()
    world.restart(daemon)
    assert world.take("bob") == []
    assert world.control("bob").call("ack", {"id": key, "delivery": 1})["stage"] == "acked"


# --- the daemon restarts under the agent ------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_held_lease_survives_a_restart_if_its_client_comes_back(world: World, end: str) -> None:
    daemon = world.start("bob")
    key = world.push("bob")["id"]
    take(world.control("bob"), take_id="t-1")
    if end == "kill":
        daemon.kill()
    else:
        daemon.stop()
    world.restart(daemon)
    control = world.control("bob")
    assert take(bystander := world.control("bob")) == []
    assert seen(take(control, take_id="t-1", resume=True)) == [(key, 1)]
    assert stays(lambda: take(bystander) == [], during=0.2)
    assert control.call("ack", {"id": key, "delivery": 1})["stage"] == "acked"


def test_a_held_lease_falls_if_nobody_comes_back_and_not_if_somebody_did(world: World) -> None:
    daemon = world.start("bob")
    held, lost = world.push("bob", "held")["id"], world.push("bob", "lost")["id"]
    control = world.control("bob")
    take(control, take_id="t-held")
    take(control, take_id="t-lost")
    daemon.kill()
    begin = time.monotonic()
    world.restart(daemon)
    came_back = world.control("bob")
    assert seen(take(came_back, take_id="t-held", resume=True)) == [(held, 1)]
    assert seen(take(world.control("bob"), wait=15)) == [(lost, 2)]
    assert time.monotonic() - begin >= HELD_GRACE_S
    assert came_back.call("ack", {"id": held, "delivery": 1})["stage"] == "acked", "beyond the five seconds too"


def test_to_resume_what_is_gone_is_an_empty_answer(world: World) -> None:
    daemon = world.start("bob")
    key = world.push("bob")["id"]
    control = world.control("bob")
    take(control, take_id="t-1")
    control.call("ack", {"id": key})
    daemon.kill()
    world.restart(daemon)
    world.push("bob", "new")
    assert take(world.control("bob"), take_id="t-1", resume=True) == [], "not the next one"


# --- time to live -----------------------------------------------------------------------------------------------------


def test_a_message_expires_while_it_waits_but_not_while_somebody_has_it(bob: World) -> None:
    waiting = bob.push("bob", "waiting", ttl=0.1)["id"]
    eventually(lambda: bob.receipt("bob", waiting)["stage"] == "expired")
    held = bob.push("bob", "held", ttl=0.1)["id"]
    control = bob.control("bob")
    assert seen(take(control)) == [(held, 1)]
    assert stays(lambda: bob.receipt("bob", held)["stage"] == "taken", during=0.3)
    control.call("release", {"id": held})
    eventually(lambda: bob.receipt("bob", held)["stage"] == "expired")
    assert bob.texts("bob") == []
