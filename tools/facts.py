"""What the manual pages and docs/configuration.md both tell: exit statuses, variables, files."""

EXIT_STATUS = [
    (0, "Done."),
    (1, "Anything that has no number of its own."),
    (2, "Usage: a wrong option, name, id or setting."),
    (3, "Refused: the peer said no, or it is too late. The reason is printed."),
    (4, "Timed out. What was sent is kept."),
    (5, "Nobody there: no such agent or message, or a daemon that is down."),
    (6, "Over a limit: the mailbox is full, the text too large, or too many in a minute."),
    (7, "Not permitted."),
]

DAEMON_EXIT_STATUS = [
    (0, "Stopped by a signal or by `down`."),
    (1, "An error of the system; the last line says which."),
    (2, "Usage."),
    (3, "`--remove`: mail waits, and there is no `--purge`."),
    (65, "The mailbox cannot be used. The file was left as it is."),
    (69, "The socket directory is gone."),
    (74, "The disk failed. A restart recovers."),
    (75, "Another daemon serves the name. Nothing was touched."),
    (77, "A file or directory may not be used; the last line says which, and the command that mends it."),
    (78, "A configuration file is wrong, or the sockets handed over are."),
]

ENVIRONMENT = [
    ("BACKCHANNEL_AGENT", "Who I am, for every command that has `--as`. The option wins."),
    ("BACKCHANNEL_STATE", "STATE, the directory of the mailboxes. An absolute path."),
    ("BACKCHANNEL_DIR", "DIR, the directory of the sockets. An absolute path, and a short one."),
    (
        "BACKCHANNEL_POLICY",
        "Instead of `/etc/backchannel/policy.toml`: which uid owns which name.",
    ),
    (
        "XDG_STATE_HOME",
        "Without `BACKCHANNEL_STATE`: STATE is `$XDG_STATE_HOME/backchannel`. A relative path is ignored.",
    ),
    (
        "XDG_RUNTIME_DIR",
        "Without `BACKCHANNEL_DIR`: DIR is `$XDG_RUNTIME_DIR/backchannel`. A relative path is ignored.",
    ),
    ("HOME", "Without all of those: STATE is `~/.local/state/backchannel`."),
    ("NO_COLOR", "Not empty: no colours."),
    ("TERM", "`dumb`: no colours."),
]

DAEMON_ENVIRONMENT = [
    ("NOTIFY_SOCKET", "Where a service manager listens: the daemon reports READY, STOPPING and its status."),
    ("WATCHDOG_USEC", "How often the service manager wants a sign of life, in microseconds."),
    ("WATCHDOG_PID", "Whom that is meant for."),
    ("LISTEN_FDS", "How many sockets were handed over. They serve one agent."),
    ("LISTEN_PID", "Whom they are meant for."),
    ("LISTEN_FDNAMES", "Their names: `inbox` and `control`."),
    ("BACKCHANNEL_ON_DEMAND", "Set by whoever starts it for a push: it leaves if somebody typed `down` meanwhile."),
    ("JOURNAL_STREAM", "Set by systemd: each line of the log carries its priority."),
]

FILES = [
    ("STATE/config.toml", "Settings of all agents of this user."),
    ("STATE/NAME/config.toml", "Settings of one agent. They win over those of all."),
    ("STATE/NAME/mailbox.db", "The mailbox. Only the daemon opens it."),
    ("STATE/NAME/key", "The agent's secret. It exists: the agent is registered."),
    (
        "STATE/NAME/log",
        "What a daemon said that no service manager runs. Over `log_bytes_max` it becomes `log.1`, that `log.2`.",
    ),
    ("STATE/NAME/run", "The command that starts the daemon."),
    ("STATE/NAME/down", "Exists after `down`: nobody starts the daemon until `up`."),
    ("STATE/NAME/lock", "Locked by the daemon while it serves; names DIR as it uses it."),
    ("DIR/NAME/inbox.sock", "Where others push."),
    ("DIR/NAME/control.sock", "Where the agent takes and settles."),
    ("/etc/backchannel/policy.toml", "Of root, where each agent has a uid of its own: which uid owns which name."),
]
