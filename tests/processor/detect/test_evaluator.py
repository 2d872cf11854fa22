from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon import semconv
from otel_mlmon.internal_events import JOURNAL
from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.processor.detect.evaluator import DriftEvaluator
from otel_mlmon.processor.detect.policy import DetectionPolicy, Threshold
from otel_mlmon.processor.detect.score import DriftScore, Statistics, ThresholdVerdict
from otel_mlmon.processor.detect.state import StreamColumns
from otel_mlmon.processor.detect.statistics.statistic import Statistic
from otel_mlmon.processor.state.repository import decode_record, encode_record
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.types import ModelKey
from tests.support.evidence import plain

LABELS = StreamKey(ModelKey("digits", "1"), "prediction.label")
OTHER = StreamKey(ModelKey("digits", "2"), "prediction.label")
SHARES = np.array([0.4, 0.3, 0.2, 0.1])
MOVED = np.array([0.1, 0.2, 0.3, 0.4])
BINS = HistogramBins(names=("a", "b", "c", "d"), is_ordered=False)
REFERENCE = ReferenceCounts(bins=BINS, counts=np.array([4_000, 3_000, 2_000, 1_000]))
ORDERED = ReferenceCounts(
    bins=HistogramBins(names=("low", "middle", "high", "top"), is_ordered=True), counts=REFERENCE.counts
)
LINE = 6.8
POLICY = DetectionPolicy(tolerance=0.02, direction="both")


@dataclass
class Bench:
    """An evaluator with a policy for every stream, and the numbers of streams it asked an alarm line for."""

    policies: dict[StreamKey, DetectionPolicy | None] = field(default_factory=dict)
    statistics: Mapping[str, Statistic] | None = None
    watched: list[int] = field(default_factory=list)
    queries: list[StreamKey] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.evaluator = DriftEvaluator(
            policy_for=self.policy_for, alarm_line_for=self.alarm_line, statistics=self.statistics
        )

    def policy_for(self, stream: StreamKey) -> DetectionPolicy | None:
        self.queries.append(stream)
        return self.policies.get(stream, POLICY)

    def alarm_line(self, streams: int) -> float:
        self.watched.append(streams)
        return LINE

    def score(self, pane: StreamWindow) -> DriftScore:
        """The score of the only window."""
        ((scored, score),) = self.evaluator.evaluate([pane])
        assert scored is pane
        return score

    def measure(self, pane: StreamWindow) -> Statistics:
        """The statistics of one rolling window."""
        assert pane.reference is not None
        (statistics,) = self.evaluator.measure([(pane.reference, pane.rolling)])
        return statistics

    def feed(
        self, shares: NDArray[np.float64], panes: int, *, seed: int = 0, start: int = 0, stream: StreamKey = LABELS
    ) -> list[DriftScore]:
        counts = np.random.default_rng(seed).multinomial(200, shares, size=panes)
        return [
            self.score(window(pane, stream=stream, end=(start + index + 1) * 10)) for index, pane in enumerate(counts)
        ]


def window(
    pane: NDArray[np.int64], *, stream: StreamKey = LABELS, reference: ReferenceCounts | None = REFERENCE, end: int = 10
) -> StreamWindow:
    return StreamWindow(
        stream=stream,
        start_ns=end - 10,
        end_ns=end,
        reference=reference,
        learned=123,
        pane=pane,
        rolling=pane * 2,
        rolling_start_ns=0,
    )


def faults() -> int:
    totals = JOURNAL.read_totals(semconv.FAILURES.name)
    return sum(count for attributes, count in totals.items() if ("stage", "drift") in attributes)


def test_learning() -> None:
    bench = Bench()
    score = bench.score(window(np.array([4, 1]), reference=None))
    assert score == DriftScore(
        state="learning", log10_evidence=0.0, log10_alarm_line=LINE, reference_count=123, current_count=10
    )
    assert score.margin == -math.inf
    assert LABELS not in bench.evaluator.streams()


def test_calibrating_ok_drift_ok() -> None:
    bench = Bench()
    scores = bench.feed(SHARES, 20)
    assert [score.state for score in scores] == ["learning"] * 8 + ["ok"] * 12
    assert [score.is_calibrating for score in scores] == [True] * 8 + [False] * 12
    assert scores[-1].since_ns == 0
    drifting = bench.feed(MOVED, 10, start=20)
    alarm = drifting[-1]
    assert [score.state for score in drifting] == ["drift"] * 10
    assert alarm.margin >= 0.0
    assert alarm.log10_evidence == pytest.approx(LINE + 2.0)
    assert alarm.since_ns == 200
    assert int(np.argmax(alarm.contributions)) == 3
    assert (alarm.reference_count, alarm.current_count, alarm.log10_alarm_line) == (10_000, 400, LINE)
    after = [score.state for score in bench.feed(SHARES, 60, start=30)]
    assert after[0] == "drift"
    assert after[-1] == "ok"


