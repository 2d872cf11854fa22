"""Draws the shares of a model's classes before and now, and the distribution of a stream beside its reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from otel_mlmon.processor.serve.page import charts, words
from otel_mlmon.processor.serve.page.source import PageSource

Document = Mapping[str, Any]

WHOLE_WINDOW: Final = "last hour"
REFERENCE: Final = "reference"
NOW: Final = "now"
_CATCH_ALL: Final = {"_OTHER": "all others", "_MISSING": "missing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareBars:
    """The shares of classes as stacked bars, one a moment, with a legend of their colours."""

    bars: Sequence[tuple[str, Markup]]
    legend: Sequence[tuple[str, str, str, str]]
    """Class of the style sheet, name, share of the reference, share now."""
    others: int
    """Classes beyond the legend, which share a colour."""


def name_rolling_window(rolling_s: float, *, is_full: bool) -> str:
    """Names the rolling window: `last hour`, `last 6 h`; `now` while it is not full."""
    if not is_full:
        return NOW
    return WHOLE_WINDOW if rolling_s == 3_600.0 else f"last {words.format_duration(rolling_s)}"


def name_recent_window(recent_s: float) -> str:
    """Names the window that rates, latency percentiles and error ratios are of: `last minute`, `last 5 min`."""
    return "last minute" if recent_s == 60.0 else f"last {words.format_duration(recent_s)}"


def name_cause_window(cause: Document, source: PageSource) -> str:
    """Names the time that the values of an alert's cause are of: `since 15:13:10`, or the rolling window if shorter."""
    if not cause["onset_ns"]:
        return NOW
    if source.now_ns - cause["onset_ns"] > source.rolling_s * 1e9:
        return name_rolling_window(source.rolling_s, is_full=True)
    return f"since {words.format_clock_time(cause['onset_ns'], source.now_ns)}"


def draw_share_bars(stream: Document, causes: Iterable[Document], window: str, source: PageSource) -> ShareBars | None:
    """Draws the classes of the reference and of now in the same order and colours; None if there are no classes.

    A rolling window still holds what was before the onset: what an alert counted since then takes its place.

    Args:
        stream: The document of a stream of labels.
        causes: Of the alerts of its model.
        window: What the rolling window is called.
        source: What the page is made of.
    """
    moments = [(REFERENCE, stream["reference_shares"]), (window, stream["current_shares"])]
    cause = find_stream_cause(stream, causes)
    if cause is not None and list(cause["bins"]) == list(stream["bins"]):
        moments[1] = (name_cause_window(cause, source), cause["current_shares"])
    return _build_share_bars(stream["bins"], moments)


def draw_version_bars(moved: Iterable[Document], before: str, version: str) -> ShareBars | None:
    """Draws the classes of a version's first predictions beside those of the version before; None without classes.

    Args:
        moved: What moved between them.
        before: The version before.
        version: The version.
    """
    cause = next((cause for cause in moved if cause["stream"].startswith("prediction.label") and cause["bins"]), None)
    if cause is None:
        return None
    sides = ((before, cause["reference_shares"]), (version, cause["current_shares"]))
    return _build_share_bars(
        cause["bins"], [(f"version {words.escape_line(name, 20)}", shares) for name, shares in sides]
    )


def _build_share_bars(bins: Sequence[str], moments: Sequence[tuple[str, Sequence[float]]]) -> ShareBars | None:
    moments = [(title, shares) for title, shares in moments if any(shares)]
    if not moments:
        return None
    order = sorted(range(len(bins)), key=lambda index: -moments[0][1][index])
    names = [name_bin(bins[index]) for index in order]
    bars = [
        (
            title,
            charts.draw_stacked_shares(
                names, [shares[index] for index in order], label=f"shares of the classes, {title}"
            ),
        )
        for title, shares in moments
    ]
    before, now = (
        list(map(words.join_percent_signs, words.format_shares(shares))) for _, shares in (moments[0], moments[-1])
    )
    legend = [
        (f"share{position}", names[position], before[index], now[index])
        for position, index in enumerate(order)
        if position < charts.MAX_SHARES and any(shares[index] for _, shares in moments)
    ]
    others = sum(any(shares[index] for _, shares in moments) for index in order[charts.MAX_SHARES :])
    return ShareBars(bars=[(title, Markup(bar)) for title, bar in bars], legend=legend, others=others)  # noqa: S704


def find_stream_cause(stream: Document, causes: Iterable[Document]) -> Document | None:
    """Finds the cause of an alert with the counts of a stream since its onset; None if no alert is about the stream."""
    return next((cause for cause in causes if cause["stream"] == stream["stream"] and cause["bins"]), None)


def name_bin(name: str) -> str:
    """Names a bin of a distribution as people call it, not as the documents encode it."""
    return _CATCH_ALL.get(name) or words.escape_line(name)


def draw_stream_distribution(
    stream: Document, causes: Iterable[Document], window: str, source: PageSource
) -> dict[str, Any]:
    """Draws a stream's distribution beside its reference: since the onset of an alert, else of the rolling window."""
    cause = find_stream_cause(stream, causes)
    side = cause or stream
    title = name_cause_window(cause, source) if cause is not None else window
    rows = [
        (name_bin(name), before, now)
        for name, before, now in zip(side["bins"], side["reference_shares"], side["current_shares"], strict=False)
        if before or now or name not in _CATCH_ALL
    ]
    picture = charts.draw_bin_bars(
        [name for name, _, _ in rows],
        [before for _, before, _ in rows],
        [now for _, _, now in rows],
        label=f"{words.escape_line(stream['stream'])}: reference and {title}",
        format_share=words.format_percent,
        now=title,
    )
    return {
        "stream": stream,
        "title": title,
        "picture": Markup(picture) if side["bins"] else None,  # noqa: S704
        "count": side["current_count"],
        "reference_count": side["reference_count"],
    }
