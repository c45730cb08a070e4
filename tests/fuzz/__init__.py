"""Noise: lines that nobody should send, against the codecs, the frames and the host, and over a real socket.

`noise.py` makes them from a seed, `oracles.py` says what must hold for each. `python -m tests.fuzz` is the long run,
`python -m tests.fuzz.guided` the one that coverage leads (atheris).
"""
