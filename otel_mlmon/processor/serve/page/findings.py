"""Lists what works and what does not in the whole processor, for the page `/setup` and for `otel-mlmon doctor`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.steps import (
    NAMES,
    MonitoringStep,
    check_alerts,
    count_lost_alerts,
    find_next_step,
    list_monitoring_steps,
)

Document = Mapping[str, Any]

SILENT_S: Final = 300
FULL_RATIO: Final = 0.8
_RANK: Final = {"broken": 0, "missing": 1, "waits": 2, "works": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFinding:
    """One thing that a person should know about the processor's setup."""

    is_good: bool
    text: str
    todo: str = ""


def summarize_steps(overview: Document, setup: Document) -> tuple[MonitoringStep, ...]:
    """Summarises the five steps of monitoring over all models: a step works where it works for all versions.

    Without any model the first four wait for telemetry.
    """
    documents = [document for versions in overview.get("versions", {}).values() for document in versions.values()]
    if not documents:
        todo = "Set OTEL_EXPORTER_OTLP_ENDPOINT of the application to the receiver, and call otel_mlmon.instrument()."
        waiting = [MonitoringStep(number=1, state="missing", text="no telemetry of a model has arrived", todo=todo)]
        waiting += [
            MonitoringStep(number=number, state="waits", text="needs step 1 first", brief="needs step 1")
            for number in (2, 3, 4)
        ]
        return (*waiting, check_alerts(setup))
    by_model = [(document, list_monitoring_steps(document, setup)) for document in documents]
    summary = []
    for index in range(len(NAMES)):
        document, worst = min(
            ((document, steps[index]) for document, steps in by_model), key=lambda pair: _RANK[pair[1].state]
        )
        name = words.escape_line(f"{document['name']} {document['version']}".strip(), 60)
        is_common = worst.is_working or (index == len(NAMES) - 1 and worst.state != "waits")
        text = worst.text if is_common else f"{name}: {worst.text}"
        summary.append(MonitoringStep(number=worst.number, state=worst.state, text=text, todo=worst.todo))
    return tuple(summary)


def build_setup_view(overview: Document, setup: Document, *, now_ns: int) -> dict[str, Any]:
    """Builds the content of the page `/setup`: steps, findings and tables."""
    steps = summarize_steps(overview, setup)
    documents = [document for versions in overview.get("versions", {}).values() for document in versions.values()]
    return {
        "steps": steps,
        "next": find_next_step(steps),
        "findings": list(list_setup_findings(documents, setup, now_ns=now_ns)),
        "setup": setup,
        "models": sorted(documents, key=lambda document: (-document["updated_ns"], document["name"]))[:200],
    }


def list_setup_findings(documents: Iterable[Document], setup: Document, *, now_ns: int) -> Iterable[PageFinding]:
    """Yields what people should know about the processor's setup, faults and successes alike."""
    received = setup.get("received", {})
    points = received.get("points", {})
    accepted = points.get("accepted", 0)
    yield PageFinding(
        is_good=accepted > 0,
        text=f"{words.format_number(accepted)} data points were accepted since the processor started",
        todo="" if accepted else "Nothing has arrived: look at the Collector's exporter, or at the application.",
    )
    for reason, count in sorted(received.get("rejected", {}).items(), key=lambda item: -item[1]):
        if count:
            text = (
                f"{words.format_number(count)} points were rejected: {words.escape_line(reason.replace('_', ' '), 120)}"
            )
            yield PageFinding(is_good=False, text=text, todo="docs/operating.md says what each reason means.")
    if points.get("refused", 0):
        text = f"{words.format_number(points['refused'])} points were refused for now, since too many waited"
        yield PageFinding(
            is_good=False, text=text, todo="Give the processor more CPU, or raise receiver.max_pending_bytes."
        )
    yield from _list_limit_findings(setup)
    for document in documents:
        age_s = (now_ns - document["updated_ns"]) / 1e9 if document["updated_ns"] else 0.0
        if age_s > SILENT_S:
            name = words.escape_line(f"{document['name']} {document['version']}".strip(), 60)
            text = f"{name} was heard of last {words.format_duration(age_s)} ago"
            yield PageFinding(is_good=False, text=text, todo="An old version that was replaced may be silent.")
    for notifier in setup.get("notifiers", ()):
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(notifier.get("outcomes", {}).items()))
        lost = count_lost_alerts(notifier)
        text = f"notifier {words.escape_line(notifier['name'], 60)}: {outcomes or 'no alert to tell yet'}"
        yield PageFinding(is_good=not lost, text=text, todo="See the processor's log for the reason." if lost else "")


def _list_limit_findings(setup: Document) -> Iterable[PageFinding]:
    for limit in setup.get("limits", ()):
        ratio = limit["used"] / limit["most"] if limit["most"] else 0.0
        text = f"{limit['name']}: {words.format_number(limit['used'])} of {words.format_number(limit['most'])} in use"
        is_good = ratio < FULL_RATIO
        yield PageFinding(
            is_good=is_good, text=text, todo="" if is_good else f"Raise {limit['key']} in the configuration."
        )
