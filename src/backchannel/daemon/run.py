"""`backchanneld NAME...`: the process around the loop. Foreground; everything it says goes to stderr.

For each name: the lock first, then the mailbox, then the sockets, then READY. Whoever loses the race for a lock leaves
with status 75 and has touched nothing.
"""

import errno
import gc
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import BackchannelError
from ..mailbox.database import OLDER, MailboxUnusable, release_memory
from ..mailbox.frames import Frames
from ..mailbox.mailbox import Mailbox
from ..mailbox.outbox import Outbox
from ..mailbox.sessions import Sessions
from ..protocol.names import AgentName
from ..transport.listen import Listener, inherited, listen
from ..transport.lock import NameLock, acquire
from ..transport.notify import ServiceManager
from ..transport.paths import CONTROL, INBOX, Places, check_private, check_socket_dir, find_places, register
from ..transport.start import ON_DEMAND
from .config import Config, load
from .host import Host
from .log import logger
from .options import Options, parse
from .senders import Senders
from .server import EXIT_IO, Seat, Server, clock

# sysexits(3), so that a service manager can tell what is worth a restart
EXIT_USAGE = 2
EXIT_DATA = 65  # the mailbox cannot be used
EXIT_PERMISSION = 77
EXIT_TEMPORARY = 75  # somebody else serves this name
EXIT_CONFIG = 78

LOCK_PATIENCE_S = 0.5  # a client that looks whether the lock is free holds it for an instant


T = TypeVar("T")


class NameTaken(Exception):
    """Another daemon serves the name, or nobody is to serve it."""


def main(argv: list[str] | None = None) -> None:
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Serves the names given until told to stop. Returns the exit status."""
    options = parse(argv)
    logger.set_up(options.log_format)
    os.umask(0o077)
    try:
        names = [AgentName(n) for n in dict.fromkeys(options.names)]
        places = find_places(options.dir, options.state)
        _bound_log(places, names[0], _settings_of_log(places, names[0]))
        if options.check:
            return check(places, names[0])
        if options.remove:
            return remove(places, names[0], purge=options.purge)
        if options.audit or options.backup is not None or options.restore is not None:
            return while_stopped(places, names[0], options)
        return serve(places, names)
    except NameTaken as taken:
        logger.info("%s", taken)
        return EXIT_TEMPORARY
    except MailboxUnusable as error:
        logger.error("%s", error)
        return EXIT_DATA
    except BackchannelError as error:
        logger.error("%s", error)
        exits = {"bad_config": EXIT_CONFIG, "not_permitted": EXIT_PERMISSION, "storage": EXIT_IO}
        return exits.get(error.code, EXIT_USAGE)
    except OSError as error:
        logger.error("%s", error)
        if isinstance(error, PermissionError):
            return EXIT_PERMISSION
        return EXIT_IO if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT) else 1


def serve(places: Places, names: list[AgentName]) -> int:
    manager = ServiceManager()
    try:
        listeners = inherited(places.sockets(names[0]))
    except ValueError as error:
        logger.error("%s", error)
        return EXIT_CONFIG
    if listeners and len(names) != 1:
        logger.error("inherited sockets serve one name, not %d", len(names))
        return EXIT_CONFIG
    _harden()
    server = Server(manager, places)
    try:
        for name in names:
            seat = open_seat(server, places, name, listeners)
            server.add(seat)
            logger.info("%s is served in %s", name, places.sockets(name))
        os.chdir("/")
        gc.collect()
        gc.freeze()  # nothing made so far is ever garbage, and what a message makes has no cycles:
        gc.disable()  # a collection in the middle of one would only be its delay (the loop collects when idle)
        manager.tell(f"READY=1\nSTATUS=serving {', '.join(names)}")
        try:
            status = server.run()
        finally:
            manager.tell("STOPPING=1")
        if status == EXIT_IO:
            os._exit(status)  # as after a kill: nothing more is written, and the next start checks the file
    finally:
        server.close()
    return status


def open_seat(server: Server, places: Places, name: AgentName, listeners: tuple[Listener, Listener] | None) -> Seat:
    """Everything one name needs, in the order that keeps a second daemon from touching anything."""
    register(places, name)
    lock = _lock(places, name)
    try:
        if os.environ.get(ON_DEMAND) and os.path.exists(places.state(name, "down")):
            raise NameTaken(f"{name} is down, and was so before this daemon came")
        config = _settings(places, name)
        _bound_log(places, name, config)
        path = places.state(name, "mailbox.db")
        mailbox = Mailbox.open(
            path,
            now=clock(),
            wall=time.time(),
            boot_id=_boot_id(),
            random=os.urandom,
            messages_max=config.messages_max,
            bytes_max=config.bytes_max,
            deliveries_max=config.deliveries_max,
            detached_s=config.lease_s,
        )
        senders = Senders(places)
        host = Host(
            name,
            mailbox,
            config,
            now=clock(),
            uid=os.geteuid(),
            key_of=senders.key_of,
            is_model_driven=senders.is_model_driven,
            registered=places.registered,
            policy=senders.policy,
            random=os.urandom,
            free_bytes=lambda: _free_bytes(places.state(name)),
        )
        release_memory(mailbox.db)  # what it took to load
        _sync_directory(places.state(name))
        if listeners is None:
            check_socket_dir(places, make=True)
            folder = places.sockets(name)
            policy = places.policy()
            gid, mode = (policy.gid, 0o660) if policy is not None else (None, 0o600)
            listeners = listen(folder, INBOX, gid=gid, mode=mode), listen(folder, CONTROL, gid=gid)
        lock.write(places.socket_dir)
        return Seat(host, *listeners, server.make_log(path + "-wal"), lock)
    except BaseException:
        lock.close()
        raise


def remove(places: Places, name: AgentName, *, purge: bool) -> int:
    """`--remove`: unregisters a stopped agent, holding its lock. Refuses while mail waits, unless told."""
    check_private(places.state(name))
    lock = _lock(places, name)
    if not purge:
        waiting = _waiting(places, name)
        if waiting:
            logger.error("%s has %d messages waiting: take them, or add --purge to lose them", name, waiting)
            return 3
        if sessions := _open_sessions(places, name):
            logger.error("%s has %d open sessions: close or abort them, or add --purge to leave them", name, sessions)
            return 3
    # In one step nobody is registered under this name any more; if that is not allowed, nothing has happened.
    leaving = places.state(f".{name}.{os.getpid()}.removed")
    os.rename(places.state(name), leaving)
    import shutil  # 0.7 MB that no running daemon needs

    shutil.rmtree(leaving)
    shutil.rmtree(places.sockets(name), ignore_errors=True)
    lock.close()
    return 0


def check(places: Places, name: AgentName) -> int:
    """`--check`: whether the stopped agent's daemon could start, as far as can be seen without starting it."""
    check_private(places.state(name))
    lock = _lock(places, name)
    _settings(places, name)
    if not os.access(places.state(name), os.W_OK):
        raise PermissionError(f"{places.state(name)} cannot be written")
    try:
        _waiting(places, name)
    except MailboxUnusable as error:
        if error.code != OLDER:  # its start brings that up
            raise
    lock.close()
    return 0


