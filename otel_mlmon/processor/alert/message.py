"""Explains alerts to people as plain text of 32 lines at most: what happened, how much, since when, and what to do.

Plain text of fixed width reads the same in a terminal, a log, a mail and a chat's code block. Markdown and HTML are
made of the same content in `markup.py`. Names come from outside: a character that does not print, such as a line break
or a mark that turns the direction of text, is spelled out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_mlmon.processor.alert.alert import Alert, AlertCause, RuleState
from otel_mlmon.processor.alert.cause import format_percent, format_utc

MAX_BINS: Final = 8
MAX_OTHER_CAUSES: Final = 2
MAX_TRACES: Final = 2
MAX_LINKS: Final = 4
MAX_MISSED: Final = 4
MAX_RELATED: Final = 2
MAX_TEXT: Final = 400
"""Characters of one row; addresses and commands are never cut."""
BAR_WIDTH: Final = 16
NAME_WIDTH: Final = 22

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_LINK_TEXTS: Final = {"dashboard": "look at it", "runbook": "what it means, and what to do"}
_ASCII: Final = str.maketrans({"…": "~", "→": ">", "·": "-", "µ": "u", "█": "#", "–": "-", "≤": "<"})


class MessageRow(NamedTuple):
    """One line of an alert's message: a heading, a text, and the address that the text links to."""

    head: str
    text: str
    url: str = ""
    """The address that the text is a link to; empty if it is none."""


class MessageBin(NamedTuple):
    """One bin in the histogram of an alert's message: its name, and its share in the reference and now."""

    name: str
    reference: str
    reference_bar: str
    current: str
    current_bar: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertMessage:
    """The content of an alert as people read it, in lines of printable text."""

    title: str
    facts: tuple[MessageRow, ...]
    """The rows that say what happened, how much, since when."""
    stream: str
    """The stream whose histogram is shown."""
    bins: tuple[MessageBin, ...]
    """The bins that moved most, in their own order; empty without a histogram."""
    hidden_bins: int
    """Bins that moved less and are not shown."""
    notes: tuple[MessageRow, ...]
    """Other causes, news, related rules."""
    links: tuple[MessageRow, ...]
    commands: tuple[MessageRow, ...]
    """The commands to run, ready to copy."""


def format_alert_title(alert: Alert) -> str:
    """Formats an alert in one line: state, severity, model and what it is about."""
    state = "RESOLVED" if alert.is_resolved else alert.state.name.replace("_", " ")
    severity = "" if alert.is_resolved else f" · {alert.severity}"
    model = " ".join(filter(None, (alert.model, alert.version, alert.environment)))
    return escape_text(f"{state}{severity} · {model} · {alert.title}")


def format_alert(alert: Alert, *, is_unicode: bool = True) -> str:
    """Formats an alert as plain text of several lines.

    Args:
        alert: What changed.
        is_unicode: Whether blocks and arrows can be shown; if not, all but names from outside is ASCII.
    """
    text = "\n".join(line.rstrip() for line in _list_text_lines(build_alert_message(alert, is_unicode=is_unicode)))
    return text if is_unicode else text.translate(_ASCII)


def build_alert_message(alert: Alert, *, is_unicode: bool = True) -> AlertMessage:
    """Builds the content of the message that people get of an alert.

    Args:
        alert: What changed.
        is_unicode: Whether bars are drawn to an eighth of a character.
    """
    cause = alert.causes[0] if alert.causes else None
    rows: list[tuple[str, float, float]] = []
    is_allowance = cause is not None and cause.origin == "budget"  # two bins, which the first line has said
    if cause is not None and alert.state in (RuleState.PENDING, RuleState.FIRING) and not is_allowance:
        rows = list(zip(cause.bins, cause.reference_shares, cause.current_shares, strict=True))
    return AlertMessage(
        title=format_alert_title(alert),
        facts=_escape_message_rows(_list_message_facts(alert)),
        stream=escape_text(cause.stream) if cause is not None else "",
        bins=tuple(_draw_histogram_bins(rows, is_unicode=is_unicode)),
        hidden_bins=max(0, len(rows) - MAX_BINS),
        notes=_escape_message_rows(_list_message_notes(alert)),
        links=tuple(_list_message_links(alert)),
        commands=tuple(_list_message_commands(alert)),
    )


def format_histogram(message: AlertMessage) -> Iterator[str]:
    """Formats the histogram of an alert's message as lines of fixed width."""
    width = min(NAME_WIDTH, max(len(message.stream), *(len(row.name) for row in message.bins), 1))
    column = BAR_WIDTH + 9
    yield f"{_fit_text(message.stream, width)}  {'reference':<{column}}now"
    for row in message.bins:
        left = f"{row.reference:>7} {row.reference_bar}"
        yield f"{_fit_text(row.name, width)}  {left:<{column}}{row.current:>7} {row.current_bar}"
    if message.hidden_bins:
        yield f"{'':<{width}}  and {message.hidden_bins} that moved less"


