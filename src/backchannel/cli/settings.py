"""Edits of another program's settings that leave everything else in them as it is.

JSON is read and written whole: what is not ours keeps its place and its value, the file its indentation. Of TOML the
standard library reads, but does not write: a table of ours is added at the end, or cut out, as text, and the result is
read again and compared before anything is shown.
"""

import json
import tomllib
from collections.abc import Callable
from typing import Any

from ..errors import LocalProtocolError

Json = dict[str, Any]


def edit_json(path: str, before: str | None, change: Callable[[Json], None]) -> str | None:
    """The file as `change` leaves it; None if nothing is left. Raises `LocalProtocolError` if it is not plain JSON."""
    try:
        settings = json.loads(before) if before and before.strip() else {}
    except ValueError as error:
        raise _unreadable(path, f"is not plain JSON ({error})") from None
    if not isinstance(settings, dict):
        raise _unreadable(path, "is no JSON object")
    was = json.dumps(settings)
    try:
        change(settings)
    except (AttributeError, TypeError, KeyError):
        raise _unreadable(path, "has hooks or servers in a form we do not know") from None
    if json.dumps(settings) == was:
        return before
    if not settings:
        return None
    return json.dumps(settings, indent=_indent(before), ensure_ascii=False) + "\n"


def _indent(text: str | None) -> int | str:
    """As the file has it: of its first indented line."""
    for line in (text or "").splitlines():
        space = line[: len(line) - len(line.lstrip())]
        if space and line.strip():
            return "\t" if space[0] == "\t" else len(space)
    return 2


def with_table(path: str, before: str | None, table: tuple[str, ...], values: dict[str, Any]) -> str:
    """A TOML file with this table in it, in the place of the one it has."""
    text = without_table(path, before, table) or ""
    if text and not text.endswith("\n"):
        text += "\n"
    lines = [f"[{'.'.join(_key(part) for part in table)}]"]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in values.items()]
    after = text + ("\n" if text else "") + "\n".join(lines) + "\n"
    wanted = parse_toml(path, text)
    parent = wanted
    for part in table[:-1]:
        parent = parent.setdefault(part, {})
        if not isinstance(parent, dict):
            raise _unreadable(path, f"says {part} in a form we do not know")
    parent[table[-1]] = values
    if parse_toml(path, after) != wanted:
        raise _unreadable(path, f"says {'.'.join(table)} in a form we do not know")
    return after


def without_table(path: str, before: str | None, table: tuple[str, ...]) -> str | None:
    """The file without this table and those below it; None if nothing is left."""
    settings = parse_toml(path, before or "")
    parent: Any = settings
    for part in table[:-1]:
        parent = parent.get(part) if isinstance(parent, dict) else None
    if not isinstance(parent, dict) or table[-1] not in parent:
        return before
    del parent[table[-1]]
    kept: list[str] = []
    between: list[str] = []
    is_ours = False
    for line in (before or "").splitlines(keepends=True):
        header = _header(line)
        if header is not None:
            is_ours = header[: len(table)] == table
        if not is_ours:
            kept += [*between, line]
            between = []
        elif not line.strip() or line.lstrip().startswith("#"):  # of the table that comes next, if one does
            between.append(line)
        else:
            between = []
    kept += between
    after = "".join(kept).rstrip("\n") + "\n" if "".join(kept).strip() else ""
    left = parse_toml(path, after)
    for part in table[:-1]:  # a table that only held ours is gone with it
        settings = settings if part in left or settings.get(part) else {k: v for k, v in settings.items() if k != part}
    if left != settings:
        raise _unreadable(path, f"says {'.'.join(table)} in a form we do not know")
    return after or None


def _header(line: str) -> tuple[str, ...] | None:
    """The name in a line that begins a table, or None for another line."""
    if not line.lstrip().startswith("["):
        return None
    try:
        found: Any = tomllib.loads(line.strip().replace("[[", "[").replace("]]", "]"))
    except tomllib.TOMLDecodeError:
        return None  # a line of an array, say
    parts = []
    while isinstance(found, dict) and found:
        ((part, found),) = found.items()
        parts.append(part)
    return tuple(parts)


def parse_toml(path: str, text: str) -> dict[str, Any]:
    """Raises `LocalProtocolError` if it is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(path, f"is not TOML ({error})") from None


def _key(part: str) -> str:
    return part if part.isascii() and part.replace("-", "").replace("_", "").isalnum() else _value(part)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)  # of texts, numbers and truth values TOML thinks the same


def _unreadable(path: str, what: str) -> LocalProtocolError:
    return LocalProtocolError(f"{path} {what}", code="bad_config", hint="mend it by hand, then try again")
