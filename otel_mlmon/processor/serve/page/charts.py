"""Draws charts as inline SVG, coloured by the page's style sheet, for the web pages and for reports of backtests.

No picture has a style of its own (the page's policy forbids it), and each has a name for screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Final

WIDTH: Final = 460
HEIGHT: Final = 132
LEFT: Final = 48
RIGHT: Final = 12
TOP: Final = 12
BOTTOM: Final = 22
MAX_BARS: Final = 14
BAR_ROW: Final = 30
BAR_NAMES: Final = 156
STRIP_ROW: Final = 22
STRIP_NAMES: Final = 190
STRIP_WIDTH: Final = 980
SPARK_WIDTH: Final = 220
SPARK_HEIGHT: Final = 82
SPARK_LEFT: Final = 54
SPARK_BASE: Final = 52
"""Where the horizontal axis of a small picture is."""
MAX_COLUMNS: Final = 20
MIN_SHARE: Final = 1e-12
"""Where no share is larger, none is drawn: there is no scale for it."""
MAX_NAMED_COLUMNS: Final = 4
CHARACTER_WIDTH: Final = 5.6
MAX_SHARES: Final = 8
"""Classes with a colour of their own."""
SHADES: Final = 4
"""Shades for evidence below the alarm line."""
_TIME_STEPS_S: Final = (60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800)
_NS: Final = 1e9

Point = tuple[int, float]
"""Unix nanoseconds and a value; NaN is a gap."""


class PixelScale:
    """A linear scale from values to pixels of a chart."""

    def __init__(self, *, low: float, high: float, start: float, end: float) -> None:
        self._low, self._start = low, start
        self._scale = (end - start) / ((high - low) or 1.0)

    def map(self, value: float) -> float:
        """Returns the pixel of a value on the scale."""
        return self._start + (value - self._low) * self._scale


def draw_svg(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    """Joins the parts of a chart to one SVG picture with a name for screen readers."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def draw_text(x: float, y: float, text: str, anchor: str = "start", css_class: str = "label") -> str:
    """Draws one line of text in a chart."""
    return f'<text class="{css_class}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def shorten_text(text: str, length: int) -> str:
    """Shortens a text to fit a chart, with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def list_axis_values(high: float, *, limit: int) -> list[float]:
    """Returns round axis values from 0 up to `high`, at most `limit` of them."""
    if not 1e-300 < high < math.inf:
        return [0.0]
    step = 10.0 ** math.floor(math.log10(high) - 2)
    factors = (2.0, 2.5, 2.0)
    position = 0
    while high / step > limit:
        step *= factors[position % 3]
        position += 1
    return [float(f"{index * step:.12g}") for index in range(int(high / step + 1e-9) + 1)]


def draw_grid_lines(vertical: PixelScale, high: float, format_value: Callable[[float], str]) -> str:
    """Draws the horizontal grid lines of a chart at round values, with their numbers."""
    parts = []
    for value in list_axis_values(high, limit=4):
        y = vertical.map(value)
        parts.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(draw_text(LEFT - 6, y + 4, format_value(value), "end", "tick"))
    return "".join(parts)


def list_time_ticks(start_s: float, end_s: float, *, limit: int) -> list[tuple[float, str]]:
    """Returns round times between two times (Unix seconds) and their texts, UTC, at most `limit` of them."""
    length_s = end_s - start_s
    if length_s <= 0:
        moment = datetime.fromtimestamp(end_s, tz=timezone.utc)
        return [(end_s, f"{moment:%d %b %H:%M}")]
    step_s = float(next((step for step in _TIME_STEPS_S if length_s / step <= limit), 0) or 0)
    if not step_s:
        step_s = 86_400.0 * math.ceil(length_s / 86_400 / limit)
    spec = "%H:%M" if step_s < 86_400 else "%d %b" if length_s < 300 * 86_400 else "%d %b %y"
    first = math.ceil(start_s / step_s) * step_s
    count = int((end_s - first) / step_s) + 1
    moments = [first + index * step_s for index in range(count)]
    return [(moment, datetime.fromtimestamp(moment, tz=timezone.utc).strftime(spec)) for moment in moments]


def draw_line_chart(
    lines: Sequence[tuple[str, Sequence[Point]]],
    *,
    label: str,
    format_value: Callable[[float], str],
    start_ns: int,
    end_ns: int,
    limit: float | None = None,
    moment_ns: int = 0,
    gap_ns: int = 0,
    least_high: float = 0.0,
) -> str:
    """Draws a chart of lines over time, each with a class of the style sheet.

    Args:
        lines: Classes and points.
        label: For screen readers.
        format_value: Formats a number of the vertical axis.
        start_ns: The left end, Unix nanoseconds.
        end_ns: The right end.
        limit: A threshold, drawn dashed.
        moment_ns: A moment to mark, such as the onset; 0 for none.
        gap_ns: Points further apart than this are not joined; 0 joins all.
        least_high: The least value at the top of the axis.
    """
    values = [value for _, points in lines for _, value in points if math.isfinite(value)]
    if not values:
        return ""
    shown_limit = limit if limit is not None and limit <= 4 * max(values) else None
    high = max(*values, shown_limit or 0.0, least_high) * 1.12
    high = high if high > 1e-300 else 1.0
    horizontal = PixelScale(low=start_ns / _NS, high=end_ns / _NS, start=LEFT, end=WIDTH - RIGHT)
    vertical = PixelScale(low=0.0, high=high, start=HEIGHT - BOTTOM, end=TOP)
    parts = [draw_grid_lines(vertical, high, format_value)]
    for css_class, points in lines:
        parts += _draw_line_path(css_class, points, horizontal, vertical, gap_ns)
    if shown_limit is not None:
        parts.append(f'<path class="limit" d="M{LEFT},{vertical.map(shown_limit):.1f}H{WIDTH - RIGHT}"/>')
    if start_ns <= moment_ns <= end_ns and moment_ns:
        x = horizontal.map(moment_ns / _NS)
        parts.append(f'<path class="moment" d="M{x:.1f},{TOP}V{HEIGHT - BOTTOM}"/>')
    for second, text in list_time_ticks(start_ns / _NS, end_ns / _NS, limit=6):
        parts.append(_draw_tick_label(horizontal.map(second), HEIGHT - 6, text, WIDTH))
    return draw_svg(WIDTH, HEIGHT, label, parts)


def _draw_line_path(
    css_class: str, points: Sequence[Point], horizontal: PixelScale, vertical: PixelScale, gap_ns: int
) -> Iterable[str]:
    runs: list[list[Point]] = []
    previous_ns: int | None = None
    for time_ns, value in points:
        if not math.isfinite(value):
            previous_ns = None
            continue
        if previous_ns is None or (gap_ns and time_ns - previous_ns > gap_ns):
            runs.append([])
        runs[-1].append((time_ns, value))
        previous_ns = time_ns
    for run in runs:
        places = [(horizontal.map(time_ns / _NS), vertical.map(value)) for time_ns, value in run]
        if len(places) == 1:
            yield f'<circle class="spot {css_class}" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="2"/>'
        else:
            path = "L".join(f"{x:.1f},{y:.1f}" for x, y in places)
            yield f'<path class="line {css_class}" d="M{path}"/>'


def _draw_tick_label(x: float, y: float, text: str, width: float) -> str:
    """Draws the label of a tick below the time axis of a chart, ending inside the picture."""
    return draw_text(x, y, text, "end", "tick") if x > width - 24 else draw_text(x, y, text, "middle", "tick")


def draw_sparkline(
    points: Sequence[Point],
    *,
    label: str,
    format_value: Callable[[float], str],
    ends: tuple[str, str],
    earlier: Sequence[Point] = (),
    start_ns: int | None = None,
    limit: float | None = None,
    moment_ns: int = 0,
    moment: str = "",
) -> str:
    """Draws one small line chart with minimal axes: 0, the maximum or the threshold, and both ends of its time.

    Args:
        points: Times and values.
        label: For screen readers.
        format_value: Formats a number of the vertical axis.
        ends: What the left and the right end are called.
        earlier: Times and values before these, of something else, drawn in grey. Fewer than two finite values in all
            are no picture.
        start_ns: The left end, Unix nanoseconds; None for the first value.
        limit: A threshold, drawn dashed and labelled.
        moment_ns: A moment to mark, such as the onset; 0 for none.
        moment: What it is called: `since 15:13:10`.
    """
    lines = [[point for point in line if math.isfinite(point[1])] for line in (earlier, points)]
    finite = [point for line in lines for point in line]
    if len(finite) < 2:
        return ""
    start_ns = finite[0][0] if start_ns is None else start_ns
    top = max(value for _, value in finite)
    horizontal = PixelScale(low=start_ns / _NS, high=finite[-1][0] / _NS, start=SPARK_LEFT, end=SPARK_WIDTH - 2)
    vertical = PixelScale(low=0.0, high=max(top, limit or 0.0) or 1.0, start=SPARK_BASE, end=8)
    parts = [f'<path class="grid" d="M{SPARK_LEFT},{SPARK_BASE}H{SPARK_WIDTH - 2}"/>']
    named = {top, limit} if limit is not None else {top}
    if limit is not None and abs(vertical.map(top) - vertical.map(limit)) < 11:
        named = {limit}
    parts += [
        draw_text(SPARK_LEFT - 4, vertical.map(value) + 4, format_value(value), "end", "tick")
        for value in sorted({0.0, *named})
        if value == 0.0 or vertical.map(value) < SPARK_BASE - 9
    ]
    if limit is not None:
        parts.append(f'<path class="limit" d="M{SPARK_LEFT},{vertical.map(limit):.1f}H{SPARK_WIDTH - 2}"/>')
    for css_class, line in zip(("p50", "p95"), lines, strict=True):
        parts += _draw_line_path(css_class, line, horizontal, vertical, 0)
    if start_ns <= moment_ns <= finite[-1][0]:
        x = horizontal.map(moment_ns / _NS)
        parts.append(f'<path class="moment" d="M{x:.1f},4V{SPARK_BASE + 16}"/>')
        parts.append(_draw_centred_text(x, SPARK_BASE + 26, moment, SPARK_LEFT, "moment"))
    parts.append(draw_text(SPARK_LEFT, SPARK_BASE + 12, ends[0], "start", "tick"))
    parts.append(draw_text(SPARK_WIDTH - 2, SPARK_BASE + 12, ends[1], "end", "tick"))
    return draw_svg(SPARK_WIDTH, SPARK_HEIGHT, label, parts)


def _draw_centred_text(x: float, y: float, text: str, left: float, css_class: str) -> str:
    """Draws a text centred at a place of a small picture, moved inwards where the picture ends."""
    half = len(text) * CHARACTER_WIDTH / 2
    return draw_text(max(min(x, SPARK_WIDTH - 2 - half), left + half), y, text, "middle", css_class)


def draw_bin_columns(
    names: Sequence[str],
    references: Sequence[float],
    shares: Sequence[float],
    *,
    label: str,
    format_share: Callable[[float], str],
) -> str:
    """Draws bins as pairs of columns in a small picture, present beside reference; of many bins those that moved most.

    Few bins are all named, of more the one that grew most.
    """
    rows = list(zip(names, references, shares, strict=False))
    largest = sorted(range(len(rows)), key=lambda index: -abs(rows[index][1] - rows[index][2]))[:MAX_COLUMNS]
    charted = [rows[index] for index in sorted(largest)]
    top = max((max(before, share) for _, before, share in charted), default=0.0)
    if top < MIN_SHARE:
        return ""
    left = 36
    vertical = PixelScale(low=0.0, high=top, start=SPARK_BASE, end=8)
    slot = (SPARK_WIDTH - 2 - left) / len(charted)
    width = min(slot * 0.42, 18.0)
    grown = max(range(len(charted)), key=lambda index: charted[index][2] - charted[index][1])
    parts = [f'<path class="grid" d="M{left},{SPARK_BASE}H{SPARK_WIDTH - 2}"/>']
    parts += [draw_text(left - 4, vertical.map(value) + 4, format_share(value), "end", "tick") for value in (0.0, top)]
    for index, (name, before, share) in enumerate(charted):
        middle = left + (index + 0.5) * slot
        for value, css_class, x in ((before, "reference", middle - width), (share, "now", middle)):
            y = vertical.map(value)
            title = f"<title>{escape(shorten_text(name, 60))}: {format_share(value)}</title>"
            parts.append(
                f'<rect class="{css_class}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{SPARK_BASE - y:.1f}">{title}</rect>'
            )
        if len(charted) <= MAX_NAMED_COLUMNS or index == grown:
            room = slot if len(charted) <= MAX_NAMED_COLUMNS else SPARK_WIDTH - left
            text = shorten_text(name, max(int(room / CHARACTER_WIDTH), 2))
            parts.append(_draw_centred_text(middle, SPARK_BASE + 12, text, left, "tick"))
    return draw_svg(SPARK_WIDTH, SPARK_HEIGHT - 14, label, parts)


def draw_stacked_shares(names: Sequence[str], shares: Sequence[float], *, label: str) -> str:
    """Draws shares as one stacked bar; the first eight have colours of their own, the others share one.

    A name is written into its part where the whole of it finds room; a legend beside the bar has all.
    """
    parts, x = [], 0.0
    for index, (name, share) in enumerate(zip(names, shares, strict=False)):
        width = 300.0 * share
        if width > 0:
            css_class = f"share{min(index, MAX_SHARES)}"
            parts.append(
                f'<rect class="{css_class}" x="{x:.1f}" y="0" width="{width:.1f}" height="14">'
                f"<title>{escape(shorten_text(name, 60))}: {share:.1%}</title></rect>"
            )
            if len(name) * 7 + 6 <= width:
                parts.append(draw_text(x + width / 2, 11, name, "middle", "inside"))
        x += width
    return draw_svg(300, 14, label, parts)


def draw_bin_bars(
    names: Sequence[str],
    references: Sequence[float],
    shares: Sequence[float],
    *,
    label: str,
    format_share: Callable[[float], str],
    now: str = "now",
) -> str:
    """Draws the shares of bins as bars, the reference above the current window; of many bins those that differ most."""
    rows = list(zip(names, references, shares, strict=False))
    largest = sorted(range(len(rows)), key=lambda index: -abs(rows[index][1] - rows[index][2]))[:MAX_BARS]
    charted = [rows[index] for index in sorted(largest)]
    top = max((max(before, share) for _, before, share in charted), default=0.0) or 1.0
    scale = (WIDTH - BAR_NAMES - 66) / top
    parts: list[str] = []
    for row, (name, before, share) in enumerate(charted):
        y = row * BAR_ROW
        parts.append(draw_text(BAR_NAMES - 8, y + 19, shorten_text(name, 22), "end"))
        for value, css_class, title, offset in ((before, "reference", "reference", 4), (share, "now", now, 15)):
            label = f"{escape(shorten_text(name, 60))}, {title}: {format_share(value)}"
            parts.append(
                f'<rect class="{css_class}" x="{BAR_NAMES}" y="{y + offset}" width="{max(value * scale, 0.5):.1f}" '
                f'height="9" rx="1.5"><title>{label}</title></rect>'
            )
            text = format_share(value) if before or share else ""
            parts.append(draw_text(BAR_NAMES + value * scale + 6, y + offset + 8, text, "start", "value"))
    hidden = len(rows) - len(charted)
    if hidden:
        parts.append(draw_text(BAR_NAMES, MAX_BARS * BAR_ROW + 14, f"and {hidden} with smaller differences"))
    return draw_svg(WIDTH, len(charted) * BAR_ROW + (22 if hidden else 4), label, parts)


def draw_heat_map(
    rows: Sequence[tuple[str, Sequence[Point]]], *, start_ns: int, end_ns: int, slot_ns: int, label: str
) -> str:
    """Draws a heat map of evidence, a row a stream and a cell a time, shaded by its distance to the alarm line.

    Args:
        rows: Names and points; a point is the evidence over the alarm line, in log10: 1 and above is an alarm.
        start_ns: The left end, Unix nanoseconds.
        end_ns: The right end.
        slot_ns: The length of a slot; a point is at the end of its slot.
        label: For screen readers.
    """
    height = STRIP_ROW * len(rows) + BOTTOM
    horizontal = PixelScale(low=start_ns / _NS, high=end_ns / _NS, start=STRIP_NAMES + 10, end=STRIP_WIDTH - RIGHT)
    parts = []
    for row, (name, points) in enumerate(rows):
        y = row * STRIP_ROW
        parts.append(draw_text(STRIP_NAMES, y + 15, shorten_text(name, 26), "end"))
        width = STRIP_WIDTH - RIGHT - STRIP_NAMES - 10
        parts.append(
            f'<rect class="quiet0" x="{STRIP_NAMES + 10}" y="{y + 3}" width="{width}" height="{STRIP_ROW - 6}"/>'
        )
        for time_ns, ratio in points:
            begin = max(horizontal.map((time_ns - slot_ns) / _NS), float(STRIP_NAMES + 10))
            cell = min(horizontal.map(time_ns / _NS), float(STRIP_WIDTH - RIGHT)) - begin
            if cell > 0:
                parts.append(
                    f'<rect class="{find_shade_class(ratio)}" x="{begin:.1f}" y="{y + 3}" width="{cell:.1f}" '
                    f'height="{STRIP_ROW - 6}"/>'
                )
    for second, text in list_time_ticks(start_ns / _NS, end_ns / _NS, limit=9):
        parts.append(_draw_tick_label(horizontal.map(second), height - 6, text, STRIP_WIDTH))
    return draw_svg(STRIP_WIDTH, height, label, parts)


def find_shade_class(ratio: float) -> str:
    """Returns the style class that shades evidence, by its ratio to the alarm line, both in log10."""
    if ratio >= 1.0:
        return "drift"
    return f"quiet{min(int(max(ratio, 0.0) * SHADES + (ratio > 0.02)), SHADES)}"
