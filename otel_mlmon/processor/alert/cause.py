"""Describes the drift of a stream for an alert: its values since the onset of the drift, compared with its reference.

An alert fires within seconds or minutes of the onset, when a rolling window of an hour still holds mostly the
time before: its shares would say that next to nothing moved. So the panes since the onset are added up too.

What moved is read from counts over bins, and from means, which are exact. Quantiles are linear within a bin; one that
lies in an open bin, beyond what the reference ever held, is given by the bin's edge: `> 0.92`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

from otel_mlmon import semconv, streams
from otel_mlmon.processor.alert import move
from otel_mlmon.processor.alert.alert import AlertCause
from otel_mlmon.processor.detect.score import DriftScore
from otel_mlmon.processor.window.window import HistogramBins, ReferenceCounts, StreamWindow
from otel_mlmon.types import Counts

MAX_CLASSES: Final = 3
"""Classes that are named: those that moved most."""
MIN_SHARE_CHANGE: Final = 0.005
"""A share that moved less is not mentioned."""
_IMAGE_ADJECTIVES: Final = {
    "image.brightness": ("darker", "brighter"),
    "image.contrast": ("of less contrast", "of more contrast"),
    "image.width": ("less wide", "wider"),
    "image.height": ("less high", "higher"),
    "image.aspect_ratio": ("narrower for their height", "wider for their height"),
    "image.red": ("less red", "more red"),
    "image.green": ("less green", "more green"),
    "image.blue": ("less blue", "more blue"),
}
"""Adjectives for images, when the mean of a property falls and when it grows."""
_UNITS: Final = {"image.width": " px", "image.height": " px"}
BUDGET_S: Final = 30 * 86400.0
"""The time that a budget of slow or failed calls is for. Source: Google, The Site Reliability Workbook, chapter 5."""
_FRACTION_DIGITS: Final = 9
"""Shares that differ by less are equal: a sum of floats is exact to about sixteen digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BinCounts:
    """The number of values counted in every bin of a stream, and the mean of these values."""

    counts: tuple[int, ...]
    """Shape (K,)."""
    mean: float
    """NaN if it is unknown."""
    onset_ns: int = 0
    """Since when they are counted, Unix nanoseconds; 0 for the rolling window."""

    @property
    def total(self) -> int:
        """The number of values counted in all bins."""
        return sum(self.counts)


class OnsetCounts:
    """Adds up the values that the streams of one model have had since the onset of their drift.

    Args:
        counts: By stream, as `by_stream` had them when they were stored.
    """

    def __init__(self, counts: dict[str, BinCounts] | None = None) -> None:
        self.by_stream: dict[str, BinCounts] = counts if counts is not None else {}

    def add(self, window: StreamWindow, score: DriftScore) -> None:
        """Adds a pane of a stream; starts again when the onset of its drift moves, and stops when the drift is over."""
        stream, reference = window.stream.stream, window.reference
        if not score.since_ns or reference is None:
            self.by_stream.pop(stream, None)
            return
        pane = BinCounts(counts=_convert_counts(window.pane), mean=window.pane_mean, onset_ns=score.since_ns)
        earlier = self.by_stream.get(stream)
        if earlier is not None and earlier.onset_ns == pane.onset_ns and len(earlier.counts) == len(pane.counts):
            pane = _merge_bin_counts(earlier, pane, reference.bins)
        self.by_stream[stream] = pane

    def since_onset(self, window: StreamWindow) -> BinCounts:
        """Returns a stream's counts since the onset of its drift, or of the rolling window if that has fewer."""
        rolling = count_rolling_window(window)
        counts = self.by_stream.get(window.stream.stream)
        return counts if counts is not None and 0 < counts.total < rolling.total else rolling


def count_rolling_window(window: StreamWindow) -> BinCounts:
    """Returns the number of values of a stream in each bin of the rolling window."""
    return BinCounts(counts=_convert_counts(window.rolling), mean=window.rolling_mean)


def rank_causes(causes: Iterable[AlertCause]) -> tuple[AlertCause, ...]:
    """Sorts the causes of an alert, the strongest evidence first; of equal evidence the largest move first.

    Margins are compared to a hundredth of a decade: below that the order would be noise.
    """
    return tuple(sorted(causes, key=lambda cause: (-round(cause.margin, 2), -cause.value, cause.stream)))


