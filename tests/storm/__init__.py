"""A storm of SIGKILLs over real agents and real daemons, and a checker for what it left behind.

`agent.py` is one agent: it writes down everything it is told before it goes on. `storm.py` starts three of them and
kills, `history.py` reads what they wrote and says which promise was broken.
"""
