PRAGMA application_id=1111706946;
PRAGMA user_version=1;
BEGIN TRANSACTION;
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
INSERT INTO "counters" VALUES('@1000',5,2,0,0,1,0,1,1,0,42);
INSERT INTO "counters" VALUES('analyst',6,2,1,1,1,1,0,0,0,47);
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
INSERT INTO "messages" VALUES(1,'low','analyst','message',X'2263616E207761697422','stored',2,0,0,NULL,NULL,NULL,1700000000.0,1700000000.0,NULL,1000,1000,4711,'process',NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "messages" VALUES(2,'urgent','analyst','message',X'226E6F772122','stored',0,0,0,NULL,NULL,NULL,1700000000.0,1700000000.0,NULL,1000,1000,4711,'process',NULL,NULL,NULL,0,NULL,X'7B22636F6C6F7572223A22726564227D',NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "messages" VALUES(3,'unicode','@1000','message',X'225C75366632325C7535623537205C75303066635C7530303030205C75643833645C756465303022','stored',1,0,0,NULL,NULL,NULL,1700000000.0,1700000000.0,NULL,1000,1000,4711,'power',NULL,NULL,'t-1',2,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "messages" VALUES(4,'empty','@1000','message',X'2222','stored',1,0,0,NULL,NULL,NULL,1700000000.0,1700000000.0,NULL,1000,1000,4711,'process',NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "messages" VALUES(5,'acked','analyst','message',X'2274657874206F662061636B656422','acked',1,1,0,NULL,NULL,NULL,1700000000.0,1700000000.0,1700000000.0,1000,1000,4711,'process','tag',NULL,NULL,0,NULL,NULL,NULL,NULL,'turn',NULL,NULL,0);
INSERT INTO "messages" VALUES(6,'rejected','analyst','message',X'2274657874206F662072656A656374656422','rejected',1,1,0,NULL,NULL,NULL,1700000000.0,1700000000.0,1700000000.0,1000,1000,4711,'process','tag',NULL,NULL,0,NULL,NULL,NULL,'busy',NULL,NULL,NULL,0);
INSERT INTO "messages" VALUES(7,'question','analyst','message',X'2274657874206F66207175657374696F6E22','done',1,1,0,NULL,NULL,NULL,1700000000.0,1700000000.0,1700000000.0,1000,1000,4711,'process','tag',NULL,NULL,0,NULL,NULL,NULL,NULL,'ack','answer',NULL,0);
INSERT INTO "messages" VALUES(8,'of-a-user','@1000','message',X'2274657874206F66206F662D612D7573657222','done',1,1,0,NULL,NULL,NULL,1700000000.0,1700000000.0,1700000000.0,1000,1000,4711,'process','tag',NULL,NULL,0,NULL,NULL,NULL,NULL,'ack','answer-2',X'2279657322',0);
INSERT INTO "messages" VALUES(9,'taken','analyst','message',X'2274657874206F662074616B656E22','taken',1,1,0,'t-018bcfe5680000000000000000000001',1,NULL,1700000000.0,1700000000.0,NULL,1000,1000,4711,'process','tag',NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0);
INSERT INTO "messages" VALUES(10,'cancelled','@1000','message',X'226E6F206C6F6E67657222','cancelled',1,0,0,NULL,NULL,NULL,1700000000.0,1700000000.0,1700000000.0,1000,1000,4711,'process',NULL,NULL,NULL,0,NULL,NULL,NULL,'cancelled by the sender',NULL,NULL,NULL,0);
INSERT INTO "messages" VALUES(11,'expired','@1000','message',X'22746F6F206C61746522','expired',1,0,0,NULL,NULL,1001.0,1700000000.0,1700000000.0,1700000001.0,1000,1000,4711,'process',NULL,NULL,NULL,0,NULL,NULL,NULL,'its ttl passed before it was taken',NULL,NULL,NULL,0);
CREATE TABLE meta (
    key    TEXT PRIMARY KEY,
    value  NOT NULL
) WITHOUT ROWID;
INSERT INTO "meta" VALUES('boot_id','boot-1');
INSERT INTO "meta" VALUES('boot_offset',1699999000.0);
INSERT INTO "meta" VALUES('clean',1);
INSERT INTO "meta" VALUES('epoch',1);
INSERT INTO "meta" VALUES('mailbox_id','00000000000000000000000000000001');
CREATE TABLE outbox (
    row_no     INTEGER PRIMARY KEY,           -- the order of sending
    target     TEXT NOT NULL,
    id         TEXT NOT NULL,                 -- the message's
    params     BLOB NOT NULL,                 -- the push, as a JSON object; without the key
    queued_at  REAL NOT NULL                  -- Unix time, seconds; for display
);
INSERT INTO "outbox" VALUES(1,'analyst','answer',X'7B22746F223A22616E616C797374222C226964223A22616E73776572222C2274657874223A2238303830222C2273656E745F6174223A313730303030303030302E302C22626F756E6365223A747275652C227265706C795F746F223A227175657374696F6E222C2274726163655F6964223A227175657374696F6E222C22686F7073223A312C2270617468223A5B226578656375746F72225D7D',1700000000.0);
INSERT INTO "outbox" VALUES(2,'writer','outgoing',X'7B22746F223A22777269746572222C226964223A226F7574676F696E67222C2274657874223A226F6E2069747320776179222C2273656E745F6174223A313730303030303030302E302C22626F756E6365223A747275652C227072696F72697479223A226E6F726D616C222C22686F7073223A307D',1700000000.0);
CREATE UNIQUE INDEX by_id ON messages (id, sender);
CREATE INDEX ready ON messages (priority, msg_no) WHERE stage = 'stored';
CREATE INDEX replies ON messages (reply_to, priority, msg_no) WHERE stage = 'stored' AND reply_to IS NOT NULL;
CREATE INDEX taken ON messages (msg_no) WHERE stage = 'taken';
CREATE INDEX expiring ON messages (expires) WHERE expires IS NOT NULL AND stage = 'stored';
CREATE INDEX by_target ON outbox (target, row_no);
CREATE UNIQUE INDEX by_outbox_id ON outbox (id, target);
COMMIT;
