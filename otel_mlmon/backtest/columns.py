"""Finds out of which kind each column of a table is, and builds the reference profile of the columns.

Kinds are inferred from the reference and shown in the report; `--columns` overrules them. Whole numbers of few
different values are categories, since quantiles of them are arbitrary; probabilities are numbers. Identifiers, free
text and points in time are left out: they differ in every row, so they would always drift.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.backtest.summary import MAX_DISTINCT, ColumnSummary, summarize_columns
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.reference.profile import Profile
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch
from otel_mlmon.streams import find_stream_family
from otel_mlmon.table.cells import parse_cell_labels, parse_cell_numbers
from otel_mlmon.table.table import ProgressCallback, Table, TableColumn, ignore_progress

if TYPE_CHECKING:
    import pyarrow as pa

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
_IDENTIFIER: Final = re.compile(r"(^|[_\W])(id|ids|uuid|guid|key|index|rowid|row)$|^unnamed: 0$|^$", re.IGNORECASE)

_OUTPUT_STREAMS: Final[Mapping[ColumnKind, str]] = {
    "label": semconv.STREAM_LABEL,
    "confidence": semconv.STREAM_CONFIDENCE,
    "value": semconv.STREAM_VALUE,
}
_OUTPUT_COLUMNS: Final[Mapping[ColumnKind, tuple[str, ...]]] = {
    "label": ("label", "prediction", "predicted_label", "y_pred"),
    "confidence": ("confidence", "y_pred_proba", "probability"),
    "value": ("value", "prediction", "y_pred", "y_pred_proba", "score"),
}
"""The usual names of columns that hold the streams of a profile; the stream's own name is tried first."""
_LABEL_NAMES: Final = ("y_pred", "y_hat", "prediction", "predicted_label", "predicted_class", "predicted", "label")
_VALUE_NAMES: Final = (
    "y_pred_proba", "y_proba", "y_score", "score", "probability", "prediction_proba", "prediction_score", "confidence",
    "y_pred", "y_hat", "prediction", "predicted", "predicted_value",
)  # fmt: skip
"""The usual names of predictions in a table, the first goes before the next. A value may move either way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnChoice:
    """The kind that a column of a backtest is taken to be, or why the column is left out."""

    column: str
    kind: ColumnKind
    reason: str = ""
    """Why the column is ignored; empty otherwise."""
    is_guess: bool = False
    """Whether it was taken for a prediction by its name."""

    @property
    def stream_name(self) -> str:
        """The name of the processor's stream that the column is judged as, such as `input.age`."""
        return _OUTPUT_STREAMS.get(self.kind, f"{semconv.STREAM_INPUT_PREFIX}{self.column}")


def choose_column_kinds(
    table: Table,
    requested: Mapping[str, ColumnKind],
    *,
    timestamp: str | None,
    progress: ProgressCallback = ignore_progress,
) -> dict[str, ColumnChoice]:
    """Decides of which kind each column of the reference table is, from its values or the user's request.

    Args:
        table: The reference.
        requested: The kinds that the user sets.
        timestamp: The column with the time of each row.
        progress: Called after each batch of rows.

    Raises:
        ConfigurationError: A column does not exist, or cannot be of the requested kind; names all faults.
        DataError: The table cannot be read.
    """
    summaries = summarize_columns(table, progress)
    choices = {
        name: _choose_column_kind(summary, requested.get(name), timestamp) for name, summary in summaries.items()
    }
    faults = [f"{table.source}: there is no column {name!r}" for name in requested if name not in choices]
    for name, choice in choices.items():
        faults += _find_kind_faults(table, summaries[name], choice)
    for kind, stream in _OUTPUT_STREAMS.items():
        names = [name for name, choice in choices.items() if choice.kind == kind]
        if len(names) > 1:
            faults.append(f"--columns: {' and '.join(names)} cannot both be the {kind} ({stream})")
    if faults:
        raise ConfigurationError(*faults)
    return _find_prediction_columns(choices, requested)


