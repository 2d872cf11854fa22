"""Checks which of the five steps of monitoring work for a model, by the API's documents alone.

The page and `otel-mlmon doctor` say the same, since both ask here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from otel_mlmon.processor.serve.page.words import escape_line, format_percent, is_finite_number

Document = Mapping[str, Any]
StepState = Literal["works", "waits", "missing", "broken"]
"""`waits` needs time or traffic only; `missing` is not set up; `broken` is set up and does not work."""

JUDGED: Final = frozenset({"ok", "weak", "drift", "no_data"})
NAMES: Final = ("Operational metrics", "Prediction log", "Prediction drift", "Data drift", "Alerts")
_LOCAL_NOTIFIERS: Final = frozenset({"log"})
"""Notifiers that nobody is woken by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringStep:
    """One of the five steps of monitoring, for one model version or for a whole processor."""

    number: int
    state: StepState
    text: str
    """The result of the step, or why there is none."""
    todo: str = ""
    """The next action; empty where nothing is to be done."""
    brief: str = ""
    """The reason why it waits, in a few words: `still learning`; empty where it does not wait."""

    @property
    def name(self) -> str:
        """The name of the step of monitoring."""
        return NAMES[self.number - 1]

    @property
    def is_working(self) -> bool:
        """Whether the step of monitoring works."""
        return self.state == "works"

    def to_dict(self) -> dict[str, Any]:
        """Returns the step of monitoring as a JSON object."""
        return {**asdict(self), "name": self.name}


def list_monitoring_steps(
    model: Document, setup: Document, *, compared_version: str = ""
) -> tuple[MonitoringStep, ...]:
    """Lists the five steps of monitoring for one model version, with their states.

    Args:
        model: The document of the model version.
        setup: The document of `/api/v1/setup`.
        compared_version: The version before, with whose predictions its first ones were compared; empty for none.
    """
    streams = model["streams"]
    predictions = [stream for stream in streams if stream["stream"].startswith(("prediction.", "output."))]
    features = [stream for stream in streams if stream["stream"].startswith("input.")]
    return (
        _check_operational_metrics(model),
        _check_prediction_log(model, predictions),
        _note_compared_version(_check_drift(3, predictions, "outputs", _READ_OUTPUTS), compared_version),
        _check_drift(4, features, "features", _DECLARE_FEATURES),
        _check_version_alerts(streams, setup),
    )


def find_next_step(steps: Iterable[MonitoringStep]) -> MonitoringStep | None:
    """Returns the step of monitoring to work on next: the first broken or missing one, else the first that waits."""
    listed = list(steps)
    for states in (("broken", "missing"), ("waits",)):
        for step in listed:
            if step.state in states:
                return step
    return None


_READ_OUTPUTS: Final = "Run `otel-mlmon settings --model FILE` to see what each output is taken for."
_DECLARE_FEATURES: Final = (
    "Name the inputs in the application: otel_mlmon.instrument(models={NAME: otel_mlmon.ModelOptions(features=[…])})."
)


def _check_operational_metrics(model: Document) -> MonitoringStep:
    if is_finite_number(model["latency"]["p50_s"]):
        return MonitoringStep(number=1, state="works", text="latency, throughput and errors arrive")
    return MonitoringStep(
        number=1, state="waits", text="no call in the last minutes", todo="Send traffic to the model.", brief="no calls"
    )


def _check_prediction_log(model: Document, predictions: Sequence[Document]) -> MonitoringStep:
    if model["predictions"]:
        return MonitoringStep(number=2, state="works", text="predictions are counted")
    if predictions:
        return MonitoringStep(
            number=2,
            state="waits",
            text="no prediction counted yet",
            todo="Send traffic to the model.",
            brief="no prediction",
        )
    return MonitoringStep(number=2, state="missing", text="no output is read as a prediction", todo=_READ_OUTPUTS)


