"""Sentry's headers on outgoing requests, with and without the sampling decision of a raised rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnxruntime as ort
import pytest
import sentry_sdk

from otel_mlmon.testing import capture
from tests.support import models
from tests.support.sentry_endpoint import Endpoint, endpoint, initialise, no_sentry

UPSTREAM = f"{7:032x}-{8:016x}-0"


@pytest.fixture(autouse=True)
def _sentry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SENTRY_DSN", raising=False)
    with no_sentry():
        yield


@pytest.fixture
def sentry() -> Iterator[Endpoint]:
    with endpoint() as running:
        yield running


def headers(incoming: dict[str, str] | None = None) -> tuple[int, set[str]]:
    """Parts of the `sentry-trace` header, and the names in the baggage, of a request made in a transaction."""
    with sentry_sdk.start_transaction(sentry_sdk.continue_trace(incoming or {}, name="request")):
        sent = dict(sentry_sdk.get_current_scope().iter_trace_propagation_headers())
        assert sentry_sdk.get_traceparent() == sent["sentry-trace"]
    return sent["sentry-trace"].count("-"), {item.split("=")[0] for item in sent.get("baggage", "").split(",")}


@pytest.mark.parametrize(
    ("options", "keeps", "flag"),
    [
        ({}, False, 1),
        ({}, True, 0),
        ({"traces_sample_rate": 0.0}, False, 1),
        ({"traces_sample_rate": 0.0}, True, 0),
        ({"traces_sample_rate": 1.0}, False, 1),
        ({"traces_sample_rate": 1.0}, True, 1),
        ({"traces_sampler": lambda _: 1.0}, True, 1),
    ],
)
def test_a_raised_rate_decides_downstream_unless_it_is_kept_here(
    options: dict[str, Any], keeps: bool, flag: int, sentry: Endpoint
) -> None:
    initialise(sentry, release="7", **options)
    methods = [sentry_sdk.tracing.Span.to_traceparent, sentry_sdk.tracing.Span.iter_headers]
    with capture(sentry_traces_sample_rate=1.0, sentry_decides_downstream=not keeps):
        parts, items = headers()
        assert parts == 1 + flag
        assert {"sentry-trace_id", "sentry-public_key", "sentry-release"} <= items
        assert ({"sentry-sample_rate", "sentry-sampled", "sentry-sample_rand"} <= items) is bool(flag)
        # What a service before this one decided is told on.
        assert headers({"sentry-trace": UPSTREAM})[0] == 2
    assert [sentry_sdk.tracing.Span.to_traceparent, sentry_sdk.tracing.Span.iter_headers] == methods


def test_its_own_transactions_still_carry_their_rate(sentry: Endpoint) -> None:
    initialise(sentry)
    session = ort.InferenceSession(models.softmax())
    with capture(sentry_traces_sample_rate=1.0, sentry_decides_downstream=False) as captured:
        session.run(None, {"input": [[1, 0, 0, 0]]})
        captured.flush()
        sentry_sdk.flush()
    assert [header["trace"]["sample_rate"] for header in sentry.headers if "trace" in header] == ["1.0"]