def match_columns(profile: Profile, table: Table) -> dict[str, ColumnChoice]:
    """Returns the column of the data that belongs to each stream of a reference profile."""
    choices: dict[str, ColumnChoice] = {}
    for stream, sketch in profile.streams.items():
        if stream.startswith(semconv.STREAM_INPUT_PREFIX):
            column = stream.removeprefix(semconv.STREAM_INPUT_PREFIX)
            choices[column] = ColumnChoice(column=column, kind=_infer_input_kind(sketch))
    for kind, stream in _OUTPUT_STREAMS.items():
        candidates = (stream, *_OUTPUT_COLUMNS[kind])
        match = next((name for name in candidates if name in table.columns and name not in choices), stream)
        if stream in profile.streams:
            choices[match] = ColumnChoice(column=match, kind=kind)
    return choices


def infer_stream_kind(sketch: StreamSketch | None, stream: str) -> ColumnKind:
    """Returns of which kind the column of a stream is: by its name, or for an input by its reference."""
    kinds = {name: kind for kind, name in _OUTPUT_STREAMS.items()}
    return kinds.get(find_stream_family(stream)) or ("numeric" if sketch is None else _infer_input_kind(sketch))


def build_table_profile(
    table: Table, choices: Mapping[str, ColumnChoice], progress: ProgressCallback = ignore_progress
) -> Profile:
    """Builds the reference profile of a table's columns; the result does not depend on how rows are batched.

    Raises:
        DataError: The table cannot be read.
    """
    judged = [choice for choice in choices.values() if choice.kind != "ignore"]
    streams: dict[str, StreamSketch] = {}
    done = 0
    for batch in table.scan([choice.column for choice in judged]):
        for choice, array in zip(judged, batch.columns, strict=True) if len(batch) else ():
            sketch = _sketch_column(array, table.columns[choice.column], choice)
            total = streams.get(choice.stream_name)
            streams[choice.stream_name] = sketch if total is None else total.merge(sketch)
        done += batch.num_rows
        progress(f"profiling {table.source}", done, max(table.rows, done))
    return replace(Profile.from_data(model=MODEL_NAME), streams=streams)


def describe_predictions(choices: Mapping[str, ColumnChoice]) -> list[str]:
    """Lists sentences that say which columns were taken for predictions because of their names."""
    parts = [f"{choice.column} for its {choice.kind}s" for choice in choices.values() if choice.is_guess]
    if not parts:
        return []
    return [f"By their names, columns are taken for the model's predictions: {', '.join(parts)}; --columns overrules."]


def _find_prediction_columns(
    choices: Mapping[str, ColumnChoice], requested: Mapping[str, ColumnKind]
) -> dict[str, ColumnChoice]:
    """Takes a column with a name such as `prediction` for predictions, unless the user names another one."""
    assigned = dict(choices)
    named = {"value" if kind == "confidence" else kind for kind in requested.values()}
    outputs: tuple[tuple[ColumnKind, tuple[str, ...], ColumnKind], ...] = (
        ("label", _LABEL_NAMES, "category"),
        ("value", _VALUE_NAMES, "numeric"),
    )
    for kind, names, inputs in outputs:
        lower = {choice.column.lower(): choice for choice in choices.values() if choice.kind == inputs}
        match = next((lower[name] for name in names if name in lower and lower[name].column not in requested), None)
        if match is not None and kind not in named:
            assigned[match.column] = replace(match, kind=kind, is_guess=True)
    return assigned


def _find_kind_faults(table: Table, summary: ColumnSummary, choice: ColumnChoice) -> list[str]:
    """Lists why a column cannot be of the kind that the user declares it to be."""
    name = summary.column.name
    if choice.kind == "ignore":
        return []
    if summary.column.kind == "unreadable":
        return [f"{table.source}: column {name!r} is {summary.column.type_name}, which cannot be judged"]
    if choice.kind == "category" or choice.kind == "label":
        return []
    if summary.column.kind in ("time", "boolean"):
        return [f"{table.source}: column {name!r} is {summary.column.type_name}, and not a number"]
    if summary.first_text_row >= 0:
        return [explain_text_fault(table, summary.column, summary.first_text_row, summary.first_text)]
    if choice.kind == "confidence" and summary.outside_row >= 0:
        return [explain_confidence_fault(table, summary.column, summary.outside_row, summary.outside)]
    return []


