from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.internal_events import JOURNAL
from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.counts import Samples, samples_of
from otel_mlmon.processor.detect.evaluator import Evaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy
from otel_mlmon.processor.detect.score import Score, Statistics, StatisticValue, StatisticValues
from otel_mlmon.processor.detect.statistics.registry import NEEDS_ORDER, STATISTICS
from otel_mlmon.processor.detect.threshold import Threshold
from otel_mlmon.processor.window.window import Bins, Reference, StreamKey, Window
from otel_mlmon.types import ModelKey

LABELS = StreamKey(ModelKey("digits", "1"), "prediction.label")
OTHER = StreamKey(ModelKey("digits", "2"), "prediction.label")
SHARES = np.array([0.4, 0.3, 0.2, 0.1])
MOVED = np.array([0.1, 0.2, 0.3, 0.4])
BINS = Bins(names=("a", "b", "c", "d"), is_ordered=False)
REFERENCE = Reference(bins=BINS, counts=np.array([4_000, 3_000, 2_000, 1_000]))
LINE = 6.8


def window(
    pane: NDArray[np.int64], *, stream: StreamKey = LABELS, reference: Reference | None = REFERENCE, end: int = 10
) -> Window:
    return Window(
        stream=stream,
        start_ns=end - 10,
        end_ns=end,
        reference=reference,
        learned=123,
        pane=pane,
        rolling=pane * 2,
        rolling_start_ns=0,
    )


def feed(
    monitor: Evaluator, shares: NDArray[np.float64], panes: int, *, seed: int = 0, start: int = 0,
    stream: StreamKey = LABELS,
) -> list[Score]:  # fmt: skip
    counts = np.random.default_rng(seed).multinomial(200, shares, size=panes)
    return [
        monitor.observe(
            window(pane, stream=stream, end=(start + index + 1) * 10),
            tolerance=0.02,
            direction="both",
            log10_alarm_line=LINE,
        )
        for index, pane in enumerate(counts)
    ]


def faults() -> int:
    totals = JOURNAL.totals(semconv.FAILURES.name)
    return sum(count for attributes, count in totals.items() if ("stage", "drift") in attributes)


def test_learning() -> None:
    score = Evaluator().observe(
        window(np.zeros(0, dtype=np.int64), reference=None), tolerance=0.02, direction="both", log10_alarm_line=LINE
    )
    assert score == Score(status="learning", log10_evidence=0.0, log10_alarm_line=LINE, reference_count=123)
    assert score.margin == -math.inf


def test_calibrating_ok_drift_ok() -> None:
    monitor = Evaluator()
    statuses = [score.status for score in feed(monitor, SHARES, 20)]
    assert statuses == ["calibrating"] * 8 + ["ok"] * 12
    drifting = feed(monitor, MOVED, 10, start=20)
    alarm = drifting[-1]
    assert [score.status for score in drifting] == ["drift"] * 10
    assert alarm.margin >= 0.0
    assert alarm.since_ns == 200
    assert int(np.argmax(alarm.contributions)) == 3
    assert (alarm.reference_count, alarm.current_count) == (10_000, 400)
    after = [score.status for score in feed(monitor, SHARES, 60, start=30)]
    assert after[0] == "drift"
    assert after[-1] == "ok"


def test_reports_the_rolling_window() -> None:
    monitor = Evaluator()
    pane = np.array([10, 20, 30, 40])
    score = monitor.observe(window(pane), tolerance=0.02, direction="both", log10_alarm_line=LINE)
    expected: dict[str, StatisticValue] = {}
    for name in [name for name in STATISTICS if name not in NEEDS_ORDER]:
        found = STATISTICS[name](samples_of(REFERENCE.counts, pane * 2))
        p_value, noise = (None if number is None else float(number) for number in (found.p_value, found.noise))
        expected[name] = StatisticValue(value=float(found.value), p_value=p_value, noise=noise)
    assert score.statistics == Statistics.of(expected)
    ordered = Reference(bins=Bins(names=BINS.names, is_ordered=True), counts=REFERENCE.counts)
    score = monitor.observe(window(pane, reference=ordered), tolerance=0.02, direction="both", log10_alarm_line=LINE)
    assert score.statistics.names == tuple(STATISTICS)


