"""A small machine in which everything goes wrong, over the production daemon.

`Host`, `Mailbox`, `Sessions`, `Courier`, `Outbox`, `Frames` and `Endpoint` run as they are, on real SQLite files; the
world around them is simulated: time, links, agents, kills, reboots. A seed decides everything: it is a bug report.

    disk.py        one daemon's files: killed, rolled back, lost, full
    faults.py      what goes wrong, how often, and how often it did
    daemon.py      one daemon's process: its passes, its deaths
    agents.py      the agents and their processes, who know what they said and saw
    truth.py       that knowledge, against which everything handed out is held
    invariants.py  what must be true of the disks, and of two ends together
    world.py       the clock, the links, the two phases
    script.py      one end of a session as a script in the format of `conformance/sessions`

First the safety phase with faults, then the liveness phase: faults stop, everybody is willing, and all must come to an
end. `test_found.py` keeps what was found, `mutants.py` the mistakes that must be.
"""
