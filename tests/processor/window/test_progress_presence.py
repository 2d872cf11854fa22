from __future__ import annotations

import numpy as np
import pytest

from otel_mlmon.processor.window.progress import StreamAbsence, StreamPresence

PANE_NS = 10 * 10**9


def follow(values: list[int], predictions: int = 100) -> tuple[StreamPresence, list[int]]:
    """The presence after panes with so many values, and the panes at whose end the stream was absent."""
    presence, absent = StreamPresence(0), []
    for pane, count in enumerate(values, start=1):
        presence = presence.add(count, predictions, pane * PANE_NS)
        if presence.find_absence(pane * PANE_NS) is not None:
            absent.append(pane)
    return presence, absent


def test_a_feature_of_every_prediction_is_missed_after_ten_minutes() -> None:
    presence, absent = follow([100] * 30 + [0] * 70)
    assert absent == list(range(90, 101))
    assert presence.find_absence(100 * PANE_NS) == StreamAbsence(since_ns=30 * PANE_NS, expected=7000, predictions=7000)


def test_a_feature_that_was_hardly_ever_sent_is_not_missed() -> None:
    assert follow([100] * 9 + [0] * 1000)[1] == []


@pytest.mark.parametrize("rate", [0.5, 0.1, 1 / 360])
@pytest.mark.parametrize("seed", range(20000, 20010))
def test_what_comes_by_chance_is_not_missed(seed: int, rate: float) -> None:
    # Of 600 seeds each none is; of very many one is, where the first panes are full by luck.
    values = np.random.default_rng(seed).random(3000) < rate
    assert follow([int(value) for value in values])[1] == []


def test_what_came_once_an_hour_is_missed_after_twenty() -> None:
    first = follow(([1] + [0] * 359) * 48 + [0] * (24 * 360))[1][0]
    assert 19 < (first - 47 * 360 - 1) / 360 < 20


def test_what_comes_two_hours_a_day_is_missed_twice_and_never_again() -> None:
    _, absent = follow(([100] * 720 + [0] * 7920) * 8)
    assert {(pane - 1) // 8640 for pane in absent} == {0, 1}


def test_one_outage_does_not_delay_the_next_alarm() -> None:
    absent = follow([100] * 100 + [0] * 1000 + [100] * 100 + [0] * 100)[1]
    assert absent[-1] == 1300
    assert next(pane for pane in absent if pane > 1200) == 1260


def test_the_silence_of_a_model_is_none_of_its_streams() -> None:
    presence = StreamPresence(0)
    for pane in range(1, 101):
        presence = presence.add(100, 100, pane * PANE_NS)
    for pane in range(101, 1000):
        presence = presence.add(0, 0, pane * PANE_NS)
    assert presence.find_absence(1000 * PANE_NS) is None


def test_at_night_fewer_values_are_expected() -> None:
    presence = StreamPresence(0)
    for pane in range(1, 1001):
        presence = presence.add(10, 100, pane * PANE_NS)
    missed = []
    for pane in range(1001, 1400):
        presence = presence.add(0, 1, pane * PANE_NS)
        missed += [pane] if presence.find_absence(pane * PANE_NS) else []
    assert missed[0] == 1200
