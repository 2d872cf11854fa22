"""Builds the content of the web pages on alerts from the API's documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_mlmon.processor.serve.page import words
from otel_mlmon.processor.serve.page.addresses import (
    ALERT_COMMANDS,
    build_commands,
    build_model_url,
    build_stream_url,
    list_alert_commands,
)
from otel_mlmon.processor.serve.page.advice import list_actions
from otel_mlmon.processor.serve.page.card import build_model_card
from otel_mlmon.processor.serve.page.condition import (
    ACTIVE,
    ModelCondition,
    describe_alerts,
    describe_condition,
    find_incident_begin,
    find_version_alerts,
)
from otel_mlmon.processor.serve.page.deploy import find_trouble_deploy
from otel_mlmon.processor.serve.page.facts import (
    describe_cause,
    is_web_address,
    list_traces,
    list_trouble_facts,
    name_cause_period,
    name_traced_calls,
)
from otel_mlmon.processor.serve.page.headline import describe_alert_finding, explain_severity
from otel_mlmon.processor.serve.page.replacement import find_replacement
from otel_mlmon.processor.serve.page.source import PageSource

Document = Mapping[str, Any]

ALERTS_SHOWN: Final = 200
CAUSES_SHOWN: Final = 3


def build_alerts_view(source: PageSource) -> dict[str, Any]:
    """Builds the content of the page `/alerts`: alerts that go on, what no rule judges yet, and alerts now over."""
    alerts = source.overview["alerts"]
    active = sorted(
        (alert for alert in alerts if alert["state"] in ACTIVE),
        key=lambda alert: (alert["severity"] != "critical", -alert["time_ns"]),
    )
    past = [alert for alert in alerts if alert["state"] == "ok"]
    return {
        "active": [build_alert_row(source, alert) for alert in active[:ALERTS_SHOWN]],
        "waiting": [
            {
                **build_model_card(
                    source,
                    model_id,
                    document,
                    (),
                    since_ns=condition.since_ns,
                    deploy=condition.deploy,
                    replacement=condition.replacement,
                ),
                "condition": condition,
            }
            for model_id, document, condition in find_versions_without_alert(source)
        ],
        "past": [build_alert_row(source, alert) for alert in past[:ALERTS_SHOWN]],
        "past_since_ns": source.history.begin_ns,
        "count": len(active),
        "critical": sum(alert["severity"] == "critical" for alert in active),
    }


def find_versions_without_alert(source: PageSource) -> list[tuple[str, Document, ModelCondition]]:
    """Finds the model versions that are in trouble, or may be, without an alert so far, the most urgent first."""
    found = [
        (model_id, document, condition)
        for model_id in source.overview.get("versions", {})
        for document in source.versions(model_id).values()
        if (condition := describe_condition(source, model_id, document)).state in ("trouble", "pending")
    ]
    return sorted(found, key=lambda row: (row[2].state != "trouble", row[0], -row[1]["updated_ns"]))


def build_alert_row(source: PageSource, alert: Document) -> dict[str, Any]:
    """Builds the row of one alert in a table: what it is about, since when, and what to do."""
    model_id, document = _find_alert_model(source, alert)
    since_ns = alert["onset_ns"] or alert["time_ns"]
    row: dict[str, Any] = {
        "alert": alert,
        "alert_url": f"/alerts/{build_alert_id(alert)}",
        "title": words.escape_line(alert["title"]),
        "meaning": words.explain_alert_rule(alert["rule"]),
        "headline": describe_alert_finding(alert),
        "severity_reasons": list(filter(None, [explain_severity(alert)])),
        "model_url": build_model_url(model_id, alert["version"]) if model_id is not None else None,
        "since_ns": since_ns,
        "facts": [
            describe_cause(cause, name_cause_period(alert, cause, source)) for cause in alert["causes"][:CAUSES_SHOWN]
        ],
        "actions": [],
        "traces": list_traces([alert]),
        "trace_subject": name_traced_calls([alert]),
        "links": list_alert_links(alert),
        "card": None,
        "commands": [],
    }
    if document is None or model_id is None or alert["state"] == "ok":
        return row
    deploy = find_trouble_deploy(source, model_id, document, since_ns)
    actions = list_actions(document, [alert["rule"]], [alert])
    begin_ns = find_incident_begin(document, since_ns)
    return row | {
        "headline": describe_alerts(document, [alert], since_ns, deploy),
        "since_ns": begin_ns,
        "facts": list_trouble_facts(source, model_id, document, [alert], deploy),
        "actions": [deploy.advice, *actions] if deploy is not None else actions,
        "commands": list_alert_commands([alert]),
        "card": build_model_card(
            source,
            model_id,
            document,
            [alert],
            since_ns=begin_ns,
            deploy=deploy,
            replacement=find_replacement(source, model_id, document),
        ),
    }


def list_alert_links(alert: Document) -> list[tuple[str, str]]:
    """Lists the links that a person may open about an alert: its runbook and its page."""
    own = f"/alerts/{build_alert_id(alert)}"
    runbooks = [("Runbook", link["url"]) for link in list_web_links(alert) if link["name"] == "runbook"]
    return [*runbooks, ("The alert in full", own)]


def list_web_links(alert: Document) -> list[Document]:
    """Lists the links of an alert to anywhere but its page; links to the web port itself are without a host."""
    own, base = f"/alerts/{alert['fingerprint']}", alert["web_url"]
    links = [
        {**link, "url": link["url"].removeprefix(base) if base and link["url"].startswith(f"{base}/") else link["url"]}
        for link in alert["links"]
        if is_web_address(link["url"])
    ]
    return [link for link in links if link["url"] != own]


def build_alert_id(alert: Document) -> str:
    """Returns the identifier of an alert in a web address: its fingerprint and when its state changed."""
    return f"{alert['fingerprint']}-{alert['time_ns']}"


def build_alert_view(source: PageSource, alert: Document) -> dict[str, Any]:
    """Builds the content of the page of one alert, `/alerts/{id}`."""
    related = [other for other in source.overview["alerts"] if other["fingerprint"] == alert["fingerprint"]]
    model_id, document = _find_alert_model(source, alert)
    updates = [*alert.get("updates", ()), *related]
    return {
        **build_alert_row(source, alert),
        "updates": sorted({(int(update["time_ns"]), str(update["state"])) for update in updates}),
        "causes": [
            {
                "cause": cause,
                "change": describe_cause(cause),
                "url": build_stream_url(model_id, alert["version"], cause["stream"])
                if document and model_id is not None
                else None,
            }
            for cause in alert["causes"]
        ],
        "links": list_web_links(alert),
        "commands": [
            *((title, alert[key]) for key, title in ALERT_COMMANDS.items() if alert[key] and alert["state"] != "ok"),
            *(build_commands(model_id, alert["version"])[:1] if model_id is not None else ()),
        ],
    }


def _find_alert_model(source: PageSource, alert: Document) -> tuple[str | None, Document | None]:
    """Finds the id of the model of an alert and the document of its version; None for what no longer exists."""
    for model_id, versions in source.overview.get("versions", {}).items():
        if any(find_version_alerts(document, [alert], is_active=False) for document in versions.values()):
            return model_id, versions.get(alert["version"])
    return None, None
