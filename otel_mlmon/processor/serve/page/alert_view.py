"""Makes what the page of one alert shows out of the documents of the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from otel_mlmon.processor.serve.page.addresses import build_commands, build_silence_command, model_url, stream_url
from otel_mlmon.processor.serve.page.advice import describe_condition, find_alerts
from otel_mlmon.processor.serve.page.source import Source

Document = Mapping[str, Any]


def list_traces(alerts: Iterable[Document]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Lists the traces of alerts, each with the links that have a place for its id."""
    traces: dict[str, list[tuple[str, str]]] = {}
    for alert in alerts:
        for trace in alert["exemplars"]:
            traces.setdefault(
                str(trace),
                [
                    (link["name"], link["url"].replace("{trace_id}", quote(str(trace), safe="")))
                    for link in alert["links"]
                    if "{trace_id}" in link["url"] and is_web_address(link["url"])
                ],
            )
    return list(traces.items())[:12]


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
        "links": [link for link in alert["links"] if is_web_address(link["url"]) and "{" not in link["url"]],
        "silence": build_silence_command(alert),
        "commands": build_commands(model_id, alert["version"]) if model_id is not None else [],
    }
