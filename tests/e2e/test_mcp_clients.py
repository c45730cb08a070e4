"""The MCP adapter in the real Claude Code, Codex and Gemini CLI, set up as a person does it, before models of ours.

No hooks here: what a model learns of its mail it learns by the tools. The receipt is asked at each step of the model.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("mcp.server.mcpserver", reason="the extra [mcp] is not installed")

from backchannel.mcp.mail import STEP_S

from .models import Model, Run, Said, Say, Seen, Use
from .programs import PACKAGES, Home
from .test_programs import once, push, stage

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=list(PACKAGES))
def home(request: pytest.FixtureRequest, tmp_path: Path, model: Model) -> Iterator[Home]:
    """A home of a program whose project `shop` has the server and no hooks."""
    found = Home(request.param, tmp_path, model)
    try:
        found.init("mcp", request.param)
        yield found
    finally:
        found.close()


def shown(seen: Seen) -> str:
    """The id of the message in what the tool returned."""
    found = re.search(r"\[Backchannel · message of agent analyst · message (m-[0-9a-f]+)\]", _plain(seen.new))
    assert found, seen.new
    return found.group(1)


def _plain(text: str) -> str:
    """Without the escapes of JSON inside JSON."""
    return text.encode().decode("unicode_escape", "replace") if "\\u00b7" in text else text


def steps(home: Home, *calls: Use, stages: list[str], sent: str) -> Callable[[Seen], Said]:
    """A mind that makes these calls, one a step, and notes how far the message was at each."""
    left = list(calls)

    def mind(seen: Seen) -> Said:
        if left and not seen.has(left[0].tool):
            return Run("echo its server has not started yet")
        time.sleep(2 * STEP_S)  # no model is faster
        stages.append(stage(home, sent))
        return left.pop(0) if left else Say("done")

    return mind


def test_a_model_reads_its_mail_by_a_tool_and_answers_by_another(home: Home) -> None:
    analyst = home.agent("analyst")
    sent = push(home, "use port 8080, not 3000")
    stages: list[str] = []
    calls = Use("inbox", {"wait_s": 20}), Use("agents", {}), Use("reply", {"id": sent, "text": "port 8080 it is"})
    home.model.mind = steps(home, *calls, stages=stages, sent=sent)
    program = home.start(*once(home, "read your mail"))
    assert program.end() == 0, program.output
    seen = home.model.wait_for("use port 8080, not 3000")
    assert shown(seen) == sent
    assert stages == ["stored", "taken", "acked", "done"]
    answer = next(iter(analyst.receive(wait=20)))
    assert (answer.sender, answer.text, answer.reply_to) == ("shop", "port 8080 it is", sent)
    answer.ack()
    receipt = json.loads(home.backchannel("status", sent, "--to", "shop", "--json"))
    assert receipt["evidence"] == "turn"


def test_a_program_killed_with_mail_before_its_model_has_acked_nothing(home: Home) -> None:
    home.agent("analyst")
    sent = push(home, "use port 8080, not 3000")
    reading = steps(home, Use("inbox", {"wait_s": 20}), stages=[], sent=sent)
    never = threading.Event()

    def mind(seen: Seen) -> Said:
        if "use port 8080" in seen.new:
            never.wait(60)
            return Say("too late")
        return reading(seen)

    home.model.mind = mind
    program = home.start(*once(home, "read your mail"))
    home.model.wait_for("use port 8080")
    assert stage(home, sent) == "taken"
    program.kill()
    never.set()
    for again in home.agent("shop").receive(wait=20):
        assert (again.id, again.delivery) == (sent, 2)
        again.ack()
        return
    raise AssertionError("it was not handed out again")
