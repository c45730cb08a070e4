"""Backchannel beside its peers, measured in one run: `python -m benchmarks`. README.md says how to read it."""
