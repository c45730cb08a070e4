"""Daemons that die before they serve."""

import os
import sys
from pathlib import Path

import pytest

from backchannel.client import calls, wire
from backchannel.client.drive import run
from backchannel.protocol.codec import encode
from backchannel.transport import start
from backchannel.transport.paths import Places, register, write_private

DIES_ONCE = """
import os, sys
try:
    os.mkdir(sys.argv[1])
    os.kill(os.getpid(), 9)
except FileExistsError:
    os.execv(sys.executable, [sys.executable, "-m", "backchannel.daemon", *sys.argv[2:]])
"""


def test_a_daemon_that_was_killed_while_it_started_is_started_again(tmp_path: Path) -> None:
    places = Places(str(tmp_path / "run"), str(tmp_path / "state"))
    register(places, "bob")
    died = tmp_path / "died"
    argv = [sys.executable, "-c", DIES_ONCE, str(died), "bob", "--state", places.state_dir]
    write_private(places.state("bob", "run"), encode(argv))
    caller = wire.Caller(None, places)
    try:
        assert run(calls.push(caller, "bob", "hello"))["stage"] == "stored"
        assert died.exists()
    finally:
        run(calls.stop(caller, "bob"))
        caller.close()


def test_a_descriptor_that_another_thread_closes_meanwhile_keeps_no_daemon_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    listed = os.listdir("/proc/self/fd")
    os.close(reading)
    monkeypatch.setattr(os, "listdir", lambda _: listed)
    found = start._inheritable_descriptors()
    os.close(writing)
    assert writing in found
    assert reading not in found
