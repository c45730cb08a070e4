"""`python -m tools.generate`: writes every generated file of the repository; with `--check` says which are stale."""

import sys
from pathlib import Path

from . import completion, machine, manual, settings, surface

ROOT = Path(__file__).parent.parent
CONFIGURATION = "docs/configuration.md"
PROTOCOL = "docs/protocol.md"


def files() -> dict[str, str]:
    """What has to stand in each generated file, by its path in the repository."""
    client = surface.client()
    return {
        "share/bash-completion/completions/backchannel": completion.bash(client),
        "share/zsh/site-functions/_backchannel": completion.zsh(client),
        "share/fish/vendor_completions.d/backchannel.fish": completion.fish(client),
        "share/man/man1/backchannel.1": manual.client_page(client),
        "share/man/man8/backchanneld.8": manual.daemon_page(surface.daemon()),
        CONFIGURATION: settings.filled((ROOT / CONFIGURATION).read_text()),
        PROTOCOL: machine.filled((ROOT / PROTOCOL).read_text()),
    }


def stale() -> list[str]:
    """The files that are not as they should be."""
    return [path for path, text in files().items() if not (ROOT / path).exists() or (ROOT / path).read_text() != text]


def main() -> int:
    paths = stale()
    for path in paths:
        print(path)
    if "--check" in sys.argv[1:]:
        return 1 if paths else 0
    wanted = files()
    for path in paths:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
