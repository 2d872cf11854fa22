"""Runs a real model while it is monitored, and holds what is reported against the package's own answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.models.catalogue import Answer, Model
from otel_mlmon import semconv
from otel_mlmon.testing import Captured, capture

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "models.md"

CONFIDENCE_TOLERANCE: Final = 1e-4
"""Difference of a confidence to the package's own, which computes in single precision."""

VALUE_TOLERANCE: Final = 1e-2
"""Relative difference of a sum of values: it is that of the buckets' middles in an exponential histogram."""

MAX_LABELS: Final = 512
"""Labels counted by name, so that the most classes of a model are not in buckets."""

TIMED_ONLY: Final = "timed only"

_CLAIMS: Final = (
    semconv.PREDICTIONS, semconv.CONFIDENCE, semconv.VALUE, semconv.ITEMS, semconv.ITEM_CONFIDENCE,
)  # fmt: skip
"""Metrics that say what a model predicted."""


_HEAD: Final = """\
# What is reported of real models

Models that others trained and publish by pip with their weights, scikit-learn's, LightGBM's and XGBoost's on
scikit-learn's data, and three of them in 8 bits by `quantize_static`; each instrumented without a word on what it is,
one sample a call. What its package makes of the same inputs, or of the same raw outputs, is computed beside it and must
agree. Written by `make models-table`; the end-to-end suite measures each line again.
"""

_LEGEND: Final = """
“Error” is the largest difference of a confidence; of values and of lengths of embeddings, the relative difference of
their sum, which a histogram keeps to the middle of its buckets. A label that the model's file does not name is a
position. The raw scores of scikit-learn's classifiers may be logits or distances: the label alone is reported.

“Timed only” is an output of which no label, confidence or value is reported, since neither the model's file nor its
name says enough, or it is not one prediction a sample; durations, batch sizes and inputs are. Where you know better,
`ModelOptions(output_kind=…)` says so.

| model | package | output | what it is | reported | labels | error | verdict |
|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One output of one model: the truth, the report, and the verdict."""

    model: str
    package: str
    output: str
    truth: str
    report: str
    labels: str = "–"
    confidence: str = "–"
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was reported of a model, with one sample a call."""

    findings: dict[str, str]
    """Findings by subject."""
    labels: list[str | None]
    """Label of each call's span."""
    confidences: list[float]
    """Confidence of each call's span; NaN where it has none."""
    counts: Counter[str]
    """Predictions by label."""
    values: dict[str, tuple[int, float]]
    """Count and sum of `ml.prediction.value` by output."""
    claims: frozenset[str]
    """Names of the metrics that say what was predicted."""


def compare_model(model: Model) -> list[Line]:
    """Runs the model under monitoring; returns a line an output.

    Raises:
        RuntimeError: A call was not recorded, or something failed inside.
    """
    state: dict[str, Any] = {}
    outputs = []
    with capture(max_labels=MAX_LABELS) as captured:
        for feed in model.feeds:
            outputs.append(model.session.run(None, {**feed, **state}))
            state = {name: outputs[-1][position] for name, position in model.fed_back.items()}
        captured.flush()
        report = _read(captured, len(model.feeds))
    answers = model.read(outputs)
    claims = report.claims - _expected_claims(report, answers)
    return [_judge(model, output, answer, report, claims=claims) for output, answer in answers.items()]


