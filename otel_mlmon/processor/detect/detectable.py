"""Computes the detectable shift of streams: how small a drift would be found within a day, with probability .9.

A share u moves to u + δ, as half of the bins gains what the other half loses. With m = n/φ effective values a day,
N/φ effective values of the reference, radius d and h nats to the alarm line, the evidence is about m times the
relative entropy KL(u + δ ‖ u + d), with a standard deviation of √(2 m KL). It reaches h in nine of ten days where

    √(2 m KL(u + δ ‖ u + d)) = z √(1 + m φ/N) + √(2 h/.85),    h = ln(alarm line) + ln(1/weight of one bet)

z = 1.28; the first term is what chance, of the day and of the reference, takes off; .85, since no bet of a dictionary
is quite the best one. With more than ten bins half a nat a bin comes to h, as moves have to be learned then. u is the
share nearest to one half that bins have together: no other move of the same size is harder to find, and δ of a stream
is that of the hardest. Where few values come, bets are learned too late: δ - d is 1 + 10/m times as large. In a daily
cycle d has the mean width of the hull, and what is forgiven, beside it.

A rare bin, whose share may go up to p₊, is found where √p = √p₊ + (z + √(z² + 2h)) / 2√m.

Simulated with the engine itself (`python -m benchmarks.drift --only detectable`): within a factor of 1.2 of the δ that
was found in nine of ten days, for 2 to 50 bins, 1,000 to a million values a day, references of 1,000 to 50,000 values.

Source: Hoeffding, 1965 (relative entropy decides); Siegmund, Sequential Analysis, 1985 (the delay of a CUSUM).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from otel_mlmon.processor.detect.alternatives import Direction
from otel_mlmon.types import Bools, Floats

PROBABILITY: Final = 0.9
FORGIVEN_EARLY: Final = 0.2
"""The most that is forgiven beside the tolerance while nothing is known of the hours of a day."""

MAX_DETECTABLE: Final = 0.15
"""The largest detectable shift of a stream that is `ok`, unless the configuration has another."""

Z: Final = 1.2815515594
"""The standard normal quantile of `PROBABILITY`."""

EFFICIENCY: Final = 0.85
SMALL_SAMPLE: Final = 10.0
NATS_PER_BIN: Final = 0.5
"""The cost of each bin beyond `MAX_BINS_OF_PAIRS`: moves must be learned there that no bet of the dictionary names."""
_STEPS: Final = 30

Weakness = Literal[
    "one_value", "unknown_hours", "unknown_day", "holiday", "bursts", "small_reference", "little_traffic", "tolerance"
]
"""Why a stream is weak, the main reason. `one_value`: its reference holds a single value. `unknown_hours`: two whole
days are not known yet. `unknown_day`: this day of the week is not. `holiday`: today is as another day of the week, and
is judged as both. The others: what makes its detectable shift too large."""


class DetectableShift(NamedTuple):
    """How small a drift of one stream would be found within a day with probability `PROBABILITY`."""

    shift: float
    """The total variation; NaN where not even the largest would be found."""
    ratio: float
    """By how much any rare bin of the reference has to grow, as a factor; NaN without such bins or factor."""
    new_share: float
    """The share that a bin hardly or never seen before has to reach; NaN without such bins or share."""
    items_per_day: float
    daily_amplitude: float
    """The largest total variation between a time of the day and the mean of the day; NaN without a daily cycle."""
    max_shift: float
    """The largest `shift` of a stream that is not weak."""
    weakness: Weakness | None
    """None where the stream is not weak."""


class DetectionSetting(NamedTuple):
    """The quantities on which the detectable shift of S streams depends."""

    share: Floats
    """u, the share nearest to one half that bins have together, shape (S,)."""
    tolerance: Floats
    """With all that is forgiven beside it, and the width of a cycle."""
    variance: Floats
    """The square of what is not known of the reference, over φ."""
    size: Floats
    """N, not over φ."""
    effect: Floats
    """φ, with its caution."""
    items: Floats
    """n, values a day, not over φ."""
    log_line: Floats
    """h."""


class RareShareLimits(NamedTuple):
    """The quantities on which the detectable shares of the rare bins of S streams depend, R bins each at most."""

    limit: Floats
    """The largest share that is no drift, shape (S, R)."""
    share: Floats
    """The share in the reference, shape (S, R)."""
    log_line: Floats
    """h of bets on single bins; infinite where there is no bin."""
    is_new: Bools
    """Whether the reference has hardly or never seen it."""
    is_used: Bools
    """Whether there is a bin."""


def find_even_share(shares: Floats, direction: Direction) -> float:
    """Finds the share nearest to one half, from below, that any set of bins has, of shares of shape (K,).

    One-sided evidence sees moves across an edge only, so a set is a run of bins from one end.
    """
    if direction != "both":
        runs = np.cumsum(shares)[:-1]
        sides = np.minimum(runs, 1.0 - runs)
        if not sides.size:
            return 0.0
        edge = int(sides.argmax())
        return float(runs[edge] if direction == "down" else 1.0 - runs[edge])
    lighter = heavier = 0.0
    for share in np.sort(shares)[::-1].tolist():
        lighter, heavier = sorted((lighter + share, heavier))
    return lighter


def compute_detectable_shifts(setting: DetectionSetting) -> Floats:
    """Computes the detectable shift of each stream, shape (S,); NaN where no shift would be found in a day."""
    effective = setting.items / setting.effect
    radius = setting.tolerance + np.sqrt(setting.variance * setting.effect)
    border = setting.share + radius
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        chance = np.sqrt(1.0 + setting.items / setting.size)
        target = (Z * chance + np.sqrt(2.0 * setting.log_line / EFFICIENCY)) ** 2 / (2.0 * effective)
        low, high = border.copy(), np.ones_like(border)
        for _ in range(_STEPS):
            middle = (low + high) / 2.0
            is_found = _compute_relative_entropy(middle, border) >= target
            low, high = np.where(is_found, low, middle), np.where(is_found, middle, high)
        distance = (high - border) * (1.0 + SMALL_SAMPLE / effective)
    shifts = radius + distance
    # Nothing beyond what the other bins have can move.
    is_possible = (border < 1.0) & (shifts <= 1.0 - setting.share) & (effective > 0.0)
    return np.where(is_possible, shifts, np.nan)


def compute_detectable_shares(rare: RareShareLimits, setting: DetectionSetting) -> tuple[Floats, Floats]:
    """Computes how much a rare bin must grow, and how large a new bin must be, to be found within a day.

    Returns:
        The factor and the share of the bin that is the hardest to find, shape (S,) each; NaN where there is none.
    """
    effective = (setting.items / setting.effect)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (np.sqrt(rare.limit) + (Z + np.sqrt(Z**2 + 2.0 * rare.log_line)) / (2.0 * np.sqrt(effective))) ** 2
        is_possible = (share <= 1.0) & (rare.limit < 1.0)
        ratios = np.where(is_possible, share / rare.share, np.inf)
        shares = np.where(is_possible, share, np.inf)
    largest = [
        np.where(is_counted, column, -np.inf).max(-1, initial=-np.inf)
        for column, is_counted in ((ratios, rare.is_used & ~rare.is_new), (shares, rare.is_used & rare.is_new))
    ]
    ratio, new_share = (np.where(np.isfinite(column), column, np.nan) for column in largest)
    return ratio, new_share


def find_weakness_reasons(
    shifts: Floats, setting: DetectionSetting, maximum: Floats, *, is_one_value: Bools, days: Sequence[Weakness | None]
) -> list[Weakness | None]:
    """Finds why each stream is weak; None where its detectable shift is not above the largest allowed.

    Args:
        shifts: The detectable shifts, shape (S,).
        setting: What they depend on.
        maximum: The largest that are allowed.
        is_one_value: Whether the reference holds a single value.
        days: Why a day as the present one is weak, whatever the shifts are; None for nothing.
    """
    weaknesses = np.array(days, dtype=object)
    is_large = ~(shifts <= maximum) & ~is_one_value & np.array([day is None for day in days])
    if is_large.any():
        weaknesses[is_large] = _find_main_reasons(
            DetectionSetting(*(column[is_large] for column in setting)), maximum[is_large]
        )
    weaknesses[is_one_value] = "one_value"
    return list(weaknesses.tolist())


def _find_main_reasons(setting: DetectionSetting, maximum: Floats) -> NDArray[Any]:
    """Finds what makes the detectable shift of each stream larger than is allowed."""
    ones, reasons = np.ones_like(maximum), np.full(maximum.size, "little_traffic", dtype=object)
    plenty = setting._replace(items=1e12 * ones)
    causes: tuple[tuple[Weakness, DetectionSetting], ...] = (
        # The later of two that would both do is the more plain one to mend.
        ("small_reference", setting._replace(variance=0.0 * ones, size=1e18 * ones)),
        ("bursts", setting._replace(effect=np.minimum(setting.effect, 1.5))),
    )
    for name, better in causes:
        reasons[compute_detectable_shifts(better) <= maximum] = name
    certain = plenty._replace(variance=0.0 * ones, size=1e18 * ones)
    reasons[~(compute_detectable_shifts(certain) <= maximum)] = "tolerance"
    return reasons


def describe_detectable(detectable: DetectableShift, *, span: str = "within a day") -> str:
    """Describes in one sentence the smallest drift of a stream that would be found within a day.

    Args:
        detectable: The detectable shift.
        span: In what time.
    """
    if np.isnan(detectable.shift):
        return f"no shift, however large, would be found {span}"
    parts = [f"a shift of {_format_percent(detectable.shift)} of the values would be found {span}"]
    if detectable.ratio == detectable.ratio:
        parts.append(f"a rare one at {detectable.ratio:.1f} times its share")
    if detectable.new_share == detectable.new_share:
        parts.append(f"a new one at {_format_percent(detectable.new_share)}")
    return ", ".join(parts)


def describe_weakness(
    detectable: DetectableShift,
    *,
    design_effect: float,
    reference_count: int,
    span: str = "within a day",
    supply: str = "come a day",
) -> tuple[str, str]:
    """Describes why a stream is weak and what helps; two empty texts for one that is not weak.

    Args:
        detectable: The detectable shift, and why it is too large.
        design_effect: φ.
        reference_count: N.
        span: In what time.
        supply: Where the values are that are counted.
    """
    if detectable.weakness is None:
        return "", ""
    seen = describe_detectable(detectable, span=span)
    a_day = f"{float(f'{detectable.items_per_day:.2g}'):,.0f}".replace(",", " ")
    texts = {
        "one_value": (
            "its reference holds a single value, so it is not known how others come",
            "Learn the reference again once the values differ, or build it from training data.",
        ),
        "unknown_hours": (
            "what its values are at each hour is known after two whole days, and until then a change of up to "
            f"{_format_percent(FORGIVEN_EARLY)} of them is taken for the time of the day: {seen}",
            "Wait, until two whole days from midnight to midnight (UTC, or reference.time_zone) were there.",
        ),
        "unknown_day": (
            f"this day of the week is not known yet, and until then more is forgiven: {seen}",
            "Wait: a day of the week is known once it was there, and one that is unlike most days after the second.",
        ),
        "holiday": (
            f"today is as another day of the week, as public holidays are, and is judged as both: {seen}",
            "Nothing on a holiday. If it is none, values have changed: a third such day is an alert.",
        ),
        "bursts": (
            f"its values come in bursts (φ {design_effect:.0f}), and {a_day} {supply}: {seen}",
            "Learn the reference from more values (reference.learn), or accept larger shifts (max_detectable).",
        ),
        "small_reference": (
            f"its reference holds only {reference_count} values: {seen}",
            "Learn the reference from more values (reference.learn), or build it from training data.",
        ),
        "little_traffic": (
            f"only {a_day} values {supply}: {seen}",
            "More traffic, or accept larger shifts (max_detectable); over more days smaller ones are found.",
        ),
        "tolerance": (
            f"so much is tolerated, and a shift has to exceed that: {seen}",
            "Lower the tolerance of the stream, or accept larger shifts (max_detectable).",
        ),
    }
    reason, remedy = texts[detectable.weakness]
    return reason, remedy


def _compute_relative_entropy(share: Floats, border: Floats) -> Floats:
    """Computes KL(p ‖ q) of two outcomes, element by element, for p >= q."""
    rest = 1.0 - share
    result: Floats = share * np.log(share / border) + np.where(rest > 0.0, rest * np.log(rest / (1.0 - border)), 0.0)
    return result


def _format_percent(share: float) -> str:
    return f"{100.0 * share:.{1 if share >= 0.00095 else 2}f} %"
