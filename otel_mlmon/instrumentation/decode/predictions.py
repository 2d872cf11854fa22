"""OUT Predictions: the predictions of a batch of inference calls, as columns, and how to decode rows of scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.model_identity import MAX_TEXT, ModelIdentity
from otel_mlmon.instrumentation.runtime.call import Item, Shape
from otel_mlmon.types import Bools, Floats, Ints, OutputKind
from otel_mlmon.vocabulary import build_label_attributes

_BLOCK_VALUES: Final = 1 << 16
"""Numbers that are classified at a time: with what is computed from them, they stay in a core's cache."""

_MAX_NARROW: Final = 32
"""Up to so many classes one column after the other: numpy's reductions along a short last axis take ten times as
long."""

_NO_INTS: Final[Ints] = np.zeros(0, dtype=np.int64)
_NO_FLOATS: Final[Floats] = np.zeros(0)

Attributes: TypeAlias = "dict[str, str | int | float]"
"""The attributes of a span or an event."""


class PredictedLabels(NamedTuple):
    """Holds the predicted labels of a batch of inference calls, and the call that each belongs to."""

    codes: Ints = _NO_INTS
    """Shape (m,): positions in `table`, 0 or above."""
    calls: Ints = _NO_INTS
    """Shape (m,): the call of each row, not decreasing."""
    table: Sequence[str] = ()
    declared: Sequence[str] = ()
    """All labels that there are, in an order that every process knows; empty if that is unknown."""


class PredictionConfidences(NamedTuple):
    """Holds the confidences of a batch of inference calls, and the call that each belongs to."""

    values: Floats = _NO_FLOATS
    """Shape (k,), within [0, 1]."""
    calls: Ints = _NO_INTS


_NO_LABELS: Final = PredictedLabels()
_NO_CONFIDENCES: Final = PredictionConfidences()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassificationHead:
    """Holds one classification (labels and confidences) of a batch of inference calls; a model may have several."""

    labels: PredictedLabels = _NO_LABELS
    confidences: PredictionConfidences = _NO_CONFIDENCES
    uncounted: Ints = field(default_factory=lambda: _NO_INTS)
    """Shape (n,), or (0,) for zeros: rows of each call that have no label here, being not copied or without a
    number. Labels and these add up to the rows; of independent labels, the rows that were decoded and these do."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectedItems:
    """Holds how many boxes, tokens or frames each inference call gave, and their confidences."""

    counts: Floats = field(default_factory=lambda: _NO_FLOATS)
    """Shape (c,): how many each call gave that did not fail, zeros too."""
    confidences: Floats = field(default_factory=lambda: _NO_FLOATS)
    """Shape (k,), within [0, 1]: their scores, as far as they were copied; empty where they have none."""


@dataclass(slots=True, kw_only=True)
class InputSummary:
    """Holds the features of the inputs of one or more batches of inference calls."""

    features: dict[str, Floats] = field(default_factory=dict)
    """Finite values by feature."""
    missing: dict[str, int] = field(default_factory=dict)
    """Number of values that are missing, by feature."""
    categories: dict[str, Mapping[str, int]] = field(default_factory=dict)
    """Number of values by category, by feature."""
    samples: int = 0
    """Rows profiled; of several inputs, those of the one with the most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Holds everything that a batch of inference calls of one session predicted, call by call."""

    model: ModelIdentity
    operation: str
    started_ns: Ints
    """Start of each call on the clock of `time.perf_counter_ns`, shape (n,)."""
    duration_ns: Ints
    """Duration of each call, 0 or above; 0 if it was not measured; shape (n,)."""
    contexts: Sequence[object]
    """The OpenTelemetry context of each call."""
    errors: Sequence[str | None]
    """The class of each call's exception."""
    batch_sizes: Ints
    """Shape (n,): true rows of each call; 0 if unknown."""
    heads: Mapping[str, ClassificationHead] = field(default_factory=dict)
    """Classifications by the name of their output, in the model's order; of a model's only head the name is empty."""
    values: Mapping[str, Floats] = field(default_factory=dict)
    """Finite values of regressions by output, of several targets by `<output>.<target>`, of a model's only head by an
    empty name; and lengths of embeddings by `<output>.norm`."""
    items: Mapping[str, DetectedItems] = field(default_factory=dict)
    """Boxes, tokens or frames by output."""
    inputs: InputSummary = field(default_factory=InputSummary)

    @property
    def first_head_name(self) -> str:
        """The name of the output of the first classification, which spans and events show; empty for the only one."""
        return next(iter(self.heads), "")

    @property
    def labels(self) -> PredictedLabels:
        """The labels of the model's first classification."""
        return next((head.labels for head in self.heads.values()), _NO_LABELS)

    @property
    def confidences(self) -> PredictionConfidences:
        """The confidences of the model's first classification."""
        return next((head.confidences for head in self.heads.values()), _NO_CONFIDENCES)


class CallSummary(NamedTuple):
    """Holds what the outputs of one inference call tell for its span: batch size, label and confidence."""

    batch_size: int = 0
    """True rows; 0 if unknown."""
    head_name: str = ""
    label: str | None = None
    """The label of the only row; None of several rows, or where it has none."""
    mean_confidence: float | None = None
    min_confidence: float | None = None


