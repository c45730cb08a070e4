"""What a target refused for good: the sender's own daemon can say so, also after the message left its outbox."""

import json
import time
from pathlib import Path

from .documents import Wire, private_world
from .inside import Bench

MODEL = 'driven_by = "model"\n'


def test_a_refused_push_is_told_to_whoever_asks_a_little_later() -> None:
    with private_world() as world:
        world.succeed("backchannel", "up", "alice", "bob")
        with Wire(world, "alice") as alice:
            send = {"to": "bob", "text": "thank you", "id": "note-1", "hops": 17}
            assert alice.call("commit", sends=[send])["result"]["sends"][0]["stage"] == "queued"
            deadline = time.monotonic() + 10
            while alice.call("status")["result"]["outbox"]:
                assert time.monotonic() < deadline
            for method, params in (("wait", {"stage": "stored"}), ("receipt", {})):
                found = alice.call(method, id="note-1", **params)["result"]
                assert (found["stage"], found["to"]) == ("rejected", "bob")
                assert "loop" in found["reason"]


def test_a_model_that_went_in_circles_is_refused_and_not_told_that_its_message_is_unknown() -> None:
    with private_world() as world:
        world.configure("alice", MODEL)
        world.succeed("backchannel", "up", "alice", "bob")
        with Wire(world, "alice") as alice:
            alice.call("push", to="alice", text="thank you", hops=16)
        world.succeed("backchannel", "recv", "--as", "alice")
        refused = world.run("backchannel", "send", "bob", "thank you", "--as", "alice", "--json")
        assert refused.returncode == 3, refused
        assert "loop" in json.loads(refused.stderr)["message"]


def test_receipts_of_the_outbox_are_not_kept_where_nobody_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "mailbox.db")
    bench.host._sent["note-1"] = {"stage": "stored"}
    bench.finish()
    assert bench.host._sent == {}
    bench.close()
