"""Builds the content of the web pages on alerts from the API's documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.addresses import build_commands, model_url, stream_url
from otel_mlmon.processor.serve.page.advice import list_actions
from otel_mlmon.processor.serve.page.condition import (
    describe_cause,
    describe_condition,
    find_alerts,
    is_web_address,
    list_traces,
)
from otel_mlmon.processor.serve.page.source import Source

Document = Mapping[str, Any]

ALERTS_SHOWN: Final = 200
CAUSES_SHOWN: Final = 3


def build_alerts(source: Source) -> dict[str, Any]:
    """Builds the content of the page `/alerts`: active alerts, the severest and newest first, and ended ones."""
    alerts = source.overview["alerts"]
    active = sorted(
        (alert for alert in alerts if alert["state"] != "ok"),
        key=lambda alert: (alert["severity"] != "critical", -alert["time_ns"]),
    )
    past = [alert for alert in alerts if alert["state"] == "ok"]
    return {
        "active": [build_alert_row(source, alert) for alert in active[:ALERTS_SHOWN]],
        "checked": [
            {
                "name": model_id,
                "version": document["version"],
                "url": model_url(model_id, document["version"]),
                "condition": condition,
            }
            for model_id in source.overview.get("versions", {})
            for document in source.versions(model_id).values()
            if (condition := describe_condition(source, model_id, document)).state == "pending"
        ],
        "past": [build_alert_row(source, alert) for alert in past[:ALERTS_SHOWN]],
        "counts": {
            severity: sum(alert["severity"] == severity for alert in active) for severity in ("critical", "warning")
        },
    }


def build_alert_row(source: Source, alert: Document) -> dict[str, Any]:
    """Builds the row of one alert in a table: what it is about, since when, and what to do."""
    model_id, document = _find_model(source, alert)
    has_actions = document is not None and alert["state"] != "ok"
    return {
        "alert": alert,
        "url": f"/alerts/{alert_id(alert)}",
        "title": words.clean(alert["title"]),
        "meaning": words.explain_rule(alert["rule"]),
        "model_url": model_url(model_id, alert["version"]) if model_id is not None else None,
        "since_ns": alert["onset_ns"] or alert["time_ns"],
        "facts": [describe_cause(cause) for cause in alert["causes"][:CAUSES_SHOWN]],
        "actions": list_actions(document, [alert["rule"]], [alert]) if document is not None and has_actions else [],
        "traces": list_traces([alert]),
        "runbook": next((link["url"] for link in list_links(alert) if link["name"] == "runbook"), None),
    }


def list_links(alert: Document) -> list[Document]:
    """Lists the links of an alert; those to the web port itself without a host, which may have another name."""
    own, base = f"/alerts/{alert['fingerprint']}", alert["web_url"]
    links = [
        {**link, "url": link["url"].removeprefix(base) if base and link["url"].startswith(f"{base}/") else link["url"]}
        for link in alert["links"]
        if is_web_address(link["url"])
    ]
    return [link for link in links if link["url"] != own]


def alert_id(alert: Document) -> str:
    """Returns the identifier of an alert in a web address: its fingerprint and when its state changed."""
    return f"{alert['fingerprint']}-{alert['time_ns']}"


def build_alert(source: Source, alert: Document) -> dict[str, Any]:
    """Builds the content of the page of one alert, `/alerts/{id}`."""
    related = [other for other in source.overview["alerts"] if other["fingerprint"] == alert["fingerprint"]]
    model_id, document = _find_model(source, alert)
    updates = [*alert.get("updates", ()), *related]
    return {
        **build_alert_row(source, alert),
        "updates": sorted({(int(update["time_ns"]), str(update["state"])) for update in updates}),
        "causes": [
            {
                "cause": cause,
                "change": describe_cause(cause),
                "url": stream_url(model_id, alert["version"], cause["stream"])
                if document and model_id is not None
                else None,
            }
            for cause in alert["causes"]
        ],
        "links": list_links(alert),
        "silence": alert["silence_command"],
        "commands": build_commands(model_id, alert["version"]) if model_id is not None else [],
    }


def _find_model(source: Source, alert: Document) -> tuple[str | None, Document | None]:
    """Finds the model of an alert and the document of its version; None for what no longer exists."""
    for model_id, versions in source.overview.get("versions", {}).items():
        if any(find_alerts(document, [alert], is_active=False) for document in versions.values()):
            return model_id, versions.get(alert["version"])
    return None, None