class CallDescription(NamedTuple):
    """Describes one inference call as its span and its event do."""

    model: ModelIdentity
    operation: str
    started_ns: int
    """By `time.perf_counter_ns`."""
    duration_ns: int
    """0 if it was not measured."""
    error_type: str | None
    summary: CallSummary
    context: object = None
    """The captured context of a call that was not decoded yet."""


class CallConfidences(Protocol):
    """The Protocol of the mean and the lowest confidence of n inference calls, NaN for a call without any."""

    @property
    def mean_confidence(self) -> Floats:
        """The mean confidence of the rows of each inference call, shape (n,)."""

    @property
    def min_confidence(self) -> Floats:
        """The lowest confidence of the rows of each inference call, shape (n,)."""


def compute_call_confidences(confidences: PredictionConfidences, calls: int) -> tuple[Floats, Floats]:
    """Computes the mean and the lowest confidence of each inference call; NaN if it has none."""
    rows = np.bincount(confidences.calls, minlength=calls)
    if (rows == 1).all():
        return confidences.values, confidences.values
    lowest = np.full(calls, np.inf)
    np.minimum.at(lowest, confidences.calls, confidences.values)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(confidences.calls, weights=confidences.values, minlength=calls) / rows
    return mean, np.where(rows > 0, lowest, np.nan)


def describe_call(predictions: Predictions, confidences: CallConfidences, call: int) -> CallDescription:
    """Describes one inference call of a batch for its span and event."""
    labels = predictions.labels
    batch_size = int(predictions.batch_sizes[call])
    row = int(np.searchsorted(labels.calls, call)) if batch_size == 1 else labels.calls.size
    has_label = row < labels.calls.size and labels.calls[row] == call
    mean, lowest = float(confidences.mean_confidence[call]), float(confidences.min_confidence[call])
    has_confidence = not math.isnan(mean)
    return CallDescription(
        model=predictions.model,
        operation=predictions.operation,
        started_ns=int(predictions.started_ns[call]),
        duration_ns=int(predictions.duration_ns[call]),
        error_type=predictions.errors[call],
        summary=CallSummary(
            batch_size=batch_size,
            head_name=predictions.first_head_name,
            label=labels.table[int(labels.codes[row])] if has_label else None,
            mean_confidence=mean if has_confidence else None,
            min_confidence=lowest if has_confidence else None,
        ),
    )


def build_call_attributes(call: CallDescription) -> Attributes:
    """Builds the attributes that spans and events of an inference call share, without inputs and raw outputs."""
    model, summary = call.model, call.summary
    attributes: Attributes = {semconv.MODEL_NAME: model.name}
    if model.version:
        attributes[semconv.MODEL_VERSION] = model.version
    if call.duration_ns:
        attributes[semconv.INFERENCE_DURATION] = call.duration_ns / 1e9
    if summary.batch_size:
        attributes[semconv.BATCH_SIZE] = summary.batch_size
    if summary.head_name:
        attributes[semconv.OUTPUT_NAME] = summary.head_name
    if summary.label is not None:
        attributes.update(build_label_attributes(semconv.PREDICTION_LABEL, summary.label))
    if summary.mean_confidence is not None:
        attributes[semconv.PREDICTION_CONFIDENCE] = summary.mean_confidence
        if summary.batch_size > 1 and summary.min_confidence is not None:
            attributes[semconv.PREDICTION_CONFIDENCE_MIN] = summary.min_confidence
    if call.error_type:
        attributes[semconv.ERROR_TYPE] = call.error_type
    return attributes


def build_span_attributes(call: CallDescription) -> Attributes:
    """Builds the attributes of an inference call's span, those of the runtime among them."""
    attributes = build_call_attributes(call)
    attributes.update(call.model.runtime_attributes)
    attributes[semconv.OPERATION_NAME] = call.operation
    return attributes


