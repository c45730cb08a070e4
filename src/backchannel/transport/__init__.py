"""Where bytes touch the machine: paths and permissions, unix sockets, credentials, inherited descriptors, locks.

`paths` and `dial` are on the command line's fast path and import next to nothing; the rest is the daemon's.
"""
