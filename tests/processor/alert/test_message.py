from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.alert.alert import AlertAddresses, AlertLink, RelatedRule, RuleState
from otel_mlmon.processor.alert.cause import describe_change, estimate_quantile, format_percent
from otel_mlmon.processor.alert.message import format_alert, format_alert_title
from otel_mlmon.processor.alert.rules.rule import RULES
from otel_mlmon.processor.window.binning import name_bins_by_range
from otel_mlmon.processor.window.window import HistogramBins
from otel_mlmon.semconv import MISSING, OTHER
from tests.support.alerts import CAUSE, FIRING, RESOLVED

BRIGHTNESS = replace(CAUSE, stream="input.image.brightness", reference="mean 0.31", current="mean 0.17")


def test_a_firing_alert_says_what_how_much_since_when_and_what_to_do() -> None:
    alert = replace(
        FIRING,
        causes=(CAUSE, replace(BRIGHTNESS, origin="version")),
        exemplars=("4bf92f3577b34da6a3ce929d0e0e4736",),
        addresses=AlertAddresses(
            web="127.0.0.1:8080",
            trace="https://jaeger/trace/{trace_id}",
            others=(AlertLink(name="wiki", url="https://wiki/{model}/{rule}"),),
        ),
        related=(RelatedRule(rule="data_drift", title="data drift", stream="input.age", onset_ns=CAUSE.onset_ns),),
    )
    assert (
        format_alert(alert)
        == """\
FIRING · critical · digits 1 · prediction drift

  What      prediction.label moved: class 3: 10 % → 45 %
  How much  total variation 35 %, tolerated 2 % (n = 4 210, reference n = 5 000)
  Since     2025-11-22 14:00:00 UTC, 12 s before this alert

  prediction.label  reference                now
  0                    10 % ███▌                 6 % ██▏
  2                    10 % ███▌                 5 % █▊
  3                    10 % ███▌                45 % ████████████████
  4                    10 % ███▌                 6 % ██▏
  5                    10 % ███▌                 6 % ██▏
  7                    10 % ███▌                 6 % ██▏
  8                    10 % ███▌                 6 % ██▏
  9                    10 % ███▌                 6 % ██▏
                    and 2 that moved less

  Also      input.image.brightness: mean 0.31 → mean 0.17
  Related   data drift (input.age) since 2025-11-22 14:00:00 UTC, probably of the same cause
  Traces    https://jaeger/trace/4bf92f3577b34da6a3ce929d0e0e4736
  Dashboard http://127.0.0.1:8080/alerts/48da1b4673cf5396
  Runbook   http://127.0.0.1:8080/runbooks/prediction_drift.md
  Link      wiki: https://wiki/digits/prediction_drift
  If normal otel-mlmon reference relearn digits --model-version 1 --stream prediction.label
  Silence   otel-mlmon alert silence digits --rule prediction_drift --for 2h"""
    )


def test_a_resolved_alert_says_what_it_was_and_how_long() -> None:
    assert (
        format_alert(RESOLVED)
        == """\
RESOLVED · digits 1 · prediction drift

  What      prediction.label had moved: class 3: 10 % → 45 %
  How much  total variation 35 %, tolerated 2 % (n = 4 210, reference n = 5 000)
  Since     2025-11-22 14:00:00 UTC, 72 s until the end"""
    )


def test_latency_is_a_share_of_calls() -> None:
    cause = replace(
        CAUSE,
        stream="latency",
        value=0.07,
        bound=0.01,
        reference="1 % allowed",
        current="7 % over 200 ms",
        bins=("within", "over"),
        reference_shares=(0.99, 0.01),
        current_shares=(0.93, 0.07),
        summary="share 7 %, tolerated 1 % (n = 4 210)",
        origin="budget",
        detectable_shift=0.04,
    )
    text = format_alert(replace(FIRING, rule="latency", causes=(cause,)))
    assert "  What      latency: 7 % over 200 ms, 1 % allowed\n" in text
    assert "  Detects   shifts of 4 % or more within a day\n" in text
    assert "How much  share 7 %, tolerated 1 % (n = 4 210)" in text
    assert "reference" not in text


