"""Puts the Backchannel client beside the plugin, so that Hermes' environment needs nothing else.

In a checkout the client is two directories up; an sdist carries the copy already.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CLIENT = "src/backchannel_hermes/client/backchannel"
PARTS = ("__init__.py", "errors.py", "py.typed", "client", "protocol", "transport")  # no daemon, no mailbox


class ClientInside(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        source = Path(self.root).parents[1] / "src" / "backchannel"
        if not source.is_dir():
            return
        target = CLIENT if self.target_name == "sdist" else CLIENT.removeprefix("src/")
        for part in PARTS:
            build_data["force_include"][str(source / part)] = f"{target}/{part}"
