"""JSON as Backchannel allows it, at the daemon's speed (msgspec). The same rules as `codec`, whose twin it is.

Values of known fields are decoded straight into their types; what only passes through (a text, a header) stays the
bytes it came in, after it was checked once.
"""

from typing import Any, TypeVar

import msgspec

from .codec import DEPTH_MAX, Malformed, check

T = TypeVar("T")

encode = msgspec.json.Encoder().encode


def decode(line: bytes) -> Any:
    """One JSON value from one line. Raises `Malformed`."""
    value = decode_as(_any, line)
    check(value)
    return value


def decode_as(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw) -> T:
    """A typed value. Raises `Malformed` for what is no JSON, `msgspec.ValidationError` for another shape."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        if str(error).startswith("Number out of range"):
            raise Malformed("a number beyond a double") from None
        if str(error).startswith("Integer value out of range"):
            raise Malformed("an integer beyond 2^53") from None
        raise
    except msgspec.DecodeError as error:
        raise Malformed(_where(str(error))) from None
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise Malformed(f"nested deeper than {DEPTH_MAX} levels") from None


def check_text(raw: msgspec.Raw) -> bytes:
    """The bytes of a JSON string, known to be one. Raises `Malformed`, or `ValidationError` if it is another kind."""
    data = bytes(raw)
    decode_as(_text, data)
    return data


def _where(text: str) -> str:
    # msgspec names the place by byte; the words before it are its own and may change.
    return "not JSON: " + text.removeprefix("JSON is malformed: ")


_any: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_text: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)
