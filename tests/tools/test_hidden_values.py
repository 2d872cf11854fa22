"""The short form of `python -m benchmarks.drift --only leaves`."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift.hidden_values import PANE, SCENARIOS, measure

RUNS = 24


@pytest.mark.simulation
@pytest.mark.parametrize("name", ["20 words, TV .10", "Normal(100, 1), mean + .3"])
def test_what_leaves_is_judged_as_soon_as_the_values_themselves(name: str) -> None:
    (scenario,) = (scenario for scenario in SCENARIOS if scenario.name == name)
    delays = measure(scenario, 2026, RUNS)
    # Within 5 % in the long run, and a pane, which is the resolution.
    plain, hidden = float(np.median(delays.plain)), float(np.median(delays.hidden))
    assert abs(hidden - plain) <= 0.05 * plain + PANE
    assert [(delays.plain == 0).sum(), (delays.hidden == 0).sum()] == [0, 0]
    assert scenario.is_text or delays.mean_error < 4e-4
