"""The words after `backchanneld`.

Whoever starts a daemon says names, DIR and STATE, in one form: that is read by hand. All else is for the full parser,
which with what it imports would be 0.7 MB of every daemon.
"""

from typing import TYPE_CHECKING

from .. import __version__

if TYPE_CHECKING:
    from argparse import ArgumentParser

MODES = ("remove", "check", "audit", "backup", "restore")


class Options:
    """What was asked for. `backup` is "" for a backup in its usual place."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.dir: str | None = None
        self.state: str | None = None
        self.log_format = "text"
        self.remove = self.check = self.audit = self.purge = False
        self.backup: str | None = None
        self.restore: str | None = None


def parse(argv: list[str]) -> Options:
    """Ends the process for words that it does not know, and after `--help`."""
    return _by_hand(argv) or _by_parser(argv)


def _by_hand(argv: list[str]) -> Options | None:
    """`NAME... [--dir DIR] [--state STATE]`, or None for any other form."""
    options = Options()
    rest = list(argv)
    while rest and not rest[0].startswith("-"):
        options.names.append(rest.pop(0))
    while rest:
        match rest:
            case ["--dir" | "--state" as option, value, *rest] if not value.startswith("-"):
                setattr(options, option[2:], value)
            case _:
                return None
    return options if options.names else None


def _by_parser(argv: list[str]) -> Options:
    parser = build_parser()
    options = parser.parse_args(argv, Options())
    for mode in MODES:
        if getattr(options, mode) not in (None, False) and len(options.names) != 1:
            parser.error(f"--{mode} takes one NAME")
    return options


def build_parser() -> "ArgumentParser":
    from argparse import ArgumentParser

    parser = ArgumentParser(
        prog="backchanneld",
        description="Serve the mailboxes of agents on this machine, in the foreground.",
        epilog="`backchannel up NAME` starts one in the background.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="agents to serve; several share this process")
    parser.add_argument("--dir", help="where the sockets lie (default: BACKCHANNEL_DIR, or as documented)")
    parser.add_argument("--state", help="where the mailboxes lie (default: BACKCHANNEL_STATE, or as documented)")
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="of what it says on stderr")
    parser.add_argument("--remove", action="store_true", help="unregister the stopped agent NAME and end")
    parser.add_argument("--check", action="store_true", help="look whether the stopped agent NAME could start, and end")
    parser.add_argument("--audit", action="store_true", help="print whether the stopped agent NAME's mailbox adds up")
    parser.add_argument("--purge", action="store_true", help="with --remove: even if mail waits")
    parser.add_argument("--backup", metavar="FILE", help="copy the stopped agent NAME's mailbox there, and end")
    parser.add_argument("--restore", metavar="FILE", help="put this backup in its place, which is kept, and end")
    parser.add_argument("--version", action="version", version=f"backchanneld {__version__}")
    return parser
