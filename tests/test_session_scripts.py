"""The scripts of `conformance/sessions/`, and that no cell of the table is left out."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from backchannel.protocol.states import TABLE, Input, State, Step
from tests.scripts import differences, scripts

CALLS = [
    {Input.OPEN}, {Input.ACCEPT}, {Input.REJECT}, {Input.SEND}, {Input.CLOSE, Input.CLOSE_LAST},
    {Input.ACKNOWLEDGE, Input.ACKNOWLEDGE_FIN}, {Input.ABORT},
]  # fmt: skip


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.stem)
def test_it_goes_as_written(path: Path) -> None:
    assert differences(path) == []


class Visited(dict[tuple[State, Input], Step]):
    """The table, noting which cells were looked at."""

    def __init__(self, table: dict[tuple[State, Input], Step]) -> None:
        super().__init__(table)
        self.cells: set[tuple[State, Input]] = set()

    def __getitem__(self, cell: tuple[State, Input]) -> Step:
        self.cells.add(cell)
        return super().__getitem__(cell)

    def get(self, cell: tuple[State, Input], default: Any = None) -> Any:
        self.cells.add(cell)
        return super().get(cell, default)


def test_the_scripts_visit_every_cell() -> None:
    with patch("backchannel.protocol.session.TABLE", Visited(TABLE)) as visited:
        for path in scripts():
            differences(path)
    missing = set(TABLE) - visited.cells
    assert not missing, sorted(f"{state.value} {column.value}" for state, column in missing)
    for state in State:
        for call in CALLS:  # the ones it forbids too
            assert {(state, column) for column in call} & visited.cells, (state, call)
