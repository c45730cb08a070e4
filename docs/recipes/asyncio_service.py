"""An agent on asyncio: works on up to ten messages at a time, and answers each when it is done.

python asyncio_service.py summarizer
"""

import asyncio
import sys

from backchannel import AsyncAgent, AsyncDelivery


async def work(text: str) -> str:
    await asyncio.sleep(0)  # a model, a database, another service
    return text.upper()


async def handle(delivery: AsyncDelivery) -> None:
    try:
        await delivery.reply(await work(delivery.text))  # the answer and `done`, in one transaction
    except ValueError as wrong:
        await delivery.reject(str(wrong))  # the sender is told; anything else hands it out again


async def main(name: str) -> None:
    async with AsyncAgent(name) as me, asyncio.TaskGroup() as tasks:
        async for delivery in me.receive(wait=None, prefetch=10):
            tasks.create_task(handle(delivery))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
