"""A crew of CrewAI that works for others: each task offered to it is a session, the crew's output its result.

pip install backchannel crewai; MODEL=openai/gpt-5 python crewai_agent.py executor
"""

import os
import sys
from contextlib import suppress

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

from backchannel import Agent as Mailbox
from backchannel import TimedOut
from backchannel.client import UNTRUSTED, heading, quoted

me = Mailbox(sys.argv[1])


@tool
def ask_agent(name: str, question: str) -> str:
    """Ask another agent on this machine."""
    return me.ask(name, question, timeout=60).text


model = LLM(os.environ["MODEL"])
worker = Agent(role="colleague", goal="do what is asked", backstory=UNTRUSTED, llm=model, tools=[ask_agent])
for request in me.requests(wait=None):
    words = f"{heading('task of agent', request.sender, request.id)}\n{quoted(request.task)}"
    with request.accept() as session:  # an exception inside tells the other side that it failed
        task = Task(description=words, expected_output="the result", agent=worker)
        session.close(str(Crew(agents=[worker], tasks=[task]).kickoff()))
    with suppress(TimedOut):
        session.wait(60)  # until the other side has closed it too
