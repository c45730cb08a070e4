"""JSON as Backchannel allows it, at the daemon's speed (msgspec). The same rules as `codec`, whose twin it is.

Values of known fields are decoded straight into their types; what only passes through (a text, a header) stays the
bytes it came in, after it was checked once.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from . import codec
from .codec import DEPTH_MAX, Malformed, check

T = TypeVar("T")

encode = msgspec.json.Encoder().encode


def encode_request(rpc_id: int, method: str, params: Mapping[str, Any], encoded: str = "") -> bytes:
    """One request line, newline included. Its long text is written once and copied nowhere. Raises as its twin."""
    said = _any.decode(f"{{{encoded.rstrip(',')}}}")
    for key, value in params.items():
        if value is not None:
            said[key] = value if type(value) is str else msgspec.Raw(codec.encode(value).encode())
    return _encode_lines([{"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": said}])


def decode(line: bytes) -> Any:
    """One JSON value from one line. Raises `Malformed`."""
    value = decode_as(_any, line)
    check(value)
    return value


def decode_answer(line: bytes) -> Any:
    """What a daemon of ours wrote, who knows the rules. Raises `Malformed`."""
    return decode_as(_any, line)


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
    """The bytes of a JSON string, known to be one. Raises `Malformed`, or `ValidationError` if it is another kind.

    msgspec has passed over it before, and then looks at all but its UTF-8: control characters, escapes, surrogates.
    """
    data = bytes(raw)
    if not data.isascii() or data[:1] != b'"':
        decode_as(_text, data)
    return data


def _where(text: str) -> str:
    # msgspec names the place by byte; the words before it are its own and may change.
    return "not JSON: " + text.removeprefix("JSON is malformed: ")


_encode_lines = msgspec.json.Encoder().encode_lines
_any: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_text: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)
