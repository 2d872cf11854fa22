"""Defines the JSON document of an alert, which webhooks, programs, dead letters and the API are given.

Its JSON Schema is `docs/alert.schema.json`, made from the types here. `schema_version` grows when a field is removed or
means something else; a new field may come without that, so readers ignore what they do not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import msgspec

from otel_mlmon.processor.alert.alert import (
    Alert,
    AlertCause,
    AlertLink,
    ExampleTrace,
    RelatedRule,
    RuleState,
    Severity,
)
from otel_mlmon.processor.alert.message import format_alert, format_alert_title

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDocument:
    """One change of state of one alert rule of one model, as `otel_mlmon` sends it to programs."""

    schema_version: Literal[1]
    key: str
    """Identifies this notification: the same for every attempt to send it, and that of no other."""
    fingerprint: str
    """Identifies every alert of this model, version, environment and rule: 16 hex digits."""
    subject: str
    """The alert in one line, for people."""
    text: str
    """The alert in plain text of up to 32 lines, for people."""
    model: str
    version: str
    """Empty if unknown."""
    environment: str
    """The `deployment.environment.name` of the model; empty if unknown."""
    model_id: str
    """The text that identifies the model in addresses of the API and to commands."""
    rule: str
    title: str
    """The subject of the rule as people call it: `prediction drift`."""
    state: RuleState
    """`firing`, `no_data` and `error` begin or go on; `ok` ends the alert."""
    previous: RuleState
    """The state before. The same as `state` if this is an update."""
    severity: Severity
    first_severity: Severity | Literal[""]
    """The severity at the first notification."""
    time_ns: int
    """When the state changed, Unix nanoseconds."""
    onset_ns: int
    """When the cause of the alert began, Unix nanoseconds; 0 if that is unknown."""
    incident_ns: int
    """When this alert was first notified of, Unix nanoseconds; the same for all its updates and its end."""
    sequence: int
    """Counts what one processor notifies of, all models and rules together."""
    reason: str
    """Why a rule is in error, or why an alert ended other than by itself; else empty."""
    causes: tuple[AlertCause, ...]
    """The streams that breach the rule, the largest contribution first."""
    joined: tuple[str, ...]
    """Streams that breach the rule since after the first notification."""
    news: tuple[str, ...]
    """The news of an update that no notification had before: streams, and `severity`."""
    related: tuple[RelatedRule, ...]
    """Other rules of the model that fire since about the same time, probably of the same cause."""
    traces: tuple[ExampleTrace, ...]
    """Traces of calls to look at, the newest first."""
    links: tuple[AlertLink, ...]
    """Addresses to open for more: the dashboard, the runbook, and what else was configured."""
    silence: str
    """Why nobody is notified now; empty if nothing withholds notifications."""
    missed: tuple[str, ...]
    """Alerts that began and ended while this recipient could not be reached, a line each."""
    silence_command: str
    """The command that silences this rule of this model for two hours; empty if it is over."""
    relearn_command: str
    """The command that accepts what moved as the new normal; empty where nothing was learned."""
    is_test: bool
    """Whether somebody tests the notifiers, and nothing is wrong: do nothing then."""
    web_url: str
    """The address of the processor's pages from its own machine; empty if it has none."""


_SHARED: Final = frozenset(AlertDocument.__dataclass_fields__) - {"schema_version", "subject", "text"}


def build_alert_document(alert: Alert) -> dict[str, Any]:
    """Builds the document of an alert as plain values that JSON can hold."""
    return cast("dict[str, Any]", msgspec.to_builtins(_describe_alert(alert)))


def encode_alert(alert: Alert) -> bytes:
    """Encodes an alert as JSON in UTF-8: the same alert always gives the same bytes."""
    return msgspec.json.encode(_describe_alert(alert), order="deterministic")


def build_alert_schema() -> dict[str, Any]:
    """Builds the JSON Schema (draft 2020-12) of the document of an alert."""
    return msgspec.json.schema(AlertDocument)


def _describe_alert(alert: Alert) -> AlertDocument:
    fields = {name: getattr(alert, name) for name in _SHARED}
    return AlertDocument(
        schema_version=SCHEMA_VERSION, subject=format_alert_title(alert), text=format_alert(alert), **fields
    )