@pytest.mark.parametrize(
    "changed",
    [
        Reference(bins=BINS, counts=np.array([4_001, 3_000, 2_000, 1_000])),
        Reference(bins=Bins(names=("a", "b", "c", "e"), is_ordered=False), counts=REFERENCE.counts),
    ],
)
def test_another_reference_starts_anew(changed: Reference) -> None:
    monitor = Evaluator()
    feed(monitor, SHARES, 20)
    assert feed(monitor, MOVED, 5)[-1].status == "drift"
    score = monitor.observe(
        window(np.array([1, 2, 3, 4]), reference=changed), tolerance=0.02, direction="both", log10_alarm_line=LINE
    )
    assert (score.status, score.log10_evidence) == ("calibrating", 0.0)


def test_an_equal_reference_does_not() -> None:
    monitor = Evaluator()
    feed(monitor, SHARES, 20)
    equal = Reference(bins=Bins(names=BINS.names, is_ordered=False), counts=REFERENCE.counts.copy())
    score = monitor.observe(
        window(np.array([4, 3, 2, 1]), reference=equal), tolerance=0.02, direction="both", log10_alarm_line=LINE
    )
    assert score.status == "ok"


def test_restored_is_uninterrupted() -> None:
    whole, before, after = Evaluator(), Evaluator(), Evaluator()
    feed(whole, SHARES, 20)
    feed(before, SHARES, 20)
    after.restore(LABELS, json.loads(json.dumps(before.state(LABELS))))
    assert feed(after, MOVED, 10, start=20) == feed(whole, MOVED, 10, start=20)
    assert after.state(LABELS) == whole.state(LABELS)


def test_forgotten_starts_anew() -> None:
    monitor = Evaluator()
    feed(monitor, SHARES, 20)
    monitor.forget(LABELS)
    monitor.forget(LABELS)
    assert monitor.streams() == ()
    with pytest.raises(KeyError):
        monitor.state(LABELS)
    assert feed(monitor, SHARES, 1)[0].status == "calibrating"


@pytest.mark.guarded
def test_a_bad_pane_keeps_its_evidence_and_stops_no_other() -> None:
    monitor, alone = Evaluator(), Evaluator()
    for each in (monitor, alone):
        feed(each, SHARES, 20)
        feed(each, MOVED, 5, start=20)
    told = faults()
    bad = monitor.observe(window(np.array([1, 2, 3])), tolerance=0.02, direction="both", log10_alarm_line=LINE)
    assert faults() > told
    assert (bad.status, bad.statistics) == ("drift", Statistics())
    assert monitor.state(LABELS) == alone.state(LABELS)
    assert feed(monitor, SHARES, 3, stream=OTHER) == feed(alone, SHARES, 3, stream=OTHER)


@pytest.mark.guarded
def test_a_bad_reference_is_as_if_there_was_none() -> None:
    monitor = Evaluator()
    feed(monitor, SHARES, 20)
    impossible = Reference(bins=BINS, counts=np.array([1, 2, 3, -4]))
    score = monitor.observe(
        window(np.array([1, 2, 3, 4]), reference=impossible), tolerance=0.02, direction="both", log10_alarm_line=LINE
    )
    assert (score.status, score.reference_count) == ("learning", 2)


@pytest.mark.guarded
def test_a_bad_statistic_takes_nothing_with_it() -> None:
    def broken(_samples: Samples, /) -> StatisticValues:
        raise ZeroDivisionError

    monitor = Evaluator(statistics={"broken": broken, "psi": STATISTICS["psi"]})
    score = feed(monitor, SHARES, 1)[0]
    assert (score.status, score.statistics.names) == ("calibrating", ("psi",))


def test_an_empty_pane_and_an_empty_reference() -> None:
    empty = Reference(bins=BINS, counts=np.zeros(4, dtype=np.int64))
    score = Evaluator().observe(
        window(np.zeros(4, dtype=np.int64), reference=empty), tolerance=0.02, direction="down", log10_alarm_line=LINE
    )
    assert (score.status, score.since_ns, score.design_effect) == ("calibrating", 0, 1.0)
    assert {value.value for _, value in score.statistics.items()} == {0.0}


