"""The place for sessions: DATA to the peer's agent, and from `open` to accepted. Nothing is measured here yet.

`targets.py` names the rows that it will have in `cases.py`; until then the run says that they are not measured.
"""
