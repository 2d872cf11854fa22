"""Explains alerts to people: what moved in a stream, in words, and the whole alert as text of 25 lines at most.

Plain text of fixed width, so that it reads the same in a terminal, a log, a mail and a chat's code block. What moved is
read from counts over bins, and from means, which are exact. Quantiles are linear within a bin; one that lies in an open
bin, beyond what the reference ever held, is given by the bin's edge: `> 0.92`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Final

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import Alert, Cause, RuleState
from otel_mlmon.processor.window.window import Bins

MAX_CLASSES: Final = 3
"""Classes that are named: those that moved most."""
MIN_SHARE_CHANGE: Final = 0.005
"""A share that moved less is not mentioned."""
MAX_BINS: Final = 8
MAX_OTHER_CAUSES: Final = 2
MAX_TRACES: Final = 2
MAX_LINKS: Final = 3
BAR_WIDTH: Final = 16
NAME_WIDTH: Final = 22

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
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_ASCII: Final = str.maketrans({"…": "~", "→": ">", "·": "-", "µ": "u", "█": "#", "–": "-", "≤": "<"})


def format_title(alert: Alert) -> str:
    """Formats an alert in one line: state, severity, model and what it is about."""
    state = "RESOLVED" if alert.is_resolved else alert.state.name.replace("_", " ")
    severity = "" if alert.is_resolved else f" · {alert.severity}"
    model = " ".join(filter(None, (alert.model, alert.version, alert.environment)))
    return f"{state}{severity} · {model} · {alert.title}"


def format_alert(alert: Alert, *, is_unicode: bool = True) -> str:
    """Formats an alert as text of several lines.

    Args:
        alert: What changed.
        is_unicode: Whether blocks and arrows can be shown; if not, all but names from outside is ASCII.
    """
    text = "\n".join(line.rstrip() for line in _alert_lines(alert, is_unicode=is_unicode))
    return text if is_unicode else text.translate(_ASCII)


def describe_change(
    stream: str,
    bins: Bins,
    reference_shares: Sequence[float],
    current_shares: Sequence[float],
    *,
    means: tuple[float, float],
) -> tuple[str, ...]:
    """Describes how a distribution moved: mean, middle half, missing values, classes, images.

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
        return tuple(_class_changes(stream, bins, reference_shares, current_shares))
    feature = stream.removeprefix(semconv.STREAM_INPUT_PREFIX)
    return tuple(_number_changes(feature, bins, reference_shares, current_shares, means))


def describe_bin(stream: str, name: str, bins: Bins) -> str:
    """Names a bin as people call it: `class 3`, `missing`, `all others`, `0.4 … 0.5`."""
    if name == semconv.MISSING:
        return "missing"
    if name == semconv.OTHER:
        return "all others"
    if bins.is_ordered:
        return name
    return f"{'class' if stream == semconv.STREAM_LABEL else 'value'} {name}"


def format_percent(share: float) -> str:
    """Formats a share in per cent, to two digits: `0.4 %`, `10 %`."""
    value = 100 * share
    if 0 < value < 0.01:
        return "< 0.01 %"
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.2g} %"


def format_count(number: int) -> str:
    """Formats a whole number with its thousands apart: `4 210`."""
    return f"{number:,}".replace(",", " ")


