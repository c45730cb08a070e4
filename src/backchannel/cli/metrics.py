"""`metrics`: what the daemons counted, as OpenMetrics text.

No port: whoever collects runs the command, or has it write a file for node_exporter's textfile collector. Only
counters, gauges and histograms are used: then the same text is good for readers of the older Prometheus format, and
node_exporter is one. A daemon that does not run is not started to be counted.
"""

import argparse
import errno
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..client import calls, wire
from ..client.drive import run
from ..errors import BackchannelError, NotPermitted, OverLimit, PeerAbsent
from ..protocol.codes import exit_code
from ..protocol.names import AgentName
from .main import report

PREFIX = "backchannel_"
TEXTFILE_MODE = 0o644  # node_exporter is another user

Sample = tuple[str, dict[str, object], Any]  # the family's name, labels, and a number or a histogram


class Family(NamedTuple):
    """What stands above the samples of one metric. A unit ends the metric's name."""

    kind: str
    unit: str
    help: str


FAMILIES = {
    "up": Family("gauge", "", "1 while the agent's daemon answers."),
    "build": Family("gauge", "", "1; the daemon's version and that of its file's tables are the labels."),
    "start_time_seconds": Family("gauge", "seconds", "When the daemon started, Unix time."),
    "messages_stored": Family("counter", "", "Messages ever stored in the mailbox."),
    "messages_ended": Family("counter", "", "Messages that came to an end, by how; acked ones may be answered later."),
    "messages_answered": Family("counter", "", "Messages that were answered; they count as acked too."),
    "backlog_messages": Family("gauge", "", "Messages not acked yet, by stage."),
    "backlog_bytes": Family("gauge", "bytes", "Texts and headers of the messages not acked yet."),
    "oldest_unacked_seconds": Family("gauge", "seconds", "Age of the oldest message not acked yet; 0: there is none."),
    "stage_seconds": Family(
        "histogram",
        "seconds",
        "How long it took, since the daemon's start: queued in the outbox; waited until taken; handled until the"
        " agent's word; committed, from reading a request on.",
    ),
    "sessions": Family("gauge", "", "Sessions by state, those remembered after their end included."),
    "sessions_opened": Family("counter", "", "Sessions ever opened or offered, by our role."),
    "sessions_ended": Family("counter", "", "Sessions that ended, by our role and the cause."),
    "requests_refused": Family("counter", "", "Requests refused since the daemon's start, by error code."),
    "outbox_entries": Family("gauge", "", "Messages and frames that wait for their target's daemon."),
    "unreachable_agents": Family("gauge", "", "Targets that could not be reached at the last try."),
    "commits": Family("counter", "", "Transactions committed since the daemon's start."),
    "receiving": Family("gauge", "", "1 while a process of the agent waits for mail, or holds some."),
    "paused": Family("gauge", "", "1 while a person has stopped the handing out."),
    "mailbox_bytes": Family("gauge", "bytes", "The mailbox on disk: its file, and its write-ahead log."),
    "disk_free_bytes": Family("gauge", "bytes", "Free on the disk under the mailbox."),
}


def metrics(options: argparse.Namespace) -> int:
    """Prints or writes what all daemons say. The exit code is that of the first daemon that does not answer rightly."""
    caller = wire.Caller(None)
    names = [AgentName(name) for name in options.names] or caller.places.registered()
    status = 0
    found: dict[str, dict[str, Any] | None] = {}
    for name in names:
        try:
            found[name] = run(calls.running(caller, name, "metrics"))
        except PeerAbsent as error:
            if error.code == "unknown_agent":
                raise
            found[name] = None
        except NotPermitted:
            if options.names:
                raise
        except BackchannelError as error:
            status = status or exit_code(error)
            report(error, as_json=False)
            found[name] = None
    text = "".join(f"{line}\n" for line in exposition(found, time.time()))
    if options.textfile:
        _write(options.textfile, text)
    else:
        sys.stdout.write(text)
    return status


