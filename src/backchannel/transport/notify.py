"""Talking to the service manager: sd_notify, without a library for one datagram."""

import os
import socket


class ServiceManager:
    """READY, STOPPING and the watchdog. Without a manager every call does nothing."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        micros = os.environ.pop("WATCHDOG_USEC", "")
        meant = os.environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        # Half the time, as sd_watchdog_enabled(3) advises.
        self.watchdog_s = int(micros) / 2e6 if micros.isdigit() and int(micros) and meant and self._address else None

    def tell(self, state: str) -> None:
        """Sends one state ("READY=1", "STATUS=..."). A manager that is gone is no error of ours."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.connect(address)
                sock.sendall(state.encode())
        except OSError:
            pass
