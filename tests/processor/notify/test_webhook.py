from __future__ import annotations

import hashlib
import hmac
import json
import socket
from dataclasses import replace

import pytest

from otel_mlmon.processor.alert.document import encode_alert
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError
from otel_mlmon.processor.notify.webhook import WebhookNotifier
from tests.support.alerts import FIRING, RESOLVED
from tests.support.webhook_server import Answer, webhook_server

NOW_S = 1_763_820_000.0


def test_an_alert_is_posted_as_json_with_its_text() -> None:
    with webhook_server() as server:
        WebhookNotifier(server.url, headers={"Authorization": "Bearer t"}).notify(FIRING)
        (request,) = server.wait_for(1)
    assert request.path == "/hook"
    assert request.body == encode_alert(FIRING)
    assert json.loads(request.body)["text"].startswith("FIRING · critical · digits 1")
    assert (request.headers["content-type"], request.headers["authorization"]) == ("application/json", "Bearer t")
    assert "x-mlmon-signature" not in request.headers


def test_the_signature_is_over_timestamp_and_body() -> None:
    with webhook_server() as server:
        WebhookNotifier(server.url, secret="s3cret", clock=lambda: NOW_S).notify(FIRING)
        (request,) = server.wait_for(1)
    assert request.headers["x-mlmon-timestamp"] == "1763820000"
    signed = b"1763820000." + request.body
    expected = "v1=" + hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
    assert request.headers["x-mlmon-signature"] == expected


def test_each_change_of_state_has_one_idempotency_key_and_one_body() -> None:
    later = replace(FIRING, time_ns=FIRING.time_ns + 1)
    with webhook_server() as server:
        notifier = WebhookNotifier(server.url)
        for alert in (FIRING, FIRING, RESOLVED, later):
            notifier.notify(alert)
        requests = server.wait_for(4)
    keys = [request.headers["idempotency-key"] for request in requests]
    assert keys[0] == keys[1] == FIRING.key
    assert len(set(keys)) == 3
    assert requests[0].body == requests[1].body


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_what_passes_is_transient(status: int) -> None:
    with webhook_server(Answer(status=status)) as server, pytest.raises(TransientError, match=f"HTTP {status}"):
        WebhookNotifier(server.url).notify(FIRING)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410])
def test_what_does_not_pass_is_permanent_and_redirects_are_not_followed(status: int) -> None:
    answer = Answer(status=status, headers=(("Location", "/hook"),))
    with webhook_server(answer) as server, pytest.raises(PermanentError, match=f"HTTP {status}"):
        WebhookNotifier(server.url).notify(FIRING)
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("header", "retry_after_s"),
    [("7", 7.0), ("Sat, 22 Nov 2025 14:00:05 GMT", 5.0), ("Sat, 22 Nov 2025 13:00:00 GMT", 0.0), ("soon", None),
     ("-1", None), ("", None)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(header: str, retry_after_s: float | None) -> None:
    answer = Answer(status=503, headers=(("Retry-After", header),))
    with webhook_server(answer) as server, pytest.raises(TransientError) as caught:
        WebhookNotifier(server.url, clock=lambda: NOW_S).notify(FIRING)
    assert caught.value.retry_after_s == retry_after_s


def test_nobody_there_is_transient_and_no_error_names_the_address() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        with pytest.raises(TransientError) as caught:
            WebhookNotifier(f"http://u:hunter2@127.0.0.1:{port}/hunter2").notify(FIRING)
    assert str(caught.value) == "ConnectError"


def test_no_answer_in_time_is_transient() -> None:
    with webhook_server(Answer(waits=True)) as server, pytest.raises(TransientError, match="ReadTimeout"):
        WebhookNotifier(server.url, timeout_s=0.05).notify(FIRING)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "http://[::1/"])
def test_an_address_that_cannot_be_is_permanent(url: str) -> None:
    with pytest.raises(PermanentError):
        WebhookNotifier(url).notify(FIRING)
