from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.processor.alert.rules.rule import RULES
from otel_mlmon.processor.serve.page import words


@given(st.text())
def test_a_segment_finds_its_name_and_is_one_segment(name: str) -> None:
    segment = words.encode_segment(name)
    assert words.find_segment_name(segment, ["other", name]) == name
    assert segment not in ("", ".", "..")
    assert segment.isascii()
    assert not set(segment) & set("/?#% \n") - {"%"}
    assert len(segment) <= words.MAX_SEGMENT


@given(st.text())
def test_cleaned_text_is_one_short_line_that_prints(text: str) -> None:
    cleaned = words.escape_line(text, 40)
    assert len(cleaned) <= 40
    assert cleaned.isprintable()


@given(st.text())
def test_a_name_is_escaped(text: str) -> None:
    inner = str(words.format_name(text)).removeprefix("<bdi>").removesuffix("</bdi>")
    assert "<" not in inner
    assert '"' not in inner


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (0.5, "50 %"),
        (0.01, "1 %"),
        (0.0333, "3.3 %"),
        (0.0004, "0.04 %"),
        (1e-7, "< 0.01 %"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_shares(value: Any, text: str) -> None:
    assert words.format_percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12.0, "12"), (0.12346, "0.1235"), (1e-5, "1e-05"), (1e20, "1e+20"), (None, "–"), (True, "–")],
)
def test_numbers(value: Any, text: str) -> None:
    assert words.format_number(value) == text
    assert words.format_number(39_800.2) == "39\N{NARROW NO-BREAK SPACE}800"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 s"), (2.1e-5, "21 µs"), (0.0012, "1.2 ms"), (3.4, "3.4 s"), (7_200, "2 h"), (None, "–")],
)
def test_lengths_of_time(value: Any, text: str) -> None:
    assert words.format_seconds(value) == text


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=12).filter(any))
def test_whole_per_cent_add_up_to_100(counts: list[int]) -> None:
    shares = [count / sum(counts) for count in counts]
    texts = words.format_shares(shares)
    numbers = [0 if text == "< 1 %" else int(text.removesuffix(" %")) for text in texts]
    assert sum(numbers) == 100
    assert all(abs(number - 100 * share) < 1 + 1e-9 for number, share in zip(numbers, shares, strict=True))
    assert [text == "0 %" for text in texts] == [share == 0 for share in shares]


@pytest.mark.parametrize(
    ("before", "now", "aligned"),
    [
        ("class a: 9.7 %", "11 %", ("class a: 10 %", "11 %")),
        ("9.6 %", "58 %", ("10 %", "58 %")),
        ("9.6 %", "10 %", ("9.6 %", "10 %")),  # they would look the same
        ("0.4 %", "11 %", ("0.4 %", "11 %")),  # it would be rounded away
        ("1.4 %", "3.3 %", ("1.4 %", "3.3 %")),
        ("9.7 %", "0 %", ("9.7 %", "0 %")),
        ("mean 41.3", "mean 497", ("mean 41.3", "mean 497")),
        ("class 9.7 %: 9.7 %", "11 %", ("class 9.7 %: 9.7 %", "11 %")),
    ],
)
def test_percentages_that_are_compared_have_the_same_digits(before: str, now: str, aligned: tuple[str, str]) -> None:
    assert words.align_percents(before, now) == aligned


def test_times() -> None:
    now_ns = 1_767_225_600 * 10**9
    assert words.format_time(now_ns) == '<time datetime="2026-01-01T00:00:00Z">2026-01-01 00:00:00 UTC</time>'
    assert (words.format_time(0), words.format_time(2**80), words.format_time("x")) == ("–", "–", "–")
    assert words.format_age(now_ns - 720 * 10**9, now_ns) == "12 min ago"
    assert words.format_age(now_ns - 85 * 10**9, now_ns + 999_999_999) == "85 s ago"
    assert words.format_clock_time(now_ns, now_ns + 60 * 10**9) == "00:00:00"
    assert words.format_clock_time(now_ns, now_ns + 86_400 * 10**9) == "01 Jan 00:00"
    assert (words.format_age(now_ns, now_ns), words.format_age(0, now_ns)) == ("just now", "–")


def test_a_rule_has_one_name_and_a_meaning() -> None:
    for name, rule in RULES.load_all_plugins().items():
        assert words.name_alert_rule(name) == rule.title
        assert bool(words.explain_alert_rule(name)) == (name not in ("no_data", "statistic"))
    assert (words.name_alert_rule("slow_start"), words.explain_alert_rule("slow_start")) == ("slow start", "")


def test_a_state_has_a_sign_and_a_word() -> None:
    assert words.format_state("drift") == '<span class="state drift"><span aria-hidden="true">▼</span> Drift</span>'
    assert words.format_state("firing", "critical") == (
        '<span class="state firing"><span aria-hidden="true">▲</span> Critical alert</span>'
    )
    assert words.format_state("firing", "warning") == (
        '<span class="state firing warning"><span aria-hidden="true">◆</span> Warning</span>'
    )
    assert len({*words.SIGNS.values(), words.WARNING_SIGN}) == len(words.SIGNS) + 1
    assert 'class="state error"' in words.format_state('"><script>')
    assert set(words.STATES) == set(words.SIGNS)