def decode_classes(kind: OutputKind, rows: NDArray[Any]) -> tuple[Ints, Floats]:
    """Returns class and confidence of each row of `probabilities`, `logits` or `sigmoid`, shape (m, k).

    Of logits, the confidence is the largest value of their softmax, 1 / Σ exp(x - max x). Of a single probability p it
    is max(p, 1 - p), the label 1 from p = 0.5 on; a single logit is the logarithm of its odds.

    Returns:
        The class of each row, -1 where a number is missing; its probability within [0, 1], NaN with -1.
    """
    size = max(1, _BLOCK_VALUES // max(1, rows.shape[1]))
    blocks = [_decode_score_block(kind, rows[first : first + size]) for first in range(0, len(rows), size)]
    if len(blocks) == 1:
        return blocks[0]
    codes, confidences = zip(*blocks, strict=True)
    return np.concatenate(codes), np.concatenate(confidences)


def decode_multi_labels(rows: NDArray[Any]) -> tuple[Ints, Ints, Floats]:
    """Returns the classes above 0.5 in rows of independent probabilities, shape (m, k), and confidences.

    A row has all labels of a probability above 0.5. Its confidence is the mean certainty: of max(p, 1 - p) over all
    labels, since a label that is surely absent is as sure as one that is surely there.

    Returns:
        The labels; the row of each, not decreasing, and within a row the most probable first; the confidence of each
        row, NaN where a number is missing.
    """
    if not rows.size:
        return _NO_INTS, _NO_INTS, _NO_FLOATS
    is_finite: Bools = np.asarray(np.isfinite(rows).all(axis=1))
    values = rows.astype(np.float64) if is_finite.all() else np.where(is_finite[:, None], rows, 0.0).astype(np.float64)
    np.clip(values, 0.0, 1.0, out=values)
    label_rows, codes = np.nonzero(values > 0.5)
    # One key, the row plus what the probability lacks to 1, sorts six times as fast as two.
    order = np.argsort(label_rows + (1 - values[label_rows, codes]), kind="stable")
    certainty = np.maximum(values, 1 - values).mean(axis=1)
    return codes[order], label_rows[order], np.where(is_finite, certainty, np.nan)


def format_class_label(value: object, names: Sequence[str]) -> str:
    """Returns the label of a numeric class: its name if `names` has one at that position, else its digits."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return f"{value:g}" if isinstance(value, float) else str(value)[:MAX_TEXT]


def build_label_table(names: Sequence[str], keys: Sequence[str], classes: int) -> Sequence[str]:
    """Returns the labels of a number of classes: their names, or the keys of a ZipMap output, or numbers."""
    if len(names) == classes:
        return names
    return keys if len(keys) == classes else [str(index) for index in range(classes)]


def read_output_texts(items: Sequence[Item], *, is_ranked: bool = False) -> tuple[list[str], Ints]:
    """Returns the strings of an output, one a row, and the inference call that each is from.

    Args:
        items: The copies.
        is_ranked: Whether a row has several strings, of which the first counts; else rows of several have none.
    """
    parts = [read_row_texts(*item, is_ranked=is_ranked) if type(item) is tuple else () for item in items]
    texts = [str(text)[:MAX_TEXT] for text in itertools.chain.from_iterable(parts)]
    return texts, np.repeat(np.arange(len(parts), dtype=np.int64), list(map(len, parts)))


def read_row_texts(shape: Shape, texts: Any, *, is_ranked: bool) -> tuple[str, ...]:
    """Returns the strings of an output at one inference call, one a row."""
    width = math.prod(shape[1:])
    if width == 1 and isinstance(texts, tuple):
        return texts
    is_complete = bool(width) and isinstance(texts, tuple) and len(texts) % width == 0
    return texts[::width] if is_ranked and is_complete else ()


def encode_distinct_texts(texts: Sequence[str]) -> tuple[Ints, list[str]]:
    """Encodes strings as positions in a table of the distinct strings."""
    table: dict[str, int] = {}
    codes = [table.setdefault(text, len(table)) for text in texts]
    return np.array(codes, dtype=np.int64), list(table)


def _decode_score_block(kind: OutputKind, rows: NDArray[Any]) -> tuple[Ints, Floats]:
    is_narrow = rows.shape[1] <= _MAX_NARROW
    # Classes along the first axis, rows along the second, whichever of them is contiguous in memory.
    table = np.ascontiguousarray(rows.T, dtype=np.float64) if is_narrow else rows.astype(np.float64).T
    is_finite: Bools = np.asarray(np.isfinite(table).all(axis=0))
    is_complete = bool(is_finite.all())
    if not is_complete:
        table = np.where(is_finite, table, 0.0)
    if len(table) == 1:
        codes, confidences = _decode_single_scores(kind, table[0])
    else:
        peaks = table.max(axis=0)
        codes = _find_peak_positions(table, peaks) if is_narrow else table.argmax(axis=0)
        confidences = peaks if kind == "probabilities" else _compute_softmax_peaks(table, peaks)
    confidences = np.clip(confidences, 0.0, 1.0)
    if is_complete:
        return codes, confidences
    return np.where(is_finite, codes, -1), np.where(is_finite, confidences, np.nan)


def _decode_single_scores(kind: OutputKind, values: Floats) -> tuple[Ints, Floats]:
    if kind != "logits":
        return (values >= 0.5).astype(np.int64), np.maximum(values, 1 - values)
    return (values >= 0).astype(np.int64), 1 / (1 + np.exp(-np.abs(values)))


def _compute_softmax_peaks(table: Floats, peaks: Floats) -> Floats:
    with np.errstate(over="ignore"):  # a difference beyond the largest number is -inf, whose power is 0
        peaks_of_softmax: Floats = 1 / np.exp(table - peaks).sum(axis=0)
    return peaks_of_softmax


def _find_peak_positions(table: Floats, peaks: Floats) -> Ints:
    """Returns the position of the first largest value of each row; shape (k, m)."""
    codes = np.full(table.shape[1], len(table) - 1, dtype=np.int64)
    for index in range(len(table) - 2, -1, -1):
        np.copyto(codes, index, where=table[index] == peaks)
    return codes
