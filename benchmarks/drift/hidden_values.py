"""Whether drift is found as soon in what leaves the process as in the values themselves, on the same draws.

A text is counted in one of 64 buckets of a keyed hash; a number in a bucket of an exponential histogram, without
extremes. Each run draws one reference and one traffic, and counts both twice: plain, and as the instrumentation would
export them. Then the processor's own bins and evidence judge both. A run's key is its own, since which words share a
bucket depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from benchmarks.drift.rules import FLEET_LINE
from otel_mlmon.instrumentation.export.bulk import record_values_at_once
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.window.binning import Binning, ClassBins, NumberBins, choose_quantile_bins
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.window import ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.sketch.moments import Moments
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch
from otel_mlmon.types import Floats, ModelKey
from otel_mlmon.vocabulary import TextBuckets

REFERENCE = 10_000
PANE = 100
QUIET_PANES = 60
"""Panes without drift before, in which the design effect is measured."""
MAX_PANES = 300

Rng = np.random.Generator
Draw = Callable[[Rng, int, float], Floats]
"""From a generator, a number of items and their share of the drift, 0 or 1: word numbers or values, shape (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One kind of feature and one drift of it."""

    name: str
    draw: Draw
    is_text: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Items to the alarm by run, infinite where there was none, of the same draws counted in both forms."""

    plain: Floats
    hidden: Floats
    mean_error: float
    """The largest error of a pane's mean, as a share of it; NaN of texts."""

    @property
    def ratio(self) -> float:
        """The median delay of what leaves over that of the plain values."""
        return float(np.median(self.hidden) / np.median(self.plain))


def words(shares: Floats, moved: float, source: int, target: int) -> Draw:
    """Draws word numbers by their shares; drift moves so much of all traffic from one word to another."""
    drifted = shares.copy()
    drifted[source] -= moved
    drifted[target] += moved

    def draw(rng: Rng, items: int, drift: float) -> Floats:
        return rng.choice(shares.size, items, p=shares + drift * (drifted - shares)).astype(np.float64)

    return draw


def zipf(size: int) -> Floats:
    """Returns shares of words that fall as one over their rank."""
    weights = 1.0 / np.arange(1, size + 1)
    shares: Floats = weights / weights.sum()
    return shares


SCENARIOS = (
    Scenario(name="4 words, TV .10", draw=words(np.array([0.4, 0.3, 0.2, 0.1]), 0.10, 0, 1), is_text=True),
    Scenario(name="4 words, TV .07", draw=words(np.array([0.4, 0.3, 0.2, 0.1]), 0.07, 0, 1), is_text=True),
    Scenario(name="20 words, TV .10", draw=words(zipf(20), 0.10, 0, 9), is_text=True),
    Scenario(name="1,000 words, TV .10", draw=words(zipf(1_000), 0.10, 0, 5), is_text=True),
    Scenario(
        name="a new word takes .10",
        draw=words(np.append(zipf(30), 0.0), 0.10, 0, 30),
        is_text=True,
    ),
    Scenario(
        name="Normal(100, 1), mean + .3",
        draw=lambda rng, items, drift: rng.normal(100.0 + 0.3 * drift, 1.0, items),
        is_text=False,
    ),
    Scenario(
        name="Normal(0, 1), spread × 1.3",
        draw=lambda rng, items, drift: rng.normal(0.0, 1.0 + 0.3 * drift, items),
        is_text=False,
    ),
    Scenario(
        name="log-normal, all × 1.35",
        draw=lambda rng, items, drift: rng.lognormal(0.3 * drift, 1.0, items),
        is_text=False,
    ),
    Scenario(
        name="whole numbers 0 to 20, + 1 for a half",
        draw=lambda rng, items, drift: (rng.binomial(20, 0.3, items) + (rng.random(items) < 0.5 * drift)).astype(
            np.float64
        ),
        is_text=False,
    ),
)


def hidden_values(seed: int, scale: float) -> Iterator[str]:
    """Builds the table of paired delays."""
    runs = max(40, int(300 * scale))
    yield f"The same draws, plain and as they leave the process: {runs} runs, a reference of {REFERENCE:,}, panes of"
    yield f"{PANE}, alarm line 6.7e6. Median items to the alarm; the ratio is that of the medians."
    yield ""
    yield "| feature and drift | plain | as it leaves | ratio | no alarm, plain | as it leaves | error of means |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for scenario in SCENARIOS:
        delays = measure(scenario, seed, runs)
        error = "–" if math.isnan(delays.mean_error) else f"{delays.mean_error:.2%}"
        yield (
            f"| {scenario.name} | {np.median(delays.plain):,.0f} | {np.median(delays.hidden):,.0f} "
            f"| {delays.ratio:.3f} | {np.isinf(delays.plain).mean():.3g} | {np.isinf(delays.hidden).mean():.3g} "
            f"| {error} |"
        )
    yield ""
    yield "Where two words share a bucket, which one pair of 64 does, what moves from one to the other is not seen:"
    yield "those are the runs without an alarm."


def measure(scenario: Scenario, seed: int, runs: int) -> Delays:
    """Runs one scenario in both forms."""
    rng = np.random.default_rng([seed, sum(scenario.name.encode())])
    exporter = _Exporter()
    forms = [_FORMS[scenario.is_text](scenario, rng, exporter, run) for run in range(runs)]
    policy = DetectionPolicy(tolerance=0.02, direction="both")
    evaluator = DriftEvaluator(
        policy_for=lambda _: policy, alarm_line_for=lambda _: FLEET_LINE / math.log(10.0), statistics={}
    )
    delays = np.full((2, runs), np.inf)
    largest_error = 0.0
    waiting = list(range(runs))
    for pane in range(QUIET_PANES + MAX_PANES):
        is_drifted = pane >= QUIET_PANES
        windows = []
        for run in waiting:
            values = scenario.draw(rng, PANE, float(is_drifted))
            for form, (reference, binning, sketch_of) in enumerate(forms[run]):
                sketch = sketch_of(values)
                windows.append(_window(f"{form}.{run}", reference, binning, sketch, pane))
                if form and not scenario.is_text:
                    error = abs(sketch.moments.mean - values.mean()) / np.abs(values).mean()
                    largest_error = max(largest_error, float(error))
        for window, score in evaluator.evaluate(windows):
            form, run = map(int, window.stream.stream.split("."))
            if score.state == "drift" and math.isinf(delays[form, run]):
                delays[form, run] = (pane - QUIET_PANES + 1) * PANE if is_drifted else 0.0
        waiting = [run for run in waiting if np.isinf(delays[:, run]).any()]
    return Delays(plain=delays[0], hidden=delays[1], mean_error=math.nan if scenario.is_text else largest_error)


SketchOf = Callable[[Floats], StreamSketch]
Form = tuple[ReferenceCounts, Binning, SketchOf]


def _text_forms(scenario: Scenario, rng: Rng, _exporter: _Exporter, run: int) -> list[Form]:
    buckets = TextBuckets(key="", model=f"model-{run}")
    values = scenario.draw(rng, REFERENCE, 0.0)
    limit = ModelWindowSettings().max_labels

    def count_plain(items: Floats) -> StreamSketch:
        numbers, counts = np.unique(items, return_counts=True)
        names = (f"word {int(number)}" for number in numbers)
        return StreamSketch(categories=CategoryCounts(counts=dict(zip(names, counts.tolist(), strict=True))))

    def count_buckets(items: Floats) -> StreamSketch:
        counts: dict[str, int] = {}
        for word, count in count_plain(items).categories.counts.items():
            name = buckets.assign_bucket(word)
            counts[name] = counts.get(name, 0) + count
        return StreamSketch(categories=CategoryCounts(counts=counts))

    forms: list[Form] = []
    for sketch_of in (count_plain, count_buckets):
        sketch = sketch_of(values)
        binning = ClassBins.choose(sketch, limit=limit, has_missing=True)
        forms.append((_reference(binning, sketch), binning, sketch_of))
    return forms


def _number_forms(scenario: Scenario, rng: Rng, exporter: _Exporter, _run: int) -> list[Form]:
    values = scenario.draw(rng, REFERENCE, 0.0)
    edges = tuple(
        np.unique(np.append(np.quantile(values, np.arange(1, 10) / 10), [values.min(), values.max()])).tolist()
    )
    plain = NumberBins(edges=edges, has_missing=True)

    def count_plain(items: Floats) -> StreamSketch:
        return StreamSketch(explicit={edges: Histogram.from_values(items, edges)})

    sketch = exporter.export(values)
    binning = choose_quantile_bins(sketch, grid=None, has_missing=True)
    return [
        (_reference(plain, count_plain(values)), plain, count_plain),
        (_reference(binning, sketch), binning, exporter.export),
    ]


_FORMS = {True: _text_forms, False: _number_forms}


def _reference(binning: Binning, sketch: StreamSketch) -> ReferenceCounts:
    return ReferenceCounts(bins=binning.bins, counts=binning.count(sketch))


def _window(name: str, reference: ReferenceCounts, binning: Binning, sketch: StreamSketch, pane: int) -> StreamWindow:
    counts = binning.count(sketch)
    return StreamWindow(
        stream=StreamKey(ModelKey("hidden", ""), name),
        start_ns=pane,
        end_ns=pane + 1,
        reference=reference,
        pane=counts,
        rolling=counts,
        rolling_start_ns=pane,
    )


class _Exporter:
    """Counts values as the instrumentation does: in the SDK's exponential histogram, of which only buckets leave."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader(preferred_temporality={SdkHistogram: AggregationTemporality.DELTA})
        views = [View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation())]
        provider = MeterProvider(metric_readers=[self._reader], views=views, shutdown_on_exit=False)
        self._histogram = provider.get_meter("benchmark").create_histogram("h")

    def export(self, values: Floats) -> StreamSketch:
        """Returns what one delta point tells of values, shape (n,)."""
        record_values_at_once(self._histogram, values, {}, are_hidden=True)
        data = self._reader.get_metrics_data()
        assert data is not None
        point: Any = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0]
        return StreamSketch(
            exponential=ExponentialHistogram.from_buckets(
                scale=point.scale,
                zero_count=point.zero_count,
                positive_offset=point.positive.offset,
                positive_counts=np.array(point.positive.bucket_counts, dtype=np.int64),
                negative_offset=point.negative.offset,
                negative_counts=np.array(point.negative.bucket_counts, dtype=np.int64),
                moments=Moments.from_total(count=point.count, total=point.sum),
            )
        )
