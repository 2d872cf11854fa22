from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_mlmon.processor.serve.page import charts

NS = 10**9
HOSTILE = '"><script>alert(1)</script>'


def parse(picture: str) -> ET.Element:
    return ET.fromstring(picture)


@given(st.lists(st.floats(0, 1e12) | st.just(math.nan), min_size=1, max_size=30))
def test_lines_are_well_formed_whatever_the_values(values: list[float]) -> None:
    points = [(index * 60 * NS, value) for index, value in enumerate(values)]
    picture = charts.draw_line_chart(
        [("p95", points)], label=HOSTILE, format_value=str, start_ns=0, end_ns=3600 * NS, limit=0.2, moment_ns=60 * NS
    )
    if any(math.isfinite(value) for value in values):
        assert parse(picture).attrib["aria-label"] == HOSTILE
        assert "nan" not in picture.replace(HOSTILE, "")
    else:
        assert picture == ""


def test_a_gap_is_not_joined() -> None:
    points = [(0, 1.0), (60 * NS, 1.0), (1800 * NS, 1.0), (1860 * NS, 1.0)]
    picture = charts.draw_line_chart(
        [("p95", points)], label="x", format_value=str, start_ns=0, end_ns=3600 * NS, gap_ns=120 * NS
    )
    assert picture.count('class="line p95"') == 2


@pytest.mark.parametrize("length_s", [0, 30, 600, 3600, 86_400, 14 * 86_400, 400 * 86_400, 40 * 365 * 86_400])
def test_ticks_are_few_and_inside(length_s: int) -> None:
    ticks = charts.list_time_ticks(1_767_225_600, 1_767_225_600 + length_s, limit=6)
    assert len(ticks) <= 7
    assert all(1_767_225_600 <= moment <= 1_767_225_600 + length_s for moment, _ in ticks)


@given(st.floats(1e-300, 1e300) | st.just(0.0) | st.just(math.inf) | st.just(math.nan))
def test_steps_are_few_and_reach_the_top(high: float) -> None:
    steps = charts.list_axis_values(high, limit=4)
    assert steps[0] == 0.0
    assert len(steps) <= 5


def test_hostile_names_in_every_picture() -> None:
    for picture in (
        charts.draw_bin_bars([HOSTILE], [0.5], [0.4], label=HOSTILE, format_share=str),
        charts.draw_stacked_shares([HOSTILE, "b"], [0.5, 0.5], label=HOSTILE),
        charts.draw_heat_map([(HOSTILE, [(60 * NS, 2.0)])], start_ns=0, end_ns=60 * NS, slot_ns=60 * NS, label=HOSTILE),
        charts.draw_sparkline(
            [(0, 1.0), (NS, 2.0)], label=HOSTILE, format_value=str, ends=(HOSTILE, HOSTILE), limit=1.5
        ),
        charts.draw_sparkline(
            [(0, 1.0), (NS, 2.0)], label="x", format_value=str, ends=("", ""), moment_ns=NS // 2, moment=HOSTILE
        ),
        charts.draw_bin_columns([HOSTILE, "b"], [0.5, 0.5], [0.9, 0.1], label=HOSTILE, format_share=str),
    ):
        assert parse(picture).tag.endswith("svg")
        assert "style=" not in picture
        assert "<script" not in picture


@given(st.lists(st.tuples(st.text(max_size=80), st.floats(0, 1), st.floats(0, 1)), max_size=60))
def test_columns_stand_inside_whatever_the_bins(rows: list[tuple[str, float, float]]) -> None:
    names = [name.encode("ascii", "ignore").decode() if name.isprintable() else "x" for name, _, _ in rows]
    before, now = [share for _, share, _ in rows], [share for _, _, share in rows]
    picture = charts.draw_bin_columns(names, before, now, label="x", format_share=str)
    if max([*before, *now], default=0.0) < charts.MIN_SHARE:
        assert picture == ""
        return
    bars = [part.attrib for part in parse(picture) if part.tag.endswith("rect")]
    assert len(bars) == 2 * min(len(rows), charts.MAX_COLUMNS)
    assert all(0 <= float(bar["x"]) <= charts.SPARK_WIDTH - float(bar["width"]) for bar in bars)
    assert all(0 <= float(bar["height"]) <= charts.SPARK_BASE for bar in bars)


def test_the_onset_is_named_inside_the_picture() -> None:
    points = [(index * NS, 1.0) for index in range(101)]
    for second in (0, 1, 50, 99, 100):
        picture = charts.draw_sparkline(
            points,
            label="x",
            format_value=str,
            ends=("100 s ago", "now"),
            moment_ns=second * NS,
            moment="since 15:13:10",
        )
        (text,) = [part for part in parse(picture) if part.text == "since 15:13:10"]
        half = len("since 15:13:10") * charts.CHARACTER_WIDTH / 2
        assert float(text.attrib["x"]) - half >= 0
        assert float(text.attrib["x"]) + half <= charts.SPARK_WIDTH


def test_a_value_before_is_drawn_in_grey_and_the_axis_may_begin_before_the_first_one() -> None:
    picture = charts.draw_sparkline(
        [(60 * NS, 0.3), (75 * NS, 0.3)], earlier=[(15 * NS, 0.0), (30 * NS, 0.0)], label="x", format_value=str,
        ends=("60 s ago", "now"), moment_ns=52 * NS, moment="since 00:00:52",
    )  # fmt: skip
    assert [part.attrib["class"] for part in parse(picture) if "line" in part.attrib["class"]] == [
        "line p50",
        "line p95",
    ]
    assert "since 00:00:52" in picture
    alone = {"label": "x", "format_value": str, "ends": ("", ""), "moment_ns": 52 * NS, "moment": "onset"}
    points = [(60 * NS, 0.3), (75 * NS, 0.3)]
    assert "onset" not in charts.draw_sparkline(points, **alone)  # type: ignore[arg-type]
    assert "onset" in charts.draw_sparkline(points, start_ns=52 * NS, **alone)  # type: ignore[arg-type]
    assert charts.draw_sparkline([(60 * NS, math.nan)], earlier=[(15 * NS, 0.0)], **alone) == ""  # type: ignore[arg-type]


def test_shades() -> None:
    assert [charts.find_shade_class(ratio) for ratio in (-1.0, 0.0, 0.1, 0.5, 0.99, 1.0)] == [
        "quiet0", "quiet0", "quiet1", "quiet3", "quiet4", "drift",
    ]  # fmt: skip