def test_silence_and_errors_need_no_causes() -> None:
    silent = format_alert(replace(FIRING, rule="no_data", title="no predictions", state=RuleState.NO_DATA, causes=()))
    assert silent.startswith("NO DATA · critical · digits 1 · no predictions\n\n  What      no predictions come in\n")
    back = format_alert(replace(RESOLVED, rule="no_data", previous=RuleState.NO_DATA, causes=()))
    assert "What      predictions come in again\n" in back
    forgotten = format_alert(replace(RESOLVED, previous=RuleState.NO_DATA, causes=(), reason="It was silent for long."))
    assert "What      it is no longer monitored\n" in forgotten
    assert "Why       It was silent for long." in forgotten
    broken = format_alert(replace(FIRING, state=RuleState.ERROR, causes=(), reason="no such file"))
    assert "this rule cannot be evaluated" in broken
    assert "Why       no such file" in broken
    mended = format_alert(replace(RESOLVED, previous=RuleState.ERROR, causes=()))
    assert "What      prediction drift\n" in mended


def test_the_title_is_one_line_without_a_version_too() -> None:
    assert format_alert_title(replace(FIRING, version="")) == "FIRING · critical · digits · prediction drift"
    assert format_alert_title(replace(FIRING, environment="staging")).startswith(
        "FIRING · critical · digits 1 staging ·"
    )


def test_without_unicode_all_of_ours_is_ascii() -> None:
    text = format_alert(replace(FIRING, causes=(CAUSE, BRIGHTNESS)), is_unicode=False)
    assert text.isascii()
    assert "class 3: 10 % > 45 %" in text
    assert "45 % ################" in text


shares = st.lists(st.floats(0, 1), min_size=0, max_size=30)


@given(
    shares,
    st.integers(0, 50),
    st.sampled_from(RULES.list_names()),
    st.sampled_from(RuleState),
    st.booleans(),
    st.text(max_size=40),
)
@settings(deadline=None, max_examples=100)
def test_any_alert_fits_into_32_lines(
    numbers: list[float], others: int, rule: str, state: RuleState, has_unicode: bool, name: str
) -> None:
    stream = "".join(character for character in name if character.isprintable())
    cause = replace(
        CAUSE,
        stream=stream,
        bins=tuple(f"{stream}{index}" for index in range(len(numbers))),
        reference_shares=tuple(numbers),
        current_shares=tuple(reversed(numbers)),
    )
    alert = replace(
        FIRING,
        rule=rule,
        state=state,
        causes=(cause,) * others,
        exemplars=("t",) * 9,
        addresses=AlertAddresses(
            web="127.0.0.1:8080", trace="https://{trace_id}", others=(AlertLink(name="a", url="https://b"),) * 9
        ),
        related=(RelatedRule(rule="a", title=name, stream=name, onset_ns=0),) * others,
        news=(name,) * others,
    )
    assert len(format_alert(alert, is_unicode=has_unicode).split("\n")) <= 32


def test_details_do_not_repeat_the_first_line() -> None:
    details = ("images are darker", "mean 0.31 → 0.17", "missing 0 % → 3 %")
    text = format_alert(replace(FIRING, causes=(replace(BRIGHTNESS, details=details),)))
    assert "  In words  images are darker; missing 0 % → 3 %\n" in text
    assert "In words" not in format_alert(replace(RESOLVED, causes=(replace(BRIGHTNESS, details=details),)))


NAN = float("nan")
EDGES = (0.0, 1.0, 2.0, 3.0, 4.0)
AGE = HistogramBins(names=(*name_bins_by_range(EDGES), MISSING), is_ordered=True, edges=EDGES)
REFERENCE = (0.0, 0.25, 0.25, 0.25, 0.25, 0.0, 0.0)


