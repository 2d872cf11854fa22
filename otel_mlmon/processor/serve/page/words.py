"""Formats words, numbers, times and names for the web pages; text from outside can neither hide nor break anything.

Autoescaping keeps markup harmless. Beyond that, characters that do not print (line breaks, direction marks, controls)
are spelled out, and long names are cut; an address never holds a name as it is.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup, escape

MAX_NAME: Final = 80
MAX_SEGMENT: Final = 300
"""Names that are longer, or do not print, are addressed by a digest."""
UNKNOWN: Final = "–"

STATES: Final = {
    "firing": "Alert",
    "trouble": "In trouble, no alert yet",
    "pending": "To look at, no alert yet",
    "drift": "Drift",
    "learning": "Learning",
    "weak": "No drift seen",
    "no_data": "No data",
    "error": "Cannot be judged",
    "unknown": "Unknown",
    "ok": "OK",
    "replaced": "Replaced",
}
"""The words for the states of models, streams and rules."""

SIGNS: Final = {
    "firing": "▲", "trouble": "△", "drift": "▼", "pending": "◇", "learning": "◐", "weak": "○", "no_data": "–",
    "error": "✕", "unknown": "?", "ok": "●", "replaced": "□",
}  # fmt: skip
"""A sign beside each word, so that colour is never alone: another one for each state."""
WARNING_SIGN: Final = "◆"
"""The sign of an alert that is no more than a warning."""
_PERCENT: Final = re.compile(r"(?<![\d.,-])(\d+(?:\.\d+)?)(?=[ \N{NO-BREAK SPACE}]%)")

RULES: Final = {
    "accuracy": "estimated accuracy",
    "no_data": "no predictions",
    "statistic": "statistic over its threshold",
}
"""The titles of a rule's alerts, where that is not the name of the rule."""

MEANINGS: Final = {
    "latency": "too many calls are slow",
    "errors": "too many calls fail",
    "prediction_drift": "the predictions are not what they used to be",
    "confidence": "the model is less sure than it used to be",
    "accuracy": "estimated from confidences, it is too low",
    "data_drift": "the inputs are not what they used to be",
    "version_drift": "the predictions are not those of the version before",
    "execution_provider": "the model runs on a lesser device than before",
}
"""The meaning of an alert of each rule, for people who see the first one."""


