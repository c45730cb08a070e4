"""Where more than two take part, or something comes late: passed on to who waits for it, or to nobody."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from backchannel import Session
from backchannel.testing import World
from gateways import Gateway
from model import Call, Model, Say, Seen


def test_what_an_agent_learns_for_another_is_passed_on_to_it(
    coder: Gateway, writer: Gateway, model: Model, world: World
) -> None:
    def asks_on(seen: Seen) -> Say | Call:
        if "text of agent writer" in seen.user:
            return Say("writer found: " + seen.user.splitlines()[1])
        return (
            Call("backchannel_open", {"to": "writer", "task": "find it"}) if seen.role == "user" else Say("one moment")
        )

    model.minds |= {"coder": asks_on, "writer": lambda seen: Say("a needle")}
    with world.agent("boss").open("coder", "have it found", timeout=30) as session:
        assert [heard(session), heard(session)] == ["one moment", "writer found: a needle"]


def test_a_background_process_that_ends_later_is_told_in_its_session(
    writer: Gateway, model: Model, world: World
) -> None:
    build = {"command": "sleep 1; echo the-build-is-green", "background": True, "notify_on_complete": True}

    def builds(seen: Seen) -> Say | Call:
        if "the-build-is-green" in seen.user:
            return Say("it is green")
        return Call("terminal", build) if seen.role == "user" else Say("it builds")

    model.minds["writer"] = builds
    with world.agent("boss").open("writer", "build it", timeout=30) as session:
        assert [heard(session), heard(session)] == ["it builds", "it is green"]


def test_what_is_said_after_the_own_close_is_dropped(writer: Gateway, model: Model, world: World) -> None:
    def closes(seen: Seen) -> Say | Call:
        session = re.search(r"session (s-[0-9a-f]{32})", seen.user)
        assert session is not None
        close = Call("backchannel_close", {"session": session[1], "result": "42"})
        return close if seen.role == "user" else Say("and goodbye!")

    model.minds["writer"] = closes
    with world.agent("boss").open("writer", "calculate", timeout=30) as session:
        assert [data.text for data in session] == []
        assert session.result == ("ok", "42")
    session.wait(10)


def test_a_repeated_message_is_worked_on_once(writer: Gateway, model: Model, world: World) -> None:
    model.minds["writer"] = lambda seen: Say("deployed")
    boss = world.agent("boss")
    for _ in range(2):
        boss.send("writer", "deploy 42", key="deploy-42")
    boss.status("deploy-42").wait("done", timeout=20)
    boss.send("writer", "deploy 42", key="deploy-42")
    model.wait_quiet()
    assert model.count("deploy 42", "writer") == 1


def test_an_unknown_agent_is_an_error_that_the_model_reads(coder: Gateway, model: Model, chat: str) -> None:
    model.minds["coder"] = lambda seen: (
        Call("backchannel_send", {"to": "writr", "text": "hello"}) if seen.role == "user" else Say(seen.last)
    )
    coder.say("greet the writer", chat)
    assert "did you mean writer?" in coder.wait_told("there is no agent writr", chat)


def test_a_one_shot_hermes_asks_without_a_gateway_of_its_own(
    coder: Gateway, writer: Gateway, model: Model, world: World
) -> None:
    model.minds |= {
        "coder": lambda seen: (
            Call("backchannel_ask", {"to": "writer", "question": "and now?"})
            if seen.role == "user"
            else Say("heard " + json.loads(seen.last)["answer"])
        ),
        "writer": lambda seen: Say("now is now"),
    }
    assert "heard now is now" in coder.run("-z", "ask the writer")


def test_installed_by_pip_it_is_an_entry_point_of_hermes(hermes: str, tmp_path: Path) -> None:
    project = Path(__file__).parents[1]
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(project)]
    subprocess.run(install, check=True, timeout=100)
    assert (site / "backchannel_hermes" / "client" / "backchannel" / "client" / "aio.py").exists()
    env = {**os.environ, "PYTHONPATH": str(site), "HERMES_HOME": str(tmp_path)}
    subprocess.run([hermes, "plugins", "enable", "backchannel", "--no-allow-tool-override"], env=env, check=False)
    listed = subprocess.run([hermes, "plugins", "list"], env=env, capture_output=True, text=True, check=True)
    assert re.search(r"backchannel.*enabled", listed.stdout), listed.stdout


def heard(session: Session) -> str:
    delivery = next(session.receive(wait=30))
    delivery.ack()
    return delivery.text
