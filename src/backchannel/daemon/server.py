"""The loop: sockets and time, for all names of one process.

One pass: take what came in (up to 64 new connections a listener, each read at once), let the hosts commit it together,
send the answers, and only then do what can wait. No polling anywhere: the loop sleeps until a descriptor or a deadline
wakes it, and idle it has neither. A pass looks only at the seats it touched; the others' deadlines lie in a heap, so a
thousand idle names cost the one that is busy nothing.
"""

import errno
import gc
import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from functools import cache, partial
from heapq import heappop, heappush
from itertools import count

from ..errors import BackchannelError, LocalProtocolError, NotPermitted, OverLimit
from ..mailbox.database import is_full
from ..protocol.envelope import Peer
from ..transport.dial import USUAL_ROOM_BYTES, Socket, make_room
from ..transport.listen import Listener, accept, listen
from ..transport.lock import NameLock
from ..transport.notify import ServiceManager
from ..transport.paths import Places
from ..transport.watch import DirectoryWatch
from . import links
from .callers import Answer, Caller
from .copying import Copier
from .courier import Errand
from .flush import Flush, Flusher, Log
from .host import Host, StorageFailed
from .log import Sparingly, logger

ACCEPTS_A_PASS = 64  # then one commit for all of them; the rest waits in the kernel's backlog
READ_BYTES = 65536  # larger buffers cost an mmap a call
HEAP_BYTES_KEPT = 8 << 20  # of freed memory, in a daemon that has had long lines
READ_ON_BYTES = 17 << 16  # of one long line in a pass: 1 MiB and a little; a pass costs more than to read 64 KiB
INBOX_LINKS_MAX = 512
CONTROL_LINKS_MAX = 128
FIRST_BYTE_S = 2.0
FRAME_S = 10.0
FRAME_BYTES_A_SECOND = 65536  # a frame may take longer if it keeps this pace
KEPT_IDLE_S = 5.0
WRITE_S = 10.0
EMFILE_PAUSE_S = 0.1
CHECKPOINT_IDLE_S = 1.0
CHECKPOINT_WAL_BYTES = 64 << 20  # 11,000 messages; whoever comes during a checkpoint waits for it, so they are seldom
# What a checkpoint takes is a matter of the pages that differ. Short messages write the same ones over and over; long
# texts have their own, and 64 MiB of them would be a stop of 200 ms and more.
CHECKPOINT_RECEIVED_BYTES = 8 << 20
WAL_KEPT_BYTES = 4 << 20  # of the log's file, once nothing is in it: who is idle gives the rest back to the disk
WAL_LOOK_S = 0.02  # between two looks at the log's size: a few MB, a small part of the reserve
WATCH_FALLBACK_S = 30.0
SLEEP_S_MAX = 86400.0  # epoll counts milliseconds in an int: 25 days and more are an error

EXIT_UNAVAILABLE = 69  # our socket directory is gone
EXIT_IO = 74

_READ = select.EPOLLIN | select.EPOLLRDHUP
_WRITE = select.EPOLLOUT
_GONE = select.EPOLLHUP | select.EPOLLERR


class Link(Caller):
    """One connection. `deadline` is when it has been silent or slow for too long; None while it may be."""

    __slots__ = ("chunks", "deadline", "events", "frame_since", "is_closed", "is_ended", "out", "seat", "size", "sock")

    def __init__(self, sock: Socket, peer: Peer, seat: "Seat", deadline: float | None, *, is_control: bool):
        super().__init__(peer, is_control=is_control)
        self.sock = sock
        self.seat = seat
        self.deadline = deadline
        self.chunks: list[bytes] = []  # of a line that is not whole yet
        self.size = 0
        self.frame_since: float | None = None
        self.out: bytes | memoryview = b""
        self.events = 0  # what epoll watches; 0: not registered
        self.is_ended = False  # they will send no more
        self.is_closed = False


class Door:
    """A listening socket. To find nobody behind the first costs as much as to let him in: whoever sends one after
    another comes alone, so after that nobody is looked for in 1, 3, 7, then 15 passes."""

    __slots__ = ("in_vain", "is_control", "passes_alone", "sock")

    def __init__(self, sock: socket.socket, *, is_control: bool) -> None:
        self.sock = sock
        self.is_control = is_control
        self.in_vain = 0
        self.passes_alone = 0

    def was_alone(self) -> None:
        self.in_vain = min(self.in_vain + 1, 4)
        self.passes_alone = (1 << self.in_vain) - 1