def while_stopped(places: Places, name: AgentName, options: Options) -> int:
    """`--audit`, `--backup` and `--restore`: what needs the file, for an agent whose daemon does not run."""
    from . import stopped  # what no running daemon needs

    check_private(places.state(name))
    lock = _lock(places, name)
    try:
        path = places.state(name, "mailbox.db")
        if options.audit:
            return stopped.audit(str(name), lambda: _look(places, name, _account))
        if options.backup is not None:
            return stopped.backup(path, str(name), options.backup or None)
        assert options.restore is not None, "one of the three"
        return stopped.restore(path, options.restore)
    finally:
        lock.close()


def _waiting(places: Places, name: AgentName) -> int:
    """How many messages wait, or are still to be pushed."""
    return _look(places, name, lambda box: box.counters.unacked + len(Outbox(box)) + len(Frames(box))) or 0


def _open_sessions(places: Places, name: AgentName) -> int:
    return _look(places, name, lambda box: sum(role["open"] for role in Sessions(box).counters().values())) or 0


def _account(mailbox: Mailbox) -> dict[str, Any]:
    from ..mailbox.audit import audit

    return audit(mailbox, Sessions(mailbox), Outbox(mailbox), Frames(mailbox), is_whole=True)


def _look(places: Places, name: AgentName, look: Callable[[Mailbox], T]) -> T | None:
    """What there is to see; None if the name never had a mailbox. The caller holds the lock."""
    path = places.state(name, "mailbox.db")
    if not os.path.exists(path):
        return None
    mailbox = Mailbox.open(path, now=clock(), wall=time.time(), boot_id=_boot_id(), random=os.urandom, migrate=False)
    try:
        return look(mailbox)
    finally:
        mailbox.close(time.time(), clock())


def _lock(places: Places, name: AgentName) -> NameLock:
    deadline = clock() + LOCK_PATIENCE_S
    while (lock := acquire(places.state(name, "lock"))) is None:
        if clock() > deadline:
            raise NameTaken(f"{name} is served by another daemon already")
        time.sleep(0.01)
    return lock


def _settings_of_log(places: Places, name: AgentName) -> Config:
    """What bounds the log from the first line on: one that comes in vain writes to the log of who serves."""
    try:
        return _settings(places, name)
    except (BackchannelError, OSError):
        return Config()  # whoever needs them says what is wrong


def _settings(places: Places, name: AgentName) -> Config:
    return load([places.state_dir + "/config.toml", places.state(name, "config.toml")])


def _bound_log(places: Places, name: AgentName, config: Config) -> None:
    logger.turn_over(places.state(name, "log"), config.log_bytes_max, config.log_files_kept)


def _harden() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold everybody's mail
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _sync_directory(path: str) -> None:
    """Makes the mailbox's and its log's names as durable as what will be written in them."""
    fd = os.open(path, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _free_bytes(path: str) -> int:
    try:
        status = os.statvfs(path)
    except FileNotFoundError:
        return 0  # somebody removed the directory: nothing new is to go in
    return status.f_bavail * status.f_frsize


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return "unknown"