def test_only_a_window_that_a_threshold_judges_is_measured_at_once() -> None:
    judged = replace(POLICY, thresholds=(Threshold(statistic="psi", above=0.2),))
    bench = Bench(policies={LABELS: judged})
    panes = [window(np.array([10, 20, 30, 40]), stream=stream) for stream in (LABELS, OTHER)]
    (_, measured), (_, unmeasured) = bench.evaluator.evaluate(panes)
    assert measured.statistics == bench.measure(panes[0])
    assert unmeasured == Bench().score(panes[1]).replace(statistics=None)
    assert (unmeasured.current_count, unmeasured.thresholds) == (200, ())


@pytest.mark.parametrize(
    "changed",
    [
        ReferenceCounts(bins=BINS, counts=np.array([4_001, 3_000, 2_000, 1_000])),
        ReferenceCounts(bins=HistogramBins(names=("a", "b", "c", "e"), is_ordered=False), counts=REFERENCE.counts),
    ],
)
def test_another_reference_starts_anew(changed: ReferenceCounts) -> None:
    bench = Bench()
    bench.feed(SHARES, 20)
    assert bench.feed(MOVED, 5)[-1].state == "drift"
    score = bench.score(window(np.array([1, 2, 3, 4]), reference=changed))
    assert (score.state, score.is_calibrating, score.log10_evidence) == ("learning", True, 0.0)


def test_an_equal_reference_does_not() -> None:
    bench = Bench()
    bench.feed(SHARES, 20)
    equal = ReferenceCounts(bins=HistogramBins(names=BINS.names, is_ordered=False), counts=REFERENCE.counts.copy())
    assert bench.score(window(np.array([4, 3, 2, 1]), reference=equal)).state == "ok"


@pytest.mark.parametrize(
    "policy",
    [DetectionPolicy(tolerance=0.03, direction="both"), DetectionPolicy(tolerance=0.02, direction="up")],
)
@pytest.mark.parametrize("reference", [REFERENCE, ORDERED])
def test_another_policy_starts_anew(policy: DetectionPolicy, reference: ReferenceCounts) -> None:
    """Also where the bins are others of the same values, which keep their evidence otherwise."""
    former, bench = Bench(), Bench(policies={LABELS: policy})
    former.feed(SHARES, 20)
    bench.evaluator.restore([LABELS], former.evaluator.pack([LABELS]))
    score = bench.score(window(np.array([4, 3, 2, 1]), reference=reference))
    assert (score.state, score.is_calibrating) == ("learning", True)


def test_restored_is_uninterrupted() -> None:
    uninterrupted, former, bench = Bench(), Bench(), Bench()
    uninterrupted.feed(SHARES, 20)
    former.feed(SHARES, 20)
    bench.evaluator.restore([LABELS], decode_record(encode_record(former.evaluator.pack([LABELS])), StreamColumns))
    assert bench.feed(MOVED, 10, start=20) == uninterrupted.feed(MOVED, 10, start=20)
    assert plain(bench.evaluator.pack([LABELS])) == plain(uninterrupted.evaluator.pack([LABELS]))


def test_what_is_restored_takes_the_place_of_what_was_there() -> None:
    bench = Bench()
    bench.feed(SHARES, 20)
    calibrated = bench.evaluator.pack([LABELS])
    bench.feed(MOVED, 10, start=20)
    bench.evaluator.restore([LABELS], calibrated)
    assert plain(bench.evaluator.pack([LABELS])) == plain(calibrated)
    bench.feed(SHARES, 1, stream=OTHER)
    assert bench.evaluator._banks[4, "both"]._row_count == 2


def test_forgotten_starts_anew() -> None:
    bench = Bench()
    bench.feed(SHARES, 20)
    assert list(bench.evaluator.streams()) == [LABELS]
    bench.evaluator.remove_stream(LABELS)
    bench.evaluator.remove_stream(LABELS)
    assert LABELS not in bench.evaluator.streams()
    with pytest.raises(KeyError):
        bench.evaluator.pack([LABELS])
    assert bench.feed(SHARES, 1)[0].is_calibrating


