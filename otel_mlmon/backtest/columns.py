"""The columns of a table: their kinds, the streams they are judged as, and the reference profile made of them.

Kinds are inferred from the reference and shown in the report; `--columns` overrules them. Whole numbers of few
different values are categories, since quantiles of them are arbitrary; probabilities are numbers. Identifiers, free
text and points in time are left out: they differ in every row, so they would always drift.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv, streams
from otel_mlmon.backtest.times import is_time_column
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.reference.profile import Profile
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.table.cells import format_label
from otel_mlmon.table.table import Table, TableColumn
from otel_mlmon.types import Floats

ColumnKind: TypeAlias = Literal["numeric", "category", "label", "confidence", "value", "ignore"]
"""`numeric` and `category` are inputs. `label`, `confidence` and `value` are outputs of the model, judged by the
processor's rules for those; `confidence` is watched for falling only. `ignore` is left out."""

COLUMN_KINDS: Final[tuple[ColumnKind, ...]] = get_args(ColumnKind)

MODEL_NAME: Final = "backtest"
"""The name of the model in a profile that is made of a table."""

MAX_INTEGER_CATEGORIES: Final = 20
"""The largest number of distinct whole numbers that make up a category."""
MIN_ROWS_A_CATEGORY: Final = 5
"""The smallest mean number of rows of each whole number of a category."""
MIN_DISTINCT_ROWS: Final = 20
"""The number of rows from which on a column without repetitions is taken for an identifier."""
CONFIDENCE_ROUNDING: Final = 1e-3
"""The amount by which a rounded confidence may be below 0 or above 1."""

_IDENTIFIER: Final = re.compile(r"(^|[_\W])(id|ids|uuid|guid|key|index|rowid|row)$|^unnamed: 0$|^$", re.IGNORECASE)

_OUTPUT_STREAMS: Final[Mapping[ColumnKind, str]] = {
    "label": semconv.STREAM_LABEL,
    "confidence": semconv.STREAM_CONFIDENCE,
    "value": semconv.STREAM_VALUE,
}
_OUTPUT_COLUMNS: Final[Mapping[ColumnKind, tuple[str, ...]]] = {
    "label": ("label", "prediction", "predicted_label", "y_pred"),
    "confidence": ("confidence", "y_pred_proba", "probability"),
    "value": ("value", "prediction", "y_pred"),
}
"""The usual names of columns that hold outputs of a model; the stream's own name is tried first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnChoice:
    """The kind of one column, and why it is left out if it is."""

    column: str
    kind: ColumnKind
    reason: str = ""
    """Why the column is ignored; empty otherwise."""

    @property
    def stream(self) -> str:
        """The processor's name of the stream."""
        return _OUTPUT_STREAMS.get(self.kind, f"{semconv.STREAM_INPUT_PREFIX}{self.column}")


def choose_columns(
    table: Table, requested: Mapping[str, ColumnKind], *, timestamp: str | None
) -> dict[str, ColumnChoice]:
    """Infers the kind of each column of the reference.

    Args:
        table: The reference.
        requested: The kinds that the user sets.
        timestamp: The column with the time of each row.

    Raises:
        ConfigurationError: A column does not exist, or cannot be of the requested kind; names all faults.
    """
    choices = {name: _choose(column, requested.get(name), timestamp) for name, column in table.columns.items()}
    faults = [f"{table.source}: there is no column {name!r}" for name in requested if name not in table.columns]
    for name, choice in choices.items():
        column = table.columns[name]
        if choice.kind in ("numeric", "confidence", "value") and column.numbers is None:
            faults.append(
                f"{table.locate(column.first_text_row)}: column {name!r}: {column.first_text!r} is not a number"
            )
        elif choice.kind == "confidence":
            faults += find_confidence_faults(table, column)
    for kind, stream in _OUTPUT_STREAMS.items():
        names = [name for name, choice in choices.items() if choice.kind == kind]
        if len(names) > 1:
            faults.append(f"--columns: {' and '.join(names)} cannot both be the {kind} ({stream})")
    if faults:
        raise ConfigurationError(*faults)
    return choices


def match_columns(profile: Profile, table: Table) -> dict[str, ColumnChoice]:
    """Finds the column of each stream of a profile; columns without a stream are left out."""
    choices: dict[str, ColumnChoice] = {}
    for stream, sketch in profile.streams.items():
        if stream.startswith(semconv.STREAM_INPUT_PREFIX):
            column = stream.removeprefix(semconv.STREAM_INPUT_PREFIX)
            choices[column] = ColumnChoice(column=column, kind=_infer_input_kind(sketch))
    for kind, stream in _OUTPUT_STREAMS.items():
        candidates = (stream, *_OUTPUT_COLUMNS[kind])
        match = next((name for name in candidates if name in table.columns and name not in choices), None)
        if stream in profile.streams and match is not None:
            choices[match] = ColumnChoice(column=match, kind=kind)
    return choices