def test_together_is_one_by_one() -> None:
    """Streams of different bins, directions and references, some with two panes, one that learns: exactly the same."""
    rng = np.random.default_rng(12)
    together, alone = Evaluator(), Evaluator()
    kinds = []
    for index in range(12):
        bins = (2, 4, 10)[index % 3]
        names = tuple(str(place) for place in range(bins))
        reference = Reference(
            bins=Bins(names=names, is_ordered=index % 2 == 0), counts=rng.multinomial(5_000, np.full(bins, 1 / bins))
        )
        direction: Direction = ("both", "up", "down")[index % 4 % 3]
        watch = DetectionPolicy(tolerance=0.02, direction=direction)
        kinds.append((StreamKey(ModelKey("m", str(index)), "input.x"), reference, watch))
    for pane in range(25):
        batch = []
        for key, reference, watch in kinds:
            for _ in range(1 + (rng.random() < 0.3)):
                shares = rng.dirichlet(np.full(reference.bins.count, 300.0 if key.model.version > "5" else 1.0))
                counts = rng.multinomial(100, shares)
                is_learning = key.model.version == "7" and pane < 5
                batch.append(
                    (window(counts, stream=key, reference=None if is_learning else reference, end=pane + 1), watch)
                )
        one_by_one = [
            alone.observe(each, tolerance=watch.tolerance, direction=watch.direction, log10_alarm_line=LINE)
            for each, watch in batch
        ]
        assert together.observe_all(batch, log10_alarm_line=LINE) == one_by_one
    assert [together.state(key) for key, _, _ in kinds] == [alone.state(key) for key, _, _ in kinds]
    assert len({score.status for score in one_by_one}) > 1


@pytest.mark.guarded
def test_a_pane_with_negative_counts_stops_no_other() -> None:
    monitor, alone = Evaluator(), Evaluator()
    watch = DetectionPolicy(tolerance=0.02, direction="both")
    good = window(np.array([4, 3, 2, 1]), stream=OTHER)
    told = faults()
    bad, score = monitor.observe_all([(window(np.array([4, -3, 2, 1])), watch), (good, watch)], log10_alarm_line=LINE)
    assert faults() > told
    assert (bad.status, bad.log10_evidence) == ("calibrating", 0.0)
    assert [score] == alone.observe_all([(good, watch)], log10_alarm_line=LINE)


def test_thresholds_are_judged_on_the_rolling_window() -> None:
    watch = DetectionPolicy(
        tolerance=0.02,
        direction="both",
        thresholds=(
            Threshold(statistic="psi", above=0.2),
            Threshold(statistic="chi_squared", p_below=1e-3),
            Threshold(statistic="wasserstein", above=1.0),
        ),
    )
    few, many = (window(np.array([1, 2, 3, 4]) * times) for times in (1, 10))
    # Of classes there is no Wasserstein distance.
    scores = [Evaluator().observe_all([(each, watch)], log10_alarm_line=LINE)[0] for each in (few, many)]
    assert [[verdict.verdict for verdict in score.thresholds] for score in scores] == [
        ["too few values", "breached"],
        ["breached", "breached"],
    ]


@pytest.mark.parametrize("coarser", [[4_000, 6_000], [4_000, 3_500, 1_500, 1_000]])
def test_other_cuts_of_the_same_values_keep_what_was_known(coarser: list[int]) -> None:
    ordered = Reference(bins=Bins(names=("low", "middle", "high", "top"), is_ordered=True), counts=REFERENCE.counts)
    names = tuple(f"cut {index}" for index in range(len(coarser)))
    recut = Reference(bins=Bins(names=names, is_ordered=True), counts=np.array(coarser))
    monitor = Evaluator()
    for number in range(20):
        known = monitor.observe(
            window(np.array([400, 300, 200, 100]), reference=ordered, end=number * 10 + 10),
            tolerance=0.02, direction="both", log10_alarm_line=LINE,
        )  # fmt: skip
    assert known.status == "ok"
    pane = np.zeros(len(coarser), dtype=np.int64)
    pane[0] = 1_000
    drifted = monitor.observe(
        window(pane, reference=recut, end=210), tolerance=0.02, direction="both", log10_alarm_line=LINE
    )
    assert (drifted.status, drifted.design_effect) == ("drift", known.design_effect)
    restored = Evaluator()
    restored.restore(LABELS, json.loads(json.dumps(monitor.state(LABELS))))
    again = [
        each.observe(window(pane, reference=recut, end=220), tolerance=0.02, direction="both", log10_alarm_line=LINE)
        for each in (monitor, restored)
    ]
    assert again[0] == again[1]
    assert again[0].log10_evidence > drifted.log10_evidence - 1e-9
