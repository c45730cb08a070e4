"""What threads beside the loop tell it: a queue, and a descriptor that becomes readable when something is in it."""

import os
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class News(Generic[T]):
    """Any thread may `tell`; the loop watches `fd`, and takes all that was told since."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._told: deque[T] = deque()

    def tell(self, what: T) -> None:
        self._told.append(what)
        try:
            os.write(self._write_fd, b"\0")
        except BlockingIOError:
            pass  # the pipe is full of news already

    def take(self) -> list[T]:
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            pass
        taken = []
        while self._told:
            taken.append(self._told.popleft())
        return taken

    def close(self) -> None:
        """Once nobody tells any more."""
        os.close(self.fd)
        os.close(self._write_fd)
