"""Draws the charts in the report of a backtest as SVG, for light and dark style sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from itertools import groupby
from typing import Final

from otel_mlmon.backtest.accuracy import AccuracyReport
from otel_mlmon.backtest.report import StreamReport, WindowPoint
from otel_mlmon.processor.alert.cause import format_percent
from otel_mlmon.processor.serve.page.charts import PixelScale, draw_svg, draw_text, shorten_text

MAX_CELLS: Final = 240
"""The most windows that are drawn one by one; of more, each mark is the strongest of several."""
MAX_BARS: Final = 14
CHART_WIDTH: Final = 460
CHART_HEIGHT: Final = 132
LEFT: Final = 40
RIGHT: Final = 10
TOP: Final = 12
BOTTOM: Final = 22
ROW_HEIGHT: Final = 30
NAME_WIDTH: Final = 156
STRIP_WIDTH: Final = 980
STRIP_ROW: Final = 22
STEPS: Final = 4
"""Shades for evidence below the alarm line."""


def draw_timeline(streams: Sequence[StreamReport], windows: int) -> str:
    """Draws the evidence of drift of all streams over time: a row for each stream, a cell for each window."""
    charted = [stream for stream in streams if stream.points]
    height = STRIP_ROW * len(charted) + BOTTOM
    horizontal = PixelScale(low=0.0, high=max(windows, 1), start=NAME_WIDTH + 20.0, end=STRIP_WIDTH - RIGHT)
    parts = [_draw_evidence_strip(stream, row, windows, horizontal) for row, stream in enumerate(charted)]
    ends = {point.window: point.end for stream in charted for point in stream.points}
    parts.append(_draw_window_ticks(horizontal, windows, height - BOTTOM + 16, ends))
    return draw_svg(STRIP_WIDTH, height, "evidence of every stream over the windows", parts)


def draw_share_bars(stream: StreamReport) -> str:
    """Draws a bar chart of the shares of a stream's bins in the reference and in the window."""
    rows = list(zip(stream.bins, stream.reference_shares, stream.shares, strict=True))
    largest = sorted(range(len(rows)), key=lambda index: -abs(rows[index][1] - rows[index][2]))[:MAX_BARS]
    charted = [rows[index] for index in sorted(largest)]
    top = max((max(before, now) for _, before, now in charted), default=0.0) or 1.0
    scale = (CHART_WIDTH - NAME_WIDTH - 66) / top
    parts: list[str] = []
    for row, (name, before, now) in enumerate(charted):
        y = row * ROW_HEIGHT
        parts.append(draw_text(NAME_WIDTH - 8, y + 19, shorten_text(name, 22), "end"))
        for share, css_class, offset in ((before, "reference", 4), (now, "now", 15)):
            parts.append(
                f'<rect class="{css_class}" x="{NAME_WIDTH}" y="{y + offset}" width="{max(share * scale, 0.5):.1f}" '
                f'height="9" rx="1.5"><title>{escape(name)}, {css_class}: {format_percent(share)}</title></rect>'
            )
            text = format_percent(share) if before or now else ""
            parts.append(draw_text(NAME_WIDTH + share * scale + 6, y + offset + 8, text, "start", "value"))
    if len(rows) > MAX_BARS:
        parts.append(
            draw_text(NAME_WIDTH, MAX_BARS * ROW_HEIGHT + 14, f"and {len(rows) - MAX_BARS} with smaller differences")
        )
    height = len(charted) * ROW_HEIGHT + (22 if len(rows) > MAX_BARS else 4)
    return draw_svg(CHART_WIDTH, height, f"{stream.stream}: reference against window {stream.compared_window}", parts)


def draw_evidence(stream: StreamReport) -> str:
    """Draws a chart of a stream's evidence of drift over the windows, log10, with the alarm line."""
    lines = [(point.window, point.log10_alarm_line) for point in stream.points]
    values = [(point.window, point.log10_evidence) for point in stream.points]
    high = max(max(line for _, line in lines) * 1.15, max(value for _, value in values) * 1.05)
    return _draw_line_chart(stream, values, limit=lines[-1][1], high=high, quantity="evidence, log10", spec="g")


