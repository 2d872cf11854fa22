"""What a column is: numbers, a category, something the model said, or nothing that can drift.

Inferred from the reference and said in the report; `--columns` overrules it. Whole numbers of few different values
are a category, since quantiles of them are arbitrary; probabilities are numbers. Identifiers and points in time are
left out: they differ in every row, so they always "drift". So is free text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.backtest.times import is_time
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.table.table import Column, Table
from otel_mlmon.types import Floats

Kind: TypeAlias = Literal["numeric", "category", "label", "confidence", "value", "ignore"]
"""`label`, `confidence` and `value` are what the model said, judged as the processor judges those; `confidence` is
watched for falling only."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

MOST_WHOLE_CATEGORIES: Final = 20
"""Different whole numbers that still are a category."""
ROWS_A_WHOLE_CATEGORY: Final = 5
"""How often each is there on average at least."""
LEAST_ROWS_TO_TELL: Final = 20
"""With fewer rows all different, it is no wonder that they are."""

ROUNDING: Final = 1e-3
"""By how much a confidence may be below 0 or above 1."""

_IDENTIFIER: Final = re.compile(r"(^|[_\W])(id|ids|uuid|guid|key|index|rowid|row)$|^unnamed: 0$|^$", re.IGNORECASE)
_STREAMS: Final[Mapping[Kind, str]] = {
    "label": semconv.STREAM_LABEL,
    "confidence": semconv.STREAM_CONFIDENCE,
    "value": semconv.STREAM_VALUE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What one column is taken for."""

    column: str
    kind: Kind
    why: str
    """Of what is left out: the reason."""

    @property
    def stream(self) -> str:
        """The processor's name of it."""
        return _STREAMS.get(self.kind, f"{semconv.STREAM_INPUT_PREFIX}{self.column}")


def choose(table: Table, given: Mapping[str, Kind], *, timestamp: str | None) -> dict[str, Choice]:
    """The kind of each column of the reference.

    Args:
        table: The reference.
        given: What the user said.
        timestamp: The column that says when.

    Raises:
        ConfigurationError: A column is not there, or cannot be what it is said to be; all such faults.
    """
    chosen = {name: _choice(column, given.get(name), timestamp) for name, column in table.columns.items()}
    faults = [f"{table.source}: there is no column {name!r}" for name in given if name not in table.columns]
    for name, choice in chosen.items():
        column = table.columns[name]
        if choice.kind in ("numeric", "confidence", "value") and column.numbers is None:
            faults.append(f"{table.place(column.first_word)}: column {name!r}: {_cell(column)} is not a number")
        elif choice.kind == "confidence":
            faults += confidence_faults(table, column)
    for kind, stream in _STREAMS.items():
        same = [name for name, choice in chosen.items() if choice.kind == kind]
        if len(same) > 1:
            faults.append(f"--columns: {' and '.join(same)} cannot both be the {kind} ({stream})")
    if faults:
        raise ConfigurationError(*faults)
    return chosen


def confidence_faults(table: Table, column: Column) -> list[str]:
    """What is wrong with a column that is taken for confidences: in per cent, all of them would be in the last bin."""
    numbers = column.numbers if column.numbers is not None else np.zeros(0)
    outside = np.flatnonzero(np.isfinite(numbers) & (np.abs(numbers - 0.5) > 0.5 + ROUNDING))
    if not outside.size:
        return []
    row = int(outside[0])
    return [f"{table.place(row)}: column {column.name!r}: {numbers[row]:g} is no confidence, which is within 0 and 1"]


def _choice(column: Column, given: Kind | None, timestamp: str | None) -> Choice:
    if given is not None:
        return Choice(column=column.name, kind=given, why="as told" if given == "ignore" else "")
    if column.name == timestamp:
        return Choice(column=column.name, kind="ignore", why="it says when")
    kind, why = _of_words(column) if column.numbers is None else _of_numbers(column, column.numbers)
    return Choice(column=column.name, kind=kind, why=why)


def _of_words(column: Column) -> tuple[Kind, str]:
    present = [word for word in column.words or () if word is not None]
    different = len(set(present))
    if is_time(column):
        return "ignore", "points in time"
    if len(present) >= LEAST_ROWS_TO_TELL and different > len(present) / 2:
        return "ignore", f"an identifier or free text: {different} different values in {len(present)} rows"
    return "category", ""


def _of_numbers(column: Column, numbers: Floats) -> tuple[Kind, str]:
    present = numbers[np.isfinite(numbers)]
    if is_time(column):
        return "ignore", "points in time"
    if not present.size or (present != np.floor(present)).any():
        return "numeric", ""
    different = int(np.unique(present).size)
    if present.size >= LEAST_ROWS_TO_TELL and different == present.size:
        counts_up = float(present.max() - present.min()) + 1 == present.size
        if counts_up or _IDENTIFIER.search(column.name):
            return "ignore", f"an identifier: {different} different values in {present.size} rows"
    is_few = different <= MOST_WHOLE_CATEGORIES and different * ROWS_A_WHOLE_CATEGORY <= present.size
    return ("category" if is_few else "numeric"), ""


def _cell(column: Column) -> str:
    return repr((column.words or ("",))[max(column.first_word, 0)])
