"""Makes what the page of one alert shows out of the documents of the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from otel_mlmon.processor.serve.page.addresses import build_commands, model_url, stream_url
from otel_mlmon.processor.serve.page.advice import describe_condition, find_alerts
from otel_mlmon.processor.serve.page.source import Source

Document = Mapping[str, Any]


def list_traces(alerts: Iterable[Document]) -> list[tuple[str, str]]:
    """Lists the traces of alerts, each with its address; that is empty if there is none."""
    traces = {
        str(trace["trace_id"]): trace["url"] if is_web_address(trace["url"]) else ""
        for alert in alerts
        for trace in alert["traces"]
    }
    return list(traces.items())[:12]


def list_links(alert: Document) -> list[Document]:
    """Lists the links of an alert; what is at this port is addressed without a host, since we may have another name."""
    own, base = f"/alerts/{alert['fingerprint']}", alert["web_url"]
    links = [
        {**link, "url": link["url"].removeprefix(base) if base and link["url"].startswith(f"{base}/") else link["url"]}
        for link in alert["links"]
        if is_web_address(link["url"])
    ]
    return [link for link in links if link["url"] != own]


def is_web_address(url: str) -> bool:
    """Returns whether an address may be a link: http or https, and nothing that runs."""
    return url.lower().startswith(("https://", "http://"))


def alert_id(alert: Document) -> str:
    """Returns what names an alert in an address: its fingerprint and when its state changed."""
    return f"{alert['fingerprint']}-{alert['time_ns']}"


def build_alert(source: Source, alert: Document) -> dict[str, Any]:
    """Builds what `/alerts/{id}` shows."""
    related = [other for other in source.overview["alerts"] if other["fingerprint"] == alert["fingerprint"]]
    model_id = next(
        (
            name
            for name, versions in source.overview.get("versions", {}).items()
            if any(find_alerts(document, [alert], is_active=False) for document in versions.values())
        ),
        None,
    )
    document = source.versions(model_id).get(alert["version"]) if model_id is not None else None
    condition = (
        describe_condition(model_id, document, source.overview, source.history)
        if document and model_id is not None
        else None
    )
    updates = [*alert.get("updates", ()), *related]
    return {
        "alert": alert,
        "model_id": model_id,
        "model_url": model_url(model_id, alert["version"]) if model_id is not None else None,
        "condition": condition,
        "updates": sorted({(int(update["time_ns"]), str(update["state"])) for update in updates}),
        "causes": [
            {
                "cause": cause,
                "url": stream_url(model_id, alert["version"], cause["stream"])
                if document and model_id is not None
                else None,
            }
            for cause in alert["causes"]
        ],
        "traces": list_traces([alert]),
        "links": list_links(alert),
        "silence": alert["silence_command"],
        "commands": build_commands(model_id, alert["version"]) if model_id is not None else [],
    }
