"""Waits that outlast what the kernel's timers count."""

from contextlib import closing
from pathlib import Path

from backchannel.client import calls, wire
from backchannel.client.drive import exchange, run
from backchannel.protocol.codec import encode_request
from backchannel.protocol.frame import WAIT_S_MAX
from backchannel.transport.dial import connect, peer_pid
from backchannel.transport.paths import CONTROL, Places, register
from backchannel.transport.start import record

from ..world import eventually
from .storm import daemons


def test_a_daemon_that_is_asked_to_wait_for_a_year_goes_on_serving(tmp_path: Path) -> None:
    places = Places(str(tmp_path / "run"), str(tmp_path / "state"))
    register(places, "bob")
    record(places, "bob")
    caller = wire.Caller(None, places)
    try:
        run(calls.status(caller, "bob"))  # starts it; over the control socket, where no deadline is nearer than ours
        control = f"{places.sockets('bob')}/{CONTROL}"
        with closing(connect(control, 10.0)) as taking, closing(connect(control, 10.0)) as asking:
            taking.sendall(encode_request(1, "take", {"wait": WAIT_S_MAX}))
            # Two connections have no order: the daemon may hear the ping first.
            while b'"receiving":true' not in exchange(asking, encode_request(2, "ping", {}), 10.0)[0]:
                pass
            # This answer comes out of a pass that began with the long sleep.
            assert b'"receiving":true' in exchange(asking, encode_request(3, "ping", {}), 10.0)[0]
            # Who started it may have started a second one, which leaves when it finds the lock held.
            eventually(lambda: daemons(places, "bob") == [peer_pid(taking)], "one daemon, and the same")
    finally:
        run(calls.stop(caller, "bob"))
        caller.close()
