"""The page served from given documents, and a fleet in which every name is hostile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from otel_mlmon.processor.alert.alert import Alert, AlertAddresses, AlertCause, AlertLink, RuleState
from otel_mlmon.processor.alert.document import build_alert_document
from otel_mlmon.processor.serve.api import create_app
from otel_mlmon.processor.serve.page.history import PageHistory
from otel_mlmon.processor.serve.server import WebServer
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.testing.simulated_processor import START_NS
from tests.support.incidents import SETUP

HOSTILE = (
    "<script>alert(1)</script>", "a\nb\x00", "\u202eevil", "x" * 2_000, "../../etc", "..", ".", "~", "a/b?c#d%2F",
    "' onmouseover='x", "{{ 7*7 }}",
)  # fmt: skip
"""Names; longer ones are rejected by the receivers."""


@contextmanager
def serve_page(read: Callable[[], dict[str, Any]], history: PageHistory) -> Iterator[str]:
    """Serves the page and the API on a port of loopback; gives its address.

    Args:
        read: Returns the present documents.
        history: What they said before.
    """
    app = create_app(
        read,
        lambda: b"",
        lambda: True,
        dict,
        relearn=lambda model, streams: None,
        setup=lambda: dict(SETUP),
        history=history,
    )
    server = WebServer(app, "127.0.0.1:0")
    try:
        yield f"http://{server.start()}"
    finally:
        assert server.stop(30)


def hostile_alert(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """The document of an alert in which every text is hostile."""
    cause = AlertCause(
        stream=f"input.{document['name']}", value=0.5, bound=0.1, reference=name, current=name, current_count=100,
        reference_count=100, onset_ns=START_NS, bins=(name, "b"), reference_shares=(0.5, 0.5),
        current_shares=(0.1, 0.9), details=(name,), summary=name,
    )  # fmt: skip
    alert = Alert(
        model=document["name"], version=document["version"], environment=document["environment"], rule="data_drift",
        title=name, state=RuleState.FIRING, previous=RuleState.OK, severity="critical", time_ns=START_NS,
        onset_ns=START_NS, causes=(cause,), exemplars=(name,), reason=5 * name, silence=5 * name,
        addresses=AlertAddresses(
            web="127.0.0.1:8080", trace="https://x.example/{trace_id}?{model}", others=(
                AlertLink(name=name, url="javascript:alert(1)"), AlertLink(name=name, url="https://x.example/{model}"),
            ),
        ),
    )  # fmt: skip
    return build_alert_document(alert)


@contextmanager
def hostile_fleet() -> Iterator[tuple[dict[str, Any], PageHistory]]:
    """Simulates models whose names, versions, environments, labels, features and alerts are hostile."""
    with SimulatedProcessor({"models": {"*": {"reference": {"learn": 100}}}}) as processor:
        for _ in range(3):
            processor.now_ns += 10 * 10**9
            for index, name in enumerate(HOSTILE):
                processor.send_counts(
                    name, version=HOSTILE[-1 - index], labels={name: 100, "b": 100},
                    features={name: [1.0, 2.0] * 50}, durations_s=[0.01] * 200,
                    environment=HOSTILE[index - 3],
                )  # fmt: skip
            processor.advance()
        overview = processor.document()
        overview["alerts"] = [hostile_alert(name, document) for name, document in overview["models"].items()]
        yield overview, processor._pipeline.history


def wide_overview(count: int) -> dict[str, Any]:
    """Builds the documents of one model with so many streams, all of them learned and judged."""
    with SimulatedProcessor({"models": {"*": {"reference": {"learn": 100}}}}) as processor:
        for _ in range(25):
            processor.now_ns += 10 * 10**9
            values = [float(value) for value in range(100)]
            processor.send_counts("m", labels={"a": 50, "b": 50}, features={"f": values}, durations_s=[0.01] * 100)
            processor.advance()
        overview = processor.document()
    document = next(iter(overview["versions"]["m"].values()))
    stream = next(stream for stream in document["streams"] if stream["stream"] == "input.f")
    document["streams"] = [{**stream, "stream": f"input.feature_with_a_long_name_{index}"} for index in range(count)]
    return overview
