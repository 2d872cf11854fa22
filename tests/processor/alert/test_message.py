from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.processor.alert.alert import RuleName, State
from otel_mlmon.processor.alert.message import render, title
from otel_mlmon.processor.alert.rules import RULES
from tests.support.alerts import CAUSE, FIRING, RESOLVED

BRIGHTNESS = replace(CAUSE, stream="input.image.brightness", before="mean 0.31", now="mean 0.17")


def test_a_firing_alert_says_what_how_much_since_when_and_what_to_do() -> None:
    alert = replace(
        FIRING,
        causes=(CAUSE, BRIGHTNESS),
        exemplars=("4bf92f3577b34da6a3ce929d0e0e4736",),
        links=(("runbook", "https://wiki/x"),),
    )
    assert (
        render(alert)
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
  Traces    4bf92f3577b34da6a3ce929d0e0e4736
  Link      runbook: https://wiki/x
  Silence   set enabled: false at models."digits".prediction_drift"""
    )


def test_a_resolved_alert_says_what_it_was_and_how_long() -> None:
    assert (
        render(RESOLVED)
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
        before="1 % over 200 ms",
        now="7 %",
        bins=("within", "over"),
        reference_shares=(0.99, 0.01),
        current_shares=(0.93, 0.07),
    )
    text = render(replace(FIRING, rule="latency", causes=(cause,)))
    assert "How much  share 7 %, tolerated 1 % (n = 4 210)" in text
    assert "  over         1 % ▏                    7 % █▏" in text


def test_silence_and_errors_need_no_causes() -> None:
    silent = render(replace(FIRING, rule="no_data", state=State.NO_DATA, causes=()))
    assert silent.startswith("NO DATA · critical · digits 1 · no predictions\n\n  What      no predictions come in\n")
    back = render(replace(RESOLVED, rule="no_data", causes=()))
    assert "What      predictions come in again\n" in back
    gone = render(replace(RESOLVED, rule="no_data", causes=(), attributes={"reason": "It was silent for long."}))
    assert "What      it is no longer watched\n" in gone
    assert "Why       It was silent for long." in gone
    broken = render(replace(FIRING, state=State.ERROR, causes=(), attributes={"reason": "no such file"}))
    assert "this rule cannot be judged" in broken
    assert "Why       no such file" in broken


def test_the_title_is_one_line_without_a_version_too() -> None:
    assert title(replace(FIRING, version="")) == "FIRING · critical · digits · prediction drift"


def test_without_unicode_all_of_ours_is_ascii() -> None:
    text = render(replace(FIRING, causes=(CAUSE, BRIGHTNESS)), is_unicode=False)
    assert text.isascii()
    assert "class 3: 10 % > 45 %" in text
    assert "45 % ################" in text


shares = st.lists(st.floats(0, 1), min_size=0, max_size=30)


@given(shares, st.integers(0, 50), st.sampled_from(RULES), st.sampled_from(State), st.booleans(), st.text(max_size=40))
@settings(deadline=None, max_examples=100)
def test_any_alert_fits_into_25_lines(
    numbers: list[float], others: int, rule: RuleName, state: State, has_unicode: bool, name: str
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
        FIRING, rule=rule, state=state, causes=(cause,) * others, exemplars=("t",) * 9, links=(("a", "b"),) * 9
    )
    assert len(render(alert, is_unicode=has_unicode).split("\n")) <= 25


def test_what_moved_is_told_in_words_that_the_first_line_has_not() -> None:
    details = ("images are darker", "mean 0.31 → 0.17", "missing 0 % → 3 %")
    text = render(replace(FIRING, causes=(replace(BRIGHTNESS, details=details),)))
    assert "  In words  images are darker; missing 0 % → 3 %\n" in text
    assert "In words" not in render(replace(RESOLVED, causes=(replace(BRIGHTNESS, details=details),)))


def test_a_threshold_says_which_statistic_and_where_it_was_set() -> None:
    cause = replace(CAUSE, value=0.31, bound=0.2, statistic="psi", onset_ns=0)
    text = render(replace(FIRING, rule="statistic", severity="warning", since_ns=0, causes=(cause,)))
    assert text.startswith("FIRING · warning · digits 1 · statistic over its threshold\n")
    assert "How much  psi 0.31, above 0.2 (n = 4 210, reference n = 5 000)" in text
    assert text.endswith('Silence   take the threshold out of models."digits".statistic')
    of_p = replace(cause, value=1e-9, bound=0.001, statistic="p of chi_squared")
    assert "p of chi_squared 1e-09, below 0.001" in render(replace(FIRING, rule="statistic", causes=(of_p,)))
