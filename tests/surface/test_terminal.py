"""What another agent writes cannot move the cursor of a person's terminal, paint it, or hide in it."""

import os
import subprocess
import sys

import pytest

from backchannel.cli.terminal import escaped
from backchannel.testing import World

from .helpers import established, offer, opening

EVIL = "a\x1b[2J\x1b]52;c;cm0gLXJm\x07b\x9b1m\x08\x7f\r\u202egpj.exe\u2066\u200b\U000e0041\ufeff\x00c"
ARGUMENT = EVIL.replace("\x00", "")
CHARACTERS = set(EVIL) - set("abc[2J]52;cm0gLXJ1egpjx.")


@pytest.mark.parametrize("character", sorted(CHARACTERS), ids=lambda c: f"U+{ord(c):04X}")
def test_each_of_them_is_written_out(character: str) -> None:
    shown = escaped(f"before{character}after")
    assert character not in shown
    assert shown.startswith("before\\")
    assert shown.endswith("after")


@pytest.mark.parametrize(
    "text", ["plain", "two\nlines\tand a tab", "\u6f22\u5b57 \u00fc \U0001f600", "\u0928\u200d\u092e"]
)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert escaped(text) == text


def on_a_terminal(world: World, *words: str, agent: str = "bob") -> str:
    """All that the command writes to a terminal."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-P", "-c", "import sys; from backchannel.cli.main import main; sys.exit(main())"]
    program = subprocess.Popen(
        [*command, *words], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        env=world.env | {"BACKCHANNEL_AGENT": agent, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # its last descriptor is closed
            break
        if not data:
            break
        said += data
    os.close(ours)
    program.wait(30)
    return said.decode().replace("\r\n", "\n")


def check(said: str) -> None:
    assert not CHARACTERS & set(said), ascii(said)


def test_no_command_that_shows_messages_lets_them_through(world: World) -> None:
    world.up("bob")
    alice = world.agent("alice")
    sent = alice.send("bob", EVIL, headers={"k": EVIL})
    for words in (("peek", "--text"), ("log", "--text"), ("recv", "--keep"), ("status", sent.id)):
        said = on_a_terminal(world, *words)
        check(said)
        assert sent.id in said or "gpj.exe" in said, ascii(said)
    check(on_a_terminal(world, "reject", sent.id, "--reason", ARGUMENT))
    check(on_a_terminal(world, "status", sent.id))
    check(on_a_terminal(world, "log", "--text"))
    check(on_a_terminal(world, "ask", "bob", ARGUMENT, "--timeout", "0.1", agent="alice"))
    check(on_a_terminal(world, "send", "bob\x1b[2J", "x", agent="alice"))


@pytest.mark.proof
def test_no_command_that_shows_sessions_does_either(world: World) -> None:
    alice, bob = world.agent("alice"), world.agent("bob")
    opened, accepted = established(alice, bob, EVIL)
    opened.send(EVIL)
    accepted.progress(EVIL)
    accepted.close(EVIL)
    with opening(alice, "bob", "another") as pending:
        offer(bob).reject(EVIL)
        with pytest.raises(Exception, match="gpj"):
            pending.result(20)
    for name in ("alice", "bob"):
        for words in (("sessions",), ("sessions", opened.id), ("trace", opened.id, "--text"), ("recv", "--max", "20")):
            check(on_a_terminal(world, *words, agent=name))
        for form in ("md", "mermaid"):
            check(on_a_terminal(world, "export", opened.id, "--format", form, agent=name))
