"""An agent built with the OpenAI Agents SDK: each message is a run, its final output the answer.

pip install backchannel openai-agents; MODEL=gpt-5 python openai_agent.py executor
"""

import asyncio
import os
import sys

import agents

from backchannel import AsyncAgent
from backchannel.client import UNTRUSTED, rendered


async def main(name: str) -> None:
    async with AsyncAgent(name) as me:

        @agents.function_tool
        async def ask_agent(name: str, question: str) -> str:
            """Ask another agent on this machine."""
            return (await me.ask(name, question, timeout=60)).text

        model = agents.Agent(name=name, instructions=UNTRUSTED, model=os.environ["MODEL"], tools=[ask_agent])
        async for delivery in me.receive(wait=None):  # leased until it is answered: a crash hands it out again
            done = await agents.Runner.run(model, rendered(delivery))
            await delivery.reply(str(done.final_output))


asyncio.run(main(sys.argv[1]))