def draw_distances(stream: StreamReport) -> str:
    """Draws a chart of each window's distance from the reference (total variation), with the tolerance."""
    values = [(point.window, point.total_variation) for point in stream.points]
    high = max(stream.tolerance * 1.6, max(value for _, value in values) * 1.1, 0.02)
    return _draw_line_chart(stream, values, limit=stream.tolerance, high=high, quantity="total variation", spec=".0%")


def draw_accuracy(report: AccuracyReport) -> str:
    """Draws a chart of the estimated accuracy over the windows, with its 95 % interval and the accepted limit."""
    points = report.points
    last = max(point.window for point in points)
    lowest = min(*(point.low for point in points), 1.0 if report.demanded is None else report.demanded)
    low = max(0.0, int(lowest * 10.0) / 10.0)
    horizontal = PixelScale(low=0.0, high=max(last, 1), start=LEFT, end=STRIP_WIDTH - RIGHT)
    vertical = PixelScale(low=low, high=1.0, start=CHART_HEIGHT - BOTTOM, end=TOP)
    step = max(1, len(points) // MAX_CELLS)
    drawn = points[::step]

    def place_points(values: Sequence[float]) -> str:
        pairs = zip(drawn, values, strict=True)
        return "L".join(f"{horizontal.map(point.window):.1f},{vertical.map(value):.1f}" for point, value in pairs)

    upper, middle = place_points([point.high for point in drawn]), place_points([point.estimated for point in drawn])
    lower = "L".join(reversed(place_points([point.low for point in drawn]).split("L")))
    parts = []
    for value in (low, (low + 1.0) / 2.0, 1.0):
        y = vertical.map(value)
        parts.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{STRIP_WIDTH - RIGHT}"/>')
        parts.append(draw_text(LEFT - 6, y + 4, f"{value:.0%}", "end", "tick"))
    parts += [f'<path class="area" d="M{upper}L{lower}Z"/>', f'<path class="line" d="M{middle}"/>']
    if report.demanded is not None:
        parts.append(f'<path class="limit" d="M{LEFT},{vertical.map(report.demanded):.1f}H{STRIP_WIDTH - RIGHT}"/>')
    if report.first_alarm_window is not None:
        x = horizontal.map(report.first_alarm_window)
        parts.append(f'<path class="moment" d="M{x:.1f},{TOP}V{vertical.map(low):.1f}"/>')
    parts.append(
        _draw_window_ticks(horizontal, last, CHART_HEIGHT - 6, {point.window: point.end for point in points}, limit=10)
    )
    return draw_svg(STRIP_WIDTH, CHART_HEIGHT, "estimated accuracy over the windows", parts)


def _draw_line_chart(
    stream: StreamReport,
    values: Sequence[tuple[int, float]],
    *,
    limit: float,
    high: float,
    quantity: str,
    spec: str,
) -> str:
    last = max(window for window, _ in values)
    horizontal = PixelScale(low=0.0, high=max(last, 1), start=LEFT, end=CHART_WIDTH - RIGHT)
    vertical = PixelScale(low=0.0, high=high, start=CHART_HEIGHT - BOTTOM, end=TOP)
    points = _thin_line_points(values)
    path = "L".join(f"{horizontal.map(window):.1f},{vertical.map(value):.1f}" for window, value in points)
    base = vertical.map(0.0)
    area = f"M{horizontal.map(points[0][0]):.1f},{base:.1f}L{path}L{horizontal.map(points[-1][0]):.1f},{base:.1f}Z"
    parts = [
        _draw_value_grid(vertical, high, spec),
        f'<path class="area" d="{area}"/>',
        f'<path class="line" d="M{path}"/>',
    ]
    if len(points) == 1:
        x, y = horizontal.map(points[0][0]), vertical.map(points[0][1])
        parts.append(f'<circle class="spot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    y = vertical.map(limit)
    parts.append(f'<path class="limit" d="M{LEFT},{y:.1f}H{CHART_WIDTH - RIGHT}"/>')
    if stream.first_alarm_window is not None:
        x = horizontal.map(stream.first_alarm_window)
        height = dict(values)[stream.first_alarm_window]
        parts.append(f'<path class="moment" d="M{x:.1f},{TOP}V{base:.1f}"/>')
        parts.append(
            f'<circle class="spot" cx="{x:.1f}" cy="{vertical.map(height):.1f}" r="3.5">'
            f"<title>first alarm: window {stream.first_alarm_window}</title></circle>"
        )
    ends = {point.window: point.end for point in stream.points}
    parts.append(_draw_window_ticks(horizontal, last, CHART_HEIGHT - 6, ends, limit=6))
    return draw_svg(CHART_WIDTH, CHART_HEIGHT, f"{stream.stream}: {quantity} over the windows", parts)


def _draw_value_grid(vertical: PixelScale, high: float, spec: str) -> str:
    parts = []
    for value in _choose_axis_ticks(high, limit=4):
        y = vertical.map(value)
        parts.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{CHART_WIDTH - RIGHT}"/>')
        parts.append(draw_text(LEFT - 6, y + 4, format(value, spec), "end", "tick"))
    return "".join(parts)


def _draw_window_ticks(
    horizontal: PixelScale, last: float, y: float, ends: Mapping[int, str | None], *, limit: int = 10
) -> str:
    """Draws the labels of a chart's time axis: the ends of some windows, or their numbers without times."""
    texts = _format_window_ends(ends)
    parts = []
    for value in _choose_axis_ticks(last, limit=limit):
        anchor = "end" if texts and value > 0.95 * last else "middle"
        parts.append(
            draw_text(horizontal.map(value), y, texts.get(int(value), "") if texts else f"{value:g}", anchor, "tick")
        )
    return "".join(parts)


def _format_window_ends(ends: Mapping[int, str | None]) -> dict[int, str]:
    """Formats the end times of windows as dates, or as times of day if they span at most two days."""
    moments = {window: datetime.fromisoformat(end.replace("Z", "+00:00")) for window, end in ends.items() if end}
    if not moments:
        return {}
    days = (max(moments.values()) - min(moments.values())).total_seconds() / 86_400
    spec = "%d %b %H:%M" if days < 2 else "%d %b" if days < 300 else "%b %Y"
    return {window: moment.strftime(spec) for window, moment in moments.items()}


def _choose_axis_ticks(high: float, *, limit: int) -> list[float]:
    """Returns 0 and round numbers up to `high` for the ticks of an axis, at most `limit` of them."""
    step = 1e-4
    factors = (2.0, 2.5, 2.0)
    position = 0
    while high / step > limit:
        step *= factors[position % 3]
        position += 1
    return [round(index * step, 10) for index in range(int(high / step + 1e-9) + 1)]


def _draw_evidence_strip(stream: StreamReport, row: int, windows: int, horizontal: PixelScale) -> str:
    y = row * STRIP_ROW
    parts = [draw_text(NAME_WIDTH + 10, y + 15, shorten_text(f"{stream.model} {stream.stream}".strip(), 24), "end")]
    size = -(-windows // MAX_CELLS) or 1
    for first, group in groupby(stream.points, key=lambda point: point.window // size * size):
        strongest = max(group, key=lambda point: point.log10_evidence - point.log10_alarm_line)
        x, width = horizontal.map(first), horizontal.map(min(first + size, windows)) - horizontal.map(first)
        title = f"{stream.stream}, window {strongest.window}: evidence 10^{strongest.log10_evidence:.1f}"
        parts.append(
            f'<rect class="{_choose_cell_class(strongest)}" x="{x:.2f}" y="{y + 3}" '
            f'width="{max(width - (width > 4), 0.5):.2f}" height="{STRIP_ROW - 6}">'
            f"<title>{escape(title)}</title></rect>"
        )
    return "".join(parts)


def _choose_cell_class(point: WindowPoint) -> str:
    if point.is_learning:
        return "learning"
    if point.is_drift:
        return "drift"
    ratio = max(0.0, point.log10_evidence / point.log10_alarm_line)
    return f"quiet{min(int(ratio * STEPS + (ratio > 0.02)), STEPS)}"


def _thin_line_points(values: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Reduces the points of a line in a chart: of each few windows the highest stays."""
    size = -(-len(values) // (2 * MAX_CELLS)) or 1
    return [max(values[start : start + size], key=lambda pair: pair[1]) for start in range(0, len(values), size)]
