"""A daemon under witness, as the nursery starts it. It serves as always, and writes down what it answered to each frame
of a peer. So a storm can tell how often frames came again, and that none was taken twice."""

import os
import sys
from typing import Any

from backchannel.daemon import run, sessions
from backchannel.protocol import sessionwire
from backchannel.protocol.effects import Answer

from .journal import line
from .sessionhistory import Answered


def main() -> None:
    """`backchanneld NAME --state STATE ...`."""
    name, state = sys.argv[1], sys.argv[sys.argv.index("--state") + 1]
    witness = os.open(f"{state}/{name}.answers", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    answer_body = sessionwire.answer_body

    def written_down(answer: Answer, *rest: Any) -> Any:
        frame = answer.frame
        event = Answered(name, frame.session, frame.kind, frame.number, answer.outcome.value, answer.reason)
        os.write(witness, line(event))
        return answer_body(answer, *rest)

    vars(sessions)["answer_body"] = written_down
    run.main()
