"""Sends alerts to Sentry: one issue a model and rule, and a monitor that shows whether the rule still fires.

Sentry groups events by their fingerprint, and an event after a resolution opens the issue again. So what begins, grows
or changes is an event, and the end is none: it is a check-in `ok` of a monitor, whose check-in `error` came with the
beginning. Ids of events and check-ins are made of `Alert.key`, so that a repeated attempt is the same to Sentry. The
client is this notifier's own: Sentry's set-up of the process stays as it is.
Source: https://develop.sentry.dev/sdk/ (envelopes, event payloads, check-ins).
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit

import httpx
from pydantic import Field, SecretStr, field_validator

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.message import format_alert, format_alert_title
from otel_mlmon.processor.config.section import ConfigSection, Duration
from otel_mlmon.processor.notify.http import post_request
from otel_mlmon.version import __version__

if TYPE_CHECKING:
    from sentry_sdk.envelope import Envelope

MAX_SLUG_NAME: Final = 30
"""Characters of a monitor's slug that are readable; with prefix and digest it has 50 at most, as Sentry allows."""
MAX_TAG: Final = 200
"""Characters of a tag's value."""
MONITOR: Final = {"schedule": {"type": "interval", "value": 1, "unit": "year"}, "recovery_threshold": 1}
"""No check-in is expected before a year is over: the monitor fails because it is told so."""


class SentrySection(ConfigSection):
    """The configuration of alerts as issues of Sentry."""

    dsn: SecretStr = Field(description="Of the project; keep it in the environment: `${env:SENTRY_DSN}`.")
    monitors: bool = Field(
        default=True,
        description="Whether a monitor (Crons) of each model and rule says that it fires and that it ends.",
    )
    environment: str = Field(
        default="production", min_length=1, description="Of alerts about models whose environment is not known."
    )
    timeout_s: Duration = Field(default=5.0, alias="timeout", gt=0, description="For one request.")

    @field_validator("dsn")
    @classmethod
    def _check_dsn(cls, dsn: SecretStr) -> SecretStr:
        if importlib.util.find_spec("sentry_sdk") is None:
            raise ValueError('needs sentry-sdk: pip install "otel-mlmon[sentry]"')
        try:
            url = urlsplit(dsn.get_secret_value())
            is_dsn = url.scheme in ("http", "https") and bool(url.hostname and url.username) and (url.port or 1) > 0
        except ValueError:
            is_dsn = False
        if not is_dsn or not url.path.rsplit("/", 1)[-1].isdigit():
            raise ValueError("must be a DSN such as https://KEY@HOST/PROJECT, from the settings of the project")
        return dsn


class SentryNotifier:
    """Sends alerts to Sentry as events and as check-ins of a monitor.

    Args:
        section: Its section of the configuration.
        clock: Seconds since the epoch.
    """

    section_type: ClassVar = SentrySection

    def __init__(self, section: SentrySection, *, clock: Callable[[], float] = time.time) -> None:
        from sentry_sdk.transport import Transport

        send = partial(
            post_request, timeout_s=section.timeout_s, certificates=httpx.create_ssl_context()
        )  # reading the certificates costs 20 ms: once, not each alert

        class EnvelopeTransport(Transport):
            """A transport of the Sentry SDK that posts at once, so that the outcome is known."""

            def capture_envelope(self, envelope: Envelope) -> None:
                if self.parsed_dsn is not None:
                    auth = self.parsed_dsn.to_auth(f"otel-mlmon/{__version__}")
                    headers = {"X-Sentry-Auth": auth.to_header(), "Content-Type": "application/x-sentry-envelope"}
                    send(auth.get_api_url(), envelope.serialize(), headers=headers, now_s=clock())

        self._client = _create_sentry_client(section, EnvelopeTransport)
        self._section = section
        self.attempt_timeout_s: float = 2 * section.timeout_s

    @classmethod
    def create(cls, section: SentrySection, emit_event: Any) -> SentryNotifier:  # noqa: ARG003 (the Protocol's)
        """Makes the Sentry notifier from its configuration section."""
        return cls(section)

    def notify(self, alert: Alert) -> None:
        """Sends Sentry an event of an alert that begins or has news, and a check-in of one that begins or ends."""
        for payload in build_sentry_payloads(alert, self._section):
            self._client.capture_event(payload)


def build_sentry_payloads(alert: Alert, section: SentrySection) -> Iterator[dict[str, Any]]:
    """Yields the Sentry event and the check-in that stand for an alert; either may be missing."""
    if not alert.is_resolved:
        yield _build_sentry_event(alert, section)
    if section.monitors and not alert.is_update:
        yield {
            "type": "check_in",
            "check_in_id": _derive_sentry_id(alert.key, "check_in"),
            "monitor_slug": build_monitor_slug(alert),
            "monitor_config": MONITOR,
            "status": "ok" if alert.is_resolved else "error",
            "environment": alert.environment or section.environment,
        }


def build_monitor_slug(alert: Alert) -> str:
    """Returns the slug of the Sentry monitor of a model and rule: `mlmon-fraud-data-drift-3f0a91c2`."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{alert.model}-{alert.rule}".lower()).strip("-")[:MAX_SLUG_NAME].strip("-")
    return f"mlmon-{name}-{_derive_sentry_id(*_build_issue_fingerprint(alert))[:8]}"


def _build_sentry_event(alert: Alert, section: SentrySection) -> dict[str, Any]:
    causes = [
        {"stream": cause.stream, "before": cause.reference, "now": cause.current, "how much": cause.summary}
        for cause in alert.causes
    ]
    tags = {
        "ml.model.name": alert.model,
        "ml.model.version": alert.version,
        "ml.alert.rule": alert.rule,
        "ml.alert.state": alert.state.value,
        "ml.alert.severity": alert.severity,
    }
    return {
        "event_id": _derive_sentry_id(alert.key, "event"),
        "timestamp": alert.time_ns / 1e9,
        "level": "error" if alert.severity == "critical" else "warning",
        "logger": "otel_mlmon.alerts",
        "fingerprint": _build_issue_fingerprint(alert),
        "logentry": {"formatted": format_alert_title(alert)},
        "environment": alert.environment or section.environment,
        "tags": {name: value[:MAX_TAG] for name, value in tags.items() if value},
        "contexts": {"alert": {"text": format_alert(alert), "key": alert.key, "causes": causes}},
        "extra": {link.name: link.url for link in alert.links},
    }


def _build_issue_fingerprint(alert: Alert) -> list[str]:
    return ["otel-mlmon", alert.model, alert.environment, alert.rule, *(["test"] if alert.is_test else [])]


def _derive_sentry_id(*texts: str) -> str:
    """Derives an id of 32 hex digits from texts: the same texts always give the same id."""
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()


def _create_sentry_client(section: SentrySection, transport: Any) -> Any:
    """Makes a Sentry client that changes nothing of the process and sends nothing by itself."""
    from sentry_sdk import Client

    return Client(
        dsn=section.dsn.get_secret_value(),
        transport=transport,
        release=f"otel-mlmon@{__version__}",
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        enable_backpressure_handling=False,
        send_client_reports=False,
        spotlight=False,
        debug=False,
        max_value_length=100_000,
    )
