"""The group of streams that are counted together: when it is found anew, and that its counts are those of one alone."""

from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon import semconv
from otel_mlmon.processor.window.binning import Binning
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.stream_group import StreamGroup
from otel_mlmon.processor.window.window import NumberSum, StreamWindow
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.stream_sketch import StreamSketch
from tests.support.observations import MODEL, Bench, numbers, point

PANE_S = 10
LEARNED = 4
"""Panes that are learned."""


def draw(name: str, pane: int) -> ExponentialHistogram:
    """Draws fifty numbers of a stream for a pane, with a scale that no bins need finer."""
    return numbers(*np.random.default_rng([ord(name), pane]).normal(5.0, 3.0, 50)).at_scale(2 + (pane > LEARNED + 1))


def send(bench: Bench, pane: int, sketches: dict[str, ExponentialHistogram]) -> dict[str, StreamWindow]:
    """Sends a pane of numbers by stream, and returns its windows."""
    at_s = pane * PANE_S + 5.0
    for name, sketch in sketches.items():
        bench.add(point(semconv.FEATURE.name, sketch, at_s=at_s, since_s=at_s - 5.0, key=name, sender="shop"))
    return {window.stream.stream.removeprefix("input."): window for window in bench.flush()}


def find_group(bench: Bench) -> StreamGroup | None:
    return bench.panes._state.models[MODEL].counter._group


def find_binning(bench: Bench, name: str) -> Binning:
    binning = bench.panes._state.models[MODEL].streams[f"input.{name}"].learned.binning
    assert binning is not None
    return binning


def learn() -> Bench:
    bench = Bench(settings=ModelWindowSettings(learn=LEARNED * 50))
    for pane in range(LEARNED + 1):
        send(bench, pane, {name: draw(name, pane) for name in "ab"})
    return bench


def test_a_group_stays_while_panes_have_the_same_form() -> None:
    bench = learn()
    group = find_group(bench)
    for pane in range(LEARNED + 1, LEARNED + 4):
        windows = send(bench, pane, {name: draw(name, pane) for name in "ab"})
        assert find_group(bench) is group
        for name in "ab":
            binning, sketch = find_binning(bench, name), draw(name, pane)
            assert windows[name].pane.tolist() == binning.count(StreamSketch(exponential=sketch)).tolist()
            assert windows[name].pane_numbers == NumberSum.from_moments(sketch.moments)


@pytest.mark.parametrize("change", ["gone", "new", "class", "scale", "relearned"])
def test_a_group_is_found_anew_where_its_streams_change(change: str) -> None:
    bench, pane = learn(), LEARNED + 1
    group, state = find_group(bench), bench.panes._state
    sketches = {name: draw(name, pane) for name in "ab"}
    expected = {"a": 50, "b": 50}
    at_s = pane * PANE_S + 5.0
    if change == "gone":
        del sketches["a"]
        expected["a"] = 0
    elif change == "new":
        sketches["c"] = draw("c", pane)
        expected["c"] = 0
    elif change == "class":
        # An input that has classes beside its numbers: as a word came in.
        bench.add(
            point(semconv.CATEGORY.name, 3, at_s=at_s, since_s=at_s - 5.0, key="a", category="red", sender="shop")
        )
        expected["a"] = 53
    elif change == "scale":
        sketches["a"] = sketches["a"].at_scale(sketches["a"].scale - 1)
    else:
        state.models[MODEL].relearn(["input.a"])
        expected["a"] = 0
    windows = send(bench, pane, sketches)
    assert find_group(bench) is not group
    assert {name: int(window.pane.sum()) for name, window in windows.items()} == expected


def test_streams_keep_their_order_whether_they_are_counted_together_or_alone() -> None:
    bench = learn()
    pane = LEARNED + 1
    at_s = pane * PANE_S + 5.0
    bench.add(point(semconv.CATEGORY.name, 3, at_s=at_s, since_s=at_s - 5.0, key="a", category="red", sender="shop"))
    send(bench, pane, {name: draw(name, pane) for name in "ab"})
    model = bench.panes._state.models[MODEL]
    layouts = [recent.streams.layout.names for recent in model.last_panes if recent.streams.layout.names]
    assert layouts == [("input.a", "input.b")] * len(layouts)
    assert len(layouts) >= 2
