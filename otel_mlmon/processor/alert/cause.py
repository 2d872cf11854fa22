"""Describes what moved in a stream: counts since the onset of its drift, compared with its reference.

An alert fires within seconds or minutes of the onset, when a rolling window of an hour still holds mostly the
time before: its shares would say that next to nothing moved. So the panes since the onset are added up too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import Cause
from otel_mlmon.processor.alert.message import describe_bin, describe_change, format_count, format_percent
from otel_mlmon.processor.detect.score import Score
from otel_mlmon.processor.window.window import Bins, Reference, Window
from otel_mlmon.types import Counts

_FRACTION_DIGITS: Final = 9
"""Shares that differ by less are equal: a sum of floats is exact to about sixteen digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BinCounts:
    """Holds counts over bins, and the mean of what was counted."""

    counts: tuple[int, ...]
    """Shape (K,)."""
    mean: float
    """NaN if it is unknown."""
    onset_ns: int = 0
    """Since when they are counted, Unix nanoseconds; 0 for the rolling window."""

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self.counts)


class OnsetCounts:
    """Adds up the panes of each stream of one model for as long as there is evidence of drift.

    Args:
        counts: By stream, as `by_stream` had them when they were stored.
    """

    def __init__(self, counts: dict[str, BinCounts] | None = None) -> None:
        self.by_stream: dict[str, BinCounts] = counts if counts is not None else {}

    def add(self, window: Window, score: Score) -> None:
        """Counts a pane; starts again when the onset moves, and forgets the stream when there is no evidence."""
        stream, reference = window.stream.stream, window.reference
        if not score.since_ns or reference is None:
            self.by_stream.pop(stream, None)
            return
        pane = BinCounts(counts=_integers(window.pane), mean=window.pane_mean, onset_ns=score.since_ns)
        earlier = self.by_stream.get(stream)
        if earlier is not None and earlier.onset_ns == pane.onset_ns and len(earlier.counts) == len(pane.counts):
            pane = _add(earlier, pane, reference.bins)
        self.by_stream[stream] = pane

    def since_onset(self, window: Window) -> BinCounts:
        """Returns the counts since the onset, or of the rolling window if that holds fewer or the onset is unknown."""
        rolling = rolling_counts(window)
        counts = self.by_stream.get(window.stream.stream)
        return counts if counts is not None and 0 < counts.total < rolling.total else rolling


def rolling_counts(window: Window) -> BinCounts:
    """Returns the counts of the rolling window."""
    return BinCounts(counts=_integers(window.rolling), mean=window.rolling_mean)


def shares(counts: Counts | tuple[int, ...]) -> tuple[float, ...]:
    """Divides counts by their sum; zeros if there are none."""
    numbers = [int(count) for count in counts]
    total = sum(numbers)
    return tuple(number / total if total else 0.0 for number in numbers)


def ratio_cause(
    window: Window, reference: Reference, score: Score, counts: BinCounts, *, bound: float, of: str
) -> Cause:
    """Describes a stream whose last bin is what must stay rare: slow or failed calls.

    Args:
        window: The stream's window.
        reference: Its reference.
        score: Its score.
        counts: What is compared with the reference.
        bound: The share that is tolerated.
        of: What the calls in the last bin are: `failed`, `over 200 ms`.
    """
    reference_shares, current_shares = shares(reference.counts), shares(counts.counts)
    value = format_percent(current_shares[-1])
    return Cause(
        stream=window.stream.stream,
        value=current_shares[-1],
        bound=bound,
        reference=f"{format_percent(reference_shares[-1])} {of}",
        current=value,
        current_count=counts.total,
        reference_count=reference.total,
        onset_ns=score.since_ns,
        bins=reference.bins.names,
        reference_shares=reference_shares,
        current_shares=current_shares,
        summary=f"share {value}, tolerated {format_percent(bound)} (n = {format_count(counts.total)})",
        margin=score.margin,
    )


def shift_cause(window: Window, reference: Reference, score: Score, counts: BinCounts, *, bound: float) -> Cause:
    """Describes a stream whose distribution moved, by its total variation from the reference.

    Args:
        window: The stream's window.
        reference: Its reference.
        score: Its score.
        counts: What is compared with the reference.
        bound: The total variation that is tolerated.
    """
    stream, bins = window.stream.stream, reference.bins
    reference_shares, current_shares = shares(reference.counts), shares(counts.counts)
    value = math.fsum(abs(share - other) for share, other in zip(reference_shares, current_shares, strict=True)) / 2
    reference_text, current_text = _describe_largest_move(stream, reference, counts, reference_shares, current_shares)
    sizes = f"n = {format_count(counts.total)}, reference n = {format_count(reference.total)}"
    return Cause(
        stream=stream,
        value=value,
        bound=bound,
        reference=reference_text,
        current=current_text,
        current_count=counts.total,
        reference_count=reference.total,
        onset_ns=score.since_ns,
        bins=bins.names,
        reference_shares=reference_shares,
        current_shares=current_shares,
        details=describe_change(stream, bins, reference_shares, current_shares, means=(reference.mean, counts.mean)),
        summary=f"total variation {format_percent(value)}, tolerated {format_percent(bound)} ({sizes})",
        margin=score.margin,
    )


def _describe_largest_move(
    stream: str,
    reference: Reference,
    counts: BinCounts,
    reference_shares: tuple[float, ...],
    current_shares: tuple[float, ...],
) -> tuple[str, str]:
    """Returns reference and current mean where they differ visibly; otherwise those of the bin that moved most."""
    bins = reference.bins
    growth = [current - share for share, current in zip(reference_shares, current_shares, strict=True)]
    # What one bin lost another gained: of equal moves, up to rounding, the growth is named.
    index = max(range(bins.count), key=lambda bin_: (round(abs(growth[bin_]), _FRACTION_DIGITS), growth[bin_]))
    name = bins.names[index]
    reference_mean, current_mean = f"mean {reference.mean:.3g}", f"mean {counts.mean:.3g}"
    has_means = bins.is_ordered and math.isfinite(reference.mean) and math.isfinite(counts.mean)
    if has_means and name != semconv.MISSING and reference_mean != current_mean:
        return reference_mean, current_mean
    return (
        f"{describe_bin(stream, name, bins)}: {format_percent(reference_shares[index])}",
        format_percent(current_shares[index]),
    )


def _integers(counts: Counts) -> tuple[int, ...]:
    return tuple(counts.tolist())


def _add(first: BinCounts, second: BinCounts, bins: Bins) -> BinCounts:
    first_count, second_count = _value_count(first, bins), _value_count(second, bins)
    if second_count == 0:
        mean = first.mean
    elif first_count == 0:
        mean = second.mean
    else:
        mean = (first.mean * first_count + second.mean * second_count) / (first_count + second_count)
    counts = tuple(count + other for count, other in zip(first.counts, second.counts, strict=True))
    return BinCounts(counts=counts, mean=mean, onset_ns=first.onset_ns)


def _value_count(counts: BinCounts, bins: Bins) -> int:
    """Counts the values that the mean is of: missing ones have none."""
    named = zip(bins.names, counts.counts, strict=False)
    return sum(count for name, count in named if name != semconv.MISSING)
