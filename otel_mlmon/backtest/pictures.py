"""The report's pictures as SVG: drawn here, coloured by the page's own style, so that light and dark both suit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Final

from otel_mlmon.backtest.report import StreamReport, WindowPoint
from otel_mlmon.processor.alert.message import format_percent

MAX_CELLS: Final = 240
"""Windows that a line of pictures shows one by one; of more, each mark is the worst of several."""
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
"""Shades of evidence below the alarm line."""

Spot = tuple[float, float]


def timeline(streams: Sequence[StreamReport], windows: int) -> str:
    """A line a stream, a cell a window: how near the evidence was to the alarm line."""
    shown = [stream for stream in streams if stream.points]
    height = STRIP_ROW * len(shown) + BOTTOM
    across = _Axis(low=0.0, high=max(windows, 1), start=NAME_WIDTH + 20.0, end=STRIP_WIDTH - RIGHT)
    parts = [_strip(stream, row, windows, across) for row, stream in enumerate(shown)]
    parts.append(_ticks(across, windows, height - BOTTOM + 16))
    return _svg(STRIP_WIDTH, height, "evidence of every stream over the windows", parts)


def bars(stream: StreamReport) -> str:
    """Shares of the bins, the reference above and the window below; of many bins those that moved most."""
    rows = list(zip(stream.bins, stream.reference_shares, stream.shares, strict=True))
    moved = sorted(range(len(rows)), key=lambda index: -abs(rows[index][1] - rows[index][2]))[:MAX_BARS]
    shown = [rows[index] for index in sorted(moved)]
    top = max((max(before, now) for _, before, now in shown), default=0.0) or 1.0
    scale = (CHART_WIDTH - NAME_WIDTH - 66) / top
    parts: list[str] = []
    for row, (name, before, now) in enumerate(shown):
        y = row * ROW_HEIGHT
        parts.append(_text(NAME_WIDTH - 8, y + 19, _cut(name, 22), "end"))
        for value, kind, offset in ((before, "reference", 4), (now, "now", 15)):
            parts.append(
                f'<rect class="{kind}" x="{NAME_WIDTH}" y="{y + offset}" width="{max(value * scale, 0.5):.1f}" '
                f'height="9" rx="1.5"><title>{escape(name)}, {kind}: {format_percent(value)}</title></rect>'
            )
            said = format_percent(value) if before or now else ""
            parts.append(_text(NAME_WIDTH + value * scale + 6, y + offset + 8, said, "start", "value"))
    if len(rows) > MAX_BARS:
        parts.append(_text(NAME_WIDTH, MAX_BARS * ROW_HEIGHT + 14, f"and {len(rows) - MAX_BARS} that moved less"))
    height = len(shown) * ROW_HEIGHT + (22 if len(rows) > MAX_BARS else 4)
    return _svg(CHART_WIDTH, height, f"{stream.stream}: reference against window {stream.compared_window}", parts)


def evidence(stream: StreamReport) -> str:
    """log10 of the evidence over the windows, and the alarm line."""
    lines = [(point.window, point.log10_alarm_line) for point in stream.points]
    values = [(point.window, point.log10_evidence) for point in stream.points]
    high = max(max(line for _, line in lines) * 1.15, max(value for _, value in values) * 1.05)
    return _chart(stream, values, limit=lines[-1][1], high=high, what="evidence, log10", form="g")


def effect(stream: StreamReport) -> str:
    """Total variation of each window, and what is tolerated."""
    values = [(point.window, point.total_variation) for point in stream.points]
    high = max(stream.tolerance * 1.6, max(value for _, value in values) * 1.1, 0.02)
    return _chart(stream, values, limit=stream.tolerance, high=high, what="total variation", form=".0%")


class _Axis:
    """From values to pixels."""

    def __init__(self, *, low: float, high: float, start: float, end: float) -> None:
        self._low, self._start = low, start
        self._scale = (end - start) / ((high - low) or 1.0)

    def at(self, value: float) -> float:
        return self._start + (value - self._low) * self._scale


def _chart(
    stream: StreamReport,
    values: Sequence[tuple[int, float]],
    *,
    limit: float,
    high: float,
    what: str,
    form: str,
) -> str:
    last = max(window for window, _ in values)
    across = _Axis(low=0.0, high=max(last, 1), start=LEFT, end=CHART_WIDTH - RIGHT)
    up = _Axis(low=0.0, high=high, start=CHART_HEIGHT - BOTTOM, end=TOP)
    drawn = _thinned(values)
    path = "L".join(f"{across.at(window):.1f},{up.at(value):.1f}" for window, value in drawn)
    base = up.at(0.0)
    area = f"M{across.at(drawn[0][0]):.1f},{base:.1f}L{path}L{across.at(drawn[-1][0]):.1f},{base:.1f}Z"
    parts = [_grid(up, high, form), f'<path class="area" d="{area}"/>', f'<path class="line" d="M{path}"/>']
    if len(drawn) == 1:
        parts.append(f'<circle class="spot" cx="{across.at(drawn[0][0]):.1f}" cy="{up.at(drawn[0][1]):.1f}" r="3"/>')
    y = up.at(limit)
    parts.append(f'<path class="limit" d="M{LEFT},{y:.1f}H{CHART_WIDTH - RIGHT}"/>')
    if stream.first_alarm_window is not None:
        x = across.at(stream.first_alarm_window)
        height = dict(values)[stream.first_alarm_window]
        parts.append(f'<path class="moment" d="M{x:.1f},{TOP}V{base:.1f}"/>')
        parts.append(
            f'<circle class="spot" cx="{x:.1f}" cy="{up.at(height):.1f}" r="3.5">'
            f"<title>first alarm: window {stream.first_alarm_window}</title></circle>"
        )
    parts.append(_ticks(across, last, CHART_HEIGHT - 6))
    return _svg(CHART_WIDTH, CHART_HEIGHT, f"{stream.stream}: {what} over the windows", parts)


def _grid(up: _Axis, high: float, form: str) -> str:
    parts = []
    for value in _round_steps(high, most=4):
        y = up.at(value)
        parts.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{CHART_WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 6, y + 4, format(value, form), "end", "tick"))
    return "".join(parts)


def _ticks(across: _Axis, last: float, y: float) -> str:
    return "".join(_text(across.at(value), y, f"{value:g}", "middle", "tick") for value in _round_steps(last, most=10))


def _round_steps(high: float, *, most: int) -> list[float]:
    """0 and up to `high` in at most `most` round steps."""
    step = 1e-4
    factors = (2.0, 2.5, 2.0)
    turn = 0
    while high / step > most:
        step *= factors[turn % 3]
        turn += 1
    return [round(index * step, 10) for index in range(int(high / step + 1e-9) + 1)]


def _strip(stream: StreamReport, row: int, windows: int, across: _Axis) -> str:
    y = row * STRIP_ROW
    parts = [_text(NAME_WIDTH + 10, y + 15, _cut(f"{stream.model} {stream.stream}".strip(), 24), "end")]
    size = -(-windows // MAX_CELLS) or 1
    for first, group in groupby(stream.points, key=lambda point: point.window // size * size):
        worst = max(group, key=lambda point: point.log10_evidence - point.log10_alarm_line)
        x, width = across.at(first), across.at(min(first + size, windows)) - across.at(first)
        said = f"{stream.stream}, window {worst.window}: evidence 10^{worst.log10_evidence:.1f}"
        parts.append(
            f'<rect class="{_shade(worst)}" x="{x:.2f}" y="{y + 3}" width="{max(width - (width > 4), 0.5):.2f}" '
            f'height="{STRIP_ROW - 6}"><title>{escape(said)}</title></rect>'
        )
    return "".join(parts)


def _shade(point: WindowPoint) -> str:
    if point.is_calibrating:
        return "calibrating"
    if point.is_drift:
        return "drift"
    ratio = max(0.0, point.log10_evidence / point.log10_alarm_line)
    return f"quiet{min(int(ratio * STEPS + (ratio > 0.02)), STEPS)}"


def _thinned(values: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Of many windows the highest of each few."""
    size = -(-len(values) // (2 * MAX_CELLS)) or 1
    return [max(values[at : at + size], key=lambda pair: pair[1]) for at in range(0, len(values), size)]


def _svg(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "label") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
