"""The command `backchannel`. It sees the client's public side only; `send` and `recv` take a path of their own, because
the imports of a full parser would cost more than everything they do."""
