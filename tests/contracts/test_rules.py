"""What every alert rule promises, whatever it judges; and how a package adds one."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from otel_mlmon import semconv
from otel_mlmon.processor.alert.alert import AlertCause
from otel_mlmon.processor.alert.cause import OnsetCounts
from otel_mlmon.processor.alert.rules.rule import RULES, AlertRule, EvidenceRule
from otel_mlmon.processor.config.model import Config
from otel_mlmon.processor.config.render import render_default_yaml
from otel_mlmon.processor.detect.score import State, ThresholdVerdict
from otel_mlmon.reference.calibration import Calibration
from tests.support.packages import install, run_beside
from tests.support.scores import Judged, judged

STREAMS = ("latency", "errors", "prediction.label", "prediction.value", "prediction.confidence", "input.age", "new")
ACTIVE: dict[str, dict[str, Any]] = {
    "statistic": {"thresholds": [{"statistic": "psi", "above": 0.2}]},
    "version_drift": {"enabled": True},
    "accuracy": {"drop": "3%"},
}
"""What a rule needs to be active, where its defaults do not do."""
BELOW_1 = "100%", "99.9%"


@pytest.fixture(params=RULES.list_names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rule(name: str) -> AlertRule:
    rule_type = RULES.load_plugin(name)
    return rule_type(rule_type.section_type.model_validate(ACTIVE.get(name, {})))


def outcome(rule: AlertRule, entry: Judged) -> object:
    _, (window, score) = entry
    return rule.judge_stream(window.replace(calibration=EVEN), score, OnsetCounts())


def test_its_section_has_a_default_and_a_sentence_for_every_key(name: str, rule: AlertRule) -> None:
    section_type = type(rule).section_type
    assert section_type() == section_type.model_validate({})
    assert all(field.description for field in section_type.model_fields.values())
    assert section_type.__doc__
    assert Config().find_model_section("any").find_rule_section(name) == section_type()
    assert f"\n    {name}:\n      # Whether the rule is evaluated.\n      enabled: " in render_default_yaml()


@pytest.mark.parametrize(
    ("name", "key", "refused", "accepted"),
    [
        ("latency", "threshold", "0s", "1ms"),
        ("no_data", "after", "0s", "1s"),
        *(("accuracy", key, bound, near) for key in ("min", "drop") for bound, near in (("0%", "0.1%"), BELOW_1)),
        *(
            (name, "max_ratio", bound, near)
            for name in ("latency", "errors")
            for bound, near in (("0%", "0.1%"), BELOW_1)
        ),
        *((name, "tolerance", *BELOW_1) for name in ("prediction_drift", "confidence", "data_drift")),
    ],
)
def test_a_bound_that_judges_nothing_or_everything_is_refused(name: str, key: str, refused: str, accepted: str) -> None:
    section_type = RULES.load_plugin(name).section_type
    assert section_type.model_validate({key: accepted}) != section_type()
    with pytest.raises(ValidationError, match=key):
        section_type.model_validate({key: refused})


def test_it_is_active_unless_it_is_switched_off(rule: AlertRule) -> None:
    assert rule.section.is_active
    assert not rule.section.model_copy(update={"enabled": False}).is_active


def test_its_title_is_a_few_words(rule: AlertRule) -> None:
    assert rule.title.strip() == rule.title
    assert 0 < len(rule.title) <= 40


def test_its_policies_are_within_their_range_and_always_the_same(rule: AlertRule) -> None:
    for stream in STREAMS:
        policy = rule.find_detection_policy(stream)
        assert policy == rule.find_detection_policy(stream)
        assert policy is None or 0.0 <= policy.tolerance <= 1.0


def test_it_decides_nothing_while_a_stream_learns(rule: AlertRule) -> None:
    for stream in filter(rule.find_detection_policy, STREAMS):
        assert outcome(rule, judged(stream, "learning")) is None


def test_it_is_ok_or_undecided_without_evidence(rule: AlertRule) -> None:
    for stream in filter(rule.find_detection_policy, STREAMS):
        assert outcome(rule, judged(stream, "ok")) in ("ok", None)


@pytest.mark.parametrize("state", ["ok", "weak"])
def test_by_evidence_a_stream_that_does_not_drift_is_ok(rule: AlertRule, state: State) -> None:
    for stream in filter(rule.find_detection_policy, STREAMS if isinstance(rule, EvidenceRule) else ()):
        for pane in ((90, 10), (0, 0), (0, 90)):
            assert outcome(rule, judged(stream, state, pane=pane, since_ns=7)) == "ok"


EVEN = Calibration(right=np.array([9_000, 9_000]), total=np.array([10_000, 10_000]))
"""A model that is as often right at each confidence."""
STEEP = Calibration(right=np.array([1_000, 89_000]), total=np.array([10_000, 90_000]))
"""A model that is seldom right where its confidence is low, as it is in what breaches a rule."""
BREACHED = ThresholdVerdict(statistic="psi", is_p_value=False, value=0.9, bound=0.2, min_count=60, verdict="breached")


def breach(rule: AlertRule, stream: str, *, margin: float = 0.5) -> AlertCause | None:
    # So many slow or failed calls spend more than five minutes of their budget at once.
    pane = (10, 90) if stream in (semconv.STREAM_LATENCY, semconv.STREAM_ERRORS) else (90, 10)
    _, (window, score) = judged(stream, "drift", margin=margin, pane=pane)
    cause = rule.judge_stream(window.replace(calibration=STEEP), score.replace(thresholds=(BREACHED,)), OnsetCounts())
    return cause if isinstance(cause, AlertCause) else None


def test_a_breach_is_a_cause_that_says_what_and_how_much(name: str, rule: AlertRule) -> None:
    causes = [breach(rule, stream) for stream in filter(rule.find_detection_policy, STREAMS)]
    assert causes or name in ("no_data", "version_drift", "execution_provider")
    for cause in causes:
        assert cause is not None
        assert cause.stream in STREAMS
        assert (math.isfinite(cause.value), math.isfinite(cause.bound), math.isfinite(cause.margin)) == (True,) * 3
        assert cause.value >= cause.bound
        assert cause.reference
        assert cause.current
        assert "n = 100" in cause.summary
        assert (cause.current_count, cause.reference_count) == (100, 1000)
        assert json.loads(json.dumps(asdict(cause), allow_nan=False))["stream"] == cause.stream


def test_more_evidence_makes_nothing_more_severe(rule: AlertRule) -> None:
    assert rule.grade_severity(()) == "warning"
    for stream in filter(rule.find_detection_policy, STREAMS):
        few, many = breach(rule, stream, margin=0.1), breach(rule, stream, margin=20.0)
        assert few is not None
        assert many is not None
        assert rule.grade_severity([few]) == rule.grade_severity([many])


ADDED_RULE = '''
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import Field

from otel_mlmon import semconv
from otel_mlmon.processor.alert.cause import build_shift_cause, count_rolling_window
from otel_mlmon.processor.alert.rules.rule import RuleSection
from otel_mlmon.processor.config.section import Ratio
from otel_mlmon.processor.detect.policy import DetectionPolicy


class DominanceSection(RuleSection):
    """One label is predicted too often."""

    max_share: Ratio = Field(default=0.95, gt=0, lt=1, description="The share that a label may have.")


@dataclass(frozen=True)
class DominanceRule:
    section: DominanceSection
    section_type: ClassVar = DominanceSection
    title: ClassVar = "one label dominates"

    def find_detection_policy(self, stream):
        return DetectionPolicy(tolerance=0.5, direction="both") if stream == "prediction.label" else None

    def judge_stream(self, window, score, counts):
        if window.reference is None or not window.rolling.any():
            return None
        rolling = count_rolling_window(window)
        share = max(rolling.counts) / rolling.total
        if share <= self.section.max_share:
            return "ok"
        cause = build_shift_cause(window, window.reference, score, rolling, bound=self.section.max_share)
        return replace(cause, value=share, summary=f"a share of {share:.2f}")

    def grade_severity(self, causes):
        return "critical"
'''

USE_OF_IT = """
import json

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.processor.config.render import render_default_yaml
from otel_mlmon.testing import SimulatedProcessor

