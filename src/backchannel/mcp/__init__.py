"""An agent's mailbox as tools of the Model Context Protocol: `backchannel mcp`, the extra `[mcp]`.

A client of the daemon as any other, and the only place that imports the SDK. It can neither wake a model nor put mail
before it in the middle of its work, since a server of this protocol speaks only when it is asked; it says so (`Adapter`
in `server`). What a model was shown stays leased until the model's next step proves that it read it (`mail`).
"""
