"""Explains alerts to people: the whole alert as text of 25 lines at most.

Plain text of fixed width, so that it reads the same in a terminal, a log, a mail and a chat's code block.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from otel_mlmon.processor.alert.alert import Alert, Cause, RuleState
from otel_mlmon.processor.alert.cause import format_percent, format_utc

MAX_BINS: Final = 8
MAX_OTHER_CAUSES: Final = 2
MAX_TRACES: Final = 2
MAX_LINKS: Final = 3
MAX_MISSED: Final = 4
BAR_WIDTH: Final = 16
NAME_WIDTH: Final = 22

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


def encode_document(alert: Alert) -> bytes:
    """Encodes the alert for programs, as JSON in UTF-8; always the same bytes for the same alert."""
    document = {**alert.to_dict(), "subject": format_title(alert), "text": format_alert(alert)}
    return json.dumps(document, ensure_ascii=False, sort_keys=True).encode()


def _alert_lines(alert: Alert, *, is_unicode: bool) -> Iterator[str]:
    yield format_title(alert)
    yield ""
    yield _format_row("What", _describe_event(alert))
    if alert.causes:
        yield _format_row("How much", alert.causes[0].summary)
        details = [detail for detail in alert.causes[0].details if not _is_repetition(detail, alert.causes[0])]
        if details and not alert.is_resolved:
            yield _format_row("In words", "; ".join(details))
    if alert.onset_ns:
        duration = _format_duration((alert.time_ns - alert.onset_ns) / 1e9)
        end = "until the end" if alert.is_resolved else "before this alert"
        yield _format_row("Since", f"{format_utc(alert.onset_ns)}, {duration} {end}")
    if alert.reason:
        yield _format_row("Why", alert.reason)
    if alert.causes and alert.causes[0].bins and alert.state in (RuleState.PENDING, RuleState.FIRING):
        yield ""
        yield from _histogram_lines(alert.causes[0], is_unicode=is_unicode)
        yield ""
    yield from _list_other_causes(alert)
    yield from _list_news(alert)
    if alert.exemplars:
        yield _format_row("Traces", "  ".join(alert.exemplars[:MAX_TRACES]))
    for link in alert.links[:MAX_LINKS]:
        yield _format_row("Link", f"{link.name}: {link.url}")
    if alert.relearn_command and not alert.is_resolved:
        yield _format_row("If normal", alert.relearn_command)
    if alert.silence_command and not alert.is_resolved:
        yield _format_row("Silence", alert.silence_command)


def _list_news(alert: Alert) -> Iterator[str]:
    """Lists what no notification told before: what joined, and what began and ended while the recipient was away."""
    if alert.news:
        yield _format_row("New", ", ".join(alert.news[:MAX_MISSED]) + _count_more(alert.news))
    for number, line in enumerate(alert.missed[:MAX_MISSED], start=1):
        more = _count_more(alert.missed) if number == MAX_MISSED else ""
        yield _format_row("Missed" if number == 1 else "", line + more)


def _count_more(lines: tuple[str, ...]) -> str:
    return f" and {len(lines) - MAX_MISSED} more" if len(lines) > MAX_MISSED else ""


def _format_row(head: str, text: str) -> str:
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
    if cause.is_absent:
        return f"{cause.stream} was not sent" if alert.is_resolved else f"{cause.stream} is {cause.current}"
    verb = "had moved" if alert.is_resolved else "moved"
    return f"{cause.stream} {verb}: {cause.reference} → {cause.current}"


def _is_repetition(detail: str, cause: Cause) -> bool:
    """Returns whether the line above says the same."""
    return detail in (
        f"{cause.reference} → {cause.current}",
        f"{cause.reference} → {cause.current.removeprefix('mean ')}",
    )


def _list_other_causes(alert: Alert) -> Iterator[str]:
    others = alert.causes[1:]
    for cause in others[:MAX_OTHER_CAUSES]:
        before = "" if cause.is_absent else f"{cause.reference} → "
        yield _format_row("Also", f"{cause.stream}: {before}{cause.current}")
    if len(others) > MAX_OTHER_CAUSES:
        yield _format_row("", f"and {len(others) - MAX_OTHER_CAUSES} more")


def _histogram_lines(cause: Cause, *, is_unicode: bool) -> Iterator[str]:
    """Draws the bins that moved most, in their own order, reference and current data side by side."""
    rows = list(zip(cause.bins, cause.reference_shares, cause.current_shares, strict=True))
    order = sorted(range(len(rows)), key=lambda index: -abs(rows[index][1] - rows[index][2]))
    shown = [rows[index] for index in sorted(order[:MAX_BINS])]
    largest = max((max(share, current) for _, share, current in shown), default=0.0) or 1.0
    width = min(NAME_WIDTH, max(len(cause.stream), *(len(name) for name, _, _ in shown), 1))
    column = BAR_WIDTH + 9
    yield f"  {_truncate(cause.stream, width)}  {'reference':<{column}}now"
    for name, share, current in shown:
        left = f"{format_percent(share):>7} {_draw_bar(share / largest, is_unicode=is_unicode)}"
        right = f"{format_percent(current):>7} {_draw_bar(current / largest, is_unicode=is_unicode)}"
        yield f"  {_truncate(name, width)}  {left:<{column}}{right}"
    if len(rows) > MAX_BINS:
        yield f"  {'':<{width}}  and {len(rows) - MAX_BINS} that moved less"


def _draw_bar(ratio: float, *, is_unicode: bool) -> str:
    """Draws up to `BAR_WIDTH` characters, to an eighth of one if there are blocks for it."""
    if not is_unicode:
        return "#" * round(ratio * BAR_WIDTH)
    full, eighths = divmod(round(ratio * BAR_WIDTH * 8), 8)
    return "█" * full + _EIGHTHS[eighths].strip()


def _truncate(text: str, width: int) -> str:
    return f"{text:<{width}}" if len(text) <= width else text[: width - 1] + "…"


def _format_duration(seconds: float) -> str:
    for length_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
