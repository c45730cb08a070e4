"""Power cuts: every one that a recorded daemon could have met, and some that a running one really meets.

`recording.py` lets a real daemon work under strace and keeps each of its system calls, `disk.py` says what a power cut
at any of them may leave on a disk, `promises.py` opens that with the production mailbox and says which receipt is
broken. `python -m tests.powerloss` is the long run. `test_images.py` cuts the disk under a live daemon instead.
"""
