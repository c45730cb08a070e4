-- Step 3: less to write in a commit. What orders and counts the messages is kept in memory and follows from their rows;
-- an orderly close leaves it behind for the next start, any other start reads it from the rows again.

-- The file also knows of itself (`meta`):
--   highest_purged  the highest msg_no that was ever purged, so that none is used twice

-- Texts of more than 8 KiB. SQLite writes a row anew for each change of its stage; so these are written once. Then
-- `messages.text` is empty, which no JSON string is.
CREATE TABLE texts (
    msg_no  INTEGER PRIMARY KEY,
    text    BLOB NOT NULL
);

CREATE TRIGGER purge_text AFTER DELETE ON messages WHEN old.text = x'' BEGIN
    DELETE FROM texts WHERE msg_no = old.msg_no;
END;

-- Per sender, how many messages of each end were purged. With the rows that are left they make up all that were ever
-- stored: the highest msg_no ever = the rows of `messages` + the sum of everything in here.
CREATE TABLE purged (
    sender     TEXT PRIMARY KEY,
    acked      INTEGER NOT NULL DEFAULT 0,
    done       INTEGER NOT NULL DEFAULT 0,
    rejected   INTEGER NOT NULL DEFAULT 0,
    expired    INTEGER NOT NULL DEFAULT 0,
    cancelled  INTEGER NOT NULL DEFAULT 0,
    dead       INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- What memory knew at the last orderly close; true only while `clean` is 1.
--   counters  per sender, how many messages are in each stage, purged ones included: a JSON object
--   taken     the numbers of those that are handed out: a JSON array
--   sessions  per session, the numbers of its mail that waits, and their priorities: a JSON object
--   urgent, normal, low   the numbers of those that wait, in order, 8 bytes each
CREATE TABLE at_close (
    key    TEXT PRIMARY KEY,
    value  BLOB NOT NULL
);

DROP TABLE counters;
DROP INDEX ready;
DROP INDEX taken;
DROP INDEX session_ready;
