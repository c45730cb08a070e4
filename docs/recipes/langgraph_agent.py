"""An agent built with LangGraph: each message is a run of the graph, its last word the answer.

pip install backchannel langgraph langchain-openai; MODEL=gpt-5 python langgraph_agent.py executor
"""

import os
import sys

from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from backchannel import Agent
from backchannel.client import UNTRUSTED, rendered

me = Agent(sys.argv[1])


def ask_agent(name: str, question: str) -> str:
    """Ask another agent on this machine."""
    return me.ask(name, question, timeout=60).text


model = ChatOpenAI(model=os.environ["MODEL"]).bind_tools([ask_agent])
graph = StateGraph(MessagesState)
graph.add_node("model", lambda state: {"messages": model.invoke(state["messages"])})
graph.add_node("tools", ToolNode([ask_agent]))
graph.add_edge(START, "model")
graph.add_conditional_edges("model", tools_condition)
graph.add_edge("tools", "model")
app = graph.compile()

for delivery in me.receive(wait=None):  # leased until it is answered: a crash hands it out again
    done = app.invoke({"messages": [("system", UNTRUSTED), ("user", rendered(delivery))]})
    delivery.reply(done["messages"][-1].text)
