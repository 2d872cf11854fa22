"""Every line of docs/models.md, measured again: nothing that is reported of a real model is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from benchmarks.models.catalogue import Model
from benchmarks.models.compare import PAGE, Line, compare_model, format_line
from benchmarks.models.list import MODELS

pytestmark = pytest.mark.e2e


def measured_lines(load: Callable[[], list[Model]]) -> list[Line]:
    try:
        return [line for model in load() for line in compare_model(model)]
    except ModuleNotFoundError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}: make models")
        pytest.skip(f"{error}: make models")


def stable_cells(row: str) -> list[str]:
    """The cells of a row but the error, whose last digits are the machine's."""
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    return [*cells[:6], *cells[7:]]


@pytest.mark.parametrize("load", MODELS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_is_reported_is_what_the_package_says(load: Callable[[], list[Model]]) -> None:
    lines = measured_lines(load)
    assert lines
    assert [line for line in lines if line.verdict not in {"right", "timed only"}] == []
    page = [stable_cells(row) for row in PAGE.read_text().splitlines() if row.startswith("| ")]
    for line in lines:
        assert stable_cells(format_line(line)) in page


def test_the_page_has_a_wide_choice_of_models_and_no_wrong_line() -> None:
    header, *rows = (stable_cells(row) for row in PAGE.read_text().splitlines() if row.startswith("| "))
    assert header[-1] == "verdict"
    assert {row[-1] for row in rows} == {"right", "timed only"}
    assert len({(row[0], row[1]) for row in rows if row[-1] == "right"}) >= 14
    assert sum("int8" in row[0] for row in rows) >= 2