def exposition(found: dict[str, dict[str, Any] | None], wall: float) -> Iterator[str]:
    """The lines, from what each agent's daemon counted; None: it does not answer."""
    samples: list[Sample] = []
    for agent, said in found.items():
        samples.append(("up", {"agent": agent}, int(said is not None)))
        if said is not None:
            samples += [(name, {"agent": agent, **labels}, value) for name, labels, value in _samples(said, wall)]
    for name, family in FAMILIES.items():  # all samples of one stand together
        of_this = [(labels, value) for other, labels, value in samples if other == name]
        if not of_this:
            continue
        yield f"# HELP {PREFIX}{name} {family.help}"
        yield f"# TYPE {PREFIX}{name} {family.kind}"
        if family.unit:
            yield f"# UNIT {PREFIX}{name} {family.unit}"
        for labels, value in of_this:
            yield from _lines(PREFIX + name, family.kind, labels, value)
    yield "# EOF"


def _samples(said: dict[str, Any], wall: float) -> Iterator[Sample]:
    counters = said["counters"]
    yield "build", {"version": said["version"], "schema": said["schema"]}, 1
    yield "start_time_seconds", {}, said["started_at"]
    yield "messages_stored", {}, counters["total"]
    yield "messages_ended", {"outcome": "acked"}, counters["acked"] + counters["done"]
    for outcome in ("rejected", "expired", "cancelled", "dead"):
        yield "messages_ended", {"outcome": outcome}, counters[outcome]
    yield "messages_answered", {}, counters["done"]
    for stage in ("stored", "taken"):
        yield "backlog_messages", {"stage": stage}, counters[stage]
    yield "backlog_bytes", {}, counters["bytes"]
    oldest = said["oldest_unacked"]
    yield "oldest_unacked_seconds", {}, 0.0 if oldest is None else max(0.0, wall - oldest)
    for stage, histogram in said["durations"].items():
        yield "stage_seconds", {"stage": stage}, histogram
    for state, count in said["sessions"].items():
        yield "sessions", {"state": state}, count
    for role, counts in said["session_counters"].items():
        yield "sessions_opened", {"role": role}, counts["opened"]
        for cause, count in counts.items():
            if cause not in ("opened", "open"):
                yield "sessions_ended", {"role": role, "cause": cause}, count
    for code, count in said["refused"].items():
        yield "requests_refused", {"code": code}, count
    yield "outbox_entries", {}, said["outbox"]
    yield "unreachable_agents", {}, said["unreachable"]
    yield "commits", {}, said["commits"]
    yield "receiving", {}, int(said["receiving"])
    yield "paused", {}, int(said["paused"])
    yield "mailbox_bytes", {"part": "file"}, said["file_bytes"]
    yield "mailbox_bytes", {"part": "wal"}, said["wal_bytes"]
    yield "disk_free_bytes", {}, said["free_bytes"]


# --- the format -------------------------------------------------------------------------------------------------------


def _lines(name: str, kind: str, labels: dict[str, object], value: Any) -> Iterator[str]:
    if kind != "histogram":
        yield f"{name}{'_total' if kind == 'counter' else ''}{_labels(labels)} {value}"
        return
    count = 0
    for bound, more in zip([*map(float, value["bounds"]), "+Inf"], value["counts"], strict=True):
        count += more
        yield f"{name}_bucket{_labels({**labels, 'le': bound})} {count}"
    yield f"{name}_count{_labels(labels)} {count}"
    yield f"{name}_sum{_labels(labels)} {value['sum']}"


def _labels(labels: dict[str, object]) -> str:
    return "{" + ",".join(f'{key}="{_escaped(str(value))}"' for key, value in labels.items()) + "}"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _write(path: str, text: str) -> None:
    """Whole or not at all: a collector may read at any moment. Raises `NotPermitted`, `BackchannelError`."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, TEXTFILE_MODE), "w") as file:
            os.fchmod(file.fileno(), TEXTFILE_MODE)  # the umask has no say: a closed file is no use to anybody
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        what, folder = f"{path} could not be written ({os.strerror(error.errno or 0)})", os.path.dirname(path) or "."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OverLimit(what, code="full", hint=f"look at the disk: df {folder}", retry=True) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise NotPermitted(what, hint=f"look at it: ls -ld {folder}") from None
        raise BackchannelError(what, code="os_error", hint=f"look at it: ls -ld {folder}") from None
