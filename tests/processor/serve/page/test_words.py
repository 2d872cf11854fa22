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
    assert words.find_segment(segment, ["other", name]) == name
    assert segment not in ("", ".", "..")
    assert segment.isascii()
    assert not set(segment) & set("/?#% \n") - {"%"}
    assert len(segment) <= words.MAX_SEGMENT


@given(st.text())
def test_cleaned_text_is_one_short_line_that_prints(text: str) -> None:
    cleaned = words.clean(text, 40)
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


def test_times() -> None:
    now_ns = 1_767_225_600 * 10**9
    assert words.format_time(now_ns) == '<time datetime="2026-01-01T00:00:00Z">2026-01-01 00:00:00 UTC</time>'
    assert (words.format_time(0), words.format_time(2**80), words.format_time("x")) == ("–", "–", "–")
    assert words.format_age(now_ns - 720 * 10**9, now_ns) == "12 min ago"
    assert (words.format_age(now_ns, now_ns), words.format_age(0, now_ns)) == ("just now", "–")


def test_a_rule_has_one_name_and_a_meaning() -> None:
    for name, rule in RULES.load_all().items():
        assert words.name_rule(name) == rule.title
        assert bool(words.explain_rule(name)) == (name not in ("no_data", "statistic"))
    assert (words.name_rule("slow_start"), words.explain_rule("slow_start")) == ("slow start", "")


def test_a_state_has_a_sign_and_a_word() -> None:
    assert words.format_state("drift") == '<span class="state drift"><span aria-hidden="true">▲</span> Drift</span>'
    assert 'class="state error"' in words.format_state('"><script>')
    assert set(words.STATES) == set(words.SIGNS)