def explain_text_fault(table: Table, column: TableColumn, row: int, text: str, reason: str = "") -> str:
    """Returns the error message for a text in a column of numbers: where it stands, and what to do."""
    advice = "; --decimal says whether a comma separates the fraction" if "," in text else ""
    if column.decimal == "," and "." in text and not advice:
        advice = "; others have a decimal comma"
    return f"{table.locate(row)}: column {column.name!r}: {text!r} is not a number{reason}{advice}"


def explain_confidence_fault(table: Table, column: TableColumn, row: int, number: float) -> str:
    """Returns the error message for a confidence outside [0, 1], such as a percentage: where it stands."""
    return f"{table.locate(row)}: column {column.name!r}: {number:g} is no confidence, which is within 0 and 1"


def _choose_column_kind(summary: ColumnSummary, requested: ColumnKind | None, timestamp: str | None) -> ColumnChoice:
    name = summary.column.name
    if requested is not None:
        return ColumnChoice(column=name, kind=requested, reason="ignored by --columns" if requested == "ignore" else "")
    if name == timestamp:
        return ColumnChoice(column=name, kind="ignore", reason="the time of each row")
    if summary.column.kind == "unreadable":
        return ColumnChoice(
            column=name, kind="ignore", reason=f"its type, {summary.column.type_name}, cannot be judged"
        )
    kind, reason = _infer_number_kind(summary) if summary.is_number else _infer_text_kind(summary)
    return ColumnChoice(column=name, kind=kind, reason=reason)


def _infer_text_kind(summary: ColumnSummary) -> tuple[ColumnKind, str]:
    present, distinct = summary.present, summary.distinct_count
    if summary.is_time:
        return "ignore", "points in time"
    if summary.column.has_ambiguous_commas:
        return "ignore", "its numbers have a comma; --decimal says whether it separates the fraction"
    if present >= MIN_DISTINCT_ROWS and (distinct > present / 2 or distinct >= MAX_DISTINCT):
        return "ignore", f"an identifier or free text: {distinct} different values in {present} rows"
    return "category", ""


def _infer_number_kind(summary: ColumnSummary) -> tuple[ColumnKind, str]:
    present, distinct = summary.present, summary.distinct_count
    if summary.is_time:
        return "ignore", "points in time"
    if not present or not summary.is_whole:
        return "numeric", ""
    if present >= MIN_DISTINCT_ROWS and (distinct == present or distinct >= MAX_DISTINCT):
        is_sequence = summary.high - summary.low + 1 == present
        if is_sequence or _IDENTIFIER.search(summary.column.name):
            return "ignore", f"an identifier: {distinct} different values in {present} rows"
    is_category = distinct <= MAX_INTEGER_CATEGORIES and distinct * MIN_ROWS_A_CATEGORY <= present
    return ("category" if is_category else "numeric"), ""


def _infer_input_kind(sketch: StreamSketch) -> ColumnKind:
    return "category" if sketch.categories.total > sketch.numbers else "numeric"


def _sketch_column(array: pa.Array, column: TableColumn, choice: ColumnChoice) -> StreamSketch:
    if choice.kind in ("category", "label"):
        labels = parse_cell_labels(array)
        counts: Counter[str] = Counter()
        missing = 0
        for label, count in zip(
            labels.table, np.bincount(labels.codes, minlength=len(labels.table)).tolist(), strict=True
        ):
            if label is None:
                missing += count
            elif count:
                counts[label] += count
        return StreamSketch(
            categories=CategoryCounts(counts=counts), missing=missing if choice.kind == "category" else 0
        )
    values = parse_cell_numbers(array, column.decimal).values
    finite = values[np.isfinite(values)]
    if choice.kind == "confidence":
        histogram = Histogram.from_values(finite, semconv.CONFIDENCE_BOUNDS)
        return StreamSketch(explicit={histogram.bounds: histogram})
    missing = values.size - finite.size if choice.kind == "numeric" else 0
    return StreamSketch(exponential=ExponentialHistogram.from_values(finite), missing=missing)