def test_a_feature_is_described_in_its_own_unit() -> None:
    current = (0.0, 0.0, 0.1, 0.2, 0.25, 0.25, 0.2)
    assert describe_change("input.age", AGE, REFERENCE, current, means=(2.0, 3.4)) == (
        "mean 2 → 3.4",
        "middle half 1 … 3 → 2.5 … > 4",
        "missing 0 % → 20 %",
        "25 % higher than any before (> 4)",
    )


def test_images_are_described_by_their_looks() -> None:
    edges = (0.0, 320.0, 640.0, 1280.0)
    bins = HistogramBins(names=(*name_bins_by_range(edges), MISSING), is_ordered=True, edges=edges)
    changes = describe_change("input.image.width", bins, (0, 0, 1, 0, 0, 0), (0, 1, 0, 0, 0, 0), means=(640, 320))
    assert changes == ("images are less wide", "mean 640 → 320 px", "middle half 400 … 560 → 80 … 240 px")
    dimmed = describe_change("input.image.brightness", AGE, REFERENCE, (0.9, 0.1, 0, 0, 0, 0, 0), means=(2.5, 0.1))
    assert dimmed == (
        "images are darker",
        "mean 2.5 → 0.1",
        "middle half 1 … 3 → ≤ 0",
        "90 % lower than any before (≤ 0)",
    )


def test_classes_are_described_by_how_much_they_moved() -> None:
    bins = HistogramBins(names=("ham", "spam", "eggs", "tea", OTHER), is_ordered=False)
    changes = describe_change(
        "prediction.label", bins, (0.5, 0.3, 0.1, 0.1, 0.0), (0.2, 0.31, 0.1, 0.0, 0.39), means=(NAN, NAN)
    )
    assert changes == ("all others: 0 % → 39 %", "class ham: 50 % → 20 %", "class tea: 10 % → 0 %", "1 is gone")
    colour = HistogramBins(names=("red", OTHER, MISSING), is_ordered=False)
    assert describe_change("input.colour", colour, (0.9, 0.1, 0), (0.5, 0.1, 0.4), means=(NAN, NAN)) == (
        "value red: 90 % → 50 %",
        "missing: 0 % → 40 %",
    )


def test_without_a_change_or_without_counts_there_is_no_description() -> None:
    assert describe_change("input.age", AGE, REFERENCE, REFERENCE, means=(2.0, 2.0001)) == ()
    assert describe_change("input.age", AGE, REFERENCE, (0.0,) * 7, means=(2.0, NAN)) == ()
    constant = HistogramBins(names=("any value", MISSING), is_ordered=True)
    assert describe_change("input.age", constant, (1.0, 0.0), (0.0, 1.0), means=(NAN, NAN)) == ("missing 0 % → 100 %",)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (0.00001, "< 0.01 %"), (0.004, "0.4 %"), (0.0123, "1.2 %"), (0.0996, "10 %"), (1.0, "100 %")],
)
def test_shares_are_formatted_to_two_digits(share: float, text: str) -> None:
    assert format_percent(share) == text


@given(st.lists(st.floats(0.001, 3.999), min_size=1, max_size=60), st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=100)
def test_a_quantile_from_bins_is_in_the_bin_of_the_true_one(values: list[float], q: float) -> None:
    bins = HistogramBins(names=name_bins_by_range(EDGES), is_ordered=True, edges=EDGES)
    counts = np.bincount(np.searchsorted(EDGES, values), minlength=6)
    quantile = estimate_quantile(bins, (counts / counts.sum()).tolist(), q)
    truth = float(np.quantile(values, q, method="inverted_cdf"))
    assert math.ceil(truth) - 1 - 1e-9 <= quantile <= math.ceil(truth) + 1e-9


def test_a_quantile_beyond_the_edges_is_open() -> None:
    assert estimate_quantile(AGE, (1.0, 0, 0, 0, 0, 0, 0), 0.5) == -math.inf
    assert estimate_quantile(AGE, (0, 0, 0, 0, 0, 1.0, 0), 0.5) == math.inf
    assert math.isnan(estimate_quantile(AGE, (0, 0, 0, 0, 0, 0, 1.0), 0.5))