class Seat:
    """One name in this process: its host, its sockets, its log, its lock."""

    def __init__(self, host: Host, inbox: Listener, control: Listener, log: Log, lock: NameLock) -> None:
        self.host = host
        self.inbox = inbox
        self.control = control
        self.log = log
        self.lock = lock
        self.links: dict[bool, dict[Link, None]] = {False: {}, True: {}}  # by is_control, oldest first
        self.is_touched = False
        self.is_closed = False
        self.wakes_at = math.inf  # its earliest deadline in the server's heap
        self.commits = host.mailbox.commits
        self.unchecked_since: float | None = None  # the first commit after the last checkpoint
        self.last_commit = 0.0
        self.received_bytes = 0  # since the last checkpoint
        self.next_wal_look = 0.0
        self.is_tight = False  # the disk is so full that the reserve has to hold the log too


class Server:
    """Serves its seats until `stop` or the last of them is closed. `run` returns the process's exit status."""

    def __init__(self, manager: ServiceManager, places: Places) -> None:
        self._manager = manager
        self._places = places
        self._epoll = select.epoll()
        self._seats: list[Seat] = []
        self._by_log: dict[Log, Seat] = {}
        self._touched: list[Seat] = []  # in this pass
        self._wakes: list[tuple[float, int, Seat]] = []  # a heap; the number only keeps seats from being compared
        self._wake_numbers = count()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._flusher = Flusher()
        self._copier = Copier()
        self._watch = DirectoryWatch()
        self._sparingly = Sparingly()
        self._carriages: dict[links.Carriage, Seat] = {}  # for whom each is, or was last
        self._kept: dict[links.Carriage, None] = {}  # those without an errand, oldest first
        self._fresh: list[Link] = []  # accepted in this pass, not yet watched
        self._refused: list[tuple[Link, BackchannelError]] = []  # in this pass, behind requests that come first
        self._paused_until = math.inf
        self._due = 0.0  # the earliest deadline when the loop went to sleep
        self._next_sweep = math.inf  # the next times for what belongs to no seat; inf: never
        self._next_look = math.inf
        self._next_watchdog = math.inf
        self._next_idle_look = math.inf  # never: our sockets would be gone with us
        self._busy_at = 0.0  # the last pass in which something happened
        self._status: int | None = None
        self.now = clock()
        self.wall = time.time()
        self._wake_in, self._wake_out = socket.socketpair()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._register(self._wake_in.fileno(), _READ, lambda _: self._drain_wakeups())
        self._register(self._flusher.fd, _READ, lambda _: self._handle_flushes())
        self._register(self._copier.fd, _READ, lambda _: self._handle_copies())

    def make_log(self, path: str) -> Log:
        return Log(path)

    def add(self, seat: Seat) -> None:
        """Begins to serve one more name."""
        self._seats.append(seat)
        self._by_log[seat.log] = seat
        self._touch(seat)  # a session's times are saved by this boot's clock, and its PROBEs set out
        for listener, is_control in ((seat.inbox, False), (seat.control, True)):
            self._listen(seat, listener, is_control=is_control)
        if seat.inbox.inode is None:
            self._next_idle_look = clock() + seat.host.config.idle_exit_s
        else:
            self._watch_folder(os.path.dirname(seat.inbox.path))

    def stop(self, status: int = 0) -> None:
        """Ends `run` after this pass. Safe in a signal handler."""
        if self._status is None:
            self._status = status

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        if self._manager.watchdog_s:
            self._next_watchdog = clock()
        poll = self._epoll.poll
        handlers = self._handlers
        try:
            while self._status is None and self._seats:
                events = poll(self._timeout())
                self.now = clock()
                self.wall = time.time()
                if events:
                    self._busy_at = self.now
                for fd, event in events:
                    handler = handlers.get(fd)
                    if handler is not None:  # closed by an earlier event of this pass
                        handler(event)
                is_due = self._due <= self.now
                if is_due:
                    self._handle_timers()
                if is_due or self._touched or self._fresh or self._refused:
                    self._finish()
        except StorageFailed as failed:
            logger.error(
                "the disk failed (%s): no receipt was given for what was under way; restarting recovers", failed
            )
            self._manager.tell(f"STATUS=the disk failed: {failed}")
            return EXIT_IO
        return self._status or 0

    def close(self) -> None:
        """Lets go of everything in order: sockets first, so that nothing new comes in, then the mailboxes."""
        for seat in list(self._seats):
            try:
                self._close_seat(seat)
            except Exception as error:  # the other names close all the same
                logger.error("%s did not close cleanly: %s", seat.host.name, error)
        self._copier.close()
        self._flusher.close()
        self._watch.close()

    def _timeout(self) -> float:
        """Seconds until something is due; -1 is for ever."""
        if self._touched:
            self._due = 0.0
            return 0.0  # sending the answers closed a connection that held something
        earliest = min(
            self._next_sweep, self._next_look, self._next_watchdog, self._next_idle_look, self._paused_until,
            self._wakes[0][0] if self._wakes else math.inf,
        )  # fmt: skip
        if self._carriages:
            earliest = min(earliest, min(carriage.deadline for carriage in self._carriages))
        self._due = earliest
        if earliest == math.inf:
            return -1
        return min(SLEEP_S_MAX, max(0.0, earliest - clock()))

    def _touch(self, seat: Seat) -> None:
        """Something of it changed: this pass ends with its commit, and finds out when it has something to do next."""
        if not seat.is_touched:
            seat.is_touched = True
            self._touched.append(seat)

    def _set_alarm(self, seat: Seat) -> None:
        """Wakes the loop for its next deadline. One that only moved further off is found out when the old one comes."""
        host = seat.host
        earliest = host.operating.next_clearing
        if seat.unchecked_since is not None and seat.last_commit + CHECKPOINT_IDLE_S < earliest:
            earliest = seat.last_commit + CHECKPOINT_IDLE_S
        for at in (host.deadline, host.courier.deadline, seat.log.deadline):
            if at is not None and at < earliest:
                earliest = at
        if earliest < seat.wakes_at:
            seat.wakes_at = earliest
            heappush(self._wakes, (earliest, next(self._wake_numbers), seat))

    def _handle_timers(self) -> None:
        now = self.now
        while self._wakes and self._wakes[0][0] <= now:
            at, _, seat = heappop(self._wakes)
            if seat.is_closed or at != seat.wakes_at:
                continue
            seat.wakes_at = math.inf
            deadline = seat.host.deadline
            if deadline is not None and deadline <= now:
                seat.host.handle_timer(now, self.wall)
            self._touch(seat)
        for carriage in [c for c in self._carriages if c.deadline <= now]:
            carriage.end("it did not answer in time")
        if self._next_sweep <= now:
            self._sweep()
        if self._next_look <= now:
            self._handle_watch()
            self._next_look = now + WATCH_FALLBACK_S
        if self._paused_until <= now:
            self._resume_accepting()
        if self._next_idle_look <= now:
            self._look_whether_idle(self._seats[0])

    def _look_whether_idle(self, seat: Seat) -> None:
        """Ends a daemon that is not needed, if a service manager keeps its sockets.

        Whoever connects meanwhile is lost to nobody: once this is decided nothing is accepted any more, so the
        connection waits in the backlog of a socket that is the manager's, and starts the next daemon.
        """
        idle_exit_s = seat.host.config.idle_exit_s
        if self._busy_at + idle_exit_s > self.now:
            self._next_idle_look = self._busy_at + idle_exit_s
        elif not self._is_idle(seat):
            self._next_idle_look = self.now + idle_exit_s
        else:
            logger.info("%s: nothing to do for %g s; the next connection starts it again", seat.host.name, idle_exit_s)
            self.stop()

    def _is_idle(self, seat: Seat) -> bool:
        """Whether nothing is connected, under way, or still to be written."""
        is_connected = seat.links[False] or seat.links[True] or self._carriages
        is_written = seat.log.deadline is None and seat.unchecked_since is None and not seat.is_touched
        return not is_connected and is_written and seat.host.is_idle(self.now)

    def _finish(self) -> None:
        """The end of a pass: commit, answer, and then what can wait."""
        touched, self._touched = self._touched, []
        for seat in touched:
            seat.is_touched = False
            answers = seat.host.finish(self.now, self.wall)
            if seat.host.mailbox.commits != seat.commits:
                seat.host.operating.commits.observe(clock() - self.now)
                self._note_commit(seat)
            self._answer(seat, answers)
            if (copying := seat.host.operating.to_start) is not None:
                seat.host.operating.to_start = None
                self._copier.start(copying)
            if seat.host.stopping:
                logger.info("%s is stopped", seat.host.name)
                self._close_seat(seat)
        for seat in touched:
            if not seat.is_closed:
                self._flush(seat)
        if self._refused:
            for link, error in self._refused:
                self._refuse_now(link, error)
            self._refused.clear()
        for link in self._fresh:
            if not link.is_closed:
                self._watch_link(link)
        self._fresh.clear()
        for seat in touched:
            if not seat.is_closed:
                self._send_couriers(seat)
                if seat.host.operating.next_clearing <= self.now:
                    self._clear_up(seat)
                self._maybe_checkpoint(seat)
                self._set_alarm(seat)
        # Only a loop that gets this far, commits included, is alive.
        if self._next_watchdog <= self.now:
            self._manager.tell("WATCHDOG=1")
            self._next_watchdog = self.now + (self._manager.watchdog_s or 0)

    def _clear_up(self, seat: Seat) -> None:
        """One small step of what retention asks for: the answers are out."""
        seat.host.clear_up(self.now, self.wall)
        if seat.host.mailbox.commits != seat.commits:
            self._note_commit(seat)

    def _note_commit(self, seat: Seat) -> None:
        """Something was committed: it is to be flushed, and one day moved from the log into the file."""
        seat.commits = seat.host.mailbox.commits
        seat.log.committed(self.now)
        seat.last_commit = self.now
        if seat.unchecked_since is None:
            seat.unchecked_since = self.now

    def _maybe_checkpoint(self, seat: Seat) -> None:
        if seat.unchecked_since is None:
            return
        is_idle = self.now - seat.last_commit >= CHECKPOINT_IDLE_S
        if not is_idle and self.now < seat.next_wal_look:
            return
        is_long = not is_idle and seat.log.is_longer_than(self._wal_bytes_max(seat))
        if not is_idle and not is_long and seat.received_bytes < CHECKPOINT_RECEIVED_BYTES:
            return
        is_too_big = is_idle and seat.host.mailbox.wal_bytes > WAL_KEPT_BYTES
        try:
            seat.host.mailbox.checkpoint(truncate=seat.is_tight or is_too_big)
        except Exception as error:
            if not is_full(error):
                raise StorageFailed(str(error)) from error
            # The log holds everything; it goes into the file when there is room again.
            self._sparingly.warning("full", f"{seat.host.name}: the disk is full, the log stays as it is", self.now)
            seat.last_commit = self.now
            return
        seat.unchecked_since = None
        seat.received_bytes = 0
        gc.collect(1)  # what exceptions left in cycles; automatic collection is off

    def _wal_bytes_max(self, seat: Seat) -> int:
        """How long the log may grow now. On a nearly full disk the reserve has to hold it: then it is kept to half of
        that, and gives its room back."""
        reserve = seat.host.config.reserve_bytes
        # A log as long as it may be, and its place in the file, would have to stand beside the reserve.
        seat.is_tight = reserve > 0 and seat.host.free_bytes() < reserve + 2 * CHECKPOINT_WAL_BYTES
        seat.next_wal_look = self.now + (0.0 if seat.is_tight else WAL_LOOK_S)
        return min(reserve >> 1, CHECKPOINT_WAL_BYTES) if seat.is_tight else CHECKPOINT_WAL_BYTES

    # --- connections --------------------------------------------------------------------------------------------------

    def _listen(self, seat: Seat, listener: Listener, *, is_control: bool) -> None:
        door = Door(listener.sock, is_control=is_control)
        self._register(door.sock.fileno(), select.EPOLLIN, lambda _: self._accept(seat, door))

    def _accept(self, seat: Seat, door: Door) -> None:
        is_control = door.is_control
        for taken in range(ACCEPTS_A_PASS):
            if taken == 1 and door.passes_alone:
                door.passes_alone -= 1
                return
            try:
                sock, peer = accept(door.sock)
            except BlockingIOError:
                if taken == 1:
                    door.was_alone()
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause_accepting(error)
                    return
                if error.errno in (errno.ECONNABORTED, errno.EINTR, errno.EPROTO):
                    continue
                raise
            if taken == 1:
                door.in_vain = 0
            link = Link(sock, peer, seat, None if is_control else self.now + FIRST_BYTE_S, is_control=is_control)
            if not self._make_room(seat, link):
                continue
            seat.links[is_control][link] = None
            self._fresh.append(link)
            self._read(link)

    def _make_room(self, seat: Seat, link: Link) -> bool:
        """Whether there is a place for one more connection; the oldest idle one of the inbox leaves for it."""
        links = seat.links[link.is_control]
        if len(links) < (CONTROL_LINKS_MAX if link.is_control else INBOX_LINKS_MAX):
            return True
        if not link.is_control:
            for oldest in links:
                if oldest.pending == 0:
                    self._close(oldest)
                    return True
        self._send(link, seat.host.refuse(link, _busy()).line)
        link.sock.close()
        link.is_closed = True
        return False

    def _watch_link(self, link: Link) -> None:
        """Registers a connection with epoll, or changes what is watched of it."""
        # After their end has come only its being gone matters; while they don't read, we don't either.
        events = _WRITE if link.out else 0 if link.is_ended else _READ
        fd = link.sock.fileno()
        if fd not in self._handlers:
            self._register(fd, events, partial(self._handle, link))
        elif events != link.events:
            self._epoll.modify(fd, events)
        link.events = events
        if link.deadline is not None and link.deadline < self._next_sweep:
            self._next_sweep = link.deadline

    def _handle(self, link: Link, event: int) -> None:
        if event & _WRITE:
            self._flush_out(link)
        elif event & select.EPOLLIN and not link.is_ended:
            self._read(link)
            # Who is gone left an end behind the last line: found now, a take of theirs gets nothing of this pass.
            while event & select.EPOLLHUP and not link.is_ended and not link.is_closed:
                self._read(link)
        if event & _GONE and not link.is_closed and (link.is_ended or not event & select.EPOLLIN):
            self._close(link)

    def _read(self, link: Link) -> None:
        seat = link.seat
        most = link.size + READ_ON_BYTES
        while True:
            try:
                data = link.sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self._close(link)
                return
            if not data:
                self._end(link)
                return
            seat.received_bytes += len(data)
            if b"\n" in data:
                break
            if not self._keep_part(link, data) or len(data) < READ_BYTES or link.size >= most:
                return
        lines = data.split(b"\n")
        if link.chunks:
            _keep_heap()
            link.chunks.append(lines[0])
            lines[0] = b"".join(link.chunks)
            link.chunks = []
        rest = lines.pop()
        link.size, link.frame_since = 0, None
        limit = seat.host.config.line_bytes_max
        for line in lines:
            if len(line) > limit:
                self._refuse(link, _oversize(limit))
                return
            if line and not line.isspace():
                seat.host.receive(link, line, self.now, self.wall)
                self._touch(seat)
                if link.spoke_wrongly:
                    self._stop_reading(link)
                    return
        if rest:
            self._keep_part(link, rest)

    def _keep_part(self, link: Link, data: bytes) -> bool:
        """The beginning of a line. Bounded in size, and for strangers in time. Returns whether it may go on."""
        link.chunks.append(data)
        link.size += len(data)
        limit = link.seat.host.config.line_bytes_max
        if link.size > limit:
            self._refuse(link, _oversize(limit))
            return False
        if link.deadline is not None:
            if link.frame_since is None:
                link.frame_since = self.now
            link.deadline = link.frame_since + max(FRAME_S, link.size / FRAME_BYTES_A_SECOND)
        return True

    def _stop_reading(self, link: Link) -> None:
        """A line was malformed, and is answered so. Where it ended is a guess, so nothing behind it is read."""
        name = link.seat.host.name
        self._sparingly.warning("malformed", f"{name}: a line of uid {link.peer.uid} is malformed", self.now)
        link.is_ended = True
        if link not in self._fresh:
            self._watch_link(link)

    def _end(self, link: Link) -> None:
        """They will send no more. What is pending is answered, then the connection closes."""
        link.is_ended = True
        if link.chunks:
            self._refuse(link, _unfinished())
        elif link.pending == 0 and not link.out:
            self._close(link)
        elif link not in self._fresh:
            self._watch_link(link)

    def _refuse(self, link: Link, error: BackchannelError) -> None:
        """Says what is wrong with bytes that are no request, and lets go; what came whole before is answered first."""
        if link.pending:
            self._refused.append((link, error))
        else:
            self._refuse_now(link, error)

    def _refuse_now(self, link: Link, error: BackchannelError) -> None:
        if link.is_closed:
            return
        host = link.seat.host
        self._send(link, host.refuse(link, error).line)
        self._sparingly.warning(error.code, f"{host.name}: refused uid {link.peer.uid}: {error.message}", self.now)
        self._close(link)

    def _answer(self, seat: Seat, answers: list[Answer]) -> None:
        for answer in answers if len(answers) < 2 else _joined(answers):
            if answer.after_flush:
                seat.log.after_flush(partial(self._send_answer, answer))
            else:
                self._send_answer(answer)

    def _send_answer(self, answer: Answer) -> None:
        answer.caller.pending -= 1
        link = answer.caller
        assert isinstance(link, Link)
        if link.is_closed:
            return
        self._send(link, answer.line)
        if link.is_closed or link.pending or link.out:
            return
        if link.is_ended:
            self._close(link)
        elif link.deadline is not None:
            link.deadline = self.now + KEPT_IDLE_S
            if link.deadline < self._next_sweep:
                self._next_sweep = link.deadline

    def _send(self, link: Link, line: bytes) -> None:
        """Sends, or keeps what does not fit now. A peer that is gone is no error: it asks again."""
        if link.out:
            link.out = b"".join((link.out, line))
            return
        try:
            if len(line) > USUAL_ROOM_BYTES:
                make_room(link.sock, len(line))
            sent = link.sock.send(line)
        except BlockingIOError:
            sent = 0
        except OSError:
            if link in link.seat.links[link.is_control]:
                self._close(link)
            return
        if sent < len(line):
            link.out = memoryview(line)[sent:]  # what is left of a long line is copied nowhere
            if not link.is_control:
                link.deadline = self.now + WRITE_S
            if link.events:
                self._watch_link(link)

    def _flush_out(self, link: Link) -> None:
        try:
            sent = link.sock.send(link.out)
        except BlockingIOError:
            return
        except OSError:
            self._close(link)
            return
        link.out = link.out[sent:]
        if link.out:
            return
        if link.is_ended and link.pending == 0:
            self._close(link)
            return
        if not link.is_control:
            link.deadline = self.now + KEPT_IDLE_S
        self._watch_link(link)

    def _close(self, link: Link) -> None:
        if link.is_closed:
            return
        link.is_closed = True
        seat = link.seat
        seat.links[link.is_control].pop(link, None)
        self._handlers.pop(link.sock.fileno(), None)
        link.sock.close()  # the kernel takes it out of epoll
        if link.is_control or link.pending:  # a stranger whose requests are all answered holds nothing
            seat.host.closed(link, self.now, self.wall)
            self._touch(seat)

    def _sweep(self) -> None:
        """Lets go of strangers that have been silent or slow for too long."""
        self._next_sweep = math.inf
        for seat in self._seats:
            for link in list(seat.links[False]):
                if link.deadline is None or link.pending:
                    continue
                if link.deadline <= self.now:
                    self._close(link)
                elif link.deadline < self._next_sweep:
                    self._next_sweep = link.deadline

    # --- errands ------------------------------------------------------------------------------------------------------

    def _send_couriers(self, seat: Seat) -> None:
        """Begins the errands that are due. What they bring back is settled in a later pass."""
        deadline = seat.host.courier.deadline
        if deadline is None or deadline > self.now:
            return
        for errand in seat.host.courier.due(self.now):
            self._set_out(seat, errand)
        for target, why in seat.host.courier.to_report(self.now):
            logger.warning(
                "%s: %s cannot be reached (%s); its messages wait in the outbox", seat.host.name, target, why
            )

    def _set_out(self, seat: Seat, errand: Errand) -> None:
        """On a connection that is kept, or a new one."""
        carriage = next((kept for kept in reversed(self._kept) if kept.target == errand.target), None)
        if carriage is not None:
            del self._kept[carriage]
            self._carriages[carriage] = seat
            carriage.carry(errand, self.now)
            if carriage.events != select.EPOLLIN:
                self._epoll.modify(carriage.fd, carriage.events)
            return
        try:
            sock = links.connect(self._places, errand.target)
        except links.NobodyThere as nobody:
            seat.host.errand_failed(errand, str(nobody), self.now, self.wall, is_final=nobody.is_final)
            if nobody.is_final:
                self._touch(seat)
            return
        carriage = links.Carriage(errand.target, sock, self._errand_done)
        self._carriages[carriage] = seat
        carriage.carry(errand, self.now)
        self._register(carriage.fd, carriage.events, partial(self._handle_carriage, carriage))

    def _handle_carriage(self, carriage: links.Carriage, _event: int) -> None:
        before = carriage.events
        carriage.handle()
        if not carriage.is_closed and carriage.events != before:
            self._epoll.modify(carriage.fd, carriage.events)

    def _errand_done(self, carriage: links.Carriage, errand: Errand | None, answer: bytes, why: str) -> None:
        seat = self._carriages[carriage]
        if carriage.is_closed:
            del self._carriages[carriage]
            self._kept.pop(carriage, None)
            self._handlers.pop(carriage.fd, None)
        else:
            self._keep(carriage)
        if errand is None or seat.is_closed:
            return
        if why and not carriage.is_fresh and self.now < carriage.deadline:
            # Its daemon closed what was kept, or was another's end: only a new connection tells whether it is there.
            for other in [kept for kept in self._kept if kept.target == errand.target]:
                other.end("the target closed another")
            self._set_out(seat, errand)
        elif why:
            seat.host.errand_failed(errand, why, self.now, self.wall)
        else:
            seat.host.errand_answered(errand, answer, self.now, self.wall)
        self._touch(seat)

    def _keep(self, carriage: links.Carriage) -> None:
        carriage.keep(self.now)
        self._kept[carriage] = None
        if len(self._kept) > links.KEPT_MAX:
            next(iter(self._kept)).end("others are newer")

    # --- everything else that can happen ------------------------------------------------------------------------------

    def _pause_accepting(self, error: OSError) -> None:
        """No descriptor left: take a breath instead of spinning, and never end because of it."""
        self._sparingly.warning("descriptors", f"no connection can be accepted: {error.strerror}", self.now)
        if self._paused_until == math.inf:
            for seat in self._seats:
                for listener in (seat.inbox, seat.control):
                    self._epoll.modify(listener.sock.fileno(), 0)
        self._paused_until = self.now + EMFILE_PAUSE_S

    def _resume_accepting(self) -> None:
        self._paused_until = math.inf
        for seat in self._seats:
            for listener in (seat.inbox, seat.control):
                self._epoll.modify(listener.sock.fileno(), select.EPOLLIN)

    def _flush(self, seat: Seat) -> None:
        """Begins a flush if one is due. Unless the disk is slow, what waits for it is answered when this returns."""
        upto = seat.log.begin(self.now)
        if upto is None:
            return
        if seat.log.is_awaited and not seat.is_tight:
            seat.log.make_room()
        if seat.log.is_awaited and self._flusher.is_quick:
            self._flushed(self._flusher.flush(seat.log, upto))
        else:
            self._flusher.ask(seat.log, upto)

    def _handle_flushes(self) -> None:
        for flush in self._flusher.done():
            self._flushed(flush)
            if (seat := self._by_log.get(flush.log)) is not None:
                self._touch(seat)

    def _flushed(self, flush: Flush) -> None:
        if flush.error is not None and not flush.log.is_closed:
            raise StorageFailed(f"fdatasync: {flush.error}")
        flush.log.flushed(flush.upto, self.now)

    def _handle_copies(self) -> None:
        for copying, outcome in self._copier.done():
            for seat in self._seats:
                if seat.host.operating.copying is copying:
                    self._touch(seat)
                    self._send_answer(seat.host.operating.copied(outcome, self.now))

    def _handle_watch(self) -> None:
        """Something changed beside our sockets: are they still ours?"""
        if self._watch.fd is not None:
            self._watch.drain()
        for seat in self._seats:
            for is_control in (False, True):
                listener = seat.control if is_control else seat.inbox
                if not listener.is_in_place():
                    self._bind_again(seat, listener, is_control=is_control)

    def _watch_folder(self, folder: str) -> None:
        if self._watch.fd is None and (fd := self._watch.open()) is not None:
            self._register(fd, _READ, lambda _: self._handle_watch())
        if not self._watch.add(folder):
            self._next_look = self.now + WATCH_FALLBACK_S

    def _bind_again(self, seat: Seat, listener: Listener, *, is_control: bool) -> None:
        folder, _, file = listener.path.rpartition("/")
        try:
            fresh = listen(folder, file, gid=listener.gid, mode=listener.mode, make=False)
        except (OSError, NotPermitted) as error:
            logger.error("%s: its place %s is lost (%s); ending", seat.host.name, folder, error)
            self.stop(EXIT_UNAVAILABLE)
            return
        logger.warning("%s: %s was removed or replaced; bound again", seat.host.name, listener.path)
        self._handlers.pop(listener.sock.fileno(), None)
        listener.close()
        self._watch_folder(folder)  # it may be another directory under the old name
        if is_control:
            seat.control = fresh
        else:
            seat.inbox = fresh
        self._listen(seat, fresh, is_control=is_control)

    def _close_seat(self, seat: Seat) -> None:
        for listener in (seat.inbox, seat.control):
            self._handlers.pop(listener.sock.fileno(), None)
            listener.close()
        for places in seat.links.values():
            for link in list(places):
                link.is_closed = True
                self._handlers.pop(link.sock.fileno(), None)
                link.sock.close()
        self._seats.remove(seat)
        if (copying := seat.host.operating.copying) is not None:
            self._copier.stop(copying)
        del self._by_log[seat.log]
        seat.is_closed = True
        seat.host.mailbox.close(self.wall, self.now)
        seat.log.close()
        seat.lock.close()

    def _register(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def _drain_wakeups(self) -> None:
        try:
            while self._wake_in.recv(4096):
                pass
        except BlockingIOError:
            pass


def _joined(answers: list[Answer]) -> list[Answer]:
    """Those that follow one another to one caller as one: a batch's hundred then take one call of the kernel."""
    joined: list[list[Answer]] = []
    for answer in answers:
        last = joined[-1] if joined else None
        if last is not None and last[0].caller is answer.caller and last[0].after_flush == answer.after_flush:
            last.append(answer)
            answer.caller.pending -= 1
        else:
            joined.append([answer])
    return [
        same[0] if len(same) == 1
        else Answer(same[0].caller, b"".join([answer.line for answer in same]), after_flush=same[0].after_flush)
        for same in joined
    ]  # fmt: skip


# Seconds since boot, suspended time included; never jumps.
clock: Callable[[], float] = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@cache
def _keep_heap() -> None:
    """Once, when the first long line comes: from now on up to 8 MiB of what is freed stay with the process.

    glibc returns to the kernel what is more than twice the largest block that it ever mapped, and it maps this one.
    Without it each of the half a dozen buffers that a long text goes through is made of fresh, zeroed pages: 2 of
    6.8 ms of CPU a MiB. On another libc it does nothing.
    """
    bytes(HEAP_BYTES_KEPT >> 1)


def _busy() -> OverLimit:
    return OverLimit("all places for connections are taken", code="busy", hint="try again in a moment", retry=True)


def _oversize(limit: int) -> OverLimit:
    return OverLimit(
        f"the line is longer than {limit} bytes", code="oversize", hint="send less, or raise line_bytes_max"
    )


def _unfinished() -> LocalProtocolError:
    return LocalProtocolError("the line has no end", code="malformed", hint="end each request with a newline")
