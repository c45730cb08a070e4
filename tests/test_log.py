"""What the daemon says: one line an event, whatever is in it."""

import json
import re

import pytest

from backchannel.daemon.log import Logger, Sparingly


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> Logger:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    return Logger()


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_line_says_when_how_bad_and_what(logger: Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logger.set_up("text")
    logger.info("%s is served in %s", "bob", "/run/x")
    logger.info("100%% of it")
    first, second = said(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d info bob is served in /run/x", first)
    assert second.endswith(" info 100% of it")


def test_nobody_forges_a_line(logger: Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logger.set_up("text")
    logger.warning("%s", "from\nme\x1b[2J\udc80 ü")
    (line,) = said(capsys)
    assert line.endswith(r"warning from\nme\x1b[2J\udc80 ü")


def test_the_journal_gets_priorities(
    logger: Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    logger.set_up("text")
    logger.error("a")
    logger.warning("b")
    logger.info("c")
    assert said(capsys) == ["<3>a", "<4>b", "<6>c"]


def test_collectors_get_json(logger: Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logger.set_up("json")
    logger.error('"a"\n')
    (line,) = said(capsys)
    told = json.loads(line)
    assert (told["level"], told["message"]) == ("error", '"a"\\n')
    assert told["time"] > 1_700_000_000


def test_a_mistake_of_ours_is_told_with_its_trace_on_the_same_line(
    logger: Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        raise RuntimeError("ours")
    except RuntimeError as error:
        logger.error("a mistake", exc_info=error)
    (line,) = said(capsys)
    assert " error a mistake\\nTraceback (most recent call last):\\n" in line
    assert line.endswith("RuntimeError: ours")


def test_where_no_daemon_runs_only_what_is_wrong_is_said(logger: Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logger.info("served")
    logger.warning("wrong")
    assert [line.partition(" ")[2] for line in said(capsys)] == ["warning wrong"]


def test_without_a_stderr_nothing_is_said_anywhere(logger: Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    logger.error("nobody hears it")


def test_what_a_stranger_causes_is_said_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    sparingly = Sparingly()
    for at in (1.0, 1.1, 1.9, 2.1):
        sparingly.warning("spoke", "a stranger spoke", now=at)
    assert [line.partition(" warning ")[2] for line in said(capsys)] == [
        "a stranger spoke", "a stranger spoke (and 2 like it)",
    ]  # fmt: skip
