"""The mailbox: one SQLite file with one owner, and all SQL there is."""
