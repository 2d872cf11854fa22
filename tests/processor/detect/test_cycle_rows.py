"""Daily cycles that are told of many panes at once, against cycles that are told of each pane by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_mlmon.processor.detect.cycle import DailyCycle, start_daily_cycle
from otel_mlmon.processor.detect.cycles import StreamCycles, compute_utc_offset_ns
from otel_mlmon.processor.detect.evidence import EvidenceBank
from otel_mlmon.processor.detect.state import DAY_NS, CycleState
from otel_mlmon.processor.state.repository import encode_record
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, StreamKey, StreamWindow
from otel_mlmon.types import ModelKey
from tests.support.cycles import MONDAY

ZONES = ("", "Asia/Kathmandu", "America/New_York")
BINS = HistogramBins(names=("a", "b", "c"), is_ordered=False)
PANE_NS = 450 * 10**9
PANES = DAY_NS // PANE_NS
MARCH = 20_520
"""8 March 2026, a Sunday on which the clocks of New York change."""


@dataclass
class ToldCycle:
    """One stream with a daily cycle that is told of each pane by itself, and its row of a bank."""

    zone: str
    reference: ReferenceCounts
    bank: EvidenceBank
    row: int
    cycle: DailyCycle | None = None

    def judge(self, window: StreamWindow, evidence: float) -> None:
        offset_ns = compute_utc_offset_ns(self.zone, window.start_ns)
        local_ns = window.start_ns + offset_ns
        if self.cycle is None:
            self.restore(start_daily_cycle(local_ns, BINS.names, self.zone))
        assert self.cycle is not None
        if self.cycle.advance(local_ns, float(self.bank.effects.estimate[self.row])):
            self.bank.relearn_design_effects([self.row], [self.cycle.list_residuals()])
        self.cycle.compare_with_week(local_ns, window.pane, float(self.bank.effects.estimate[self.row]))
        self.bank.slots.write([self.row], [self.cycle.find_slot_hypothesis(local_ns)])
        self.cycle.add(local_ns, window.pane, evidence=evidence)

    def restore(self, state: CycleState) -> None:
        counts = self.reference.counts.astype(np.float64)
        shares = (counts + 0.5) / (counts.sum() + counts.size / 2.0)
        self.cycle = DailyCycle(state, reference=shares, reference_count=self.reference.total, is_learned=True)


def build_bank(references: list[ReferenceCounts]) -> EvidenceBank:
    bank = EvidenceBank(3)
    for reference in references:
        bank.add(reference.counts, 0.02)
    return bank


def slots_of(bank: EvidenceBank, rows: NDArray[np.intp]) -> object:
    slots = bank.slots.stack(rows, bank.column)
    return None if slots is None else [column.tolist() for column in slots]


def draw_evidence(rng: np.random.Generator, pane: int) -> float:
    """Draws evidence that is 0 mostly, is loud for an hour on some days, and for long on a few."""
    day, hour = divmod(pane * 24 // PANES, 24)
    if day in (4, 11) and hour >= 22:
        return 0.8
    if day == 9 and 3 <= hour < 11:
        return 0.6
    return float(rng.choice([0.0, 0.0, 0.1, 0.3]))


@pytest.mark.parametrize(("first_day", "seed"), [(MONDAY, 1), (MARCH, 2)])
def test_cycles_are_those_that_are_told_of_each_pane(first_day: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    references = [ReferenceCounts(bins=BINS, counts=np.array([3_000, 2_000, 500 + place])) for place in range(3)]
    keys = [StreamKey(ModelKey("m", "1"), f"input.{place}") for place in range(3)]
    bank, other = build_bank(references), build_bank(references)
    cycles = StreamCycles(lambda key: ZONES[keys.index(key)])
    told = [ToldCycle(ZONES[place], references[place], other, place) for place in range(3)]
    kinds = set[int]()
    for pane in range(16 * PANES):
        start_ns = first_day * DAY_NS + pane * PANE_NS + (7 * 10**9 if pane > 9 * PANES else 0)
        weekday = (start_ns // DAY_NS + 3) % 7
        # One stream is silent on a day, and one has less on some days; a Sunday is unlike other days, as is a Thursday.
        present = [place for place in range(3) if not (place == 2 and pane // PANES == 5)]
        is_rest = weekday == 6 or (weekday == 3 and pane // PANES > 12)
        counts = rng.multinomial(
            400 if pane // PANES != 8 else 20, [0.4, 0.5, 0.1] if is_rest else [0.55, 0.35, 0.1], 3
        )
        evidence = np.array([draw_evidence(rng, pane) for _ in range(3)])
        windows = [
            StreamWindow(
                stream=keys[place], start_ns=start_ns, end_ns=start_ns + PANE_NS, reference=references[place],
                pane=counts[place], rolling=counts[place], rolling_start_ns=start_ns,
            )
            for place in present
        ]  # fmt: skip
        rows = np.array(present, dtype=np.intp)
        times_ns = np.array([start_ns] * len(rows)), np.array([start_ns + PANE_NS] * len(rows))
        cycles.advance(windows, bank, rows, times_ns[0])
        cycles.add(windows, bank, rows, times_ns, counts[rows].astype(np.float64), evidence[rows])
        for place, window in zip(present, windows, strict=True):
            told[place].judge(window, float(evidence[place]))
        assert slots_of(bank, rows) == slots_of(other, rows)
        assert bank.effects.estimate[:3].tolist() == other.effects.estimate[:3].tolist()
        if pane % 97 == 0:
            for place in present:
                cycle = told[place].cycle
                assert cycle is not None
                assert encode_record(cycles.state(keys[place])) == encode_record(cycle.state)
                kinds.add(0 if cycle._model is None else len(cycle._model.shares))
    assert kinds >= {0, 1, 2}
    assert [encode_record(cycles.state(key)) for key in keys] == [
        encode_record(stream.cycle.state) for stream in told if stream.cycle is not None
    ]


def test_a_stream_that_leaves_its_row_keeps_what_its_cycle_has() -> None:
    reference = ReferenceCounts(bins=BINS, counts=np.array([3_000, 2_000, 500]))
    bank, cycles, key = build_bank([reference, reference]), StreamCycles(), StreamKey(ModelKey("m", "1"), "input.0")
    pane = np.array([5, 6, 7])

    def add(row: int, start_ns: int) -> None:
        window = StreamWindow(
            stream=key, start_ns=start_ns, end_ns=start_ns + PANE_NS, reference=reference, pane=pane, rolling=pane,
            rolling_start_ns=start_ns,
        )  # fmt: skip
        rows, times_ns = np.array([row]), (np.array([window.start_ns]), np.array([window.end_ns]))
        cycles.advance([window], bank, rows, times_ns[0])
        cycles.add([window], bank, rows, times_ns, pane[None].astype(np.float64), np.zeros(1))

    add(0, MONDAY * DAY_NS)
    add(0, MONDAY * DAY_NS + PANE_NS)
    cycles.leave_row(key)
    add(1, MONDAY * DAY_NS + 2 * PANE_NS)
    assert cycles.state(key).today[:3].tolist() == [[10, 12, 14], [5, 6, 7], [0, 0, 0]]
    cycles.remove(key)
    with pytest.raises(KeyError):
        cycles.state(key)
