"""The reference as the processor has it, a profile: made of rows, or matched with the columns of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.backtest.kinds import Choice, Kind
from otel_mlmon.reference.profile import Profile
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.table.cells import word_of
from otel_mlmon.table.table import Column, Table

MODEL: Final = "backtest"

_OUTPUTS: Final[tuple[tuple[str, Kind, tuple[str, ...]], ...]] = (
    (semconv.STREAM_LABEL, "label", ("label", "prediction", "predicted_label", "y_pred")),
    (semconv.STREAM_CONFIDENCE, "confidence", ("confidence", "y_pred_proba", "probability")),
    (semconv.STREAM_VALUE, "value", ("value", "prediction", "y_pred")),
)
"""Under which names a column holds what the model said; the stream's own name is tried first."""


def profile_of(table: Table, choices: Mapping[str, Choice]) -> Profile:
    """The profile of the columns that are judged."""
    judged = {name: choice for name, choice in choices.items() if choice.kind != "ignore" and table.rows}
    said: dict[Kind, Column] = {choice.kind: table.columns[name] for name, choice in judged.items()}
    labels = said.get("label")
    return Profile.from_data(
        model=MODEL,
        labels=None if labels is None else [word for word in _words(labels) if word is not None],
        confidences=_numbers(said.get("confidence")),
        values=_numbers(said.get("value")),
        features={
            name: _feature(table.columns[name], choice.kind)
            for name, choice in judged.items()
            if choice.kind in ("numeric", "category")
        },
    )


def choices_of(profile: Profile, table: Table) -> dict[str, Choice]:
    """Which column is which stream of a given profile; columns that it has not are left out."""
    choices: dict[str, Choice] = {}
    for name, sketch in profile.streams.items():
        if name.startswith(semconv.STREAM_INPUT_PREFIX):
            column = name.removeprefix(semconv.STREAM_INPUT_PREFIX)
            choices[column] = Choice(column=column, kind=_kind(sketch), why="")
    for stream, kind, names in _OUTPUTS:
        free = (name for name in (stream, *names) if name in table.columns and name not in choices)
        found = next(free, None)
        if stream in profile.streams and found is not None:
            choices[found] = Choice(column=found, kind=kind, why="")
    return choices


def kind_of(sketch: StreamSketch | None, stream: str) -> Kind:
    """What a stream holds, for people."""
    outputs: dict[str, Kind] = {name: kind for name, kind, _ in _OUTPUTS}
    return outputs.get(stream) or ("numeric" if sketch is None else _kind(sketch))


def _kind(sketch: StreamSketch) -> Kind:
    return "category" if sketch.categories.total > sketch.numbers else "numeric"


def _feature(column: Column, kind: Kind) -> NDArray[Any]:
    if kind == "numeric":
        return column.numbers if column.numbers is not None else np.zeros(0)
    return np.array([*_words(column), None], dtype=object)[:-1]  # of texts alone numpy would make a fixed width


def _words(column: Column) -> tuple[str | None, ...]:
    if column.words is not None:
        return column.words
    values, where = np.unique(column.numbers if column.numbers is not None else np.zeros(0), return_inverse=True)
    words = [word_of(value) for value in values.tolist()]
    return tuple(words[position] for position in where.tolist())


def _numbers(column: Column | None) -> NDArray[np.float64] | None:
    return None if column is None else column.numbers