def test_a_stream_that_loses_its_reference_loses_its_evidence() -> None:
    bench = Bench()
    bench.feed(SHARES, 20)
    assert bench.score(window(np.array([4, 3, 2, 1]), reference=None)).reference_count == 123
    assert LABELS not in bench.evaluator.streams()
    assert bench.feed(SHARES, 1)[0].is_calibrating


def test_a_stream_without_a_policy_is_not_evaluated() -> None:
    bench = Bench(policies={OTHER: None})
    windows = [window(np.array([4, 3, 2, 1]), stream=stream) for stream in (OTHER, LABELS, OTHER)]
    assert [scored.stream for scored, _ in bench.evaluator.evaluate(windows)] == [LABELS]
    assert bench.evaluator.find_detection_policy(OTHER) is None
    assert bench.watched == [1]


def test_a_policy_is_asked_for_once_until_the_stream_is_forgotten() -> None:
    bench = Bench()
    bench.feed(SHARES, 3)
    bench.feed(SHARES, 3, stream=OTHER)
    assert bench.evaluator.find_detection_policy(LABELS) == POLICY
    assert bench.queries == [LABELS, OTHER]
    bench.evaluator.remove_stream(LABELS)
    bench.feed(SHARES, 1)
    assert bench.queries == [LABELS, OTHER, LABELS]


def test_the_budget_is_over_every_stream_with_a_reference() -> None:
    """Those with evidence, and those that get it now; not those that learn."""
    bench = Bench()
    pane = np.array([4, 3, 2, 1])
    learning = StreamKey(ModelKey("digits", "3"), "prediction.label")
    bench.evaluator.evaluate([window(pane), window(pane), window(pane, stream=learning, reference=None)])
    bench.evaluator.evaluate([window(pane, stream=OTHER)])
    bench.evaluator.evaluate([])
    bench.evaluator.remove_stream(LABELS)
    bench.evaluator.evaluate([window(pane, stream=OTHER)])
    assert bench.watched == [1, 2, 2, 1]


@pytest.mark.guarded
def test_a_bad_pane_keeps_its_evidence_and_stops_no_other() -> None:
    bench, alone = Bench(), Bench()
    for one in (bench, alone):
        one.feed(SHARES, 20)
        one.feed(MOVED, 5, start=20)
    before = faults()
    pane = window(np.array([1, 2, 3]))
    bad = bench.score(pane)
    assert faults() == before + 1
    assert (bad.state, bad.current_count) == ("drift", 12)
    assert bench.measure(pane) == Statistics()
    assert faults() == before + 2
    assert plain(bench.evaluator.pack([LABELS])) == plain(alone.evaluator.pack([LABELS]))
    assert bench.feed(SHARES, 3, stream=OTHER) == alone.feed(SHARES, 3, stream=OTHER)


@pytest.mark.guarded
def test_a_bad_reference_is_as_if_there_was_none() -> None:
    bench = Bench()
    bench.feed(SHARES, 20)
    impossible = ReferenceCounts(bins=BINS, counts=np.array([1, 2, 3, -4]))
    score = bench.score(window(np.array([1, 2, 3, 4]), reference=impossible))
    assert (score.state, score.is_calibrating, score.reference_count) == ("learning", False, 2)
    assert LABELS not in bench.evaluator.streams()


def test_an_empty_pane_and_an_empty_reference() -> None:
    empty = ReferenceCounts(bins=BINS, counts=np.zeros(4, dtype=np.int64))
    bench = Bench(policies={LABELS: DetectionPolicy(tolerance=0.02, direction="down")})
    pane = window(np.zeros(4, dtype=np.int64), reference=empty)
    score = bench.score(pane)
    assert (score.is_calibrating, score.since_ns, score.design_effect) == (True, 0, 1.0)
    assert set(bench.measure(pane).values) == {0.0}


