"""JSON as Backchannel allows it, with the standard library alone: what every client speaks.

Stricter than the `json` module, because two ends that read one line differently are a hole: no NaN or Infinity, no
number beyond a double, integers below 2^53, no lone surrogates, at most 32 levels, UTF-8 without a BOM. Of duplicate
keys the last counts. The daemon's twin is `fastcodec`; `conformance/codec.json` runs against both.

It uses the C scanner behind `json` directly: importing `json` itself pulls in `re` and costs as much as half an
interpreter start, which the command line's `send` would feel. Long texts are msgspec's work as soon as a process has
met enough of them to pay for its import.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType
    from typing import Any

    Scan = Callable[[str, int], tuple[Any, int]]

DEPTH_MAX = 32  # deeper than any envelope needs, far from any recursion limit
INTEGER_MAX = 2**53 - 1  # the last integer that every JSON implementation keeps
RESULT = b'{"jsonrpc":"2.0","id":1,"result":'  # so a daemon begins the answer to a request that was sent alone
LONG = 1 << 16  # characters of a text, bytes of a line; with shorter ones nobody feels which codec it is
LONG_TEXTS_BEFORE_IMPORT = 16  # of 1 MiB; then msgspec would have saved as much as its import costs, 20 ms


class Malformed(ValueError):
    """The bytes are not JSON as we allow it. The text says what is wrong, never the content."""


def decode(line: bytes | str) -> "Any":
    """One JSON value from one line. Raises `Malformed`."""
    text = _text_of(line)
    # A lone surrogate, in a value that a later key replaces? (Nearly no line has any escape of this kind.)
    may_hide = "\\u" in text and ("\\ud" in text or "\\uD" in text)
    value = _decode(text, _scan_all if may_hide else _scan)
    check(value)
    return value


def decode_foreign(line: bytes | str) -> "Any":
    """The same for what another program wrote by its own rules: without our limits on depth, numbers and surrogates."""
    return _decode(_text_of(line), _scan)


def decode_answer(line: bytes) -> "Any":
    """The same for what a daemon of ours wrote, who knows the rules: to look again is a third of the price of reading.
    Raises `Malformed`."""
    if len(line) >= LONG and (fast := _fastcodec()) is not None:
        return fast.decode_answer(line)
    return decode_foreign(line)


def decode_result(line: bytes) -> "Any":
    """What a daemon of ours answered in a line that begins with `RESULT`. Raises `Malformed`."""
    if len(line) >= LONG and (fast := _fastcodec()) is not None:
        return fast.decode_answer(line)["result"]
    return _decode(_text_of(line), _scan, len(RESULT), "}")


def _text_of(line: bytes | str) -> str:
    try:
        return (line if isinstance(line, str) else line.decode()).strip(" \t\r\n")
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8 at byte {error.start}") from None


def _decode(text: str, scan: "Scan", start: int = 0, tail: str = "") -> "Any":
    """The value from there on, behind which stands `tail` and nothing else."""
    try:
        value, end = scan(text, start)
    except StopIteration as stop:
        raise Malformed(f"no JSON value at character {stop.value}") from None
    except Malformed:
        raise
    except RecursionError:
        raise Malformed(f"nested deeper than {DEPTH_MAX} levels") from None
    except ValueError as error:
        raise Malformed(str(error).partition(":")[0].lower() or "not JSON") from None
    except SystemError:  # the scanner looked for its exception in `json`, which nobody imported (CPython before 3.13)
        raise Malformed("not JSON") from None
    if text[end:] != tail:
        raise Malformed(f"something follows the JSON value at character {end}")
    return value


def check(value: "Any", depth: int = 1) -> None:
    """What the grammar does not say: depth, the range of integers, surrogates. Raises `Malformed`."""
    kind = type(value)
    if kind is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Malformed("a lone surrogate in a string") from None
    elif kind is dict or kind is list:
        if depth > DEPTH_MAX:
            raise Malformed(f"nested deeper than {DEPTH_MAX} levels")
        if kind is dict:
            for key in value:
                if not key.isascii():
                    check(key, depth + 1)
        for item in value.values() if kind is dict else value:
            if item is not None and not (type(item) is str and item.isascii()):  # most are: no call for them
                check(item, depth + 1)
    elif kind is int and not -INTEGER_MAX <= value <= INTEGER_MAX:
        raise Malformed("an integer beyond 2^53")


def encode(value: "Any") -> str:
    """The value as one line of compact JSON, without the newline.

    Takes None, bool, int, float, str, and dicts and lists (or tuples) of them. Raises `TypeError` for anything
    else; what a `Malformed` check would refuse is the caller's to check.
    """
    kind = type(value)
    if kind is str:
        return quote(value)
    if kind is dict:
        members = [quote(k) + ":" + (quote(v) if type(v) is str else encode(v)) for k, v in value.items()]
        return "{" + ",".join(members) + "}"
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is float:
        return repr(value)
    if kind is list or kind is tuple:
        return "[" + ",".join([encode(item) for item in value]) + "]"
    if isinstance(value, str):  # AgentName, Stage
        return quote(str(value))
    raise TypeError(f"{kind.__name__} has no place in a frame")


def encode_request(rpc_id: int, method: str, params: "Mapping[str, Any]", encoded: str = "") -> bytes:
    """One request line, newline included. Raises `UnicodeEncodeError` for a lone surrogate.

    Before `params` stand those that are `encoded` already (by `encode_params`), a comma behind each.
    """
    text = params.get("text")
    if type(text) is str and len(text) >= LONG and (fast := _fastcodec()) is not None:
        line: bytes = fast.encode_request(rpc_id, method, params, encoded)
        return line
    head = f'{{"jsonrpc":"2.0","id":{rpc_id},"method":"{method}","params":{{{encoded}'
    return f"{head}{encode_params(params)}}}}}\n".encode()


def encode_params(params: "Mapping[str, Any]") -> str:
    """The members of an object, without its braces. None is left out."""
    members = [_names[k] + (quote(v) if type(v) is str else encode(v)) for k, v in params.items() if v is not None]
    return ",".join(members)


class _Names(dict[str, str]):
    """The names of params as they stand before a value; only programs choose them, so they are few."""

    def __missing__(self, name: str) -> str:
        self[name] = quote(name) + ":"
        return self[name]


_names = _Names()


_long_texts = 0


def _fastcodec() -> "ModuleType | None":
    """Our twin, if this process has met so many long texts that it is worth its import."""
    global _long_texts
    if _long_texts < LONG_TEXTS_BEFORE_IMPORT:
        _long_texts += 1
        return None
    from . import fastcodec

    return fastcodec


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if (value - value) != 0.0:
        raise Malformed("a number beyond a double")
    return value


def _checked(pairs: "list[tuple[str, Any]]") -> "dict[str, Any]":
    """An object, none of whose members is forgotten before somebody looked for surrogates in it."""
    for key, value in pairs:
        check(key)
        _look(value)
    return dict(pairs)


def _look(value: "Any") -> None:
    if type(value) is str:
        check(value)
    elif type(value) is list:  # an object was looked at when it was made
        for item in value:
            _look(item)


class _Rules:
    """The knobs of the C scanner, as `json.JSONDecoder` would set them."""

    strict = True
    object_hook = None
    object_pairs_hook: "Callable[[list[tuple[str, Any]]], Any] | None" = None
    parse_float = staticmethod(_float)
    parse_int = int
    parse_constant = staticmethod(_no_constant)
    memo: "dict[str, str]" = {}  # noqa: RUF012 - the scanner wants the attribute, and clears it


class _RulesForAll(_Rules):
    object_pairs_hook = staticmethod(_checked)


def _find() -> "tuple[Callable[[str], str], Scan, Scan]":
    try:
        from _json import encode_basestring, make_scanner

        return encode_basestring, make_scanner(_Rules), make_scanner(_RulesForAll)  # type: ignore[arg-type]
    except ImportError:  # another Python than CPython
        from json import JSONDecoder
        from json.encoder import encode_basestring as quote_anywhere

        plain = JSONDecoder(parse_constant=_no_constant, parse_float=_float)
        careful = JSONDecoder(parse_constant=_no_constant, parse_float=_float, object_pairs_hook=_checked)
        return quote_anywhere, plain.raw_decode, careful.raw_decode


quote, _scan, _scan_all = _find()
