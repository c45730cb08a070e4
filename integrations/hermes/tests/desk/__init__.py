"""A human's chat for tests, where Discord would be: what the human writes comes in over a Unix socket of the profile,
what Hermes says to the human is appended to a file, a JSON object a line. Copied into a profile as a plugin."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from gateway.config import Platform
from gateway.platforms.base import BasePlatformAdapter, MessageEvent, MessageType, SendResult
from hermes_constants import get_hermes_home


class Desk(BasePlatformAdapter):
    def __init__(self, config: Any) -> None:
        super().__init__(config, Platform("desk"))
        self._home = Path(get_hermes_home())
        self._server: Any = None

    @property
    def authorization_is_upstream(self) -> bool:
        return True

    async def connect(self, *, is_reconnect: bool = False) -> bool:
        path = self._home / "desk.sock"
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._hear, path=str(path))
        self._mark_connected()
        return True

    async def disconnect(self) -> None:
        if self._server is not None:
            self._server.close()
        self._mark_disconnected()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        while getattr(self.gateway_runner, "_startup_restore_in_progress", False):
            await asyncio.sleep(0.05)
        said = json.loads(line)
        source = self.build_source(
            chat_id=said["chat"], chat_name=said["chat"], chat_type="dm", user_id=said["chat"], user_name=said["chat"]
        )
        await self.handle_message(
            MessageEvent(text=said["text"], message_type=MessageType.TEXT, source=source, message_id=said["id"])
        )
        writer.write(b"ok\n")
        await writer.drain()
        writer.close()

    async def send(self, chat_id: str, content: str, reply_to: Any = None, metadata: Any = None) -> SendResult:
        with open(self._home / "desk.jsonl", "a") as file:
            line = {"chat": chat_id, "text": content, "final": bool((metadata or {}).get("notify"))}
            file.write(json.dumps(line) + "\n")
        return SendResult(success=True, message_id="desk-1")

    async def send_typing(self, chat_id: str, metadata: Any = None) -> None:
        pass

    async def get_chat_info(self, chat_id: str) -> dict[str, Any]:
        return {"name": chat_id, "type": "dm"}


def before_turn(event: Any, **_: Any) -> None:
    """Where the gateway has an event and no turn has begun: it dies here, if a test wants it."""
    note("events")
    if (Path(get_hermes_home()) / "die-before-turn").exists():
        os.kill(os.getpid(), signal.SIGKILL)


def note(what: str) -> None:
    """When it was, for who measures."""
    with open(Path(get_hermes_home()) / what, "a") as file:
        file.write(f"{time.time()}\n")


def register(ctx: Any) -> None:
    ctx.register_hook("pre_gateway_dispatch", before_turn)
    ctx.register_hook("pre_llm_call", lambda **_: note("turns"))
    ctx.register_platform(
        name="desk", label="Desk", adapter_factory=Desk, check_fn=lambda: True, is_connected=lambda config: True,
        allow_update_command=False,
    )  # fmt: skip
