"""Names and ids: who an agent is, what a message is called. Pure; checked at every entry, never a path.

An agent's name is `[a-z0-9][a-z0-9_-]{0,62}` and nothing else, so that it can be a directory, a systemd instance and
a word in a shell without quoting. A process that is no agent speaks as `@user`.
"""

from ..errors import LocalProtocolError

USER = "@user"
NAME_CHARS_MAX = 63  # with NAME + "/control.sock" a socket path still fits most runtime directories
SESSION_PREFIX = "s-"
ID_CHARS_MAX = 128  # room for anybody's idempotency key; bounded because every id is kept for days

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_REST = _FIRST | {"_", "-"}


class AgentName(str):
    """A checked agent name. Raises `LocalProtocolError` (`bad_name`) for anything else."""

    __slots__ = ()

    def __new__(cls, value: object) -> "AgentName":
        if type(value) is cls:
            return value
        if not isinstance(value, str) or not is_name(value):
            shown = ascii(value if not isinstance(value, str) or len(value) < 80 else value[:77] + "...")
            raise LocalProtocolError(
                f"{shown} is not an agent name",
                code="bad_name",
                hint="use 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit",
            )
        return super().__new__(cls, value)


def is_name(value: str) -> bool:
    return 0 < len(value) <= NAME_CHARS_MAX and value[0] in _FIRST and _REST.issuperset(value)


def check_id(value: str) -> str:
    """A message id or idempotency key: 1 to 128 printable characters. Raises `LocalProtocolError` (`bad_id`)."""
    if not isinstance(value, str):
        raise LocalProtocolError(f"{value!r} is not a message id", code="bad_id", hint="use a text")
    if not 0 < len(value) <= ID_CHARS_MAX or not value.isprintable():
        shown = ascii(value if len(value) < 80 else value[:77] + "...")
        raise LocalProtocolError(
            f"{shown} is not a message id", code="bad_id", hint="use 1 to 128 printable characters"
        )
    return value


def check_own_id(value: str) -> str:
    """As `check_id`, for an id that its sender chooses: those of sessions and of their mail are the daemons'."""
    if check_id(value).startswith(SESSION_PREFIX):
        raise LocalProtocolError(
            f"{value!a} cannot be the id of a message",
            code="bad_id",
            hint=f"ids that begin with {SESSION_PREFIX} are sessions'",
        )
    return value


def make_id(prefix: str, unix_ms: int, random: bytes) -> str:
    """A time-ordered 128-bit id: `m-` (message), `s-` (session) or `t-` (take) and 32 hex digits.

    48 bits of milliseconds before 80 random ones: ids made one after another lie side by side in the index, which
    keeps an insert at a million rows as cheap as at none.
    """
    return f"{prefix}-{unix_ms & 0xFFFFFFFFFFFF:012x}{random.hex()}"


def closest(name: str, known: list[str]) -> str:
    """The known name nearest to a mistyped one, or "": at most two edits away (a swap counts as one)."""
    best, best_distance = "", 3
    for candidate in known:
        distance = _edits(name, candidate)
        if distance < best_distance and distance < len(candidate):
            best, best_distance = candidate, distance
    return best


def _edits(a: str, b: str) -> int:
    """Optimal string alignment distance (insert, delete, replace, swap of neighbours)."""
    before: list[int] = []
    above = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, above = above, row
    return above[-1]
