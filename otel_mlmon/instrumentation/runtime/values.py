"""Copies the arguments of `observe()`: numbers, texts, sequences of them, and tables of scores.

A text or number is kept, since it cannot change; of a sequence the values are copied, as many as the bounds here allow.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

import numpy as np

from otel_mlmon.instrumentation.runtime.call import RECORD_BYTES, Item, ObservedValues, Scalar

MAX_FEATURES: Final = 1024
"""Features of a call that are copied, the first ones; `max_features` decides how many of them are profiled."""

MAX_ROWS: Final = 4096
"""Rows of a batch that are copied; a larger one is thinned at a constant step, and its size stays true."""

MAX_SCORE_BYTES: Final = 65_536
"""Bytes of the scores of a batch that are copied; more rows are thinned likewise."""

MAX_CHARACTERS: Final = 256
"""Characters of a text that are copied."""

VALUE_BYTES: Final = 100
"""Bytes of a value with its place in a mapping; a text's characters come on top."""

SMALL_FEATURES: Final = 32
SMALL_BYTES: Final = RECORD_BYTES + (SMALL_FEATURES + 3) * VALUE_BYTES + 2 * 4 * MAX_CHARACTERS
"""Bytes at most of a call of so many features, if its label and all their texts together are short: such a call is
appended by the short way."""

Features: TypeAlias = Mapping[str, Any]

Outcome: TypeAlias = tuple[Any, Any, Any, Any]
"""Label, confidence, value and scores."""

UNREADABLE: Final = (TypeError, ValueError, OverflowError, RuntimeError)
"""The exceptions of values that cannot be read: a RuntimeError is PyTorch's, of a tensor that requires its gradient."""

_UNREADABLE: Final = object()
"""Stands for an entry that cannot be read, where None is an entry."""

_NUMBERS: Final = frozenset({int, float, bool, type(None)})
_SCALARS: Final = frozenset({str, *_NUMBERS})


def is_small_outcome(outcome: Outcome) -> bool:
    """Returns whether a prediction given to `observe()` is of one row and needs no copy."""
    label = outcome[0]
    return (
        (len(label) <= MAX_CHARACTERS if type(label) is str else type(label) in _NUMBERS)
        and _NUMBERS.issuperset(map(type, outcome[1:3]))
        and outcome[3] is None
    )


def copy_observed_outcome(outcome: Outcome) -> Outcome:
    """Copies the label, confidence, value and scores given to `observe()`.

    Raises:
        TypeError: One is neither a number nor a text, nor a sequence of them; or another one of `UNREADABLE`.
        ValueError: One has too many dimensions.
    """
    label, confidence, value, scores = outcome
    return (
        _copy_observed_value(label),
        _copy_observed_value(confidence),
        _copy_observed_value(value),
        _copy_scores(scores),
    )


def copy_readable_values(
    features: Features | None, outcome: Outcome
) -> tuple[Mapping[str, Scalar | ObservedValues] | None, Outcome, dict[str, int]]:
    """Copies what can be read of the features, label, confidence, value and scores given to `observe()`.

    Returns:
        Features and outcome, None where nothing can be read; and how many values of each argument could not be read,
        but for those of features, which are missing.
    """
    counts: dict[str, int] = {}
    copies: list[Any] = []
    for name, value in zip(("label", "confidence", "value"), outcome, strict=False):
        copy, count = _copy_readable_entries(value)
        copies.append(copy)
        if count:
            counts[name] = count
    try:
        copies.append(_copy_scores(outcome[3]))
    except UNREADABLE:
        copies.append(None)
        counts["scores"] = 1
    readable: Mapping[str, Scalar | ObservedValues] | None = None
    try:
        readable = copy_observed_features(features)[0]
    except UNREADABLE:
        counts["features"] = 1
    label, confidence, value, scores = copies
    return readable, (label, confidence, value, scores), counts


def copy_observed_features(features: Features | None) -> tuple[Mapping[str, Scalar | ObservedValues] | None, bool]:
    """Copies the features given to `observe()`, by name, and returns whether they are small.

    Raises:
        TypeError: They are no mapping; or another one of `UNREADABLE`.
    """
    if features is None:
        return None, True
    if type(features) is dict and len(features) <= SMALL_FEATURES:
        values = features.values()
        if _NUMBERS.issuperset(map(type, values)):
            return features.copy(), True
        if _SCALARS.issuperset(map(type, values)):
            characters = sum([len(value) for value in values if type(value) is str])
            if characters <= MAX_CHARACTERS:
                return features.copy(), True
    items = itertools.islice(dict(features).items(), MAX_FEATURES)
    return {str(name)[:MAX_CHARACTERS]: _copy_readable_entries(value)[0] for name, value in items}, False