def estimate_quantile(bins: Bins, shares: Sequence[float], q: float) -> float:
    """Estimates the value below which a share `q` of the values lies, linear within its bin.

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


def _number_changes(
    feature: str,
    bins: Bins,
    reference_shares: Sequence[float],
    current_shares: Sequence[float],
    means: tuple[float, float],
) -> Iterator[str]:
    reference_mean, current_mean = means
    unit = _UNITS.get(feature, "")
    if all(map(math.isfinite, means)) and f"{reference_mean:.3g}" != f"{current_mean:.3g}":
        if feature in _IMAGE_ADJECTIVES:
            yield f"images are {_IMAGE_ADJECTIVES[feature][current_mean > reference_mean]}"
        yield f"mean {reference_mean:.3g} → {current_mean:.3g}{unit}"
    reference_half, current_half = _middle_half(bins, reference_shares), _middle_half(bins, current_shares)
    if reference_half and current_half and reference_half != current_half:
        yield f"middle half {reference_half} → {current_half}{unit}"
    if semconv.MISSING in bins.names:
        index = bins.names.index(semconv.MISSING)
        if abs(current_shares[index] - reference_shares[index]) >= MIN_SHARE_CHANGE:
            yield f"missing {format_percent(reference_shares[index])} → {format_percent(current_shares[index])}"
    for index, comparative in ((0, "lower"), (len(bins.edges), "higher")) if bins.edges else ():
        if not reference_shares[index] and current_shares[index] >= MIN_SHARE_CHANGE:
            yield f"{format_percent(current_shares[index])} {comparative} than any before ({bins.names[index]})"


def _class_changes(
    stream: str, bins: Bins, reference_shares: Sequence[float], current_shares: Sequence[float]
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


def _middle_half(bins: Bins, shares: Sequence[float]) -> str:
    """Formats the lower to the upper quartile; empty if neither is known."""
    low, high = (estimate_quantile(bins, shares, q) for q in (0.25, 0.75))
    if math.isnan(low):
        return ""
    below, above = f"≤ {bins.edges[0]:.3g}", f"> {bins.edges[-1]:.3g}"
    if low == math.inf or high == -math.inf:
        return above if low == math.inf else below
    return f"{below if low == -math.inf else f'{low:.3g}'} … {above if high == math.inf else f'{high:.3g}'}"


def _alert_lines(alert: Alert, *, is_unicode: bool) -> Iterator[str]:
    yield format_title(alert)
    yield ""
    yield _row("What", _describe_event(alert))
    if alert.causes:
        yield _row("How much", alert.causes[0].summary)
        details = [detail for detail in alert.causes[0].details if not _is_repetition(detail, alert.causes[0])]
        if details and not alert.is_resolved:
            yield _row("In words", "; ".join(details))
    if alert.onset_ns:
        duration = _format_duration((alert.time_ns - alert.onset_ns) / 1e9)
        end = "until the end" if alert.is_resolved else "before this alert"
        yield _row("Since", f"{_format_utc(alert.onset_ns)}, {duration} {end}")
    if alert.reason:
        yield _row("Why", alert.reason)
    if alert.causes and alert.state in (RuleState.PENDING, RuleState.FIRING):
        yield ""
        yield from _histogram_lines(alert.causes[0], is_unicode=is_unicode)
        yield ""
    yield from _other_causes(alert)
    if alert.exemplars:
        yield _row("Traces", "  ".join(alert.exemplars[:MAX_TRACES]))
    for link in alert.links[:MAX_LINKS]:
        yield _row("Link", f"{link.name}: {link.url}")
    if not alert.is_resolved:
        yield _row("Silence", f'set enabled: false at models."{alert.model}".{alert.rule}')


def _row(head: str, text: str) -> str:
    return f"  {head:<9} {text}"


def _describe_event(alert: Alert) -> str:
    if alert.state is RuleState.ERROR:
        return "this rule cannot be evaluated"
    if alert.state is RuleState.NO_DATA:
        return "no predictions come in"
    if alert.is_resolved and alert.previous is RuleState.NO_DATA:
        return "it is no longer monitored" if alert.reason else "predictions come in again"
    if not alert.causes:
        return alert.title
    cause = alert.causes[0]
    verb = "had moved" if alert.is_resolved else "moved"
    return f"{cause.stream} {verb}: {cause.reference} → {cause.current}"


def _is_repetition(detail: str, cause: Cause) -> bool:
    """Returns whether the line above says the same."""
    return detail in (
        f"{cause.reference} → {cause.current}",
        f"{cause.reference} → {cause.current.removeprefix('mean ')}",
    )


def _other_causes(alert: Alert) -> Iterator[str]:
    others = alert.causes[1:]
    for cause in others[:MAX_OTHER_CAUSES]:
        yield _row("Also", f"{cause.stream}: {cause.reference} → {cause.current}")
    if len(others) > MAX_OTHER_CAUSES:
        yield _row("", f"and {len(others) - MAX_OTHER_CAUSES} more")


def _histogram_lines(cause: Cause, *, is_unicode: bool) -> Iterator[str]:
    """Draws the bins that moved most, in their own order, reference and current data side by side."""
    rows = list(zip(cause.bins, cause.reference_shares, cause.current_shares, strict=True))
    order = sorted(range(len(rows)), key=lambda index: -abs(rows[index][1] - rows[index][2]))
    shown = [rows[index] for index in sorted(order[:MAX_BINS])]
    largest = max((max(share, current) for _, share, current in shown), default=0.0) or 1.0
    width = min(NAME_WIDTH, max(len(cause.stream), *(len(name) for name, _, _ in shown), 1))
    column = BAR_WIDTH + 9
    yield f"  {_cut(cause.stream, width)}  {'reference':<{column}}now"
    for name, share, current in shown:
        left = f"{format_percent(share):>7} {_draw_bar(share / largest, is_unicode=is_unicode)}"
        right = f"{format_percent(current):>7} {_draw_bar(current / largest, is_unicode=is_unicode)}"
        yield f"  {_cut(name, width)}  {left:<{column}}{right}"
    if len(rows) > MAX_BINS:
        yield f"  {'':<{width}}  and {len(rows) - MAX_BINS} that moved less"


def _draw_bar(ratio: float, *, is_unicode: bool) -> str:
    """Draws up to `BAR_WIDTH` characters, to an eighth of one if there are blocks for it."""
    if not is_unicode:
        return "#" * round(ratio * BAR_WIDTH)
    full, eighths = divmod(round(ratio * BAR_WIDTH * 8), 8)
    return "█" * full + _EIGHTHS[eighths].strip()


def _cut(text: str, width: int) -> str:
    return f"{text:<{width}}" if len(text) <= width else text[: width - 1] + "…"


def _format_utc(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns / 1e9, tz=timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _format_duration(seconds: float) -> str:
    for length_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
