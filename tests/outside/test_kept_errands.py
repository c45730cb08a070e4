"""A daemon keeps the connection on which it pushed, for the next push of a burst; that costs nobody a message.

The target is either a real daemon, or a socket in its place that does as the test says.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from backchannel.protocol.names import AgentName
from backchannel.transport.paths import register
from tests.world import ANSWER_S, Link, World, eventually

PLACES = 512  # of an inbox


class Door:
    """Stands where bob's daemon would, and answers only when it is told to."""

    def __init__(self, world: World) -> None:
        register(world.places, AgentName("bob"))
        os.makedirs(f"{world.places.socket_dir}/bob", 0o700, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(world.path("bob"))
        self._listener.listen()
        self._listener.settimeout(ANSWER_S)

    def visitor(self) -> "Visitor":
        """The next connection."""
        return Visitor(self._listener.accept()[0])

    def has_visitor(self) -> bool:
        self._listener.setblocking(False)
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        finally:
            self._listener.settimeout(ANSWER_S)
        return True

    def close(self) -> None:
        self._listener.close()


class Visitor:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.settimeout(ANSWER_S)
        self._lines = sock.makefile("rb")

    def asks(self) -> str:
        """The id of the message it pushes; "" at its end."""
        line = self._lines.readline()
        return json.loads(line)["params"]["id"] if line else ""

    def hears(self, *ids: str) -> None:
        receipts = [{"id": name, "to": "bob", "from": "alice", "stage": "stored", "msg_no": 1} for name in ids]
        answers = [json.dumps({"jsonrpc": "2.0", "id": 1, "result": receipt}) + "\n" for receipt in receipts]
        self._sock.sendall("".join(answers).encode())

    def leaves(self) -> None:
        self._lines.close()
        self._sock.close()


@contextmanager
def at_bobs_door(world: World) -> Iterator[Door]:
    door = Door(world)
    try:
        yield door
    finally:
        door.close()


def queue(world: World, *ids: str) -> None:
    """Alice's daemon is to push them to bob."""
    sends = [{"to": "bob", "text": name, "id": name} for name in ids]
    world.call("alice", "commit", {"sends": sends}, "control")


def queued(world: World) -> int:
    return int(world.call("alice", "status", {}, "control")["outbox"])


def test_what_follows_soon_comes_over_the_same_connection_which_is_then_let_go(world: World) -> None:
    world.start("alice")
    with at_bobs_door(world) as door:
        queue(world, "m-1", "m-2")
        visitor = door.visitor()
        for name in ("m-1", "m-2"):
            assert visitor.asks() == name
            visitor.hears(name)
        assert visitor.asks() == ""  # after a second without an errand
        visitor.leaves()
        assert not door.has_visitor()
    assert queued(world) == 0


@pytest.mark.parametrize("is_read", [False, True], ids=["before it is read", "after it is read"])
def test_a_kept_connection_that_ends_as_it_is_used_is_no_failure(world: World, is_read: bool) -> None:
    """The push comes again, over a new connection and at once; nobody is called unreachable for it."""
    alice = world.start("alice")
    with at_bobs_door(world) as door:
        queue(world, "m-1")
        first = door.visitor()
        assert first.asks() == "m-1"
        first.hears("m-1")
        eventually(lambda: queued(world) == 0)
        alice.freeze()  # so that it cannot know before it sends
        if not is_read:
            first.leaves()
        with Link(world.path("alice", "control")) as link:
            link.ask("commit", {"sends": [{"to": "bob", "text": "m-2", "id": "m-2"}]})
            alice.thaw()
            link.answer()
        if is_read:
            assert first.asks() in ("m-2", "")  # on a busy machine the second of keeping is over
            first.leaves()
        second = door.visitor()
        assert second.asks() == "m-2"
        assert world.call("alice", "status", {}, "control")["unreachable"] == {}
        second.hears("m-2")
        eventually(lambda: queued(world) == 0)
        second.leaves()


def test_a_new_connection_that_ends_without_an_answer_is_a_failure(world: World) -> None:
    world.start("alice")
    with at_bobs_door(world) as door:
        queue(world, "m-1")
        first = door.visitor()
        assert first.asks() == "m-1"
        first.leaves()
        second = door.visitor()  # after a pause
        assert second.asks() == "m-1"
        assert "bob" in world.call("alice", "status", {}, "control")["unreachable"]
        second.hears("m-1")
        eventually(lambda: queued(world) == 0)
        second.leaves()


def test_who_answers_more_than_it_was_asked_is_not_believed_the_next_time(world: World) -> None:
    world.start("alice")
    with at_bobs_door(world) as door:
        queue(world, "m-1", "m-2")
        first = door.visitor()
        assert first.asks() == "m-1"
        first.hears("m-1", "m-2")
        second = door.visitor()
        assert second.asks() == "m-2"
        second.hears("m-2")
        eventually(lambda: queued(world) == 0)
        first.leaves()
        second.leaves()


def test_a_target_that_dies_between_two_pushes_gets_both_once(world: World) -> None:
    world.start("alice")
    bob = world.start("bob")
    for i in range(5):
        queue(world, f"m-{i}")
        eventually(lambda: queued(world) == 0)
        bob.kill()
        queue(world, f"m-{i}-again")
        bob = world.start("bob")
    eventually(lambda: queued(world) == 0)
    assert sorted(world.texts("bob")) == sorted(f"m-{i}{again}" for i in range(5) for again in ("", "-again"))


def test_an_inbox_whose_places_are_taken_lets_go_of_the_kept_one(world: World) -> None:
    world.start("alice", "bob")
    queue(world, "m-1")
    eventually(lambda: queued(world) == 0)
    links = [world.link("bob") for _ in range(PLACES)]
    queue(world, "m-2")
    eventually(lambda: queued(world) == 0)
    assert world.texts("bob") == ["m-1", "m-2"]
    for link in links:
        link.close()