def test_together_is_one_by_one() -> None:
    """Streams of different bins, directions and references, some with two panes, one that learns: exactly the same."""
    rng = np.random.default_rng(12)
    together, alone = Bench(), Bench()
    references = {}
    for index in range(12):
        bins = (2, 4, 10)[index % 3]
        names = tuple(str(number) for number in range(bins))
        stream = StreamKey(ModelKey("m", str(index)), "input.x")
        references[stream] = ReferenceCounts(
            bins=HistogramBins(names=names, is_ordered=index % 2 == 0),
            counts=rng.multinomial(5_000, np.full(bins, 1 / bins)),
        )
        direction: Direction = ("both", "up", "down")[index % 4 % 3]
        for bench in (together, alone):
            bench.policies[stream] = DetectionPolicy(tolerance=0.02, direction=direction)
    for pane in range(25):
        windows = []
        for stream, reference in references.items():
            for _ in range(1 + (rng.random() < 0.3)):
                shares = rng.dirichlet(np.full(reference.bins.count, 300.0 if stream.model.version > "5" else 1.0))
                counts = rng.multinomial(100, shares)
                is_learning = stream.model.version == "7" and pane < 5
                windows.append(
                    window(counts, stream=stream, reference=None if is_learning else reference, end=pane + 1)
                )
        one_by_one = [(pane, alone.score(pane)) for pane in windows]
        assert together.evaluator.evaluate(windows) == one_by_one
    states = [[plain(bench.evaluator.pack([stream])) for stream in references] for bench in (together, alone)]
    assert states[0] == states[1]
    assert len(Counter(score.state for _, score in one_by_one)) > 1


@pytest.mark.guarded
def test_a_pane_with_negative_counts_stops_no_other() -> None:
    good, bad = window(np.array([4, 3, 2, 1]), stream=OTHER), window(np.array([4, -3, 2, 1]))
    before = faults()
    (_, spoilt), (_, score) = Bench().evaluator.evaluate([bad, good])
    assert faults() == before + 1
    assert (spoilt.is_calibrating, spoilt.log10_evidence) == (True, 0.0)
    assert score == Bench().score(good)


def test_thresholds_are_judged_on_the_rolling_window() -> None:
    policy = replace(
        POLICY,
        thresholds=(
            Threshold(statistic="psi", above=0.2),
            Threshold(statistic="chi_squared", p_below=1e-3),
            Threshold(statistic="wasserstein", above=1.0),
        ),
    )
    # There is no Wasserstein distance of classes.
    scores = [Bench(policies={LABELS: policy}).score(window(np.array([1, 2, 3, 4]) * times)) for times in (1, 10)]
    assert [[verdict.verdict for verdict in score.thresholds] for score in scores] == [
        ["too few values", "breached"],
        ["breached", "breached"],
    ]
    statistics = scores[1].statistics
    assert statistics is not None
    psi = statistics.values[statistics.names.index("psi")]
    assert scores[1].thresholds[0] == ThresholdVerdict(
        statistic="psi", is_p_value=False, value=psi, bound=0.2, min_count=60, verdict="breached"
    )


@pytest.mark.parametrize("coarser", [[4_000, 6_000], [4_000, 3_500, 1_500, 1_000]])
def test_other_bins_of_the_same_values_keep_the_evidence(coarser: list[int]) -> None:
    names = tuple(f"cut {index}" for index in range(len(coarser)))
    rebinned = ReferenceCounts(bins=HistogramBins(names=names, is_ordered=True), counts=np.array(coarser))
    bench = Bench()
    for number in range(20):
        former = bench.score(window(np.array([400, 300, 200, 100]), reference=ORDERED, end=number * 10 + 10))
    assert former.state == "ok"
    pane = np.zeros(len(coarser), dtype=np.int64)
    pane[0] = 1_000
    drifted = bench.score(window(pane, reference=rebinned, end=210))
    assert (drifted.state, drifted.design_effect, drifted.since_ns) == ("drift", former.design_effect, 200)
    restored = Bench()
    restored.evaluator.restore([LABELS], bench.evaluator.pack([LABELS]))
    again = [one.score(window(pane, reference=rebinned, end=220)) for one in (bench, restored)]
    assert again[0] == again[1]
    assert again[0].log10_evidence > drifted.log10_evidence - 1e-9


@pytest.mark.parametrize(
    "other",
    [
        ReferenceCounts(bins=HistogramBins(names=("x", "y", "z", "w"), is_ordered=False), counts=REFERENCE.counts),
        ReferenceCounts(bins=HistogramBins(names=("x", "y", "z", "w"), is_ordered=True), counts=REFERENCE.counts + 1),
        ReferenceCounts(bins=ORDERED.bins, counts=REFERENCE.counts[::-1]),
    ],
    ids=["not ordered", "other values", "same names"],
)
def test_what_is_not_the_same_values_in_other_bins_starts_anew(other: ReferenceCounts) -> None:
    bench = Bench()
    for number in range(20):
        former = bench.score(window(np.array([400, 300, 200, 100]), reference=ORDERED, end=number * 10 + 10))
    assert former.state == "ok"
    assert bench.score(window(np.array([400, 300, 200, 100]), reference=other, end=210)).is_calibrating
