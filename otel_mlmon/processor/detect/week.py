"""Finds the kinds of day of a week from whole days: which weekdays are alike, and at what hour their days begin.

A week has seven days that begin at an unknown hour: days are counted in UTC, and people rest by their own clock. And
which days they rest, on which a shop is closed or another team sends its batch, nobody says. So for each hour at which
a local day may begin, its days are put together, and the seven weekdays are grouped in every way into one to four
kinds. Compared are the mean shares of a day, and, for themselves, its first two waves, both without what all days have
in common at that hour, each bin over the square root of its share. RSS_g is the least sum of squares that g kinds
leave of n days:

    F = (RSS_g - RSS_h)/(h - g) / (RSS_h/(n - h)), with (h - g, n - h) degrees of freedom.

More kinds are taken where P(F) of either, times the ways that were tried, is below 1 %, for days that begin at the hour
that was best for fewer kinds; then the hour is what is best for so many, and one kind less is taken where that does as
well at its own hour. The degrees of freedom are those of one number a day, so that more bins make it more careful. A
week without a pattern is one kind.

Source: Fisher, Statistical Methods for Research Workers, 1925 (analysis of variance); Bonferroni's inequality.
Choice: splitting in two, again and again, finds Saturdays and Sundays that differ to be one kind, hours late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.special import fdtrc

from otel_mlmon.processor.detect.cycle_statistics import HOURS
from otel_mlmon.types import Bools, Floats, Ints

WEEKDAYS: Final = 7

MAX_KINDS: Final = 4

KIND_LEVEL: Final = 0.01
"""The level of each comparison of two numbers of kinds."""

INDEPENDENT_STARTS: Final = 6.0
"""By how many tests the 24 hours at which a day may begin count: those near each other say the same."""

MIN_DAYS: Final = 2
"""Whole days of a kind that must be known."""

Place = tuple[int, int]
"""The position of an hour at which days begin, and of a way to group them."""

_EPOCH_WEEKDAY: Final = 3
"""1 January 1970 was a Thursday."""
_WAVES: Final = np.array([
    np.ones(HOURS),
    *(wave(2.0 * np.pi * order * (np.arange(HOURS) + 0.5) / HOURS) for order in (1, 2) for wave in (np.cos, np.sin)),
])  # fmt: skip


def _list_groupings() -> Ints:
    """Lists all ways to group the weekdays into kinds of day, one a row, shape (715, 7); the first kind is 0."""
    rows = np.zeros((1, 1), dtype=np.int64)
    for _ in range(WEEKDAYS - 1):
        largest = np.minimum(rows.max(1) + 1, MAX_KINDS - 1)
        rows = np.concatenate([
            np.column_stack([rows[largest >= kind], np.full((largest >= kind).sum(), kind)])
            for kind in range(MAX_KINDS)
        ])  # fmt: skip
    return rows


_GROUPINGS: Final = _list_groupings()
_KIND_COUNTS: Final = _GROUPINGS.max(1) + 1
_SETS: Final = (np.arange(2**WEEKDAYS)[:, None] >> np.arange(WEEKDAYS) & 1).astype(np.float64)
"""Every set of weekdays, shape (128, 7)."""
_GROUPS: Final = np.stack([((kind == _GROUPINGS) << np.arange(WEEKDAYS)).sum(1) for kind in range(MAX_KINDS)], axis=1)
"""The sets of each way to group the weekdays, shape (715, 4); 0 for none."""


def compute_weekday(day: int | Ints) -> int | Ints:
    """Returns the weekday, 0 for a Monday, of a day since 1970."""
    return (day + _EPOCH_WEEKDAY) % WEEKDAYS


def find_day_kinds(days: Ints, hours: Floats, *, min_items: float, has_zone: bool) -> Ints:
    """Finds the kind of each hour of the week, shape (7, 24): whole numbers, 0 for the kind of most days.

    Args:
        days: Days since 1970, increasing, shape (D,).
        hours: Their counts by hour, shape (D, 24, K).
        min_items: Items that a kind has at least.
        has_zone: Whether days begin at midnight; else they may begin at any hour.
    """
    features, items = _measure_hours(hours)
    # A day is called after its last hours: those before `start` of this day, the others of the day before.
    starts = np.array([HOURS]) if has_zone else np.arange(1, HOURS + 1)
    is_following = np.diff(days, prepend=days[0] - 2) == 1
    sums, sizes = (_shift_days(part, starts, is_following) for part in (features, items))
    shares = sums / np.maximum(sizes, 1.0)[..., None]
    is_whole = (starts == HOURS)[:, None] | is_following
    weekdays, bins = np.asarray(compute_weekday(days)), hours.shape[-1]
    blocks = shares[..., :bins], shares[..., bins:]
    grouping, place = _find_grouping(weekdays, blocks, sizes, is_whole, min_items)
    ranks = np.empty(MAX_KINDS, dtype=np.int64)
    ranks[np.argsort(-np.bincount(grouping[weekdays], minlength=MAX_KINDS), kind="stable")] = np.arange(MAX_KINDS)
    kinds = np.where(np.isin(np.arange(WEEKDAYS), weekdays), ranks[grouping], 0)
    places = np.arange(WEEKDAYS)[:, None] + (np.arange(HOURS) >= starts[place])
    result: Ints = kinds[places % WEEKDAYS]
    return result


def _find_grouping(
    weekdays: Ints, blocks: Sequence[Floats], items: Floats, is_whole: Bools, min_items: float
) -> tuple[Ints, int]:
    """Finds the kind of each weekday, shape (7,), and at which of the hours its days begin.

    Args:
        weekdays: Shape (D,).
        blocks: Features that are compared for themselves, for each hour at which days may begin: (starts, D, F) each.
        items: Of the days, shape (starts, D).
        is_whole: Whether all of a day is known, shape (starts, D); else its features and items are 0.
        min_items: Items that a kind has at least.
    """
    members = _SETS[:, weekdays]
    counts, days = is_whole @ members.T, is_whole.sum(1)
    is_enough = (counts >= MIN_DAYS) & (items @ members.T >= min_items)
    is_enough[:, 0] = True
    is_possible = is_enough[:, _GROUPS].all(-1)
    remainders = []
    for block in blocks:
        explained = np.square(members @ block).sum(-1) / np.maximum(counts, 1.0)
        left = np.square(block).sum((1, 2))[:, None] - explained[:, _GROUPS].sum(-1)
        remainders.append(np.where(is_possible, np.maximum(left, 0.0) / np.maximum(days, 1)[:, None], np.inf))
    # Each over the least that anything leaves, so that one does not outweigh the other.
    together = np.sum([remainder / max(float(remainder.min()), 1e-300) for remainder in remainders], axis=0)
    tests = len(blocks) * min(INDEPENDENT_STARTS, len(items))

    def is_better(few: Place, many: Place) -> bool:
        """Returns whether more kinds of day leave so much less variation that it cannot be chance."""
        counts = _KIND_COUNTS[few[1]], _KIND_COUNTS[many[1]]
        level = KIND_LEVEL / (tests * float((counts[1] == _KIND_COUNTS).sum()))
        freedom = float(days[many[0]] - counts[1]), float(counts[1] - counts[0])
        return any(_compute_p_value(remainder[few], remainder[many], freedom) < level for remainder in remainders)

    leasts = [(len(items) - 1, 0), *(_find_best_grouping(together, count) for count in range(2, MAX_KINDS + 1))]
    best = leasts[0]
    for count, least in enumerate(leasts[1:], 2):
        start = best[0] if best[1] else least[0]
        if is_better((start, best[1]), (start, _find_best_grouping(together[start : start + 1], count)[1])):
            best = least
    # At another hour fewer kinds may do as well.
    while (count := int(_KIND_COUNTS[best[1]])) > 2 and not is_better(leasts[count - 2], best):
        best = leasts[count - 2]
    return _GROUPINGS[best[1]], best[0]


def _find_best_grouping(together: Floats, count: int) -> Place:
    """Finds the start and the grouping into `count` kinds that leave the least variation, of shape (starts, 715)."""
    candidates = np.where(count == _KIND_COUNTS, together, np.inf)
    start, grouping = np.unravel_index(int(candidates.argmin()), candidates.shape)
    return int(start), int(grouping)


def _compute_p_value(before: float, after: float, freedom: tuple[float, float]) -> float:
    """Computes the p-value of an F test of fewer against more kinds of day; 1 where there is nothing to test."""
    if not after < before < np.inf or freedom[0] < 1.0:
        return 1.0
    ratio = (before - after) / freedom[1] / max(after / freedom[0], 1e-12 * before)
    return float(fdtrc(freedom[1], freedom[0], ratio))


def _measure_hours(hours: Floats) -> tuple[Floats, Floats]:
    """Measures what each hour adds to the features of its day, shape (D, 24, 5 K), and its items, shape (D, 24)."""
    items = hours.sum(-1)
    common = hours.sum(0) / np.maximum(items.sum(0), 1.0)[:, None]
    left = hours - items[..., None] * common
    left /= np.sqrt(np.maximum(hours.sum((0, 1)) / max(float(items.sum()), 1.0), 1e-9))
    features = left[:, :, None] * _WAVES.T[:, :, None]
    return features.reshape(*items.shape, -1), items


def _shift_days(hours: Floats, starts: Ints, is_following: Bools) -> Floats:
    """Sums the 24 hours of days that begin at hours of the day before, shape (starts, D, …); 0 without that day."""
    parts = np.cumsum(hours, axis=1)
    shifted = np.zeros((starts.size, *parts[:, 0].shape))
    following = parts[1:] + parts[:-1, -1:] - parts[:-1]
    shifted[:, is_following] = np.moveaxis(following[is_following[1:]], 1, 0)[starts - 1]
    shifted[starts == HOURS] = parts[:, -1]
    return shifted
