"""Decodes predictions that the application reported by `observe()`, instead of a model's tensors.

Scores are decoded as the output of any model is. A label or confidence that was reported comes before theirs.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import numpy as np

from otel_mlmon import semconv
from otel_mlmon.instrumentation.decode.batch import CallBatch, split_copies_by_call
from otel_mlmon.instrumentation.decode.decoder import (
    CallDecoder,
    DeclaredModelOptions,
    TensorDecoder,
    make_text_pseudonymizer,
)
from otel_mlmon.instrumentation.decode.findings import ModelFindings
from otel_mlmon.instrumentation.decode.model_identity import MAX_TEXT, find_model_name
from otel_mlmon.instrumentation.decode.predictions import (
    CallSummary,
    ClassificationHead,
    InputSummary,
    PredictedLabels,
    PredictionConfidences,
    Predictions,
    encode_distinct_texts,
    format_class_label,
)
from otel_mlmon.instrumentation.runtime.call import ObservedItem, ObservedValues, Plan, Scalar, Side
from otel_mlmon.internal_events import JOURNAL, ValuesDropped, ValuesUnreadable
from otel_mlmon.types import Floats, Ints
from otel_mlmon.vocabulary import Vocabulary

MAX_LABELS: Final = 50
"""Labels of one plan that leave at most, beside the declared ones."""

VALUE: Final = "value"
"""The name of the output that holds reported numbers."""

EXPECTED: Final = {
    "label": "a text or a number, or a sequence of one a row",
    "confidence": "a number, or a sequence of one a row",
    "value": "a number, or a sequence of one a row",
    "scores": "numbers of shape (k,) or (n, k)",
    "features": "a mapping of names to values",
    "duration_s": "a number of seconds, 0 or above",
    "version": "a text",
    "runtime": "a text",
}
"""The values that can be read, by argument of `observe()`."""

_NUMBERS: Final = frozenset({int, float, bool, type(None)})
_ABSENT_TEXTS: Final = frozenset({"", "None", "nan"})


def make_call_decoder(
    plan: Plan,
    *,
    options: Callable[[str], DeclaredModelOptions],
    max_features: int,
    findings: ModelFindings | None = None,
) -> CallDecoder:
    """Makes the decoder of a session's calls: for tensors of a runtime, or for predictions of `observe()`.

    Args:
        plan: What was copied.
        options: Returns what the developer declared of the model of a name.
        max_features: Features profiled at most.
        findings: Takes what is inferred.
    """
    decoder = ObservationDecoder if plan.is_observed else TensorDecoder
    return decoder(plan, options=options, max_features=max_features, findings=findings)


class ObservationDecoder:
    """Decodes predictions that were reported by `observe()`; its arguments are those of `make_call_decoder`."""

    def __init__(
        self,
        plan: Plan,
        *,
        options: Callable[[str], DeclaredModelOptions],
        max_features: int,
        findings: ModelFindings | None = None,
    ) -> None:
        model_options = options(find_model_name(plan.session))
        scores_plan = dataclasses.replace(plan, inputs=(), outputs=plan.outputs[-1:], is_observed=False)
        self._scores = TensorDecoder(scores_plan, options=options, max_features=0, findings=findings)
        self.model = self._scores.model
        self._class_names = [str(name)[:MAX_TEXT] for name in model_options.labels]
        # A text that the caller reports as a label is one; of many different ones it must be something else.
        self._vocabulary = Vocabulary(limit=max(MAX_LABELS, len(self._class_names)))
        self._vocabulary.limit_names(dict.fromkeys(self._class_names, 1))
        self._namer = make_text_pseudonymizer(plan, model_options, find_model_name(plan.session))
        self._categorical = frozenset(model_options.categorical or ())
        self._max_features = max_features
        self._are_categories: dict[str, bool | None] = {}
        """Whether each feature is a category, by name; None until a value shows it."""
        self._findings = findings or ModelFindings()
        self._unreadable: set[str] = set()
        """Arguments that could not be read, of which was warned."""

    def decode_batch(self, batch: CallBatch) -> Predictions:
        """Decodes a batch of one or more calls of `observe()` into predictions and features."""
        labels, confidences, values, scores = map(split_copies_by_call, batch.outputs)
        features, unreadable = map(split_copies_by_call, batch.inputs)
        predictions = self._scores.decode_batch(dataclasses.replace(batch, inputs=(), outputs=(scores,)))
        inputs, input_sizes = self._summarize_features(cast("Sequence[Any]", features))
        rows_of_columns = [_flatten_argument(cast("Sequence[Any]", column)) for column in (labels, confidences, values)]
        sizes = predictions.batch_sizes
        for column_sizes in (*(rows.sizes for rows in rows_of_columns), input_sizes):
            sizes = np.where(sizes > 0, sizes, column_sizes)
        label_rows, confidence_rows, value_rows = rows_of_columns
        numbers = _convert_to_numbers(value_rows.values)
        texts = sum(isinstance(value, str) for value in value_rows.values)
        self._report_unreadable([*cast("Sequence[Any]", unreadable), {"value": texts} if texts else None])
        derived = next(iter(predictions.heads.values()), ClassificationHead())
        is_reported = label_rows.sizes > 0
        unlabelled = label_rows.sizes - np.bincount(label_rows.calls, minlength=len(label_rows.sizes))
        head = ClassificationHead(
            labels=_merge_labels(self._decode_labels(label_rows), derived.labels),
            confidences=_merge_confidences(_decode_confidences(confidence_rows), derived.confidences),
            uncounted=np.where(is_reported, unlabelled, derived.uncounted if derived.uncounted.size else 0),
        )
        return dataclasses.replace(
            predictions,
            batch_sizes=sizes,
            heads={"": head} if head.labels.calls.size or head.confidences.calls.size or head.uncounted.any() else {},
            values={"": numbers[np.isfinite(numbers)]} if numbers.size else {},
            inputs=inputs,
        )

    def read_call(self, inputs: Side, outputs: Side) -> CallSummary | None:
        """Reads label and confidence of one call of `observe()` without side effects; None if only a batch can."""
        features: Any = inputs[0] if inputs else None
        label, confidence, value, scores = cast("Sequence[Any]", outputs) or (None,) * 4
        given = (label, confidence, value, *(features or {}).values())
        if scores is not None or any(isinstance(item, ObservedValues) for item in given):
            return None
        if label is not None:
            label = self._vocabulary.find_counted_name(self._format_label(label))
            if label is None:
                return None
        has_rows = any(item is not None for item in (label, confidence, value))
        if not has_rows and features:
            if self._are_categories.keys().isdisjoint(features) and self._max_features:
                return None
            has_rows = bool(self._max_features)
        number = _convert_to_number(confidence)
        ratio = number if 0 <= number <= 1 else None
        return CallSummary(int(has_rows), label=label, mean_confidence=ratio, min_confidence=ratio)

    def _report_unreadable(self, items: Sequence[Mapping[str, int] | None]) -> None:
        """Counts the values that could not be read, by argument, and warns of each argument once."""
        counts: Counter[str] = Counter()
        for item in items:
            counts.update(item or {})
        for argument, count in counts.items():
            JOURNAL.emit_event(ValuesUnreadable(count=count))
            if argument not in self._unreadable:
                self._unreadable.add(argument)
                finding = (
                    f"cannot be read and is left out of calls, which are recorded without it; {EXPECTED[argument]} is "
                    f"expected ({semconv.VALUES_DROPPED.name} counts what is left out)"
                )
                self._findings.note_finding(self.model.name, f"{argument} of observe()", finding, is_warning=True)

    def _decode_labels(self, rows: _ArgumentRows) -> PredictedLabels:
        codes, table = encode_distinct_texts([self._format_label(value) for value in rows.values])
        names = [next(iter(self._vocabulary.limit_names({label: 1}))) for label in table]
        return PredictedLabels(codes, rows.calls, names, self._class_names)

    def _format_label(self, value: Scalar) -> str:
        if isinstance(value, str):
            return value[:MAX_TEXT]
        return self._namer.pseudonymize_number_label(format_class_label(value, self._class_names))

    def _summarize_features(
        self, items: Sequence[dict[str, Scalar | ObservedValues] | None]
    ) -> tuple[InputSummary, Ints]:
        """Summarizes the features that calls of `observe()` gave; also returns the rows of each call."""
        columns: dict[str, list[Scalar]] = {}
        sizes = np.zeros(len(items), dtype=np.int64)
        samples = 0
        for call, features in enumerate(items):
            copied_rows = 0
            for name, value in (features or {}).items():
                if name not in self._are_categories and not self._admit_feature(name):
                    continue
                column = columns.setdefault(name, [])
                if isinstance(value, ObservedValues):
                    column.extend(value.values)
                    copied_rows = max(copied_rows, len(value.values))
                    sizes[call] = max(sizes[call], value.size)
                else:
                    column.append(value)
                    copied_rows, sizes[call] = max(copied_rows, 1), max(sizes[call], 1)
            samples += copied_rows
        inputs = InputSummary(samples=samples)
        for name, values in columns.items():
            self._summarize_feature(name, values, inputs)
        return inputs, sizes

    def _admit_feature(self, name: str) -> bool:
        if len(self._are_categories) >= self._max_features:
            if self._max_features:
                finding = f"more than {self._max_features} features, the first ones are profiled (max_features)"
                self._findings.note_finding(self._scores.model.name, "inputs", finding)
            return False
        self._are_categories[name] = True if name in self._categorical else None
        return True

    def _summarize_feature(self, name: str, values: list[Scalar], inputs: InputSummary) -> None:
        is_category, missing_count = self._are_categories[name], 0
        if is_category is None:
            first = next((value for value in values if value is not None), None)
            is_category = self._are_categories[name] = None if first is None else isinstance(first, (str, bool))
        if is_category:
            counts: Counter[str] = Counter()
            for are_texts in (True, False):
                column = [_format_category(value) for value in values if isinstance(value, str) is are_texts]
                texts = Counter(column)
                missing_count += sum(texts.pop(text, 0) for text in _ABSENT_TEXTS)
                counts.update(self._namer.count_categories(name, texts, are_texts=are_texts))
            if counts:
                inputs.categories[name] = counts
        else:
            numbers = _convert_to_numbers(values)
            finite = numbers[np.isfinite(numbers)]
            missing_count = len(numbers) - len(finite)
            if finite.size:
                inputs.features[name] = finite
        if missing_count:
            inputs.missing[name] = missing_count


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ArgumentRows:
    """Holds one argument of `observe()`, such as the labels, over a batch of calls, without calls that lack it."""

    values: list[Scalar]
    """m values."""
    calls: Ints
    """Shape (m,): the call of each, not decreasing."""
    sizes: Ints
    """Shape (n,): true rows of each call; 0 if it has none."""


def _flatten_argument(items: Sequence[ObservedItem]) -> _ArgumentRows:
    batches = [
        item
        if isinstance(item, ObservedValues)
        else ObservedValues(0, ())
        if item is None
        else ObservedValues(1, (cast("Scalar", item),))
        for item in items
    ]
    calls = np.repeat(np.arange(len(items), dtype=np.int64), [len(rows.values) for rows in batches])
    values = [value for rows in batches for value in rows.values]
    if None in values:
        is_present = [value is not None for value in values]
        calls, values = calls[is_present], [value for value in values if value is not None]
    sizes = np.array([rows.size for rows in batches], dtype=np.int64)
    return _ArgumentRows(values=values, calls=calls, sizes=sizes)


def _convert_to_numbers(values: Sequence[Scalar]) -> Floats:
    """Converts values given to `observe()` to floats, NaN where a value is no number."""
    if _NUMBERS.issuperset(map(type, values)):
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            pass
    return np.array([_convert_to_number(value) for value in values], dtype=np.float64)


def _convert_to_number(value: Scalar) -> float:
    if value is None or isinstance(value, str):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _format_category(value: Scalar) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None or not math.isfinite(_convert_to_number(value)) else format_class_label(value, ())


def _decode_confidences(rows: _ArgumentRows) -> PredictionConfidences:
    numbers = _convert_to_numbers(rows.values)
    is_valid = (numbers >= 0) & (numbers <= 1)
    invalid_count = len(numbers) - int(is_valid.sum())
    if invalid_count:
        JOURNAL.emit_event(ValuesDropped(reason="confidence_out_of_range", count=invalid_count))
    return PredictionConfidences(numbers[is_valid], rows.calls[is_valid])


def _merge_labels(reported: PredictedLabels, derived: PredictedLabels) -> PredictedLabels:
    """Returns the labels that were reported, and for calls without them those with the greatest score."""
    if not derived.calls.size or not reported.calls.size:
        return reported if reported.calls.size else derived
    is_other = ~np.isin(derived.calls, reported.calls)
    calls = np.concatenate([reported.calls, derived.calls[is_other]])
    codes = np.concatenate([reported.codes, derived.codes[is_other] + len(reported.table)])
    order = np.argsort(calls, kind="stable")
    return PredictedLabels(
        codes[order], calls[order], [*reported.table, *derived.table], reported.declared or derived.declared
    )


def _merge_confidences(reported: PredictionConfidences, derived: PredictionConfidences) -> PredictionConfidences:
    """Returns the confidences that were reported, and for calls without them those of the scores."""
    if not derived.calls.size or not reported.calls.size:
        return reported if reported.calls.size else derived
    is_other = ~np.isin(derived.calls, reported.calls)
    calls = np.concatenate([reported.calls, derived.calls[is_other]])
    values = np.concatenate([reported.values, derived.values[is_other]])
    order = np.argsort(calls, kind="stable")
    return PredictionConfidences(values[order], calls[order])
