"""All that we touch of Hermes beyond its documented plugin interface, in one place; tried with 0.19.0.

Each function says what it needs, and does without where that is possible: a newer Hermes may have moved it. Hermes'
modules are imported when they are needed: the plugin is registered in every process of Hermes, and most need nothing.
"""

from pathlib import Path
from typing import Any

from .chats import Chat

PLATFORM = "backchannel"


def profile_name() -> str:
    """`coder` for the profile of that name, `default` for none, `custom` for a home elsewhere."""
    from hermes_cli.profiles import get_active_profile_name

    return str(get_active_profile_name())


def askers_file() -> Path:
    from hermes_constants import get_hermes_home

    return Path(get_hermes_home()) / "backchannel" / "askers.db"


def current_chat() -> Chat | None:
    """The chat whose turn this thread works for; None outside a gateway."""
    from gateway.session_context import get_session_env

    key = get_session_env("HERMES_SESSION_KEY")
    platform = get_session_env("HERMES_SESSION_PLATFORM")
    if not key or not platform or platform in ("cli", "local"):
        return None
    about = (
        get_session_env(f"HERMES_SESSION_{name}")
        for name in ("CHAT_ID", "CHAT_NAME", "THREAD_ID", "USER_ID", "USER_NAME", "MESSAGE_ID")
    )
    return Chat(key, platform, *about)


def current_session_id() -> str:
    from gateway.session_context import get_session_env

    return str(get_session_env("HERMES_SESSION_ID"))


def is_interrupted() -> bool:
    """Whether the turn that a tool runs in was told to stop."""
    from tools.interrupt import is_interrupted as asked  # type: ignore[import-not-found]

    return bool(asked())


def chat_of(source: Any) -> Chat:
    from gateway.session import build_session_key

    return Chat(
        build_session_key(source), source.platform.value, source.chat_id, source.chat_name or "",
        source.thread_id or "", source.user_id or "", source.user_name or "",
    )  # fmt: skip


def is_starting(runner: Any) -> bool:
    """It still resumes what a restart interrupted; until then it puts events aside and reports them as processed."""
    return bool(getattr(runner, "_startup_restore_in_progress", False))


def is_stopping(runner: Any) -> bool:
    return bool(getattr(runner, "_draining", False))


def adapter_of(runner: Any, platform: str) -> Any:
    """The connected adapter of a platform, or None."""
    return next((a for p, a in getattr(runner, "adapters", {}).items() if p.value == platform), None)


def is_busy(runner: Any, adapter: Any, key: str) -> bool:
    """Whether a turn is under way in a chat, or waits there."""
    return key in getattr(adapter, "_active_sessions", {}) or key in getattr(runner, "_running_agents", {})


def source_of(runner: Any, chat: Chat) -> Any:
    """Where a chat is, as Hermes knew it last; else as we remember it."""
    from gateway.config import Platform
    from gateway.session import SessionSource

    try:
        known = runner.session_store._entries[chat.key].origin
        if known is not None:
            return known
    except (AttributeError, KeyError):
        pass
    return SessionSource(
        platform=Platform(chat.platform), chat_id=chat.chat_id, chat_name=chat.chat_name or None,
        chat_type=chat.chat_type, user_id=chat.user_id or None, user_name=chat.user_name or None,
        thread_id=chat.thread_id or None,
    )  # fmt: skip


def deny(session_key: str, reason: str) -> int:
    """Refuses every command that waits for an approval in this chat, and says how many; the model is told why."""
    from tools.approval import resolve_gateway_approval  # type: ignore[import-not-found]

    return int(resolve_gateway_approval(session_key, "deny", True, reason))


def answer_clarify(clarify_id: str, text: str) -> None:
    from tools.clarify_gateway import resolve_gateway_clarify  # type: ignore[import-not-found]

    resolve_gateway_clarify(clarify_id, text)


def configured_extra() -> dict[str, Any]:
    """`platforms.backchannel.extra` of the profile, where no gateway has read it."""
    from hermes_cli.config import load_config

    config = load_config()
    platforms = config.get("platforms") or (config.get("gateway") or {}).get("platforms") or {}
    return dict((platforms.get(PLATFORM) or {}).get("extra") or {})
