"""Every vector of `conformance/frames.json`: what is a frame, a PROBE or an answer, read, written and over the wire."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backchannel.errors import BackchannelError
from backchannel.protocol import frame, sessionwire
from backchannel.protocol.effects import Answer
from backchannel.protocol.frame import Request
from backchannel.protocol.sessionframe import SessionFrame
from backchannel.protocol.sessionwire import Lineage

from .inside import Bench, close_all

FILE = json.loads((Path(__file__).parent.parent / "conformance" / "frames.json").read_text())
VECTORS: list[dict[str, Any]] = [vector for vector in FILE["vectors"] if "name" in vector]
FRAMES = [vector for vector in VECTORS if "params" in vector]
RESULTS = [vector for vector in VECTORS if "result" in vector]
PROOF = ("from", "auth")  # the courier adds it to what is written
AT_THE_DOOR = ("not_permitted", "loop")  # what only a daemon can know


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "mailbox.db")
    bench.keys |= FILE["keys"]
    yield bench
    close_all()


def laid_over(base: dict[str, Any], said: dict[str, Any], without: list[str]) -> dict[str, Any]:
    return {name: value for name, value in (base | said).items() if name not in without}


def params_of(vector: dict[str, Any]) -> dict[str, Any]:
    return laid_over(FILE["base"][vector["method"]], vector["params"], vector.get("without", []))


def written(vector: dict[str, Any]) -> dict[str, Any]:
    """What a daemon that holds this frame pushes."""
    differs = dict(vector.get("written", {}))
    return laid_over(params_of(vector), differs, [*PROOF, *differs.pop("without", [])])


def read(vector: dict[str, Any]) -> tuple[SessionFrame, Lineage]:
    request = frame.parse_request(
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": vector["method"], "params": params_of(vector)}).encode()
    )
    assert isinstance(request, Request)
    if vector["method"] == "probe":
        return sessionwire.parse_probe(request)[1], Lineage()
    params, received = sessionwire.parse_frame(request)
    return received, sessionwire.lineage_of(params)


@pytest.mark.parametrize("vector", FRAMES, ids=lambda vector: vector["name"])
def test_a_daemon_answers_it_as_it_says(vector: dict[str, Any], bench: Bench) -> None:
    answer = bench.ask(bench.connect(), vector["method"], **params_of(vector))
    if vector["verdict"] == "accepted":
        assert answer["result"]["kind"] == vector["params"].get("kind", "PROBE")
        assert answer["result"]["session"] == params_of(vector)["session"]
    else:
        assert answer["error"]["data"]["code"] == vector["verdict"]


@pytest.mark.parametrize("vector", [v for v in FRAMES if v["verdict"] == "accepted"], ids=lambda vector: vector["name"])
def test_what_is_accepted_is_written_as_it_was_read(vector: dict[str, Any]) -> None:
    received, lineage = read(vector)
    pushed = json.loads(sessionwire.encode_frame("executor", received, lineage))
    wanted = written(vector)
    assert {name: value for name, value in pushed.items() if value != []} == wanted
    assert all(type(pushed[name]) is type(value) for name, value in wanted.items())


@pytest.mark.parametrize("vector", RESULTS, ids=lambda vector: vector["name"])
def test_a_result_is_an_answer_or_none(vector: dict[str, Any]) -> None:
    result = laid_over(FILE["base"]["result"], vector["result"], vector.get("without", []))
    try:
        answer: Answer | None = sessionwire.decode_answer(result)
    except BackchannelError:
        answer = None
    assert (answer is not None) == (vector["verdict"] == "accepted")
    if answer is not None:
        body = json.loads(frame.answer(b"1", sessionwire.answer_body(answer, "executor")))["result"]
        assert {name: body[name] for name in result if name in body} == {n: v for n, v in result.items() if n in body}


def test_every_vector_has_a_name_of_its_own_and_every_kind_one_that_is_accepted() -> None:
    names = [("result" in vector, vector["name"]) for vector in VECTORS]
    assert len(names) == len(set(names))
    accepted = {vector["params"].get("kind", "PROBE") for vector in FRAMES if vector["verdict"] == "accepted"}
    assert accepted == set(sessionwire.KINDS.values())
