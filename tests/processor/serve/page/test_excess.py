"""Trouble that no rule judges yet, and what is none."""

from __future__ import annotations

import math
from typing import Any

import pytest

from otel_mlmon.processor.serve.page.excess import find_budget_excess


def model(share: float, *, count: int = 1_000, name: str = "errors", allowed: float = 0.01,
          recent: float | None = None, **stream: object) -> Any:  # fmt: skip
    values = {"stream": name, "state": "learning", "origin": "budget", "current_count": count,
              "current_shares": [1 - share, share], "reference_shares": [1 - allowed, allowed], **stream}  # fmt: skip
    ratio = share if recent is None else recent
    return {"streams": [values], "rules": [{"rule": "errors"}, {"rule": "latency"}], "error_ratio": ratio,
            "latency": {"threshold_s": 0.2, "over_ratio": ratio}}  # fmt: skip


def test_calls_that_fail_or_are_slow_beyond_what_is_critical() -> None:
    failing, slow = find_budget_excess(model(0.3)), find_budget_excess(model(0.5, name="latency"))
    assert failing is not None
    assert find_budget_excess(model(0.3, state="ok")) == failing  # the rule waits for evidence
    assert slow is not None
    assert (failing.rule, failing.headline.striptags()) == ("errors", "30 % of calls fail")
    assert failing.describe().replace("\N{NO-BREAK SPACE}", " ") == "errors: 30 % failed, 1 % allowed"
    assert failing.describe("in the last hour").endswith(" failed in the last hour, 1\N{NO-BREAK SPACE}% allowed")
    assert (slow.rule, slow.headline.striptags()) == ("latency", "50 % of calls take over 200 ms")


@pytest.mark.parametrize(
    "document",
    [
        model(0.1),  # not so many that it would be critical
        model(0.3, allowed=0.5),
        model(0.3, count=50),  # too few calls
        model(0.15, count=120),  # too few of them failed
        model(0.3, recent=0.1),  # it is over
        model(0.3, recent=math.nan),  # no calls
        model(0.3, state="drift"),  # the rule alerts, or is about to
        model(0.3, origin="learned"),
        model(0.3, current_shares=[]),
        {**model(0.3), "rules": []},  # the rule is switched off
        {**model(0.3), "streams": []},
    ],
)
def test_what_is_no_trouble(document: Any) -> None:
    assert find_budget_excess(document) is None
