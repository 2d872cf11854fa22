"""Pairs each column of the data with its reference, and estimates its design effect from rows in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.backtest.columns import ColumnChoice
from otel_mlmon.backtest.counting import RowCounter, StreamCountPlan, WindowCountPlan
from otel_mlmon.backtest.counts import FIRST_ROWS, TableCounts
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.detect.design_effect import CALIBRATION_ITEMS, DesignEffects
from otel_mlmon.processor.window.binning import ClassBins
from otel_mlmon.processor.window.reference import ModelWindowSettings, StreamReference
from otel_mlmon.processor.window.window import ReferenceCounts, StreamKey
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.reference.design_effect import DesignEffect, estimate_design_effect
from otel_mlmon.reference.profile import Profile
from otel_mlmon.table.table import Table
from otel_mlmon.types import Counts, ModelKey

BLOCK_ROWS: Final = 50
"""Rows of a block while the design effect is estimated: the smallest that it is estimated from."""


EFFECT_ROWS: Final = 2_000
"""Rows that it is estimated from: a change among them would count as a burst. Later rows tell it anew as they come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStream:
    """One column of the data of a backtest, and the reference that it is judged against."""

    key: StreamKey
    plan: StreamCountPlan
    reference: ReferenceCounts
    calibration: Calibration | None = None
    """How often predictions are right at each confidence on labelled data; None if that is not known."""

    @property
    def column(self) -> str:
        """The name of the column of the backtested data that the stream is made of."""
        return self.plan.column.name


def build_column_streams(table: Table, choices: Mapping[str, ColumnChoice], profile: Profile) -> list[ColumnStream]:
    """Pairs the columns of a table with the references that they are judged against.

    Raises:
        ConfigurationError: A column is of a type that cannot be counted as its reference; names all of them.
    """
    streams: list[ColumnStream] = []
    faults: list[str] = []
    settings = ModelWindowSettings(profile=profile)
    for name, choice in choices.items():
        column = table.columns.get(name)
        reference = StreamReference(stream=choice.stream_name, settings=settings)
        if choice.kind == "ignore" or column is None or reference.reference is None or reference.binning is None:
            continue
        is_class = isinstance(reference.binning, ClassBins)
        if column.kind == "unreadable" or (not is_class and column.kind == "time"):
            needs = "of categories" if is_class else "numeric"
            faults.append(f"{table.source}: column {name!r} is {column.type_name}, and its reference is {needs}")
            continue
        if column.has_ambiguous_commas and not is_class:
            faults.append(
                f"{table.source}: column {name!r}: numbers have a comma; --decimal says whether it separates the "
                "fraction"
            )
            continue
        key = StreamKey(ModelKey(profile.model, profile.version), choice.stream_name)
        plan = StreamCountPlan(column=column, kind=choice.kind, binning=reference.binning)
        calibration = profile.calibration if choice.kind == "confidence" else None
        streams.append(ColumnStream(key=key, plan=plan, reference=reference.reference, calibration=calibration))
    if faults:
        raise ConfigurationError(*faults)
    return streams


def measure_design_effects(profile: Profile, table: Table, choices: Mapping[str, ColumnChoice]) -> Profile:
    """Returns the reference profile with a design effect for each stream, estimated from the reference's first rows.

    Raises:
        DataError: The table cannot be read.
    """
    streams = build_column_streams(table, choices, profile)
    plan = WindowCountPlan(streams=tuple(stream.plan for stream in streams), window_rows=FIRST_ROWS)
    counter = RowCounter(plan)
    for batch in table.scan(plan.column_names) if streams else ():
        counter.count_batch(batch)
        if counter.result.rows >= FIRST_ROWS:
            break
    effects = _estimate_design_effects(counter.result, streams)
    named = {stream.key.stream: effect for stream, effect in zip(streams, effects, strict=True) if effect is not None}
    return replace(profile, design_effects=named)


def _estimate_design_effects(counts: TableCounts, streams: Sequence[ColumnStream]) -> list[DesignEffect | None]:
    """Estimates the design effect of each stream from blocks of the first rows; None of too few rows."""
    results: list[DesignEffect | None] = [None] * len(streams)
    block_count = min(counts.first.times_ns.size, EFFECT_ROWS) // BLOCK_ROWS
    positions: dict[int, list[int]] = {}
    for position, stream in enumerate(streams):
        positions.setdefault(stream.plan.bin_count, []).append(position)
    for bins, group in positions.items() if block_count else ():
        codes = counts.first.codes[group, : block_count * BLOCK_ROWS].reshape(len(group), block_count, BLOCK_ROWS)
        blocks = _count_block_values(codes, bins)
        for position, effect in zip(group, _estimate_block_effects(blocks), strict=True):
            results[position] = effect
    return results


def _estimate_block_effects(blocks: Counts) -> list[DesignEffect | None]:
    """Estimates the design effects of streams from the counts of blocks of rows, shape (S, blocks, K).

    As of live panes where there are enough; they know by themselves how well they are known. Against the shares of
    these very rows: where a rare class has become more frequent, its counts vary more by that alone.
    """
    effects, rows = DesignEffects(blocks.shape[-1]), np.arange(len(blocks))
    sums = blocks.sum(1) + 0.5
    for row, shares in enumerate(sums / sums.sum(-1, keepdims=True)):
        effects.start(row, shares)
    for block in np.moveaxis(blocks, 1, 0).astype(np.float64):
        effects.add(rows, block, np.full(len(rows), float(BLOCK_ROWS)))
    return [
        DesignEffect(float(effects.divisor[row]), int(effects.pack([row]).difference_counts.max()))
        if effects.is_calibrated[row]
        else estimate_design_effect(blocks[row])
        for row in rows.tolist()
    ]


def assign_design_effects(streams: Sequence[ColumnStream], counts: TableCounts) -> list[ColumnStream]:
    """Assigns each stream of a backtest the design effect of the data's first rows, or else of the reference.

    A drift counts in neither: it is one of many differences between neighbours. The rows of a reference may be shuffled
    or sorted, so it is asked only where the data cannot say, and then the larger of the two counts.
    """
    effects = _estimate_design_effects(counts, streams)
    return [_assign_design_effect(stream, counts.rows, effect) for stream, effect in zip(streams, effects, strict=True)]


def _assign_design_effect(stream: ColumnStream, rows: int, own: DesignEffect | None) -> ColumnStream:
    candidates = [own] if rows >= CALIBRATION_ITEMS else [own, stream.reference.design_effect]
    known = [effect for effect in candidates if effect is not None and effect.differences]
    effect = max(known) if known else stream.reference.design_effect
    return replace(stream, reference=replace(stream.reference, design_effect=effect))


def _count_block_values(codes: NDArray[np.int16], bins: int) -> Counts:
    """Counts the values of successive blocks of rows by bin, shape (S, blocks, rows) -> (S, blocks, K)."""
    streams, blocks, _ = codes.shape
    offsets = np.arange(streams * blocks).reshape(streams, blocks, 1) * (bins + 1)
    counts = np.bincount((codes + offsets).ravel(), minlength=streams * blocks * (bins + 1))
    return counts.reshape(streams, blocks, bins + 1)[..., :bins].astype(np.int64)