def infer_stream_kind(sketch: StreamSketch | None, stream: str) -> ColumnKind:
    """Infers the kind of a stream from its name, or of an input from the sketch of its reference."""
    kinds = {name: kind for kind, name in _OUTPUT_STREAMS.items()}
    return kinds.get(streams.stream_family(stream)) or ("numeric" if sketch is None else _infer_input_kind(sketch))


def build_profile(table: Table, choices: Mapping[str, ColumnChoice]) -> Profile:
    """Profiles the columns of a reference that are not ignored."""
    judged = {name: choice for name, choice in choices.items() if choice.kind != "ignore" and table.rows}
    outputs = {choice.kind: table.columns[name] for name, choice in judged.items()}
    labels = outputs.get("label")
    confidences, values = outputs.get("confidence"), outputs.get("value")
    return Profile.from_data(
        model=MODEL_NAME,
        labels=None if labels is None else [label for label in _labels(labels) if label is not None],
        confidences=None if confidences is None else confidences.numbers,
        values=None if values is None else values.numbers,
        features={
            name: _feature(table.columns[name], choice.kind)
            for name, choice in judged.items()
            if choice.kind in ("numeric", "category")
        },
    )


def find_confidence_faults(table: Table, column: TableColumn) -> list[str]:
    """Checks that confidences are within [0, 1]: percentages would all fall into the last bin."""
    numbers = column.numbers if column.numbers is not None else np.zeros(0)
    outside = np.flatnonzero(np.isfinite(numbers) & (np.abs(numbers - 0.5) > 0.5 + CONFIDENCE_ROUNDING))
    if not outside.size:
        return []
    row = int(outside[0])
    return [f"{table.locate(row)}: column {column.name!r}: {numbers[row]:g} is no confidence, which is within 0 and 1"]


def _choose(column: TableColumn, requested: ColumnKind | None, timestamp: str | None) -> ColumnChoice:
    if requested is not None:
        reason = "ignored by --columns" if requested == "ignore" else ""
        return ColumnChoice(column=column.name, kind=requested, reason=reason)
    if column.name == timestamp:
        return ColumnChoice(column=column.name, kind="ignore", reason="the time of each row")
    kind, reason = _infer_text_kind(column) if column.numbers is None else _infer_number_kind(column, column.numbers)
    return ColumnChoice(column=column.name, kind=kind, reason=reason)


def _infer_text_kind(column: TableColumn) -> tuple[ColumnKind, str]:
    present = [text for text in column.texts or () if text is not None]
    distinct = len(set(present))
    if is_time_column(column):
        return "ignore", "points in time"
    if len(present) >= MIN_DISTINCT_ROWS and distinct > len(present) / 2:
        return "ignore", f"an identifier or free text: {distinct} different values in {len(present)} rows"
    return "category", ""


def _infer_number_kind(column: TableColumn, numbers: Floats) -> tuple[ColumnKind, str]:
    present = numbers[np.isfinite(numbers)]
    if is_time_column(column):
        return "ignore", "points in time"
    if not present.size or (present != np.floor(present)).any():
        return "numeric", ""
    distinct = int(np.unique(present).size)
    if present.size >= MIN_DISTINCT_ROWS and distinct == present.size:
        is_sequence = float(present.max() - present.min()) + 1 == present.size
        if is_sequence or _IDENTIFIER.search(column.name):
            return "ignore", f"an identifier: {distinct} different values in {present.size} rows"
    is_category = distinct <= MAX_INTEGER_CATEGORIES and distinct * MIN_ROWS_A_CATEGORY <= present.size
    return ("category" if is_category else "numeric"), ""


def _infer_input_kind(sketch: StreamSketch) -> ColumnKind:
    return "category" if sketch.categories.total > sketch.numbers else "numeric"


def _feature(column: TableColumn, kind: ColumnKind) -> NDArray[Any]:
    if kind == "numeric":
        return column.numbers if column.numbers is not None else np.zeros(0)
    return np.array([*_labels(column), None], dtype=object)[:-1]  # of texts alone numpy would make a fixed width


def _labels(column: TableColumn) -> tuple[str | None, ...]:
    if column.texts is not None:
        return column.texts
    values, positions = np.unique(column.numbers if column.numbers is not None else np.zeros(0), return_inverse=True)
    labels = [format_label(value) for value in values.tolist()]
    return tuple(labels[position] for position in positions.tolist())
