"""The pictures of docs/protocol.md: the session's states and table, drawn from the code's own table, and ladders, drawn
from the scripts of conformance/sessions/."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backchannel.protocol.states import (
    CALLS,
    ENDINGS,
    FRAMES,
    FRAMES_WITHOUT_NUMBER,
    TABLE,
    Input,
    Outcome,
    State,
    Step,
)

from .settings import fill, table

SCRIPTS = Path(__file__).parent.parent / "conformance/sessions/whole-lives.json"
ANYWHERE = {Input.ABORT, Input.TIMEOUT, Input.LOST, Input.RST}  # every open state has these, and they end it

ENDS = "[*]"  # Mermaid's word for where it begins and where it is over
LABELS = {
    Input.CLOSE_LAST: "close after acking the FIN",
    Input.ACKNOWLEDGE_FIN: "ack the FIN",
    Input.ACK_FIN: "rcv ACK of our FIN",
}


def filled(document: str) -> str:
    """The document with every marked picture as it should be. Raises `KeyError` for one that nobody knows."""
    ladders = {script["name"].replace("_", "-"): script for script in json.loads(SCRIPTS.read_text())["scripts"]}
    return fill(
        document,
        {
            "states": diagram(),
            "calls": columns(CALLS, is_frame=False),
            "endings": columns(ENDINGS, is_frame=False),
            "frames": columns(FRAMES, is_frame=True),
            "frames-without-number": columns(FRAMES_WITHOUT_NUMBER, is_frame=True),
            **{name: ladder(script) for name, script in ladders.items()},
        },
    )


# --- the table --------------------------------------------------------------------------------------------------------


def columns(text: str, *, is_frame: bool) -> str:
    """One of the table's parts, with the columns and the rows that it has in the code."""
    inputs = [Input(word) for word in text.strip("\n").splitlines()[0].split()]
    rows = [
        (f"`{state.value}`", *(_cell(state, TABLE.get((state, column)), is_frame=is_frame) for column in inputs))
        for state in State
    ]
    return table(("state", *(f"`{column.value}`" for column in inputs)), rows)


def _cell(state: State, step: Step | None, *, is_frame: bool) -> str:
    if step is None:
        return "bad" if is_frame else "-"
    if step.outcome is not Outcome.STORED:
        return str(step.outcome.value)
    return "=" if step.state is state else _name(step)


def _name(step: Step) -> str:
    return f"{step.state.value} ({step.cause.value})" if step.cause else step.state.value


# --- the diagram ------------------------------------------------------------------------------------------------------


def diagram() -> str:
    """The states and what leads from one to another. What ends every open state stands beside it, not in it."""
    lines = ["stateDiagram-v2", "    direction TB"]
    lines += [f'    state "{state.value}" as {state.name}' for state in State if _node(state) != ENDS]
    edges: dict[tuple[str, str], list[str]] = {}
    for (state, column), step in TABLE.items():
        if step.state is state or column in ANYWHERE:
            continue
        after = f" ({step.cause.value})" if step.cause else ""
        edges.setdefault((_node(state), _node(step.state)), []).append(_label(column) + after)
    lines += [f"    {start} --> {end}: {', '.join(labels)}" for (start, end), labels in edges.items()]
    return _mermaid(lines)


def _node(state: State) -> str:
    return ENDS if state in (State.NONE, State.CLOSED) else state.name


def _label(column: Input) -> str:
    """A call as it is called, a frame as it is received."""
    if column in LABELS:
        return LABELS[column]
    return column.value.lower() if column.value in CALLS.split() else f"rcv {column.value}"


# --- ladders ----------------------------------------------------------------------------------------------------------


def ladder(script: dict[str, Any]) -> str:
    """Who says what when: one script as a sequence diagram. Solid lines are said, dashed ones are receipts."""
    lines = ["sequenceDiagram", "    participant A as our agent", "    participant D as our daemon"]
    lines += ["    participant P as the peer's daemon"]
    state = ""
    for step in script["steps"]:
        lines += [f"    {line}" for line in _given(step["in"])]
        lines += [f"    {line}" for word in step["out"] for line in _went_out(word)]
        if step["state"] != state:
            state = step["state"]
            lines.append(f"    Note over D: {state}")
    return _mermaid(lines)


def _given(given: dict[str, Any]) -> Iterator[str]:
    match given:
        case {"call": call, **said}:
            yield f"A->>D: {' '.join([call, *_words(said)])}"
        case {"frame": kind, **said}:
            yield f"P->>D: {' '.join([kind, *_words(said)])}"
        case {"answer": frame, "outcome": outcome}:
            yield f"P-->>D: {frame} {outcome}"


def _words(said: dict[str, Any]) -> list[str]:
    return [re.sub(r"[;#]", ",", str(value)) for value in said.values()]


def _went_out(word: str) -> Iterator[str]:
    verb, _, rest = word.partition(" ")
    match verb:
        case "transmit":
            yield f"D->>P: {rest}"
        case "answer":
            yield f"D-->>P: {rest}"
        case "deliver":
            yield f"D->>A: deliver {rest}"
        case "report" if not rest.startswith("acknowledged"):
            yield f"D->>A: {re.sub(r' stored .*', '', rest).replace(' ()', '')}"


def _mermaid(lines: list[str]) -> str:
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"
