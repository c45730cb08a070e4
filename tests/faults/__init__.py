"""A disk that fails: at any operation of SQLite's (`vfs.py`), at any system call of a daemon, and one that is full."""