def format_line(line: Line) -> str:
    """Formats a row of the table."""
    cells = (
        line.model, line.package, f"`{line.output}`", line.truth,
        line.report, line.labels, line.confidence, line.verdict,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def render(lines: Sequence[Line]) -> str:
    """Renders the page."""
    verdicts = Counter(line.verdict for line in lines)
    models = len({(line.model, line.package) for line in lines})
    summary = (
        f"**{models} models, {len(lines)} outputs: {verdicts['right']} right, {verdicts[TIMED_ONLY]} timed only,"
        f" {verdicts['wrong']} wrong.**"
    )
    return "\n".join([_HEAD, summary, _LEGEND, *map(format_line, lines), ""])


def _read(captured: Captured, calls: int) -> Report:
    status = captured.handle.status()
    spans = [dict(span.attributes or {}) for span in captured.spans]
    if status.failures or status.dropped_calls or len(spans) != calls:
        raise RuntimeError(f"{len(spans)} of {calls} calls recorded; {status.failures}; {status.dropped_calls}")
    metrics = captured.metrics()
    counts: Counter[str] = Counter()
    values = {}
    for point in _points(metrics, semconv.PREDICTIONS):
        counts[str(point.attributes[semconv.PREDICTION_LABEL])] += point.value
    for point in _points(metrics, semconv.VALUE):
        values[str(point.attributes.get(semconv.OUTPUT_NAME, ""))] = (point.count, point.sum)
    return Report(
        findings=next(iter(status.findings.values()), {}),
        labels=[span.get(semconv.PREDICTION_LABEL) for span in spans],  # type: ignore[misc]
        confidences=[float(span.get(semconv.PREDICTION_CONFIDENCE, np.nan)) for span in spans],  # type: ignore[arg-type]
        counts=counts,
        values=values,
        claims=frozenset(metric.name for metric in _CLAIMS if _points(metrics, metric)),
    )


def _points(metrics: dict[str, Any], metric: semconv.Metric) -> Sequence[Any]:
    return metrics[metric.name].data.data_points if metric.name in metrics else ()


def _kind_of(report: Report, output: str) -> str:
    """The kind that was reported of an output; empty if it was timed only."""
    word = report.findings.get(f"output {output}", "")
    return "" if not word or TIMED_ONLY in word else word


def _expected_claims(report: Report, answers: Mapping[str, Answer]) -> set[str]:
    """The metrics that the answers about what was reported call for."""
    reported = [answer for output, answer in answers.items() if _kind_of(report, output)]
    expected = {semconv.PREDICTIONS.name for answer in reported if answer.labels}
    expected |= {semconv.CONFIDENCE.name for answer in reported if answer.confidences}
    return expected | {semconv.VALUE.name for answer in reported if answer.values}


def _judge(model: Model, output: str, answer: Answer, report: Report, *, claims: frozenset[str]) -> Line:
    kind = _kind_of(report, output)
    labels = confidence = "–"
    faults = [f"reported {claim}" for claim in sorted(claims)]
    if kind and kind not in answer.kinds:
        faults.append(f"taken for {kind}")
    elif kind:
        if answer.labels:
            agreed, total = _agree_labels(answer, report)
            labels = f"{agreed}/{total}"
            faults += ["labels differ"] if agreed < total else []
        error = _largest_error(output, answer, report)
        if error is not None:
            confidence = f"{error:.1e}"
            tolerance = CONFIDENCE_TOLERANCE if answer.confidences else VALUE_TOLERANCE
            faults += [] if error <= tolerance else ["confidences or values differ"]
    shown = output if len(output) <= 32 else output[:31] + "…"
    return Line(
        model=model.name,
        package=model.package,
        output=shown.replace("|", ""),
        truth=answer.truth,
        report=(kind or TIMED_ONLY) + (f" ({', '.join(faults)})" if faults else ""),
        labels=labels,
        confidence=confidence,
        verdict="wrong" if faults else "right" if kind else TIMED_ONLY,
    )


def _agree_labels(answer: Answer, report: Report) -> tuple[int, int]:
    """Counts the labels on which both agree: call by call, and where a call has several, in all."""
    if "multi_label" in answer.kinds:
        own = Counter(label for labels in answer.labels for label in labels)
        return (own & report.counts).total(), max(own.total(), report.counts.total())
    pairs = zip(answer.labels, report.labels, strict=True)
    agreed = sum(label == labels[0] for labels, label in pairs)
    is_counted = report.counts == Counter(labels[0] for labels in answer.labels)
    return agreed if is_counted else 0, len(answer.labels)


def _largest_error(output: str, answer: Answer, report: Report) -> float | None:
    if answer.confidences:
        errors = np.abs(np.array(answer.confidences) - np.array(report.confidences))
        return float("inf") if np.isnan(errors).any() else float(errors.max())
    if answer.values:
        name = f"{output}.norm" if "embedding" in answer.kinds else ""
        count, total = report.values.get(name) or report.values.get(output) or (0, 0.0)
        own = float(np.sum(answer.values))
        return abs(total - own) / abs(own) if count == len(answer.values) else float("inf")
    return None
