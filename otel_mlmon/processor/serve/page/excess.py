"""Finds calls that fail or are slow far beyond what is allowed, before a model version has an alert about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from otel_mlmon.processor.alert.alert import compute_critical_ratio
from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.headline import describe_budget_excess

Document = Mapping[str, Any]

MIN_CALLS: Final = 100
_WAITING: Final = frozenset({"learning", "ok", "weak"})
"""States of a stream that no rule alerts on yet."""
MIN_BAD_CALLS: Final = 20
"""Fewer slow or failed calls may be a bad moment at the start of a process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetExcess:
    """A share of slow or failed calls so large that a critical alert is to be expected."""

    rule: str
    headline: Markup
    """Such as `30 % of calls fail`."""
    current: str
    allowed: str

    def describe(self, period: str = "") -> Markup:
        """Describes the share of slow or failed calls: `errors: 30 % failed in the last hour, 1 % allowed`.

        Args:
            period: The time that the share is of; empty for all that there is.
        """
        return Markup("{}: {}{}, {} allowed").format(self.rule, self.current, period and f" {period}", self.allowed)


def find_budget_excess(model: Document) -> BudgetExcess | None:
    """Finds a share of slow or failed calls that will be a critical alert if it lasts, while rules wait for evidence.

    Both the rolling window and the last minute are that bad: neither a moment nor what is over counts. None of a
    version whose rules on such calls are switched off.

    Args:
        model: The document of the version.
    """
    rules = {rule["rule"] for rule in model["rules"]}
    for name in ("errors", "latency"):
        stream = next((stream for stream in model["streams"] if stream["stream"] == name), None)
        if stream is None or name not in rules or stream["state"] not in _WAITING or stream["origin"] != "budget":
            continue
        if len(stream["current_shares"]) != 2 or stream["current_count"] < MIN_CALLS:
            continue
        share, allowed = stream["current_shares"][1], stream["reference_shares"][1]
        recent = model["error_ratio"] if name == "errors" else model["latency"]["over_ratio"]
        if not words.is_finite_number(recent) or min(share, recent) < compute_critical_ratio(allowed):
            continue
        if share * stream["current_count"] >= MIN_BAD_CALLS:
            threshold = words.format_seconds(model["latency"]["threshold_s"])
            current = f"{words.format_percent(share)} {'failed' if name == 'errors' else f'over {threshold}'}"
            return BudgetExcess(
                rule=name,
                headline=describe_budget_excess(name, current),
                current=words.join_percent_signs(current),
                allowed=words.join_percent_signs(words.format_percent(allowed)),
            )
    return None
