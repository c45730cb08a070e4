"""What a daemon knows of other agents: the keys of those of its user, who drives them, and root's word on all others.

Read when first asked for, and again whenever the file changed; settings are looked at some times a second.
"""

import os
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import BackchannelError, OverLimit
from ..transport.paths import Places, check_descriptors, read_key
from ..transport.policy import Policy
from .config import load

T = TypeVar("T")

SETTINGS_LOOK_S = 0.05  # each push asks, and two looks at files that are not there cost it a tenth of its time


class Senders:
    """`key_of(name)` is the agent's secret in hex, or None if there is no such agent (any more).

    Raises `OverLimit` (`busy`) while it cannot be read for want of descriptors: nobody is called a forger for that.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._keys: _Cache[str | None] = _Cache(lambda path, name: read_key(places, name))
        self._driven: _Cache[str | None] = _Cache(lambda path, name: self._read_driven(path))
        self._is_driven: dict[str, tuple[float, bool]] = {}  # until when the last look is good enough

    def key_of(self, name: str) -> str | None:
        return self._keys.get(self._places.state(name, "key"), name)

    def policy(self) -> Policy | None:
        """Who owns which name in the system layout. Raises `OverLimit` (`busy`) while the file is not to be trusted:
        somebody is writing it, perhaps, and no mail or session is to end because of that."""
        try:
            return self._places.policy()
        except BackchannelError as error:
            raise OverLimit(
                f"who may come cannot be told now ({error.message})", code="busy", hint=error.hint, retry=True
            ) from None

    def is_model_driven(self, name: str) -> bool:
        """Whether the agent's settings, or else those for all, say that a model decides what it sends; of another
        user's agent, whose settings we cannot read, the system's policy."""
        now = time.monotonic()
        until, is_driven = self._is_driven.get(name, (now, False))
        if until <= now:
            own = self._driven.get(self._places.state(name, "config.toml"), name)
            is_driven = (own or self._driven.get(self._places.state_dir + "/config.toml", name)) == "model"
            policy = self.policy()
            is_driven = is_driven or (policy is not None and name in policy.model_driven)
            self._is_driven[name] = now + SETTINGS_LOOK_S, is_driven
        return is_driven

    def _read_driven(self, path: str) -> str | None:
        try:
            config = load([path])
        except OSError as error:
            check_descriptors(error, path)
            return None
        except BackchannelError:
            return None  # its own daemon refuses to start with such a file, and says why
        return None if config.origin["driven_by"] == "default" else config.driven_by


class _Cache(Generic[T]):
    """Values read from files of ours, kept until the file is another."""

    def __init__(self, read: Callable[[str, str], T]) -> None:
        self._read = read
        self._known: dict[str, tuple[int, int, T]] = {}

    def get(self, path: str, name: str) -> T | None:
        known = self._known.get(path)
        if known is None and not os.access(path, os.F_OK):
            return None  # as most names have no settings of their own: without the price of an exception
        try:
            status = os.lstat(path)
        except OSError:
            self._known.pop(path, None)
            return None
        if known is not None and known[0] == status.st_ino and known[1] == status.st_mtime_ns:
            return known[2]
        if status.st_uid != os.geteuid():
            return None
        value = self._read(path, name)
        self._known[path] = (status.st_ino, status.st_mtime_ns, value)
        return value
