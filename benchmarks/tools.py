"""What the cases need beyond the project: programs of Debian, packages of PyPI, a compiled C program.

Nothing is installed into the system or the project. Debian's packages are fetched and unpacked into a cache directory,
PyPI's go into an environment of their own there, and Backchannel itself is installed as a user would have it, into a
fresh environment that goes with the run. What cannot be had is said, with the reason, and its rows are left out.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .bench import ROOT

DEBIAN = {
    "redis-server": "redis-server",
    "nats-server": "nats-server",
    "mosquitto": "mosquitto",
    "dbus-daemon": "dbus",
}  # by program: its package
PYPI = {
    "pyzmq": ("pyzmq",),
    "redis": ("redis", "hiredis"),
    "nats-py": ("nats-py",),
    "paho-mqtt": ("paho-mqtt",),
    "dbus-fast": ("dbus-fast",),
    "uvicorn": ("uvicorn",),
    "hcom": ("hcom",),
}  # by need: what is installed for it
INSTALL_S = 600.0


@dataclass
class Tools:
    """What there is. `missing` says why the rest is not."""

    python: str = sys.executable  # has Backchannel
    peers_python: str = sys.executable  # has the peers' clients
    programs: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def lacking(self, needs: Iterable[str]) -> str:
        """Why a case with these needs cannot run, or ""."""
        return "; ".join(f"{need}: {self.missing[need]}" for need in needs if need in self.missing)


def gather(needs: set[str], cache: Path, run: Path, *, may_install: bool, is_here: bool) -> Tools:
    """Brings what is needed. With `is_here` Backchannel is measured in the environment that runs us."""
    tools = Tools()
    if may_install:
        cache.mkdir(parents=True, exist_ok=True)
    if "echo" in needs:
        _compile(tools, run)
    for program in sorted(needs & DEBIAN.keys()):
        _debian(tools, program, cache / "debian", may_install=may_install)
    wanted = sorted(need.removeprefix("pypi:") for need in needs if need.startswith("pypi:"))
    if wanted:
        _pypi(tools, wanted, cache / f"peers-{sys.version_info[0]}.{sys.version_info[1]}", may_install=may_install)
    if "hcom" in needs:
        _find(tools, "hcom", Path(tools.peers_python).parent / "hcom")
    if may_install and not is_here:
        _install_backchannel(tools, run / "installed")
    return tools


def _compile(tools: Tools, run: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        tools.missing["echo"] = "there is no C compiler (Debian: gcc libc6-dev)"
        return
    program = str(run / "echo")
    complaint = _complaint([compiler, "-O2", "-Wall", "-o", program, str(ROOT / "benchmarks/peers/echo.c")])
    if complaint:
        tools.missing["echo"] = f"{compiler}: {complaint}"
    else:
        tools.programs["echo"] = program


def _debian(tools: Tools, program: str, folder: Path, *, may_install: bool) -> None:
    """The system's own if it is there; else the package and what it depends on are unpacked below `folder`."""
    paths = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    installed = shutil.which(program, path=paths)
    if installed:
        tools.programs[program] = installed
        return
    wrapper = folder / "run" / program
    if not wrapper.exists() and may_install:
        complaint = _unpack(DEBIAN[program], folder)
        found = [path for path in (folder / "root").glob(f"usr/*bin/{program}") if path.exists()]
        if complaint or not found:
            tools.missing[program] = complaint or f"Debian's {DEBIAN[program]} does not have it"
            return
        _write_wrapper(wrapper, found[0], folder / "root")
    _find(tools, program, wrapper)


def _unpack(package: str, folder: Path) -> str:
    """Fetches and unpacks a package and those it needs that are not installed. Returns what went wrong, or ""."""
    if not shutil.which("apt-get"):
        return f"not installed, and this is no Debian (its package there: {package})"
    archives = folder / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    fetch = [
        "apt-get", "install", "-qq", "-y", "--download-only", "--no-install-recommends",
        "-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={archives}", package,
    ]  # fmt: skip
    complaint = _complaint(fetch)
    if complaint and os.geteuid() == 0:
        _complaint(["apt-get", "update", "-qq"])  # a fresh machine has no lists of packages, or old ones
        complaint = _complaint(fetch)
    if complaint:
        return f"apt-get: {complaint}"
    for archive in sorted(archives.glob("*.deb")):
        complaint = complaint or _complaint(["dpkg-deb", "-x", str(archive), str(folder / "root")])
        archive.unlink()
    return complaint


def _write_wrapper(wrapper: Path, program: Path, root: Path) -> None:
    """A command that finds the libraries that were unpacked with it."""
    libraries = ":".join(str(path) for path in (root / "usr/lib").glob("*-linux-*"))
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{program}" "$@"\n')
    wrapper.chmod(0o755)


def _pypi(tools: Tools, wanted: list[str], environment: Path, *, may_install: bool) -> None:
    python = environment / "bin/python"
    if may_install and _complaint([str(python), "-c", "pass"]):
        complaint = _make_environment(environment)
        if complaint:
            tools.missing |= {f"pypi:{need}": complaint for need in wanted}
            return
    tools.peers_python = str(python)
    installed = _versions(python)
    for need in wanted:
        lacking = [package for package in PYPI[need] if package not in installed]
        complaint = "not installed, and nothing is to be installed"
        if lacking and may_install:
            complaint = _complaint([str(python), "-m", "pip", "install", "-q", *lacking])
            installed |= {} if complaint else _versions(python)
        if lacking and complaint:
            tools.missing[f"pypi:{need}"] = complaint
    tools.versions |= {package: installed[package] for need in wanted for package in PYPI[need] if package in installed}


def _install_backchannel(tools: Tools, environment: Path) -> None:
    """As a user would have it. Without, the environment that runs us is measured."""
    python = environment / "bin/python"
    complaint = _make_environment(environment) or _complaint([str(python), "-m", "pip", "install", "-q", str(ROOT)])
    if complaint:
        tools.missing["an environment of its own for Backchannel"] = f"{complaint}; measured as installed here"
    else:
        tools.python = str(python)


def _make_environment(environment: Path) -> str:
    return _complaint([sys.executable, "-m", "venv", "--clear", str(environment)])


def _versions(python: Path) -> dict[str, str]:
    """Of every package in an environment."""
    script = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    try:
        listed = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    found: dict[str, str] = json.loads(listed.stdout)
    return found


def _find(tools: Tools, program: str, path: Path) -> None:
    if path.exists():
        tools.programs[program] = str(path)
    else:
        tools.missing[program] = "not installed, and nothing is to be installed"


def _complaint(argv: list[str]) -> str:
    """Runs a command. Returns "" if it succeeded, else the last thing it said."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        done = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    words = (done.stderr or done.stdout).strip().splitlines()
    return words[-1] if words else f"exit status {done.returncode}"
