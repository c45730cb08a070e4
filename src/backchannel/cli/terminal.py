"""What may reach a person's terminal: another agent's text must not be able to move the cursor or lie about itself."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

# Everything that reorders or hides text: marks, embeddings, overrides, isolates, separators, the soft hyphen; and what
# has no shape of its own at all: invisible operators, annotations, and the tags, which can spell a hidden sentence.
_INVISIBLE = frozenset("\u00ad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\ufeff")
_INVISIBLE_RANGES = ((0x2060, 0x206F), (0xFFF9, 0xFFFB), (0xE0000, 0xE0FFF))


def printable(text: str, stream: "TextIO") -> str:
    """The text as it may be shown there: on a terminal controls are escaped, elsewhere nothing is changed."""
    return escaped(text) if stream.isatty() else text


def escaped(text: str) -> str:
    if text.isprintable() and text.isascii():
        return text
    return "".join(c if _is_harmless(c) else _escape(c) for c in text)


def _is_harmless(c: str) -> bool:
    code = ord(c)
    if code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000:
        return c in "\n\t"
    return c not in _INVISIBLE and not any(first <= code <= last for first, last in _INVISIBLE_RANGES)


def _escape(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def is_coloured(stream: "TextIO", environ: "Any") -> bool:
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
