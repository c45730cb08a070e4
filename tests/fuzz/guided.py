"""`python -m tests.fuzz.guided -runs=1000000 FOLDER`: noise that coverage leads (atheris), begun with lines in FOLDER.

What it is told is libFuzzer's: an input that breaks something is written to `crash-...` and shown.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["backchannel.protocol"]):
    from .oracles import read

from .noise import Noise

CORPUS_LINES = 500


def main() -> None:
    folder = Path(sys.argv[-1])
    noise = Noise(9)
    for number in range(CORPUS_LINES):
        (folder / f"seed-{number}").write_bytes(noise.line())
    atheris.Setup([sys.argv[0], "-max_len=2000", f"-artifact_prefix={folder.parent}/", *sys.argv[1:]], one)
    atheris.Fuzz()


def one(data: bytes) -> None:
    read(data.replace(b"\n", b""))


if __name__ == "__main__":
    main()
