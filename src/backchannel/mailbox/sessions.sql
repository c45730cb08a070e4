-- Step 2: sessions. The schema stays one that a person can read: `sqlite3 -readonly` on a stopped agent's file shows
-- who has which session with whom, what was said, and what is still to be pushed.

-- The file also knows of itself (`meta`):
--   next_syn     the number of our next SYN
--   clock_shift  seconds that a boot added to the clock, while sessions' times are still by the clock before it

-- One row for each session this agent is or was in. Closed ones stay 7 days (tombstones), for people to look up.
CREATE TABLE sessions (
    id              TEXT PRIMARY KEY,
    peer            TEXT    NOT NULL,
    role            TEXT,                      -- initiator or acceptor
    state           TEXT    NOT NULL,          -- RFC 9293's words: SYN-SENT, ESTABLISHED, ... CLOSED
    cause           TEXT,                      -- why it is CLOSED: finished rejected aborted reset expired
    reason          TEXT    NOT NULL DEFAULT '',
    retry_after     REAL,                      -- seconds, if the agent that rejected named them
    task            TEXT    NOT NULL DEFAULT '',
    status          TEXT,                      -- of our FIN: ok or failed
    result          TEXT,
    peer_status     TEXT,                      -- of the peer's FIN
    peer_result     TEXT,
    progress        TEXT,                      -- the peer's last word on how far it is
    progress_at     REAL,                      -- Unix time, seconds; for display, as all times here
    is_waiting      INTEGER NOT NULL DEFAULT 0, -- the acceptor cannot go on without an answer
    hops            INTEGER NOT NULL DEFAULT 0,
    trace_id        TEXT,
    path            TEXT,                      -- the agents it came through, oldest first, with commas
    opened_at       REAL    NOT NULL,
    ended_at        REAL,
    machine         BLOB    NOT NULL           -- the rest of the transmission control block, as JSON
) WITHOUT ROWID;

-- What this agent sent in its sessions: the outbox while a frame is `queued`, the history afterwards. `stored`: the
-- peer's daemon has it; `dropped`: the session ended before that. ACKs leave when they are receipted or replaced.
CREATE TABLE frames (
    row_no     INTEGER PRIMARY KEY,            -- the order of sending
    session    TEXT    NOT NULL,
    target     TEXT    NOT NULL,
    kind       TEXT    NOT NULL,               -- SYN SYN-ACK REJ DATA FIN ACK RST
    number     INTEGER NOT NULL,
    say_id     TEXT,                           -- DATA: the caller's idempotency key
    params     BLOB    NOT NULL,               -- the frame, as a JSON object; without the key
    stage      TEXT    NOT NULL DEFAULT 'queued',
    sent_at    REAL    NOT NULL,
    stored_at  REAL,
    acked_at   REAL                            -- the peer's agent has processed it
);

CREATE UNIQUE INDEX by_frame ON frames (session, kind, number);
CREATE INDEX unsent ON frames (session, row_no) WHERE stage = 'queued';

-- Which of each peer's SYNs have come, so that no old one opens a session again (docs/protocol.md 21).
CREATE TABLE syn_numbers (
    mailbox  TEXT    NOT NULL,                 -- the peer's mailbox_id
    epoch    INTEGER NOT NULL,                 -- of it, in which the SYNs were numbered
    number   INTEGER NOT NULL,                 -- the highest
    seen     TEXT    NOT NULL,                 -- hex; bit i: the number `number - i` has come
    PRIMARY KEY (mailbox, epoch)
) WITHOUT ROWID;

-- The mail of one session: what of it may be handed out next, and all of it.
CREATE INDEX session_ready ON messages (session, priority, msg_no) WHERE stage = 'stored' AND session IS NOT NULL;
CREATE INDEX by_session ON messages (session, msg_no) WHERE session IS NOT NULL;

-- How many sessions this agent ever had, by role, and how they ended; kept when their rows are forgotten. opened = the
-- sum of the five ends and those that are open.
CREATE TABLE session_counters (
    role       TEXT PRIMARY KEY,               -- initiator or acceptor
    opened     INTEGER NOT NULL DEFAULT 0,
    finished   INTEGER NOT NULL DEFAULT 0,
    rejected   INTEGER NOT NULL DEFAULT 0,
    aborted    INTEGER NOT NULL DEFAULT 0,
    reset      INTEGER NOT NULL DEFAULT 0,
    expired    INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

INSERT INTO session_counters (role) VALUES ('initiator'), ('acceptor');
