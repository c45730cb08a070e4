"""A parser small enough for the fast path: options by a table, everything else in order.

`--name value`, `--name=value`, flags, `--` for "only words from here"; nothing abbreviated.
"""

from ..errors import LocalProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What an option takes: nothing, a text, a number of seconds, a whole number, or a text several times.
FLAG, TEXT, SECONDS, NUMBER, LIST = range(5)


class HelpWanted(Exception):
    """`--help` was among the words."""


def parse(argv: list[str], table: dict[str, int], usage: str) -> "tuple[list[str], dict[str, Any]]":
    """The words and the options (by name without dashes). Raises `LocalProtocolError` (`usage`), `HelpWanted`."""
    words: list[str] = []
    options: dict[str, Any] = {}
    rest = iter(argv)
    for word in rest:
        if word == "--":
            words += rest
        elif word in ("-h", "--help"):
            raise HelpWanted
        elif not word.startswith("--"):
            words.append(word)
        else:
            name, has_value, value = word.partition("=")
            if name not in table:
                raise wrong(f"{name} is no option here", usage)
            key = name[2:].replace("-", "_")
            kind = table[name]
            if kind == FLAG:
                if has_value:
                    raise wrong(f"{name} takes no value", usage)
                options[key] = True
                continue
            if not has_value:
                try:
                    value = next(rest)
                except StopIteration:
                    raise wrong(f"{name} needs a value", usage) from None
            if kind == LIST:
                options.setdefault(key, []).append(value)
            else:
                options[key] = _value(name, kind, value, usage)
    return words, options


def wrong(what: str, usage: str) -> LocalProtocolError:
    return LocalProtocolError(what, code="usage", hint=usage.partition("\n")[0])


def _value(name: str, kind: int, value: str, usage: str) -> "str | float | int":
    if kind == TEXT:
        return value
    try:
        number = float(value) if kind == SECONDS else int(value)
    except ValueError:
        raise wrong(f"{name} {value} is not a number", usage) from None
    if not 0 <= number < 1e10:
        raise wrong(f"{name} {value} is out of range", usage)
    return number
