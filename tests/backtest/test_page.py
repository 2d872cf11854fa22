from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from otel_mlmon.backtest.page import render_page
from otel_mlmon.backtest.report import BacktestReport
from tests.support.tables import judged, normal

NASTY = '<script>alert("x")</script>&'


@pytest.fixture(scope="module")
def drifted() -> BacktestReport:
    data = np.concatenate([normal(5_000, seed=2), normal(5_000, seed=3, mean=1.0)])
    words = [NASTY, "b"] * 5_000
    return judged({"x": normal(10_000, seed=1), NASTY: words}, {"x": data, NASTY: words})


def pictures(text: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)]


def test_it_is_one_page_without_network_or_script(drifted: BacktestReport) -> None:
    text = render_page(drifted)
    assert text.startswith("<!doctype html>")
    assert "<script" not in text
    assert re.findall(r"(?:src|href|url|@import)\s*[=(]", text) == []
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
    assert "prefers-color-scheme:dark" in text


def test_every_tag_that_opens_closes(drifted: BacktestReport) -> None:
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                open_tags.append(tag)

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Checker().feed(render_page(drifted))
    assert open_tags == []


def test_it_says_whether_when_and_about_what(drifted: BacktestReport) -> None:
    text = render_page(drifted)
    assert "<h1>An alarm in window 5, 1 of 2 streams</h1>" in text
    assert "<dt>Windows</dt><dd>10 of 1 000 rows</dd>" in text
    assert "<td>5</td><td>–</td><td>firing</td>" in text


def test_the_pictures_hold_every_window_and_the_alarm_line(drifted: BacktestReport) -> None:
    timeline, *of_streams = pictures(render_page(drifted))
    marks = [element.get("class") for element in timeline.iter("{http://www.w3.org/2000/svg}rect")]
    assert marks == ["quiet0"] * 5 + ["drift"] * 5 + ["quiet0"] * 10
    assert len(of_streams) == 6
    bars, evidence, effect = of_streams[:3]
    assert [bar.get("class") for bar in bars.iter("{http://www.w3.org/2000/svg}rect")][:2] == ["reference", "now"]
    for chart in (evidence, effect):
        kinds = {element.get("class") for element in chart.iter()}
        assert {"line", "limit", "spot", "moment"} <= kinds


def test_nothing_to_judge_is_a_page_too() -> None:
    text = render_page(judged({"x": [1.0, 2.0]}, {"y": [1.0, 2.0]}))
    assert "<h1>Nothing could be judged</h1>" in text
    assert "<td>y</td><td>left_out</td><td>not in the reference</td>" in text
    assert pictures(text) == []


def test_two_thousand_windows_stay_a_small_page() -> None:
    report = judged({"x": normal(5_000, seed=1)}, {"x": normal(20_000, seed=2)}, rows=10)
    assert report.windows == 2_000
    assert len(render_page(report)) < 150_000


@pytest.mark.parametrize(
    ("step_h", "text"), [(3, "01 Mar 06:00"), (24, "03 Mar"), (24 * 60, "Jun 2026")], ids=["hours", "days", "months"]
)
def test_the_axes_have_dates_where_the_data_has_times(drifted: BacktestReport, step_h: int, text: str) -> None:
    start = datetime(2026, 3, 1, tzinfo=timezone.utc)
    streams = []
    for stream in drifted.streams:
        points = [
            replace(point, end=(start + timedelta(hours=step_h * point.window)).isoformat()) for point in stream.points
        ]
        streams.append(replace(stream, points=tuple(points)))
    ticks = [
        element.text
        for picture in pictures(render_page(replace(drifted, streams=tuple(streams))))
        for element in picture.iter("{http://www.w3.org/2000/svg}text")
        if element.get("class") == "tick"
    ]
    assert text in ticks
