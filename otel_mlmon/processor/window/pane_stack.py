"""Defines `PaneStack`: several panes of the same streams over the same bins, one below the other in arrays.

What is done for all of them, such as adding them up, takes a few array operations and no objects a pane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.window.packed_numbers import ScaledSums
from otel_mlmon.processor.window.window import ModelPane, PaneLayout, PaneTable
from otel_mlmon.sketch.stream_sketch import StreamSketch
from otel_mlmon.types import ModelKey


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaneStack:
    """The counts of P closed panes of one model version that have the same S streams and bins."""

    model: ModelKey
    times_ns: Sequence[tuple[int, int]]
    """Start and end of each pane, in the order of their ends."""
    durations: Sequence[StreamSketch]
    """The durations of calls by pane, seconds; failed calls included."""
    failed: Sequence[int]
    """The number of calls that failed, by pane."""
    layout: PaneLayout
    counts: NDArray[Any]
    """Shape (P, K₁ + K₂ + …), of any integer type."""
    number_counts: NDArray[Any]
    """Shape (P, S): how many values of each stream are numbers."""
    sums: ScaledSums
    """Shape (P, S): the exact sums of the numbers."""

    def split(self) -> list[ModelPane]:
        """Returns the panes one by one, in the order of their ends."""
        sums, shift = self.sums
        columns = (self.times_ns, self.durations, self.failed, self.counts, self.number_counts, sums)
        return [
            ModelPane(
                model=self.model,
                start_ns=start_ns,
                end_ns=end_ns,
                duration=duration,
                failed=failed,
                streams=PaneTable(
                    layout=self.layout,
                    counts=counts.astype(np.int64),
                    number_counts=number_counts.tolist(),
                    sums=ScaledSums(numbers, shift).list_units(),
                ),
            )
            for (start_ns, end_ns), duration, failed, counts, number_counts, numbers in zip(*columns, strict=True)
        ]

    def select_panes(self, is_chosen: Callable[[int, int], bool]) -> PaneStack:
        """Returns the panes for whose start and end `is_chosen` returns True."""
        chosen = [number for number, times_ns in enumerate(self.times_ns) if is_chosen(*times_ns)]
        if len(chosen) == len(self.times_ns):
            return self
        return replace(
            self,
            times_ns=[self.times_ns[number] for number in chosen],
            durations=[self.durations[number] for number in chosen],
            failed=[self.failed[number] for number in chosen],
            counts=self.counts[chosen],
            number_counts=self.number_counts[chosen],
            sums=ScaledSums(self.sums.numbers[chosen], self.sums.shift),
        )

    def select_streams(self, names: Sequence[str]) -> PaneStack:
        """Returns the counts of some of the streams, in the order that the stack has them in."""
        layout, present = self.layout, set(names)
        streams = [number for number, name in enumerate(layout.names) if name in present]
        if len(streams) == len(layout.names):
            return self
        ends = [*accumulate(layout.sizes)]
        columns = [column for stream in streams for column in range(ends[stream] - layout.sizes[stream], ends[stream])]
        return replace(
            self,
            layout=PaneLayout(
                tuple(layout.names[stream] for stream in streams),
                tuple(layout.generations[stream] for stream in streams),
                tuple(layout.sizes[stream] for stream in streams),
            ),
            counts=self.counts[:, columns],
            number_counts=self.number_counts[:, streams],
            sums=ScaledSums(self.sums.numbers[:, streams], self.sums.shift),
        )


def join_stacks(stacks: Sequence[PaneStack]) -> PaneStack:
    """Joins stacks of one model version whose streams and bins, and scale of sums, are the same.

    Args:
        stacks: One or more, in the order of the ends of their panes.
    """
    if len(stacks) == 1:
        return stacks[0]
    return replace(
        stacks[0],
        times_ns=[times_ns for stack in stacks for times_ns in stack.times_ns],
        durations=[duration for stack in stacks for duration in stack.durations],
        failed=[failed for stack in stacks for failed in stack.failed],
        counts=np.concatenate([stack.counts for stack in stacks]),
        number_counts=np.concatenate([stack.number_counts for stack in stacks]),
        sums=ScaledSums(np.concatenate([stack.sums.numbers for stack in stacks]), stacks[0].sums.shift),
    )


def split_stacks(stacks: Iterable[PaneStack]) -> list[ModelPane]:
    """Returns the panes of stacks of one model version one by one, in the order of their ends."""
    panes = [pane for stack in stacks for pane in stack.split()]
    return sorted(panes, key=lambda pane: pane.end_ns)
