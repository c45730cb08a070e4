"""Which messages may be handed out next, in order: the numbers of all that are `stored`, in memory.

An index in the file did the same for a third of each commit's price. The rows stay the truth: this follows every move
of a message, back too when a transaction is undone, and is read from them again after an unclean stop. A million
waiting messages take 8 MB.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator

LANES = 3  # priorities: urgent, normal, low
COMPACT_FROM = 4096  # numbers before the head of a lane, before it is worth moving the rest


class Lane:
    """Ascending numbers, taken mostly from the front and added mostly at the end; each of the two costs the same
    whatever their count."""

    __slots__ = ("_head", "_numbers")

    def __init__(self, numbers: "array[int] | None" = None) -> None:
        self._numbers: array[int] = array("q") if numbers is None else numbers
        self._head = 0  # what stands before it has left

    def __len__(self) -> int:
        return len(self._numbers) - self._head

    def __iter__(self) -> Iterator[int]:
        """In order. The lane may not change meanwhile."""
        numbers = self._numbers
        return (numbers[at] for at in range(self._head, len(numbers)))

    @property
    def first(self) -> int | None:
        return self._numbers[self._head] if self._head < len(self._numbers) else None

    def add(self, number: int) -> None:
        numbers, head = self._numbers, self._head
        if head == len(numbers) or numbers[-1] < number:
            numbers.append(number)
            return
        at = bisect_left(numbers, number, head)
        if (
            head and at - head < len(numbers) - at
        ):  # one that comes back has its place near the front, from which it left
            numbers[head - 1 : at - 1] = numbers[head:at]
            numbers[at - 1] = number
            self._head = head - 1
        else:
            numbers.insert(at, number)

    def remove(self, number: int) -> None:
        numbers, head = self._numbers, self._head
        if numbers[head] == number:
            self._head = head = head + 1
        else:
            at = bisect_left(numbers, number, head)
            assert numbers[at] == number, f"message {number} does not wait"
            if at - head < len(numbers) - at:
                numbers[head + 1 : at + 1] = numbers[head:at]
                self._head = head = head + 1
            else:
                del numbers[at]
        if head == len(numbers) or (head > COMPACT_FROM and head > len(numbers) // 2):
            del numbers[:head]
            self._head = 0

    def to_bytes(self) -> bytes:
        return self._numbers[self._head :].tobytes()


class Ready:
    """All that waits: a lane for each priority, and beside it the mail of each session."""

    __slots__ = ("lanes", "of_session")

    def __init__(self) -> None:
        self.lanes = tuple(Lane() for _ in range(LANES))
        self.of_session: dict[str, list[tuple[int, int]]] = {}  # (priority, number), in order

    def __iter__(self) -> Iterator[int]:
        """All numbers in order of priority and arrival. Nothing may be added or removed meanwhile."""
        for lane in self.lanes:
            yield from lane

    def oldest(self) -> int | None:
        """The lowest number of all."""
        return min((number for lane in self.lanes if (number := lane.first) is not None), default=None)

    def add(self, number: int, priority: int, session: str | None) -> None:
        self.lanes[priority].add(number)
        if session is not None:
            insort(self.of_session.setdefault(session, []), (priority, number))

    def remove(self, number: int, priority: int, session: str | None) -> None:
        self.lanes[priority].remove(number)
        if session is not None:
            mail = self.of_session[session]
            mail.remove((priority, number))
            if not mail:
                del self.of_session[session]

    def in_session(self, session: str) -> list[int]:
        """The numbers of its mail, in the same order."""
        return [number for _, number in self.of_session.get(session, ())]
