"""An agent's mailbox as tools of the Model Context Protocol: `backchannel mcp`, the extra `[mcp]`.

A client of the daemon as any other, and the only place that imports the SDK. A server of this protocol speaks only when
it is asked: it can neither wake a model nor put mail before it in the middle of its work, and says so. What a model was
shown stays leased until the model's next step proves that it read it (`mail`).
"""

from ..client import Adapter

ADAPTER = Adapter("mcp", wakes=False, mid_turn=False, evidence="turn")
