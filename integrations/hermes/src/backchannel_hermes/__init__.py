"""Hermes agents that talk through Backchannel: a gateway platform, and the model's tools.

Installed by pip (entry point `backchannel`), or as a directory in a profile's `plugins/`, which survives a rebuild of
Hermes' environment. Hermes calls `register` in every process it starts (gateway, chat, cron): nothing is connected or
started here, only named.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def register(ctx: Any) -> None:
    """What Hermes calls, with its plugin context."""
    _find_client()
    from .plugin import register_all

    register_all(ctx)


def _find_client() -> None:
    """An installed Backchannel is used; else the copy of its client that lies beside this file."""
    try:
        is_there = find_spec("backchannel.client") is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        sys.path.append(str(Path(__file__).with_name("client")))
