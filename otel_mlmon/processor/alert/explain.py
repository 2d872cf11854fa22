"""What moved in a stream, in words and in the stream's own unit: mean, middle half, missing values, classes, images.

Everything is read from counts over bins, and from means, which are exact. Quantiles are linear within a bin; one that
lies in an open bin, beyond what the reference ever held, is told by the bin's edge: `> 0.92`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.processor.window.window import Bins

MAX_CLASSES: Final = 3
"""Classes that are told: those that moved most."""

TELLING_RATIO: Final = 0.005
"""A share that moved less is not told."""

_IMAGE_WORDS: Final = {
    "image.brightness": ("darker", "brighter"),
    "image.contrast": ("of less contrast", "of more contrast"),
    "image.width": ("less wide", "wider"),
    "image.height": ("less high", "higher"),
    "image.aspect_ratio": ("narrower for their height", "wider for their height"),
    "image.red": ("less red", "more red"),
    "image.green": ("less green", "more green"),
    "image.blue": ("less blue", "more blue"),
}
"""What images are when the mean of a property falls, and when it grows."""

_UNITS: Final = {"image.width": " px", "image.height": " px"}


def describe(
    stream: str, bins: Bins, was: Sequence[float], now: Sequence[float], *, means: tuple[float, float]
) -> tuple[str, ...]:
    """What moved, the most telling first; empty if nothing can be told.

    Args:
        stream: Its name.
        bins: K bins.
        was: Shares of the reference, shape (K,).
        now: Shares since, shape (K,); zeros where nothing was counted.
        means: Of the reference and since, in the stream's unit; NaN where unknown.
    """
    if not any(now):
        return ()
    if not bins.is_ordered:
        return tuple(_classes(stream, bins, was, now))
    return tuple(_numbers(stream.removeprefix(semconv.STREAM_INPUT_PREFIX), bins, was, now, means))


def percent(share: float) -> str:
    """A share in per cent, to two digits: `0.4 %`, `10 %`."""
    value = 100 * share
    if 0 < value < 0.01:
        return "< 0.01 %"
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.2g} %"


def bin_words(stream: str, name: str, bins: Bins) -> str:
    """A bin as people call it: `class 3`, `missing`, `all others`, `0.4 … 0.5`."""
    if name == semconv.MISSING:
        return "missing"
    if name == semconv.OTHER:
        return "all others"
    if bins.is_ordered:
        return name
    return f"{'class' if stream == semconv.STREAM_LABEL else 'value'} {name}"


def quantile(bins: Bins, shares: Sequence[float], q: float) -> float:
    """The value below which a share `q` of the values lies, linear within its bin.

    Minus or plus infinity in the open first and last bin; NaN where there are no values, or no edges.
    """
    on_axis = shares[: len(bins.edges) + 1]
    total = math.fsum(on_axis)
    if not total or not bins.edges:
        return math.nan
    rank, seen = q * total, 0.0
    for index, share in enumerate(on_axis):
        if share and seen + share >= rank - 1e-12:
            if index in (0, len(bins.edges)):
                break
            low, high = bins.edges[index - 1], bins.edges[index]
            return low + (high - low) * min(1.0, max(0.0, (rank - seen) / share))
        seen += share
    return -math.inf if index == 0 else math.inf


def _numbers(
    feature: str, bins: Bins, was: Sequence[float], now: Sequence[float], means: tuple[float, float]
) -> Iterator[str]:
    before, after = means
    unit = _UNITS.get(feature, "")
    if math.isfinite(before) and math.isfinite(after) and f"{before:.3g}" != f"{after:.3g}":
        if feature in _IMAGE_WORDS:
            yield f"images are {_IMAGE_WORDS[feature][after > before]}"
        yield f"mean {before:.3g} → {after:.3g}{unit}"
    halves = [_middle_half(bins, shares) for shares in (was, now)]
    if all(halves) and halves[0] != halves[1]:
        yield f"middle half {halves[0]} → {halves[1]}{unit}"
    yield from _shares(bins, was, now)


def _shares(bins: Bins, was: Sequence[float], now: Sequence[float]) -> Iterator[str]:
    """Missing values, and values beyond what the reference held."""
    if semconv.MISSING in bins.names:
        index = bins.names.index(semconv.MISSING)
        if abs(now[index] - was[index]) >= TELLING_RATIO:
            yield f"missing {percent(was[index])} → {percent(now[index])}"
    if not bins.edges:
        return
    last = len(bins.edges)
    for index, word in ((0, "lower"), (last, "higher")):
        if not was[index] and now[index] >= TELLING_RATIO:
            yield f"{percent(now[index])} {word} than any before ({bins.names[index]})"


def _classes(stream: str, bins: Bins, was: Sequence[float], now: Sequence[float]) -> Iterator[str]:
    order = sorted(range(bins.count), key=lambda index: (-round(abs(now[index] - was[index]), 9), index))
    for index in order[:MAX_CLASSES]:
        if abs(now[index] - was[index]) >= TELLING_RATIO:
            yield f"{bin_words(stream, bins.names[index], bins)}: {percent(was[index])} → {percent(now[index])}"
    gone = sum(1 for before, after in zip(was, now, strict=True) if before >= TELLING_RATIO and not after)
    if gone:
        yield f"{gone} {'is' if gone == 1 else 'are'} gone"


def _middle_half(bins: Bins, shares: Sequence[float]) -> str:
    """From the lower to the upper quartile; empty if neither is known."""
    low, high = (quantile(bins, shares, q) for q in (0.25, 0.75))
    if math.isnan(low):
        return ""
    under, over = f"≤ {bins.edges[0]:.3g}", f"> {bins.edges[-1]:.3g}"
    if low == math.inf or high == -math.inf:
        return over if low == math.inf else under
    return f"{under if low == -math.inf else f'{low:.3g}'} … {over if high == math.inf else f'{high:.3g}'}"
