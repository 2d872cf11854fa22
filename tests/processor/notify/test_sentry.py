from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sentry_sdk
from pydantic import ValidationError
from sentry_sdk import integrations

from otel_mlmon.processor.alert.alert import Alert, AlertAddresses, AlertLink, RuleState
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError
from otel_mlmon.processor.notify.sentry import SentryNotifier, SentrySection, build_monitor_slug
from tests.support.alerts import FIRING, RESOLVED, TIME_NS
from tests.support.sentry_endpoint import items_of
from tests.support.webhook_server import Answer, WebhookServer, webhook_server

UPDATE = replace(FIRING, previous=RuleState.FIRING, severity="critical", news=("severity",), sequence=2)
SLUG = "mlmon-digits-prediction-drift-3374466a"


@contextmanager
def sentry(*answers: Answer, **section: Any) -> Iterator[tuple[SentryNotifier, WebhookServer]]:
    with webhook_server(*answers) as server:
        dsn = server.url.replace("//", "//key@").replace("/hook", "/42")
        yield SentryNotifier(SentrySection.model_validate({"dsn": dsn, **section})), server


def items(server: WebhookServer) -> list[tuple[str, Any]]:
    return [item for request in server.received for item in items_of(request.body)]


def test_what_begins_and_grows_is_one_issue_and_the_end_is_a_check_in() -> None:
    with sentry() as (notifier, server):
        for alert in (
            replace(FIRING, addresses=AlertAddresses(others=(AlertLink(name="wiki", url="https://wiki"),))),
            UPDATE,
            RESOLVED,
        ):
            notifier.notify(alert)
        (event, failed, grown, passed) = [payload for _, payload in items(server)]
    assert [kind for kind, _ in items(server)] == ["event", "check_in", "event", "check_in"]
    assert {request.path for request in server.received} == {"/api/42/envelope/"}
    assert "sentry_key=key" in server.received[0].headers["x-sentry-auth"]
    assert event["fingerprint"] == grown["fingerprint"] == ["otel-mlmon", "digits", "", "prediction_drift"]
    assert (event["level"], event["timestamp"], event["environment"]) == ("error", TIME_NS / 1e9, "production")
    assert event["logentry"]["formatted"] == "FIRING · critical · digits 1 · prediction drift"
    assert event["tags"] == {
        "ml.model.name": "digits", "ml.model.version": "1", "ml.alert.rule": "prediction_drift",
        "ml.alert.state": "firing", "ml.alert.severity": "critical",
    }  # fmt: skip
    assert event["contexts"]["alert"]["causes"][0]["now"] == "45 %"
    assert event["extra"] == {"wiki": "https://wiki"}
    assert [(check["monitor_slug"], check["status"]) for check in (failed, passed)] == [(SLUG, "error"), (SLUG, "ok")]
    assert failed["check_in_id"] != passed["check_in_id"]


def test_a_repeated_attempt_is_the_same_to_sentry() -> None:
    with sentry(Answer(status=503), Answer()) as (notifier, server):
        with pytest.raises(TransientError, match="HTTP 503"):
            notifier.notify(FIRING)
        notifier.notify(FIRING)
        notifier.notify(replace(FIRING, sequence=9))
        ids = [payload["event_id"] for kind, payload in items(server) if kind == "event"]
        checks = [payload["check_in_id"] for kind, payload in items(server) if kind == "check_in"]
    assert (len(ids), len(set(ids)), len(set(checks))) == (3, 2, 2)
    assert ids[0] == ids[1]


def test_versions_share_an_issue_and_models_environments_rules_and_tests_do_not() -> None:
    others: list[Alert] = [
        replace(FIRING, version="2"),
        replace(FIRING, environment="staging"),
        replace(FIRING, rule="latency"),
        replace(FIRING, model="Digits "),
        replace(FIRING, is_test=True),
    ]
    slugs = [build_monitor_slug(alert) for alert in (FIRING, *others)]
    assert slugs[0] == slugs[1] == SLUG
    assert len(set(slugs)) == 5
    long = build_monitor_slug(replace(FIRING, model="模型 " + "x" * 200))
    assert (len(long) <= 50, long.isascii()) == (True, True)


def test_a_refusal_is_final_and_too_many_are_not() -> None:
    with sentry(Answer(status=403), Answer(status=429, headers=(("Retry-After", "7"),))) as (notifier, _):
        with pytest.raises(PermanentError, match="HTTP 403"):
            notifier.notify(FIRING)
        with pytest.raises(TransientError) as caught:
            notifier.notify(FIRING)
    assert caught.value.retry_after_s == 7.0


def test_without_monitors_the_end_is_nothing() -> None:
    with sentry(monitors=False, environment="eu") as (notifier, server):
        notifier.notify(FIRING)
        notifier.notify(RESOLVED)
        assert [(kind, payload["environment"]) for kind, payload in items(server)] == [("event", "eu")]


def test_sentry_of_the_process_stays_as_it_is() -> None:
    def describe() -> tuple[object, ...]:
        client = sentry_sdk.get_client()
        return client.is_active(), set(integrations._installed_integrations), sys.excepthook, threading.enumerate()

    before = describe()
    SentryNotifier(SentrySection.model_validate({"dsn": "https://key@sentry.example.org/1"}))
    assert describe() == before


@pytest.mark.parametrize(
    "dsn", ["", "x", "http://host/1", "https://key@host/", "https://key@host:99999/1", "ftp://k@h/1"]
)
def test_what_is_no_dsn_is_refused_without_naming_it(dsn: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SentrySection.model_validate({"dsn": dsn})
    (error,) = caught.value.errors(include_input=False)
    assert error["msg"].startswith("Value error, must be a DSN such as https://KEY@HOST/PROJECT")
