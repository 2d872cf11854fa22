"""The cases that are known to be wrong: each is a strict expected failure until what it shows is mended."""

from __future__ import annotations

from typing import Final

KNOWN_WRONG: Final[dict[str, str]] = {
    "drift/daily_cycle_not_blind": "a daily cycle is taken for bursts",
    "drift/second_failure_is_told": "one firing alert hides what breaks after it",
    "drift/vanished_feature": "a feature that is not sent any more is not missed",
    "processor/alerts_survive_a_restart_with_the_receiver_down": "an alert leaves the outbox unconfirmed",
    "processor/firing_before_resolved": "alerts of one turn are told in any order",
    "processor/late_data_is_not_called_a_success": "late points are acknowledged and dropped",
    "processor/slow_but_honest": "admission counts bytes, not seconds",
    "processor/streams_become_stale": "stale streams are not forgotten",
    "scale/deploys_do_not_exhaust_series": "the limit on series is reached by replaced versions",
    "scale/many_streams_cost_no_more_a_point": "documents of all streams are rebuilt at each commit",
}
"""What is wrong today, by case."""
