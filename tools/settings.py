"""The tables of docs/configuration.md, between marks of their own: the words around them are written by hand."""

import re

from backchannel.daemon.config import SETTINGS, Setting

from . import facts

_MARKED = re.compile(r"(<!-- made: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(document: str) -> str:
    """The document with every marked table as it should be. Raises `KeyError` for a table nobody knows."""
    tables = {
        "settings": _settings(),
        "environment": table(("variable", "says"), [(f"`{name}`", text) for name, text in facts.ENVIRONMENT]),
        "daemon-environment": table(
            ("variable", "says"), [(f"`{name}`", text) for name, text in facts.DAEMON_ENVIRONMENT]
        ),
        "files": table(("path", "is"), [(f"`{path}`", text) for path, text in facts.FILES]),
    }
    return fill(document, tables)


def fill(document: str, made: dict[str, str]) -> str:
    """The document with what is made between its marks. Raises `KeyError` for a mark that nobody knows."""
    return _MARKED.sub(lambda found: found[1] + made[found["name"]] + found[3], document)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _settings() -> str:
    rows: list[tuple[str, ...]] = [
        (f"`{key}`", _shown(s.default), s.unit or "-", _allowed(s), s.reason.replace("|", "\\|"))
        for key, s in SETTINGS.items()
    ]
    return table(("setting", "default", "unit", "allowed", "what and why"), rows)


def _allowed(setting: Setting) -> str:
    if setting.words:
        return ", ".join(map(_shown, setting.words))
    return f"{_shown(setting.low)} to {_shown(setting.high)}"


def _shown(value: object) -> str:
    """A value as config.toml takes it."""
    return f'`"{value}"`' if isinstance(value, str) else f"`{value:_}`"
