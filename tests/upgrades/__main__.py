"""`python -m tests.upgrades`: writes the fixture of the newest schema step."""

from . import write

if __name__ == "__main__":
    write()
