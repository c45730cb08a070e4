"""The daemon dies at one chosen system call of one push. Repeating the push leaves exactly one message.

strace delivers the SIGKILL on entry to the call, so the call itself does not happen: before `sendto` everything is
committed and the receipt is not out; before SQLite's first write nothing is.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backchannel import Agent
from backchannel.client import calls, wire
from backchannel.client.drive import exchange, run
from backchannel.protocol.codec import encode_request
from backchannel.transport.dial import connect
from backchannel.transport.paths import INBOX, Places

from .storm import daemons, rows_of

KEY = "the-key"
TEXT = "pay the invoice"
PATIENCE_S = 10.0

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    places = Places(str(tmp_path / "run"), str(tmp_path / "state"))
    yield places
    for name in ("ada", "bob"):
        for pid in daemons(places, name):
            os.kill(pid, signal.SIGKILL)


@needs_strace
def test_a_daemon_killed_between_commit_and_receipt_calls_the_repetition_a_duplicate(places: Places) -> None:
    with Agent("bob", places=places) as bob, Agent("ada", places=places) as ada:
        assert answer_of_a_daemon_killed_before("sendto", 1, places) is None
        receipt = ada.send("bob", TEXT, key=KEY)
        assert receipt.duplicate
        assert exactly_one_comes_to(bob, places)


@needs_strace
def test_a_daemon_killed_before_its_first_write_has_stored_nothing(places: Places) -> None:
    with Agent("bob", places=places) as bob, Agent("ada", places=places) as ada:
        assert answer_of_a_daemon_killed_before("pwrite64", 1, places) is None
        receipt = ada.send("bob", TEXT, key=KEY)
        assert not receipt.duplicate
        assert exactly_one_comes_to(bob, places)


@needs_strace
@pytest.mark.parametrize("write", range(2, 9))
def test_a_daemon_killed_at_any_write_of_a_commit_has_stored_it_whole_or_not_at_all(places: Places, write: int) -> None:
    with Agent("bob", places=places) as bob, Agent("ada", places=places) as ada:
        answer = answer_of_a_daemon_killed_before("pwrite64", write, places)
        receipt = ada.send("bob", TEXT, key=KEY)
        assert receipt.duplicate or answer is None
        assert exactly_one_comes_to(bob, places)


def test_a_daemon_killed_as_soon_as_its_log_grew_calls_the_repetition_a_duplicate(places: Places) -> None:
    # Without strace: nobody reads the receipt, and the log tells when the commit was.
    with Agent("bob", places=places) as bob, Agent("ada", places=places) as ada:
        ada.send("bob", "before", key="before")
        log = places.state("bob", "mailbox.db-wal")
        size = os.path.getsize(log)
        sock = connect(f"{places.sockets('bob')}/{INBOX}", PATIENCE_S)
        sock.sendall(push_line(places))
        until(lambda: os.path.getsize(log) > size)
        os.kill(daemons(places, "bob")[0], signal.SIGKILL)
        sock.close()
        first = ada.send("bob", TEXT, key=KEY)
        again = ada.send("bob", TEXT, key=KEY)
        assert (again.duplicate, again.msg_no) == (True, first.msg_no)
        assert [d.text for d in bob.receive() if d.ack()] == ["before", TEXT]


def answer_of_a_daemon_killed_before(call: str, number: int, places: Places) -> bytes | None:
    """What bob's daemon answers to the push when its `number`th `call` kills it; None if it did not answer."""
    pid = daemons(places, "bob")[0]
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", f"trace={call}",
         "-e", f"inject={call}:signal=KILL:when={number}"],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until(lambda: tracer.poll() is not None or b"TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_bytes())
        if tracer.poll() is not None:
            pytest.skip("strace may not attach here")
        sock = connect(f"{places.sockets('bob')}/{INBOX}", PATIENCE_S)
        try:
            return exchange(sock, push_line(places), PATIENCE_S)[0]
        except ConnectionResetError:
            return None
        finally:
            sock.close()
    finally:
        tracer.kill()  # asked to end, strace waits for the idle daemon to wake
        tracer.communicate()


def push_line(places: Places) -> bytes:
    params = {"to": "bob", "id": KEY, "from": "ada", "auth": wire.Caller("ada", places).key, "text": TEXT}
    return encode_request(1, "push", params)


def exactly_one_comes_to(agent: Agent, places: Places) -> bool:
    assert [(d.text, d.delivery) for d in agent.receive() if d.ack()] == [(TEXT, 1)]
    caller = wire.Caller(None, places)
    run(calls.stop(caller, agent.name))
    caller.close()
    return [(row.key, row.stage) for row in rows_of(places, agent.name)] == [(KEY, "acked")]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
