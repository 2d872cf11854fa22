"""Removes Sentry's sampling decision from outgoing requests, so that other services decide for themselves.

Source: develop.sentry.dev, SDK, Traces: a `sentry-trace` header without a flag defers the decision, and a service that
gets one decides by itself. The trace id stays, so that errors of both services are in one trace.
Choice: Sentry has no option for that; its methods are replaced only where the developer asks for it, and put back.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

TRACE_HEADER: Final = "sentry-trace"
DECISION_ITEMS: Final = ("sentry-sample_rate=", "sentry-sample_rand=", "sentry-sampled=")
_TRACEPARENT_PARTS: Final = 2
_METHODS: Final = ("to_traceparent", "_to_traceparent", "iter_headers", "_iter_headers")


def defer_sampling_decisions() -> Callable[[], None]:
    """Removes sampling decisions made here from Sentry's trace headers; returns the function that undoes this."""
    import sentry_sdk.tracing

    streamed = sys.modules.get("sentry_sdk.traces")
    owners = [sentry_sdk.tracing.Span, *([streamed.StreamedSpan] if streamed is not None else [])]
    undo = [_replace_header_method(owner, name) for owner in owners for name in _METHODS if name in vars(owner)]

    def restore() -> None:
        for step in undo:
            step()

    return restore


def _replace_header_method(owner: Any, name: str) -> Callable[[], None]:
    original = vars(owner)[name]

    @functools.wraps(original)
    def deferred_traceparent(span: Any) -> str:
        header: str = original(span)
        return header if _has_upstream_decision(span) else _remove_sampled_flag(header)

    @functools.wraps(original)
    def deferred_headers(span: Any) -> Iterator[tuple[str, str]]:
        headers = original(span)
        if _has_upstream_decision(span):
            yield from headers
            return
        for header, value in headers:
            yield header, _remove_sampled_flag(value) if header == TRACE_HEADER else _remove_sampling_items(value)

    replacement = deferred_headers if name.endswith("headers") else deferred_traceparent
    setattr(owner, name, replacement)

    def restore() -> None:
        if vars(owner).get(name) is replacement:
            setattr(owner, name, original)

    return restore


def _has_upstream_decision(span: Any) -> bool:
    """Returns whether a service before this one has decided on the sampling of a Sentry span."""
    root = getattr(span, "containing_transaction", None) or getattr(span, "_segment", None)
    parent_sampled = getattr(root, "parent_sampled", None)
    return (getattr(root, "_parent_sampled", None) if parent_sampled is None else parent_sampled) is not None


def _remove_sampled_flag(traceparent: str) -> str:
    return "-".join(traceparent.split("-")[:_TRACEPARENT_PARTS])


def _remove_sampling_items(baggage: str) -> str:
    return ",".join(item for item in baggage.split(",") if not item.strip().startswith(DECISION_ITEMS))