def is_finite_number(value: Any) -> bool:
    """Returns whether a value of a document is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def escape_line(text: object, limit: int = MAX_NAME) -> str:
    """Shortens a text to one line of at most `limit` characters, and escapes all that does not print."""
    printable = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(text)[: limit + 1]
    )
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"


def escape_lines(text: str) -> str:
    """Shortens a text to at most 40 lines of 400 characters, and escapes all that does not print."""
    return "\n".join(escape_line(line, 400) for line in text.split("\n")[:40])


def format_name(text: object, limit: int = MAX_NAME) -> Markup:
    """Formats a name from outside so that its writing direction does not reach the text around it."""
    return Markup("<bdi>{}</bdi>").format(escape_line(text, limit)) if str(text) else Markup("")


def encode_segment(name: str) -> str:
    """Encodes a name as one segment of a web address, which no client takes for `..` or for two segments."""
    marked = f"~{name}" if name[:1] in ("", ".", "~") else name
    encoded = quote(marked, safe="", errors="surrogatepass")
    if len(encoded) <= MAX_SEGMENT and name.isprintable():
        return encoded
    return f"~-{hashlib.blake2b(name.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"


def find_segment_name(segment: str, names: Iterable[str]) -> str | None:
    """Finds the name that a segment of a web address encodes."""
    return next((name for name in names if encode_segment(name) == segment), None)


def format_percent(ratio: Any) -> str:
    """Formats a share: `12 %`, `1.4 %`, `0.03 %`."""
    if not is_finite_number(ratio):
        return UNKNOWN
    percent = 100.0 * float(ratio)
    if percent == 0.0:
        return "0 %"
    digits = 0 if abs(percent) >= 9.95 else 1 if abs(percent) >= 0.095 else 2
    text = f"{percent:.{digits}f}".removesuffix(".0")
    return f"{text} %" if float(text) else "< 0.01 %"


def format_shares(shares: Iterable[float]) -> list[str]:
    """Formats shares that add up to one in whole per cent that add up to 100: `70 %`, `20 %`, `< 1 %`, `10 %`.

    The largest remainders are rounded up (Hamilton's method).
    """
    percents = [100.0 * share for share in shares]
    whole = [math.floor(percent) for percent in percents]
    missing = round(math.fsum(percents)) - sum(whole)
    for index in sorted(range(len(whole)), key=lambda index: whole[index] - percents[index])[: max(missing, 0)]:
        whole[index] += 1
    return [
        "< 1 %" if number == 0 and percent > 0 else f"{number} %"
        for number, percent in zip(whole, percents, strict=True)
    ]


def align_percents(before: str, now: str) -> tuple[str, str]:
    """Returns two texts that are compared, their percentages with the same digits: `9.7 %`, `11 %` as `10 %`, `11 %`.

    Nothing is rounded away: a share below one per cent, or two that would look the same, stay as they are.
    """
    numbers = [_PERCENT.findall(text) for text in (before, now)]
    if [len(found) for found in numbers] != [1, 1]:
        return before, now
    values = [float(found[0]) for found in numbers]
    if max(values) < 9.95 or any(0 < value < 0.95 for value in values) or round(values[0]) == round(values[1]):
        return before, now
    first, second = (_PERCENT.sub(f"{value:.0f}", text) for value, text in zip(values, (before, now), strict=True))
    return first, second


def join_percent_signs(text: str) -> str:
    """Binds each `%` to its number, so that no line breaks between them."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def format_number(value: Any) -> str:
    """Formats a number with at most four digits: `1 234`, `12.3`, `0.00123`."""
    if not is_finite_number(value):
        return UNKNOWN
    number = float(value)
    if abs(number) >= 1e15 or (number and abs(number) < 1e-4):
        return f"{number:.3g}"
    if abs(number) >= 1000 or number == int(number):
        return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{number:.4g}"


def format_rate(rate: Any) -> str:
    """Formats a rate per second with three digits: `25.1`."""
    return format_number(float(f"{rate:.3g}")) if is_finite_number(rate) else UNKNOWN


def format_seconds(seconds: Any) -> str:
    """Formats a length of time with a unit: `21 µs`, `1.2 ms`, `3.4 s`."""
    if not is_finite_number(seconds):
        return UNKNOWN
    if seconds == 0:
        return "0 s"
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if abs(seconds) * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s" if abs(seconds) < 999.5 else format_duration(seconds)


def format_duration(seconds: float) -> str:
    """Formats a long time: `40 s`, `12 min`, `3 h`, `2 d`."""
    for length_s, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def convert_to_datetime(time_ns: Any) -> datetime | None:
    """Converts Unix nanoseconds to a datetime in UTC; None if the time is unknown or out of range."""
    try:
        return datetime.fromtimestamp(int(time_ns) / 1e9, tz=timezone.utc) if time_ns else None
    except (OverflowError, OSError, TypeError, ValueError):
        return None


def format_time(time_ns: Any) -> Markup:
    """Formats a time in UTC; the script of the page adds the local one."""
    moment = convert_to_datetime(time_ns)
    if moment is None:
        return escape(UNKNOWN)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        f"{moment:%Y-%m-%dT%H:%M:%SZ}", f"{moment:%Y-%m-%d %H:%M:%S}"
    )


def format_clock_time(time_ns: Any, now_ns: int) -> str:
    """Formats a time in UTC as short as it is clear: `15:13:10`, or `28 Nov 15:13` of another day."""
    moment = convert_to_datetime(time_ns)
    if moment is None:
        return UNKNOWN
    return f"{moment:%H:%M:%S}" if now_ns - int(time_ns) < 12 * 3_600 * 10**9 else f"{moment:%d %b %H:%M}"


def format_age(time_ns: Any, now_ns: int) -> str:
    """Formats how long ago a time is: `12 min ago`; both times are cut to the second, as they are shown."""
    moment = convert_to_datetime(time_ns)
    if moment is None:
        return UNKNOWN
    age_s = now_ns // 10**9 - int(time_ns) // 10**9
    return "just now" if age_s < 5 else f"{format_duration(age_s)} ago"


def find_state_sign(state: str, severity: str = "") -> str:
    """Finds the symbol of a state, such as ▲; for an alert also by its severity."""
    is_warning = state == "firing" and severity not in ("", "critical")
    return WARNING_SIGN if is_warning else SIGNS.get(state, "✕")


def format_state(state: str, severity: str = "") -> Markup:
    """Formats a state as symbol and word; of an alert with its severity: `▲ Critical alert`, `◆ Warning`."""
    css_class, word = state if state in STATES else "error", STATES.get(state, escape_line(state, 20))
    if state == "firing" and severity:
        is_critical = severity == "critical"
        css_class, word = ("firing", "Critical alert") if is_critical else ("firing warning", "Warning")
    sign = find_state_sign(state, severity)
    return Markup('<span class="state {}"><span aria-hidden="true">{}</span> {}</span>').format(css_class, sign, word)


def name_alert_rule(rule: str) -> str:
    """Names an alert rule as the title of its alerts does."""
    return RULES.get(rule) or escape_line(rule.replace("_", " "))


def explain_alert_rule(rule: str) -> str:
    """Explains what an alert of a rule means; empty for a rule that another package added."""
    return MEANINGS.get(rule, "")