MODELS = {"*": {"reference": {"learn": 100}, "dominance": {"max_share": "80%"}, "prediction_drift": {"enabled": False}}}
CONFIGURATION = {"models": MODELS, "windows": {"pane": "10s", "lateness": "0s", "rolling": "1m"}}

try:
    SimulatedProcessor({"models": {"*": {"dominance": {"max_shar": 0.5}}}})
except ConfigurationError as error:
    faults = [fault.partition(": ")[2] for fault in error.faults]

states = []
with SimulatedProcessor(CONFIGURATION) as processor:
    for number in range(40):
        processor.send_counts("fraud", labels={"ham": 50, "spam": 50} if number < 25 else {"ham": 100})
        processor.advance(10)
        states.append(processor.rule_state("fraud", "dominance"))
    alerts = [
        (alert.rule, alert.state.value, alert.severity, alert.causes[0].summary) for alert in processor.alerts
    ]
    text = processor.messages[0]
defaults = render_default_yaml()
print(json.dumps({"faults": faults, "defaults": defaults, "alerts": alerts, "states": states, "text": text}))
"""


def test_a_package_adds_a_rule_by_one_file_and_an_entry_point(tmp_path: Path) -> None:
    install(tmp_path, ADDED_RULE, group="otel_mlmon.rules", name="dominance", attribute="DominanceRule")
    result = run_beside(tmp_path, USE_OF_IT)
    assert result["faults"] == ["models.*.dominance.max_shar: is not a known key (did you mean `max_share`?)"]
    section = """\
    # One label is predicted too often.
    dominance:
      # Whether the rule is evaluated.
      enabled: true
      # The share that a label may have.
      max_share: 95%
"""
    assert section in result["defaults"]
    assert result["alerts"] == [["dominance", "firing", "critical", "a share of 0.83"]]
    assert (result["states"][20], result["states"][-1]) == ("ok", "firing")
    assert result["text"].startswith("FIRING · critical · fraud 1 · one label dominates\n")
