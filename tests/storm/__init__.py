"""Storms of SIGKILLs over real agents and real daemons, and checkers for what they leave behind.

Over messages: `agent.py` is one agent, which writes down everything it is told before it goes on (`journal.py`);
`storm.py` starts three of them and kills; `history.py` reads what they wrote and says which promise was broken. Over
sessions: `talker.py`, `sessionstorm.py`, `sessionhistory.py`; what is to be done in a session says `plan.py`, and
`nursery.py` forks agents and daemons, the latter under witness (`daemon.py`). Both end with the daemons' own audit.

`test_agent_protocol.py` tells the misfortunes of takers again and again; `test_soak.py`, with `walker.py`, is a long
day of ordinary work.
"""
