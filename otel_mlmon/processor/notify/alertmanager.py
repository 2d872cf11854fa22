"""Posts alerts to every member of a Prometheus Alertmanager cluster, and repeats them until they end.

Alertmanager knows an alert by its labels alone and tells nothing of annotations that change. So the severity is a
label, of which the new one is posted and the old one resolved, and a stream that joins is an alert of its own with a
label `cause`; values and times are never labels. All alerts of a model and rule have the same `alertname` and `model`:
group by these. An alert ends four renewals after the last one, so that it does not flap, and is resolved explicitly.
Source: https://prometheus.io/docs/alerting/latest/alerts_api/; measured with Alertmanager 0.25: a batch with one
invalid alert is answered 400 although the others are accepted, and label names with dots are invalid.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, ClassVar, Final

import httpx
from pydantic import Field, ValidationInfo, field_validator

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.message import format_alert, format_alert_title
from otel_mlmon.processor.config.section import ConfigSection, Duration, Url
from otel_mlmon.processor.notify.http import Headers, post_request
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError

MAX_CAUSES: Final = 20
"""Streams that joined that are alerts of their own; the annotations name more."""
OWN_LABELS: Final = ("alertname", "model", "version", "environment", "rule", "severity", "cause", "test")
OWN_ANNOTATIONS: Final = ("summary", "description")
_LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class AlertmanagerSection(ConfigSection):
    """The configuration of alerts to Prometheus' Alertmanager, API v2."""

    urls: tuple[Url, ...] = Field(min_length=1, description="Every member of the cluster: `http://127.0.0.1:9093`.")
    labels: dict[str, str] = Field(default_factory=dict, description="Added to every alert, for routes.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Added to every alert, for people.")
    headers: Headers = Field(default_factory=dict, description="Sent with every request.")
    renew_every_s: Duration = Field(
        default=60.0, alias="renew_every", gt=0, description="How often what is not over is repeated."
    )
    timeout_s: Duration = Field(default=5.0, alias="timeout", gt=0, description="For one member.")

    @field_validator("labels", "annotations")
    @classmethod
    def _check_names(cls, texts: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        own = OWN_LABELS if info.field_name == "labels" else OWN_ANNOTATIONS
        for name in texts:
            if not _LABEL_NAME.fullmatch(name) or name.startswith("__"):
                raise ValueError(
                    f"{name!r} cannot be a name: letters, digits and _ only, the first no digit, and not __ before it"
                )
            if name in own:
                raise ValueError(f"{name!r} is set by every alert itself; choose another name")
        return texts


class AlertmanagerNotifier:
    """Posts alerts to all members of an Alertmanager cluster, of which one must accept them.

    Args:
        section: Its section of the configuration.
        clock: Seconds since the epoch.
    """

    section_type: ClassVar = AlertmanagerSection

    def __init__(self, section: AlertmanagerSection, *, clock: Callable[[], float] = time.time) -> None:
        self._section = section
        self._clock = clock
        self._headers = {name: value.get_secret_value() for name, value in section.headers.items()}
        self._certificates = httpx.create_ssl_context()
        self.renew_every_s: float = section.renew_every_s
        self.attempt_timeout_s: float = section.timeout_s * len(section.urls)

    @classmethod
    def create(cls, section: AlertmanagerSection, emit_event: Any) -> AlertmanagerNotifier:  # noqa: ARG003
        """Makes the Alertmanager notifier from its configuration section."""
        return cls(section)

    def notify(self, alert: Alert) -> None:
        """Posts an alert that begins, has news or ends to Alertmanager."""
        self._post_alerts(list(build_alertmanager_alerts(alert, self._section, now_s=self._clock())))

    def renew(self, alerts: Sequence[Alert]) -> None:
        """Posts the alerts that have not ended to Alertmanager again, before it forgets them."""
        now_s = self._clock()
        self._post_alerts(
            [document for alert in alerts for document in build_alertmanager_alerts(alert, self._section, now_s=now_s)]
        )

    def _post_alerts(self, documents: list[dict[str, Any]]) -> None:
        body = json.dumps(documents, ensure_ascii=False).encode()
        headers = {**self._headers, "Content-Type": "application/json"}
        failures: list[TransientError | PermanentError] = []
        for url in self._section.urls:
            try:
                post_request(
                    f"{url.rstrip('/')}/api/v2/alerts",
                    body,
                    headers=headers,
                    timeout_s=self._section.timeout_s,
                    certificates=self._certificates,
                    now_s=self._clock(),
                )
            except (TransientError, PermanentError) as error:  # noqa: PERF203 (one a member)
                failures.append(error)
        if len(failures) == len(self._section.urls):
            raise next((error for error in failures if isinstance(error, TransientError)), failures[0])


def build_alertmanager_alerts(alert: Alert, section: AlertmanagerSection, *, now_s: float) -> Iterator[dict[str, Any]]:
    """Yields the Alertmanager alerts (API v2) that stand for one alert of the processor.

    Args:
        alert: What changed, or is not over.
        section: Labels that are added, and how often what is not over is repeated.
        now_s: Seconds since the epoch.
    """
    ends_s = now_s if alert.is_resolved else now_s + 4 * section.renew_every_s
    for cause in ("", *alert.joined[:MAX_CAUSES]):
        yield _build_alertmanager_alert(alert, section, cause=cause, severity=alert.severity, ends_s=ends_s)
        if alert.first_severity not in ("", alert.severity):
            yield _build_alertmanager_alert(alert, section, cause=cause, severity=alert.first_severity, ends_s=now_s)


def _build_alertmanager_alert(
    alert: Alert, section: AlertmanagerSection, *, cause: str, severity: str, ends_s: float
) -> dict[str, Any]:
    labels = {
        **section.labels,
        "alertname": "Mlmon" + "".join(part.capitalize() for part in alert.rule.split("_")),
        "model": alert.model,
        "version": alert.version,
        "environment": alert.environment,
        "rule": alert.rule,
        "severity": severity,
        "cause": cause,
        "test": "true" if alert.is_test else "",
    }
    labels = {name: value for name, value in labels.items() if value}
    starts_s = min((alert.incident_ns or alert.time_ns) / 1e9, ends_s)
    annotations = {re.sub(r"\W|^(?=\d)", "_", link.name, flags=re.ASCII): link.url for link in alert.links}
    annotations |= {**section.annotations, "summary": format_alert_title(alert), "description": format_alert(alert)}
    document = {
        "labels": labels,
        "annotations": annotations,
        "startsAt": _format_iso_time(starts_s),
        "endsAt": _format_iso_time(ends_s),
    }
    if alert.web_url:
        document["generatorURL"] = f"{alert.web_url}/api/v1/alerts"
    return document


def _format_iso_time(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, tz=timezone.utc).isoformat(timespec="milliseconds")
