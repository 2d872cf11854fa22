"""An alert as a person reads it: what, how much, since when, distributions, what to do. 25 lines at most.

Plain text of fixed width, so that it reads the same in a terminal, a log, a mail and a chat's code block.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Final

from otel_mlmon.processor.alert.alert import Alert, Cause, RuleName, State
from otel_mlmon.processor.alert.explain import percent

MAX_BINS: Final = 8
MAX_ALSO: Final = 2
MAX_TRACES: Final = 2
MAX_LINKS: Final = 3
BAR_WIDTH: Final = 16
NAME_WIDTH: Final = 22

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_TITLES: Final[dict[RuleName, str]] = {
    "latency": "latency",
    "errors": "errors",
    "prediction_drift": "prediction drift",
    "confidence": "confidence",
    "data_drift": "data drift",
    "statistic": "statistic over its threshold",
    "no_data": "no predictions",
}
_ASCII: Final = str.maketrans({"…": "~", "→": ">", "·": "-", "µ": "u", "█": "#", "–": "-", "≤": "<"})


def title(alert: Alert) -> str:
    """One line: state, severity, model and what it is about."""
    state = "RESOLVED" if alert.is_resolved else alert.state.name.replace("_", " ")
    severity = "" if alert.is_resolved else f" · {alert.severity}"
    return f"{state}{severity} · {_model(alert)} · {_TITLES[alert.rule]}"


def render(alert: Alert, *, is_unicode: bool = True) -> str:
    """`alert` as text.

    Args:
        alert: What changed.
        is_unicode: Whether blocks and arrows can be shown; else nothing of our own leaves ASCII.
    """
    text = "\n".join(line.rstrip() for line in _lines(alert, is_unicode=is_unicode))
    return text if is_unicode else text.translate(_ASCII)


def _lines(alert: Alert, *, is_unicode: bool) -> Iterator[str]:
    yield title(alert)
    yield ""
    yield _row("What", _what(alert))
    if alert.causes:
        yield _row("How much", _how_much(alert.rule, alert.causes[0]))
        details = [words for words in alert.causes[0].details if not _is_said(words, alert.causes[0])]
        if details and not alert.is_resolved:
            yield _row("In words", "; ".join(details))
    if alert.since_ns:
        duration = _duration((alert.at_ns - alert.since_ns) / 1e9)
        when = "until the end" if alert.is_resolved else "before this alert"
        yield _row("Since", f"{_utc(alert.since_ns)}, {duration} {when}")
    if reason := alert.attributes.get("reason"):
        yield _row("Why", reason)
    if alert.causes and alert.state in (State.PENDING, State.FIRING):
        yield ""
        yield from _histogram(alert.causes[0], is_unicode=is_unicode)
        yield ""
    yield from _also(alert)
    if alert.exemplars:
        yield _row("Traces", "  ".join(alert.exemplars[:MAX_TRACES]))
    for name, url in alert.links[:MAX_LINKS]:
        yield _row("Link", f"{name}: {url}")
    if not alert.is_resolved:
        if alert.rule == "statistic":
            yield _row("Silence", f'take the threshold out of models."{alert.model}".statistic')
        else:
            yield _row("Silence", f'set enabled: false at models."{alert.model}".{alert.rule}')


def _row(head: str, text: str) -> str:
    return f"  {head:<9} {text}"


def _model(alert: Alert) -> str:
    return f"{alert.model} {alert.version}".strip()


def _what(alert: Alert) -> str:
    if alert.state is State.ERROR:
        return "this rule cannot be judged"
    if alert.rule == "no_data":
        if not alert.is_resolved:
            return "no predictions come in"
        return "it is no longer watched" if "reason" in alert.attributes else "predictions come in again"
    if not alert.causes:
        return _TITLES[alert.rule]
    cause = alert.causes[0]
    verb = "had moved" if alert.is_resolved else "moved"
    return f"{cause.stream} {verb}: {cause.before} → {cause.now}"


def _is_said(words: str, cause: Cause) -> bool:
    """Whether the line before says it already."""
    return words in (f"{cause.before} → {cause.now}", f"{cause.before} → {cause.now.removeprefix('mean ')}")


def _how_much(rule: RuleName, cause: Cause) -> str:
    if rule == "statistic":
        side = "below" if cause.statistic.startswith("p of ") else "above"
        counts = f"n = {_count(cause.n)}, reference n = {_count(cause.reference_count)}"
        return f"{cause.statistic} {cause.value:.3g}, {side} {cause.bound:.3g} ({counts})"
    measure = "share" if rule in ("latency", "errors") else "total variation"
    seen = "" if rule in ("latency", "errors") else f", reference n = {_count(cause.reference_count)}"
    bound = f"{percent(cause.value)}, tolerated {percent(cause.bound)}"
    return f"{measure} {bound} (n = {_count(cause.n)}{seen})"


def _also(alert: Alert) -> Iterator[str]:
    others = alert.causes[1:]
    for cause in others[:MAX_ALSO]:
        yield _row("Also", f"{cause.stream}: {cause.before} → {cause.now}")
    if len(others) > MAX_ALSO:
        yield _row("", f"and {len(others) - MAX_ALSO} more")


def _histogram(cause: Cause, *, is_unicode: bool) -> Iterator[str]:
    """The bins that moved most, in their own order, before and now side by side."""
    rows = list(zip(cause.bins, cause.reference_shares, cause.current_shares, strict=True))
    by_move = sorted(range(len(rows)), key=lambda index: -abs(rows[index][1] - rows[index][2]))
    shown = [rows[index] for index in sorted(by_move[:MAX_BINS])]
    top = max((max(was, now) for _, was, now in shown), default=0.0) or 1.0
    width = min(NAME_WIDTH, max(len(cause.stream), *(len(name) for name, _, _ in shown), 1))
    column = BAR_WIDTH + 9
    yield f"  {_cut(cause.stream, width)}  {'reference':<{column}}now"
    for name, was, now in shown:
        before = f"{percent(was):>7} {_bar(was / top, is_unicode=is_unicode)}"
        after = f"{percent(now):>7} {_bar(now / top, is_unicode=is_unicode)}"
        yield f"  {_cut(name, width)}  {before:<{column}}{after}"
    if len(rows) > MAX_BINS:
        yield f"  {'':<{width}}  and {len(rows) - MAX_BINS} that moved less"


def _bar(ratio: float, *, is_unicode: bool) -> str:
    """A bar of up to `BAR_WIDTH` characters, to an eighth of one where there are blocks for it."""
    if not is_unicode:
        return "#" * round(ratio * BAR_WIDTH)
    full, rest = divmod(round(ratio * BAR_WIDTH * 8), 8)
    return "█" * full + _EIGHTHS[rest].strip()


def _cut(text: str, width: int) -> str:
    return f"{text:<{width}}" if len(text) <= width else text[: width - 1] + "…"


def _count(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _utc(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns / 1e9, tz=timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _duration(seconds: float) -> str:
    for length_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