def compute_bin_shares(counts: Counts | tuple[int, ...]) -> tuple[float, ...]:
    """Divides counts by their sum, so that they add up to 1; all are 0 if nothing was counted."""
    numbers = [int(count) for count in counts]
    total = sum(numbers)
    return tuple(number / total if total else 0.0 for number in numbers)


def build_ratio_cause(
    window: StreamWindow,
    reference: ReferenceCounts,
    score: DriftScore,
    onset_counts: OnsetCounts,
    *,
    bound: float,
    of: str,
) -> AlertCause:
    """Describes for an alert a stream of calls of which too many are slow or have failed.

    Args:
        window: The stream's window.
        reference: Its reference.
        score: Its score.
        onset_counts: The counts since the onset of every stream.
        bound: The share that is tolerated.
        of: What the calls in the last bin are: `failed`, `over 200 ms`.
    """
    counts = onset_counts.since_onset(window)
    reference_shares, current_shares = compute_bin_shares(reference.counts), compute_bin_shares(counts.counts)
    value = format_percent(current_shares[-1])
    since_onset = compute_bin_shares(onset_counts.by_stream.get(window.stream.stream, counts).counts)
    lasted_s = (window.end_ns - score.since_ns) / 1e9 if score.since_ns else 0.0
    return AlertCause(
        stream=window.stream.stream,
        value=current_shares[-1],
        bound=bound,
        reference=f"{format_percent(reference_shares[-1])} allowed",
        current=f"{value} {of}",
        current_count=counts.total,
        reference_count=reference.total,
        onset_ns=score.since_ns,
        bins=reference.bins.names,
        reference_shares=reference_shares,
        current_shares=current_shares,
        details=tuple(_describe_burn_rate(current_shares[-1] / bound)),
        summary=f"share {value}, tolerated {format_percent(bound)} (n = {format_count(counts.total)})",
        origin="budget",
        budget_spent=since_onset[-1] / bound * max(lasted_s, 0.0) / BUDGET_S,
        margin=score.margin,
    )


def build_shift_cause(
    window: StreamWindow, reference: ReferenceCounts, score: DriftScore, counts: BinCounts, *, bound: float
) -> AlertCause:
    """Describes for an alert a stream whose distribution moved, by its total variation from the reference.

    Args:
        window: The stream's window.
        reference: Its reference.
        score: Its score.
        counts: What is compared with the reference.
        bound: The total variation that is tolerated.
    """
    stream, bins = window.stream.stream, reference.bins
    reference_shares, current_shares = compute_bin_shares(reference.counts), compute_bin_shares(counts.counts)
    value = math.fsum(abs(share - other) for share, other in zip(reference_shares, current_shares, strict=True)) / 2
    reference_text, current_text = _describe_largest_move(stream, reference, counts, (reference_shares, current_shares))
    sizes = f"n = {format_count(counts.total)}, reference n = {format_count(reference.total)}"
    return AlertCause(
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
        origin=reference.origin,
        margin=score.margin,
        detectable_shift=score.detectable.shift if score.detectable and math.isfinite(score.detectable.shift) else None,
    )


def _describe_burn_rate(rate: float) -> Iterator[str]:
    """Yields a text on how fast a budget of slow or failed calls is spent, if that is faster than allowed."""
    if rate > 1.05:
        days = BUDGET_S / 86400 / rate
        spent = f"{days:.1f} days" if days >= 2 else f"{24 * days:.0f} hours"
        yield f"{rate:.2g} times the rate that is allowed: a month's budget is gone in {spent}"


def format_utc(time_ns: int) -> str:
    """Formats a time in Unix nanoseconds to the second: `2026-01-31 12:00:00 UTC`."""
    return f"{datetime.fromtimestamp(time_ns / 1e9, tz=timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _describe_largest_move(
    stream: str, reference: ReferenceCounts, counts: BinCounts, shares: tuple[Sequence[float], Sequence[float]]
) -> tuple[str, str]:
    """Returns reference and current data as two texts about the part of the distribution that moved most."""
    bins, means, (reference_shares, current_shares) = reference.bins, (reference.mean, counts.mean), shares
    if bins.is_ordered:
        return _describe_number_move(bins, reference_shares, current_shares, means)
    growth = [current - share for share, current in zip(reference_shares, current_shares, strict=True)]
    # What one bin lost another gained: of equal moves, up to rounding, the growth is named.
    index = max(range(bins.count), key=lambda bin_: (round(abs(growth[bin_]), _FRACTION_DIGITS), growth[bin_]))
    return (
        f"{describe_bin(stream, bins.names[index], bins)}: {format_percent(reference_shares[index])}",
        format_percent(current_shares[index]),
    )


