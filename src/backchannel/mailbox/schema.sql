-- One agent's mailbox. Its daemon is the only process that ever opens it.
-- Step 1. Later steps stand beside it and never edit an earlier one.

-- What the file knows of itself:
--   mailbox_id   128 random bits, hex; a new or restored file has another
--   epoch        how often it came back after an unclean stop under another boot
--   boot_id      the kernel's boot under which it was last opened
--   boot_offset  Unix time minus boot time then, seconds; carries `expires` over a reboot
--   clean        1 after an orderly close, 0 while open
--   paused       1 while a person has stopped the handing out
--   checkpoints  how often the log was put into the file
CREATE TABLE meta (
    key    TEXT PRIMARY KEY,
    value  NOT NULL
) WITHOUT ROWID;

-- Every message that was ever stored and not yet purged, finished ones included: they are the history, and the proof
-- that a repeated id is a duplicate.
CREATE TABLE messages (
    msg_no      INTEGER PRIMARY KEY,          -- the order of storing; never used twice
    id          TEXT    NOT NULL,             -- the client's; unique per sender
    sender      TEXT    NOT NULL,             -- an agent's name, or @UID for a process that is no agent
    kind        TEXT    NOT NULL,
    text        BLOB    NOT NULL,             -- a JSON string, as it arrived
    stage       TEXT    NOT NULL,             -- stored taken acked done rejected expired cancelled dead
    priority    INTEGER NOT NULL,             -- 0 urgent, 1 normal, 2 low
    delivery    INTEGER NOT NULL DEFAULT 0,   -- how often it was handed out
    unseen      INTEGER NOT NULL DEFAULT 0,   -- how many of those never reached the agent; they do not count for dead
    take_id     TEXT,                         -- the lease, while taken
    detached    INTEGER,                      -- the lease outlives its connection
    expires     REAL,                         -- seconds since boot, if a ttl was set
    sent_at     REAL    NOT NULL,             -- Unix time, seconds; for display, as the next two
    stored_at   REAL    NOT NULL,
    ended_at    REAL,
    uid         INTEGER NOT NULL,             -- the kernel's word on the pushing process
    gid         INTEGER NOT NULL,
    pid         INTEGER NOT NULL,
    durability  TEXT    NOT NULL,             -- process or power
    session     TEXT,
    reply_to    TEXT,
    trace_id    TEXT,
    hops        INTEGER NOT NULL,
    path        TEXT,                         -- the agents it went through, oldest first, with commas
    headers     BLOB,                         -- a JSON object of strings
    extra       BLOB,                         -- fields of a newer protocol, as a JSON object
    reason      TEXT,                         -- why it was rejected, expired, cancelled or dead
    evidence    TEXT,                         -- what an ack rests on: ack, flush or turn
    reply_id    TEXT,                         -- the answer's id, once done
    reply_text  BLOB,                         -- the answer itself, for a sender who has no mailbox
    bounce      INTEGER NOT NULL DEFAULT 0    -- tell the sender if it ends undone
);

-- Finds a message by id and refuses a second one of the same sender. The id stands first: ids are time-ordered, so new
-- entries lie side by side at the end.
CREATE UNIQUE INDEX by_id ON messages (id, sender);

-- What may be handed out next, in order.
CREATE INDEX ready ON messages (priority, msg_no) WHERE stage = 'stored';

-- What answers whom; an asker looks for its answer among any number of other messages.
CREATE INDEX replies ON messages (reply_to, priority, msg_no) WHERE stage = 'stored' AND reply_to IS NOT NULL;

-- What is handed out now; read once, at start.
CREATE INDEX taken ON messages (msg_no) WHERE stage = 'taken';

-- What will expire.
CREATE INDEX expiring ON messages (expires) WHERE expires IS NOT NULL AND stage = 'stored';

-- Per sender, how many messages are in each stage; `total` counts all that were ever stored. Kept, because counting a
-- million rows takes seconds, and because it survives purge. total = the sum of the eight that follow.
CREATE TABLE counters (
    sender     TEXT PRIMARY KEY,
    total      INTEGER NOT NULL,
    stored     INTEGER NOT NULL,
    taken      INTEGER NOT NULL,
    acked      INTEGER NOT NULL,
    done       INTEGER NOT NULL,
    rejected   INTEGER NOT NULL,
    expired    INTEGER NOT NULL,
    cancelled  INTEGER NOT NULL,
    dead       INTEGER NOT NULL,
    bytes      INTEGER NOT NULL               -- of the messages stored or taken
) WITHOUT ROWID;

-- What this agent sent through its own daemon and the target's daemon has not receipted yet. A row leaves by a receipt,
-- or by a refusal that is final; then a bounce takes its place in the mailbox.
CREATE TABLE outbox (
    row_no     INTEGER PRIMARY KEY,           -- the order of sending
    target     TEXT NOT NULL,
    id         TEXT NOT NULL,                 -- the message's
    params     BLOB NOT NULL,                 -- the push, as a JSON object; without the key
    queued_at  REAL NOT NULL                  -- Unix time, seconds; for display
);

CREATE INDEX by_target ON outbox (target, row_no);
CREATE UNIQUE INDEX by_outbox_id ON outbox (id, target);
