"""Columns beside their references, and the design effect of each from rows in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.backtest.columns import ColumnChoice
from otel_mlmon.backtest.counting import CountPlan, RowCounter, StreamPlan
from otel_mlmon.backtest.counts import FIRST_ROWS, TableCounts
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.detect.design_effect import CALIBRATION_ITEMS, DesignEffects
from otel_mlmon.processor.window.binning import ClassBins
from otel_mlmon.processor.window.reference import ModelWindowSettings, StreamReference
from otel_mlmon.processor.window.window import Reference, StreamKey
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
    """One column, and the reference it is judged against."""

    key: StreamKey
    plan: StreamPlan
    reference: Reference
    calibration: Calibration | None = None
    """Of confidences, how often predictions are right at each on labelled data; None if that is not known."""

    @property
    def column(self) -> str:
        """The name of the column."""
        return self.plan.column.name


def build_streams(table: Table, choices: Mapping[str, ColumnChoice], profile: Profile) -> list[ColumnStream]:
    """Pairs the columns of `table` with their references.

    Raises:
        ConfigurationError: A column is of a type that cannot be counted as its reference; names all of them.
    """
    streams: list[ColumnStream] = []
    faults: list[str] = []
    settings = ModelWindowSettings(profile=profile)
    for name, choice in choices.items():
        column = table.columns.get(name)
        reference = StreamReference(stream=choice.stream, settings=settings)
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
        key = StreamKey(ModelKey(profile.model, profile.version), choice.stream)
        plan = StreamPlan(column=column, kind=choice.kind, binning=reference.binning)
        calibration = profile.calibration if choice.kind == "confidence" else None
        streams.append(ColumnStream(key=key, plan=plan, reference=reference.reference, calibration=calibration))
    if faults:
        raise ConfigurationError(*faults)
    return streams


def measure_design_effects(profile: Profile, table: Table, choices: Mapping[str, ColumnChoice]) -> Profile:
    """Returns the profile with the design effect of each stream, measured on the first rows that it is made of.

    Raises:
        DataError: The table cannot be read.
    """
    streams = build_streams(table, choices, profile)
    plan = CountPlan(streams=tuple(stream.plan for stream in streams), window_rows=FIRST_ROWS)
    counter = RowCounter(plan)
    for batch in table.scan(plan.columns) if streams else ():
        counter.add(batch)
        if counter.result.rows >= FIRST_ROWS:
            break
    effects = (_estimate_design_effect(counter.result, index, stream) for index, stream in enumerate(streams))
    named = {stream.key.stream: effect for stream, effect in zip(streams, effects, strict=True) if effect is not None}
    return replace(profile, design_effects=named)


def _estimate_design_effect(counts: TableCounts, index: int, stream: ColumnStream) -> DesignEffect | None:
    """Estimates the design effect of a stream from blocks of the first rows; None of too few."""
    codes = counts.first.codes[index][:EFFECT_ROWS]
    rows = codes[: len(codes) // BLOCK_ROWS * BLOCK_ROWS].reshape(-1, BLOCK_ROWS)
    blocks = np.array([_count_codes(block, stream) for block in rows])
    if not len(blocks):
        return None
    # As of live panes where there are enough; it knows by itself how well it is known. Against the shares of these very
    # rows: where a rare class has become more frequent, its counts vary more by that alone.
    effects, counts_of_all = DesignEffects(stream.plan.bins), blocks.sum(0) + 0.5
    effects.start(0, counts_of_all / counts_of_all.sum())
    for block in blocks:
        effects.add(np.zeros(1, dtype=np.intp), block[None].astype(np.float64), np.array([float(BLOCK_ROWS)]))
    if not effects.is_calibrated[0]:
        return estimate_design_effect(blocks)
    return DesignEffect(float(effects.divisor[0]), int(effects.state(0).difference_counts.max()))


def with_design_effects(streams: Sequence[ColumnStream], counts: TableCounts) -> list[ColumnStream]:
    """Returns the streams with the design effect of the first rows, or of too few rows with that of the reference.

    A drift counts in neither: it is one of many differences between neighbours. The rows of a reference may be shuffled
    or sorted, so it is asked only where the data cannot say, and then the larger of the two counts.
    """
    return [_with_design_effect(stream, counts, index) for index, stream in enumerate(streams)]


def _with_design_effect(stream: ColumnStream, counts: TableCounts, index: int) -> ColumnStream:
    own = _estimate_design_effect(counts, index, stream)
    candidates = [own] if counts.rows >= CALIBRATION_ITEMS else [own, stream.reference.design_effect]
    known = [effect for effect in candidates if effect is not None and effect.differences]
    effect = max(known) if known else stream.reference.design_effect
    return replace(stream, reference=replace(stream.reference, design_effect=effect))


def _count_codes(codes: NDArray[np.int16], stream: ColumnStream) -> Counts:
    bins = stream.plan.bins
    return np.bincount(codes, minlength=bins)[:bins].astype(np.int64)
