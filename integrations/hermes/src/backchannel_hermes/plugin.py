"""What the plugin registers with Hermes: the platform, the tools, the hooks that tell how a turn ended."""

import logging
import socket
from typing import Any

from . import tools, words
from .settings import read_settings
from .turns import TurnLog

log = logging.getLogger(__name__)


def register_all(ctx: Any) -> None:
    turns = TurnLog()

    def adapter(config: Any) -> Any:
        from .adapter import BackchannelAdapter  # the gateway alone needs it

        return BackchannelAdapter(config, turns)

    ctx.register_platform(
        name="backchannel",
        label="Backchannel",
        adapter_factory=adapter,
        check_fn=lambda: hasattr(socket, "AF_UNIX"),
        validate_config=_is_valid,
        is_connected=lambda config: True,  # nothing has to be set but `enabled`
        install_hint="backchannel init hermes",
        max_message_length=0,
        allow_update_command=False,
        emoji="🔁",
        platform_hint=words.PLATFORM_HINT,
    )
    for hook in (turns.pre_llm_call, turns.post_llm_call, turns.on_session_end):
        ctx.register_hook(hook.__name__, hook)
    for tool in tools.TOOLS:
        ctx.register_tool(
            name=tool.name, toolset="backchannel", schema=tool.schema, handler=tool.handler,
            description=tool.description, emoji="🔁",
        )  # fmt: skip


def _is_valid(config: Any) -> bool:
    try:
        read_settings(getattr(config, "extra", None) or {}, "any")
    except ValueError as wrong:
        log.error("backchannel: %s", wrong)  # Hermes says only that something is wrong
        return False
    return True