def _copy_readable_entries(value: Any) -> tuple[Scalar | ObservedValues, int]:
    """Copies a value or a sequence, with None in the place of what cannot be read; returns how many could not."""
    try:
        return _copy_observed_value(value), 0
    except UNREADABLE:
        pass
    try:
        entries = np.asarray(value)
    except UNREADABLE:
        return None, 1
    if entries.ndim != 1:
        return None, 1
    copies = list(map(_copy_readable_entry, entries[:: -(-len(entries) // MAX_ROWS)].tolist()))
    count = copies.count(_UNREADABLE)
    if count == len(copies):
        return None, 1
    return ObservedValues(len(entries), tuple(None if copy is _UNREADABLE else copy for copy in copies)), count


def _copy_readable_entry(value: Any) -> Any:
    try:
        return _copy_scalar(value)
    except UNREADABLE:
        return _UNREADABLE


def _copy_observed_value(value: Any) -> Scalar | ObservedValues:
    """Copies one feature given to `observe()`: a text, a number, or a sequence of them.

    Raises:
        TypeError: It is neither.
        ValueError: It is a table of more than one column.
    """
    if value is None or isinstance(value, (str, int, float, np.generic)):
        return _copy_scalar(value)
    if isinstance(value, (list, tuple)):
        values = value[:: -(-len(value) // MAX_ROWS) or 1]
        if _SCALARS.issuperset(map(type, values)):
            return ObservedValues(len(value), tuple(map(_copy_scalar, values)))
    array = np.asarray(value)
    if not array.ndim:
        return _copy_scalar(array.item())
    size = len(array)
    if array.size != size:
        raise ValueError(f"a sequence of values is expected, not an array of shape {array.shape}")
    return ObservedValues(size, tuple(map(_copy_scalar, array.ravel()[:: -(-size // MAX_ROWS) or 1].tolist())))


def _copy_scalar(value: Any) -> Scalar:
    if type(value) in _NUMBERS:
        return cast("Scalar", value)
    if isinstance(value, str):
        return str.__str__(value)[:MAX_CHARACTERS]
    if isinstance(value, (int, float)):
        return float(value) if isinstance(value, float) else int(value)
    if isinstance(value, np.generic):
        return _copy_scalar(value.item())
    raise TypeError(f"a number or a text is expected, not {type(value).__name__}")


def to_nanoseconds(duration_s: float) -> int:
    """Converts a duration in seconds to whole nanoseconds.

    Raises:
        ValueError: It is negative or no number; or another one of `UNREADABLE`.
    """
    duration_ns = int(duration_s * 1e9)
    if duration_ns < 0:
        raise ValueError("duration_s must be 0 or above")
    return duration_ns


def _copy_scores(scores: Any) -> Item:
    """Copies scores given to `observe()` as a table of rows, as many as fit."""
    if scores is None:
        return None
    table = np.atleast_2d(np.asarray(scores))
    if table.ndim != 2:
        raise ValueError(f"scores of shape (k,) or (n, k) are expected, not {table.shape}")
    size, width = table.shape
    if width * 8 > MAX_SCORE_BYTES * 16:
        return table.shape, b""
    max_rows = max(MAX_SCORE_BYTES // max(width * 8, 1), 1)
    return table.shape, table[:: -(-size // max_rows) or 1].astype(np.float64).tobytes()


def estimate_observed_bytes(features: Mapping[str, Scalar | ObservedValues] | None, outcome: Sequence[Any]) -> int:
    """Estimates how many bytes of memory a call of `observe()` takes in the queue."""
    weight = RECORD_BYTES
    for item in (*(features or {}).values(), *outcome):
        if isinstance(item, ObservedValues):
            weight += sum(map(_estimate_scalar_bytes, item.values))
        elif isinstance(item, tuple):
            weight += VALUE_BYTES + len(item[1])
        else:
            weight += _estimate_scalar_bytes(item)
    return weight


def _estimate_scalar_bytes(value: Any) -> int:
    return VALUE_BYTES + len(value) if isinstance(value, str) else VALUE_BYTES