def _describe_number_move(
    bins: HistogramBins, reference_shares: Sequence[float], current_shares: Sequence[float], means: tuple[float, float]
) -> tuple[str, str]:
    """Describes how a distribution of numbers moved: missing values, mean, middle half, or a range of values."""
    growth = [current - share for share, current in zip(reference_shares, current_shares, strict=True)]
    if move.is_move_of_missing_values(bins, growth):
        index = bins.names.index(semconv.MISSING)
        return f"missing: {format_percent(reference_shares[index])}", format_percent(current_shares[index])
    axis = len(bins.edges) + 1 if bins.edges else bins.count - (semconv.MISSING in bins.names)
    stretch = move.find_moved_bins(growth[:axis])
    quartiles = estimate_quantile(bins, reference_shares, 0.25), estimate_quantile(bins, reference_shares, 0.75)
    reference_mean, current_mean = (f"mean {mean:.3g}" for mean in means)
    if reference_mean != current_mean and move.is_move_of_mean(stretch, growth[:axis], means, quartiles):
        return reference_mean, current_mean
    reference_half, current_half = _format_quartiles(bins, reference_shares), _format_quartiles(bins, current_shares)
    if reference_half != current_half and current_half and move.is_move_of_spread(stretch, reference_shares[:axis]):
        return f"middle half {reference_half}", current_half
    part = slice(stretch.first, stretch.last + 1)
    before = f"{move.name_bin_range(stretch, bins)}: {format_percent(math.fsum(reference_shares[part]))}"
    return before, format_percent(math.fsum(current_shares[part]))


def _convert_counts(counts: Counts) -> tuple[int, ...]:
    return tuple(counts.tolist())


def _merge_bin_counts(first: BinCounts, second: BinCounts, bins: HistogramBins) -> BinCounts:
    first_count, second_count = _count_present_values(first, bins), _count_present_values(second, bins)
    if second_count == 0:
        mean = first.mean
    elif first_count == 0:
        mean = second.mean
    else:
        mean = (first.mean * first_count + second.mean * second_count) / (first_count + second_count)
    counts = tuple(count + other for count, other in zip(first.counts, second.counts, strict=True))
    return BinCounts(counts=counts, mean=mean, onset_ns=first.onset_ns)


def _count_present_values(counts: BinCounts, bins: HistogramBins) -> int:
    """Counts the values that are not missing, over all bins: those that a mean is made of."""
    named = zip(bins.names, counts.counts, strict=False)
    return sum(count for name, count in named if name != semconv.MISSING)


def describe_change(
    stream: str,
    bins: HistogramBins,
    reference_shares: Sequence[float],
    current_shares: Sequence[float],
    *,
    means: tuple[float, float],
) -> tuple[str, ...]:
    """Describes in short texts how a distribution moved: mean, middle half, missing values, classes, images.

    Args:
        stream: Its name.
        bins: K bins.
        reference_shares: Shape (K,).
        current_shares: Shape (K,); zeros if nothing was counted.
        means: Of the reference and of the current data, in the stream's unit; NaN if unknown.

    Returns:
        The most informative first; empty if there is nothing to say.
    """
    if not any(current_shares):
        return ()
    if not bins.is_ordered:
        return tuple(_describe_class_changes(stream, bins, reference_shares, current_shares))
    feature = stream.removeprefix(semconv.STREAM_INPUT_PREFIX)
    return tuple(_describe_number_changes(feature, bins, reference_shares, current_shares, means))


def describe_bin(stream: str, name: str, bins: HistogramBins) -> str:
    """Names a bin of a distribution as people call it: `class 3`, `missing`, `all others`, `0.4 … 0.5`."""
    if name == semconv.MISSING:
        return "missing"
    if name == semconv.OTHER:
        return "all others"
    if bins.is_ordered:
        return name
    return f"{'class' if streams.find_stream_family(stream) == semconv.STREAM_LABEL else 'value'} {name}"


def format_percent(share: float) -> str:
    """Formats a share in [0, 1] in per cent, to two digits: `0.4 %`, `10 %`."""
    value = 100 * share
    if 0 < value < 0.01:
        return "< 0.01 %"
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.2g} %"