def escape_text(text: str, limit: int = MAX_TEXT) -> str:
    """Shortens a text to at most `limit` characters, and escapes line breaks and all that does not print."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    if shown.isprintable():
        return shown
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in shown
    )


def _escape_message_rows(rows: Iterator[MessageRow]) -> tuple[MessageRow, ...]:
    return tuple(row._replace(text=escape_text(row.text)) for row in rows)


def _list_text_lines(message: AlertMessage) -> Iterator[str]:
    yield message.title
    yield ""
    for row in message.facts:
        yield _format_message_row(row)
    if message.bins:
        yield ""
        yield from (f"  {line}" for line in format_histogram(message))
        yield ""
    for row in (*message.notes, *message.links, *message.commands):
        yield _format_message_row(row)


def _format_message_row(row: MessageRow) -> str:
    address = f"{row.text}: {row.url}" if row.head == "Link" else row.url
    text = address or row.text
    return f"  {row.head:<9} {text}"


def _list_message_facts(alert: Alert) -> Iterator[MessageRow]:
    yield MessageRow("What", _describe_alert_event(alert))
    cause = alert.causes[0] if alert.causes else None
    if cause is not None:
        yield MessageRow("How much", cause.summary)
        details = [detail for detail in cause.details if not _is_repeated_text(detail, cause)]
        if details and not alert.is_resolved:
            yield MessageRow("In words", "; ".join(details))
        if cause.detectable_shift is not None and not alert.is_resolved:
            yield MessageRow("Detects", f"shifts of {format_percent(cause.detectable_shift)} or more within a day")
    if alert.onset_ns:
        duration = _format_duration((alert.time_ns - alert.onset_ns) / 1e9)
        end = "until the end" if alert.is_resolved else "before this alert"
        yield MessageRow("Since", f"{format_utc(alert.onset_ns)}, {duration} {end}")
    if alert.reason:
        yield MessageRow("Why", alert.reason)


def _list_message_notes(alert: Alert) -> Iterator[MessageRow]:
    yield from _list_other_causes(alert)
    if alert.news:
        yield MessageRow("New", ", ".join(alert.news[:MAX_MISSED]) + _format_remaining_count(alert.news))
    for number, line in enumerate(alert.missed[:MAX_MISSED], start=1):
        yield MessageRow(
            "Missed" if number == 1 else "",
            line + (_format_remaining_count(alert.missed) if number == MAX_MISSED else ""),
        )
    for number, related in enumerate(alert.related[:MAX_RELATED]):
        since = f" since {format_utc(related.onset_ns)}" if related.onset_ns else ""
        yield MessageRow(
            "" if number else "Related", f"{related.title} ({related.stream}){since}, probably of the same cause"
        )


def _list_message_links(alert: Alert) -> Iterator[MessageRow]:
    for number, trace in enumerate(() if alert.is_resolved else alert.traces[:MAX_TRACES]):
        yield MessageRow("" if number else "Traces", escape_text(trace.trace_id), trace.url)
    for link in alert.links[:MAX_LINKS]:
        head = link.name.capitalize() if link.name in _LINK_TEXTS else "Link"
        yield MessageRow(
            head, _LINK_TEXTS.get(link.name) or escape_text(link.name), escape_text(link.url, len(link.url))
        )


def _list_message_commands(alert: Alert) -> Iterator[MessageRow]:
    if alert.is_resolved:
        return
    if alert.relearn_command:
        yield MessageRow("If normal", alert.relearn_command)
    switch = escape_text(f'set enabled: false at models."{alert.model}".{alert.rule}')
    yield MessageRow("Silence", alert.silence_command or switch)


def _format_remaining_count(lines: tuple[str, ...]) -> str:
    return f" and {len(lines) - MAX_MISSED} more" if len(lines) > MAX_MISSED else ""


def _describe_alert_event(alert: Alert) -> str:
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
    if cause.origin == "budget":  # what is allowed was never so: no arrow leads from it
        return f"{cause.stream}: {cause.current}, {cause.reference}"
    if not cause.origin:
        return f"{cause.stream}: {cause.reference} → {cause.current}"
    verb = "had moved" if alert.is_resolved else "moved"
    return f"{cause.stream} {verb}: {cause.reference} → {cause.current}"


def _is_repeated_text(detail: str, cause: AlertCause) -> bool:
    """Returns whether a text about a cause says the same as the first line of the alert's message."""
    return detail in (
        f"{cause.reference} → {cause.current}",
        f"{cause.reference} → {cause.current.removeprefix('mean ')}",
    )


def _list_other_causes(alert: Alert) -> Iterator[MessageRow]:
    others = alert.causes[1:]
    for cause in others[:MAX_OTHER_CAUSES]:
        before = "" if cause.is_absent else f"{cause.reference} → "
        yield MessageRow("Also", f"{cause.stream}: {before}{cause.current}")
    if len(others) > MAX_OTHER_CAUSES:
        yield MessageRow("", f"and {len(others) - MAX_OTHER_CAUSES} more")


def _draw_histogram_bins(rows: list[tuple[str, float, float]], *, is_unicode: bool) -> Iterator[MessageBin]:
    """Yields the bins that moved most, in their own order, with bars of reference and current data."""
    order = sorted(range(len(rows)), key=lambda index: -abs(rows[index][1] - rows[index][2]))
    shown = [rows[index] for index in sorted(order[:MAX_BINS])]
    largest = max((max(share, current) for _, share, current in shown), default=0.0) or 1.0
    for name, share, current in shown:
        bars = (_draw_bar(value / largest, is_unicode=is_unicode) for value in (share, current))
        yield MessageBin(escape_text(name), format_percent(share), next(bars), format_percent(current), next(bars))


def _draw_bar(ratio: float, *, is_unicode: bool) -> str:
    """Draws a horizontal bar of up to `BAR_WIDTH` characters, to an eighth of a character in Unicode."""
    if not is_unicode:
        return "#" * round(ratio * BAR_WIDTH)
    full, eighths = divmod(round(ratio * BAR_WIDTH * 8), 8)
    return "█" * full + _EIGHTHS[eighths].strip()


def _fit_text(text: str, width: int) -> str:
    return f"{text:<{width}}" if len(text) <= width else text[: width - 1] + "…"


def _format_duration(seconds: float) -> str:
    for length_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
