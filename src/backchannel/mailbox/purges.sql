-- Step 4: what is over may leave. First the content of a message (its text, headers, and the answer kept with it): the
-- row stays as the proof that a repeated id is a repetition, and in the history. Much later the row.

-- Of a message whose content was purged: SHA-256 of it, so that its id cannot be used for another one unnoticed. Its
-- text is then the JSON null.
ALTER TABLE messages ADD COLUMN digest BLOB;

-- What left, when, and by whose will: a row a purge, and a row each time the daemon has cleared up by itself.
CREATE TABLE purges (
    purge_no  INTEGER PRIMARY KEY,
    at        REAL    NOT NULL,              -- Unix time, seconds, of its last step
    by        TEXT    NOT NULL,              -- `retention`, or @UID of the process that asked
    before    REAL    NOT NULL,              -- only what had ended before then
    contents  INTEGER NOT NULL DEFAULT 0,    -- messages whose content left
    bytes     INTEGER NOT NULL DEFAULT 0,    -- of that content
    rows      INTEGER NOT NULL DEFAULT 0     -- messages whose row left, and is counted in `purged`
);