def format_accuracy(accuracy: float) -> str:
    """Formats an accuracy in [0, 1] in per cent, to a tenth: `92.4 %`."""
    return f"{100.0 * accuracy:.1f} %"


def format_count(number: int) -> str:
    """Formats a whole number with its thousands set apart: `4 210`."""
    return f"{number:,}".replace(",", " ")


def estimate_quantile(bins: HistogramBins, shares: Sequence[float], q: float) -> float:
    """Estimates a quantile of a distribution from the shares of its bins, linear within a bin.

    Returns:
        Minus or plus infinity in the open first and last bin; NaN if there are no values, or no edges.
    """
    axis_shares = shares[: len(bins.edges) + 1]
    total = math.fsum(axis_shares)
    if not total or not bins.edges:
        return math.nan
    rank, cumulated = q * total, 0.0
    for index, share in enumerate(axis_shares):
        if share and cumulated + share >= rank - 1e-12:
            if index in (0, len(bins.edges)):
                break
            low, high = bins.edges[index - 1], bins.edges[index]
            return low + (high - low) * min(1.0, max(0.0, (rank - cumulated) / share))
        cumulated += share
    return -math.inf if index == 0 else math.inf


def _describe_number_changes(
    feature: str,
    bins: HistogramBins,
    reference_shares: Sequence[float],
    current_shares: Sequence[float],
    means: tuple[float, float],
) -> Iterator[str]:
    reference_mean, current_mean = means
    unit = _UNITS.get(feature, "")
    is_mean_visible = all(map(math.isfinite, means)) and f"{reference_mean:.3g}" != f"{current_mean:.3g}"
    largest = " → ".join(_describe_number_move(bins, reference_shares, current_shares, means))
    if is_mean_visible and largest.startswith("mean "):
        if feature in _IMAGE_ADJECTIVES:
            yield f"images are {_IMAGE_ADJECTIVES[feature][current_mean > reference_mean]}"
        yield f"mean {reference_mean:.3g} → {current_mean:.3g}{unit}"
    elif not largest.startswith(("missing: ", "middle half ", "mean ")):
        yield largest
    reference_half, current_half = _format_quartiles(bins, reference_shares), _format_quartiles(bins, current_shares)
    if reference_half and current_half and reference_half != current_half:
        yield f"middle half {reference_half} → {current_half}{unit}"
    if semconv.MISSING in bins.names:
        index = bins.names.index(semconv.MISSING)
        if abs(current_shares[index] - reference_shares[index]) >= MIN_SHARE_CHANGE:
            yield f"missing {format_percent(reference_shares[index])} → {format_percent(current_shares[index])}"
    for index, comparative in ((0, "lower"), (len(bins.edges), "higher")) if bins.edges else ():
        if not reference_shares[index] and current_shares[index] >= MIN_SHARE_CHANGE:
            yield f"{format_percent(current_shares[index])} {comparative} than any before ({bins.names[index]})"


def _describe_class_changes(
    stream: str, bins: HistogramBins, reference_shares: Sequence[float], current_shares: Sequence[float]
) -> Iterator[str]:
    changes = [abs(current - share) for share, current in zip(reference_shares, current_shares, strict=True)]
    order = sorted(range(bins.count), key=lambda index: (-round(changes[index], 9), index))
    for index in order[:MAX_CLASSES]:
        if changes[index] >= MIN_SHARE_CHANGE:
            name = describe_bin(stream, bins.names[index], bins)
            yield f"{name}: {format_percent(reference_shares[index])} → {format_percent(current_shares[index])}"
    vanished = sum(
        1
        for share, current in zip(reference_shares, current_shares, strict=True)
        if share >= MIN_SHARE_CHANGE and not current
    )
    if vanished:
        yield f"{vanished} {'is' if vanished == 1 else 'are'} gone"


def _format_quartiles(bins: HistogramBins, shares: Sequence[float]) -> str:
    """Formats the lower and the upper quartile of a distribution; empty if they are unknown."""
    low, high = (estimate_quantile(bins, shares, q) for q in (0.25, 0.75))
    if math.isnan(low):
        return ""
    below, above = f"≤ {bins.edges[0]:.3g}", f"> {bins.edges[-1]:.3g}"
    if low == math.inf or high == -math.inf:
        return above if low == math.inf else below
    return f"{below if low == -math.inf else f'{low:.3g}'} … {above if high == math.inf else f'{high:.3g}'}"
