"""Sessions that no process holds: looked at, spoken into, and read by whoever of the agent receives."""

import pytest

from backchannel import Agent, LocalProtocolError
from backchannel.testing import World

from .helpers import collect, established


@pytest.fixture
def analyst(shared: World) -> Agent:
    return shared.agent("analyst")


@pytest.fixture
def executor(shared: World) -> Agent:
    return shared.agent("executor")


def test_who_detaches_leaves_the_mail_to_whoever_receives(analyst: Agent, executor: Agent) -> None:
    mine, theirs = established(analyst, executor)
    theirs.detach()
    mine.send("for anybody")
    (got,) = collect(executor, 1, ("data",))
    assert (got.text, got.session) == ("for anybody", mine.id)


def test_what_was_looked_at_can_be_spoken_into_and_closed_in_the_commit_that_acks(
    analyst: Agent, executor: Agent
) -> None:
    mine, theirs = established(analyst, executor)
    theirs.detach()
    mine.send("question")
    record = executor.look(mine.id)
    for delivery in executor.receive(wait=10, kinds=("data",)):
        executor.commit(acks=[delivery], sends=[(record, "answer")], closes=[(record, "done")], evidence="turn")
        break
    assert record.state == "FIN-WAIT-1"
    assert [data.text for data in mine] == ["answer"]
    assert mine.result == ("ok", "done")


def test_looking_for_what_is_not_there(analyst: Agent) -> None:
    with pytest.raises(LocalProtocolError) as error:
        analyst.look("s-" + 32 * "0")
    assert error.value.code == "no_such_session"
