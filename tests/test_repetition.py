"""Whoever sends a key again learns that nothing new was stored, also when it waits for a later stage."""

import json

from .documents import private_world

WAITING = """
from backchannel import Agent
with Agent("alice") as me:
    for _ in range(2):
        receipt = me.send("bob", "hello", key="note-2")
        print(receipt.duplicate, receipt.wait("stored").duplicate, receipt.refresh().duplicate)
"""
AWAITING = """
import asyncio
from backchannel import AsyncAgent
async def main():
    async with AsyncAgent("alice") as me:
        for _ in range(2):
            receipt = await me.send("bob", "hello", key="note-3")
            print(receipt.duplicate, (await receipt.wait("stored")).duplicate, (await receipt.refresh()).duplicate)
asyncio.run(main())
"""


def test_a_repeated_send_that_waits_still_says_duplicate() -> None:
    with private_world() as world:
        world.succeed("backchannel", "up", "bob")
        send = ("backchannel", "send", "bob", "hello", "--key", "note-1", "--json")
        assert json.loads(world.succeed(*send))["duplicate"] is False
        world.succeed("backchannel", "recv", "--as", "bob")
        again = json.loads(world.succeed(*send, "--wait", "acked"))
        assert (again["stage"], again["duplicate"]) == ("acked", True)


def test_a_receipt_stays_a_duplicate_while_it_is_waited_on() -> None:
    with private_world() as world:
        world.succeed("backchannel", "up", "bob")
        for program in (WAITING, AWAITING):
            assert world.succeed("python", "-", stdin=program).splitlines() == ["False False False", "True True True"]
