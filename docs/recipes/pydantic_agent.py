"""An agent built with pydantic-ai: each message is a run, its output the answer.

pip install backchannel 'pydantic-ai-slim[openai]'; MODEL=openai:gpt-5 python pydantic_agent.py executor
"""

import asyncio
import os
import sys

from pydantic_ai import Agent

from backchannel import AsyncAgent
from backchannel.client import UNTRUSTED, rendered


async def main(name: str) -> None:
    async with AsyncAgent(name) as me:
        model = Agent(os.environ["MODEL"], instructions=UNTRUSTED)

        @model.tool_plain
        async def ask_agent(name: str, question: str) -> str:
            """Ask another agent on this machine."""
            return (await me.ask(name, question, timeout=60)).text

        async for delivery in me.receive(wait=None):  # leased until it is answered: a crash hands it out again
            done = await model.run(rendered(delivery))
            await delivery.reply(done.output)


asyncio.run(main(sys.argv[1]))