def _check_drift(number: int, streams: Sequence[Document], subject: str, todo: str) -> MonitoringStep:
    judged = [stream for stream in streams if stream["state"] in JUDGED]
    faults = [stream for stream in streams if stream["state"] == "error"]
    if faults:
        text = f"{len(faults)} of {len(streams)} {subject} cannot be judged: {faults[0]['fault'] or 'no reason given'}"
        return MonitoringStep(number=number, state="broken", text=text, todo="See the reason beside the stream.")
    if judged and len(judged) == len(streams):
        return MonitoringStep(number=number, state="works", text=f"{len(streams)} {subject} are watched")
    if judged:
        text = f"{len(judged)} of {len(streams)} {subject} are watched, the others are learned"
        return MonitoringStep(number=number, state="works", text=text)
    if not streams:
        return MonitoringStep(number=number, state="missing", text=f"no {subject} arrive", todo=todo)
    slowest = min(streams, key=lambda stream: stream["learned_count"] / max(stream["required_count"], 1))
    return MonitoringStep(
        number=number,
        state="waits",
        text=describe_learning(slowest),
        todo="Wait for more traffic.",
        brief="still learning",
    )


def _note_compared_version(step: MonitoringStep, version: str) -> MonitoringStep:
    """Notes on a monitoring step that still learns with which version the predictions are compared meanwhile."""
    if step.state != "waits" or not version:
        return step
    return replace(step, brief=f"still learning; until then compared with version {escape_line(version, 20)}")


def describe_learning(stream: Document) -> str:
    """Describes how far the learning of a stream's reference is."""
    learned, required = int(stream["learned_count"]), int(stream["required_count"])
    if stream["calibrating"]:
        done = format_percent(stream["calibrated_ratio"])
        return f"the reference is learned; how much it varies by itself is being measured: {done}"
    if learned >= required:
        return "the reference is being learned"
    return f"learning the reference: {learned} of {required} values"


def _check_version_alerts(streams: Sequence[Document], setup: Document) -> MonitoringStep:
    """Checks whether an alert of a model version can come, and reaches anybody."""
    step = check_alerts(setup)
    if step.is_working and streams and all(stream["state"] == "learning" for stream in streams):
        text = "no rule can judge this version before a reference is learned"
        return MonitoringStep(number=5, state="waits", text=text, todo="Wait for more traffic.", brief="still learning")
    return step


def check_alerts(setup: Document) -> MonitoringStep:
    """Checks whether alerts reach anybody."""
    notifiers = setup.get("notifiers", ())
    if not notifiers:
        return MonitoringStep(
            number=5, state="missing", text="nobody is told", todo="Set alerts.notify in the configuration."
        )
    failing = [entry for entry in notifiers if is_notifier_failing(entry)]
    if failing:
        text = f"alerts to {failing[0]['name']} were not delivered"
        todo = "See the processor's log; the alert is in dead-letters/alerts.jsonl of its storage."
        return MonitoringStep(number=5, state="broken", text=text, todo=todo)
    kinds = {str(entry.get("kind", "")) for entry in notifiers}
    if kinds <= _LOCAL_NOTIFIERS:
        text, todo = "alerts are written to the processor's log only", "Add a notifier to alerts.notify: a webhook."
        return MonitoringStep(number=5, state="missing", text=text, todo=todo)
    return MonitoringStep(number=5, state="works", text=f"alerts go to {', '.join(sorted(kinds))}")


def count_lost_alerts(notifier: Document) -> int:
    """Counts the alerts that a notifier gave up."""
    outcomes = notifier.get("outcomes", {})
    return sum(count for outcome, count in outcomes.items() if outcome.startswith("dead_letter"))


def is_notifier_failing(notifier: Document) -> bool:
    """Returns whether a notifier gave alerts up and has delivered none."""
    return count_lost_alerts(notifier) > 0 and not notifier.get("outcomes", {}).get("delivered", 0)
