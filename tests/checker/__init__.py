"""An exhaustive search of what two endpoints can do to each other over a bad network.

It calls the production `Endpoint`, never a copy of its table. `node.py` is one end with its agent and its disk,
`world.py` the two ends and the network between them, `invariants.py` what must be true, `search.py` the search,
`variations.py` the protocols that must be found wanting, and the mutants of the machine.
"""
