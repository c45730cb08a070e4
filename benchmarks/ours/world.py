"""Fresh daemons for one case: each the process that a user would have, but started by us and ended with the case."""

import os
import shutil
import sys
import time
from pathlib import Path

from backchannel import Agent
from backchannel.client import calls, wire
from backchannel.client.drive import run
from backchannel.transport.lock import served_in
from backchannel.transport.paths import Places

from ..bench import Bench
from ..sizes import TEXT

LINE_BYTES_MAX = 4 << 20  # a text of 1 MiB and its frame fit; the default is a little less
MESSAGES_MAX = 10_000_000  # the default is the million that is to be measured
DAEMON_START_S = 120.0  # a thousand mailboxes are opened one after another, each with its flushes
CHUNK = 5000  # texts given to one `send_many` while a mailbox is filled


class World:
    """Places in the case's directory. `environment` is that of a program that lives there."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.places = places_in(str(bench.folder))
        self.environment = {key: value for key, value in os.environ.items() if key != "BACKCHANNEL_AGENT"}
        self.environment |= {"BACKCHANNEL_DIR": self.places.socket_dir, "BACKCHANNEL_STATE": self.places.state_dir}

    def up(self, *names: str) -> list[int]:
        """A daemon for each name. Returns their pids."""
        pids = [self._serve([name]) for name in names]
        for name in names:
            self.wait_until_served(name)
        return pids

    def up_in_one_process(self, *names: str) -> int:
        """One daemon for all of them. Returns its pid."""
        pid = self._serve(list(names))
        for name in names:
            self.wait_until_served(name)
        return pid

    def configure(self, text: str) -> None:
        """The settings of all daemons that start from now on, as TOML."""
        os.makedirs(self.places.state_dir, 0o700, exist_ok=True)
        Path(self.places.state_dir, "config.toml").write_text(text)

    def agent(self, name: str) -> Agent:
        return Agent(name, places=self.places)

    def stop(self, pid: int) -> None:
        self._bench.stop(pid)

    def wait_until_served(self, name: str) -> None:
        """Until the daemon answers; a client that came too early would start one of its own."""
        deadline = time.monotonic() + DAEMON_START_S
        while not served_in(self.places.state(name, "lock")):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the daemon of {name} did not start")
            time.sleep(0.005)
        caller = wire.Caller(None, self.places)
        run(calls.ping(caller, name, DAEMON_START_S))  # it listens for its first name long before the last is open
        caller.close()

    def _serve(self, names: list[str]) -> int:
        argv = [sys.executable, "-P", "-m", "backchannel.daemon", *names]
        argv += ["--dir", self.places.socket_dir, "--state", self.places.state_dir]
        with open(self._bench.path("daemon.log"), "ab") as log:
            return self._bench.start(argv, stdout=log, stderr=log, environment=self.environment).pid


def sender_and_sink(bench: Bench) -> tuple[World, wire.Caller]:
    """Two agents, and a caller that speaks as the first."""
    world = World(bench)
    world.up("alice", "sink")
    return world, wire.Caller("alice", world.places)


def with_waiting(bench: Bench, count: int) -> World:
    """Agents alice and sink, where so many messages wait in sink's mailbox already.

    A mailbox is filled once a run, through the front door, and copied from then on.
    """
    world = World(bench)
    world.configure(f"messages_max = {MESSAGES_MAX}\nbytes_max = {1 << 40}\n")
    if count:
        filled = bench.shared / f"waiting-{count}"
        if not filled.exists():
            _fill(bench, filled, count)
        shutil.copytree(filled, world.places.state("sink"))
    world.up("alice", "sink")
    return world


def _fill(bench: Bench, filled: Path, count: int) -> None:
    world = World(bench)
    sink, filler = world.up("sink", "filler")
    with world.agent("filler") as agent:
        for first in range(0, count, CHUNK):
            agent.send_many("sink", [TEXT] * min(CHUNK, count - first))
    world.stop(filler)
    world.stop(sink)  # in order: the log goes into the file
    shutil.move(world.places.state("sink"), filled)


def places_in(folder: str) -> Places:
    """The places of the world in a case's directory, for its helpers."""
    return Places(folder + "/run", folder + "/state")
