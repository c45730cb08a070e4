"""The pure middle: names, codecs, the methods of the wire, messages and receipts.

Nothing here waits, reads a clock, touches a disk or rolls a die; `lint-imports` holds that. What the command line's
fast path needs (names, codes, codec) imports nothing heavy either.
"""
