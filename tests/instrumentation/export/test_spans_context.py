from __future__ import annotations

import contextvars

import pytest
from opentelemetry import context

from otel_mlmon.instrumentation.export.spans import (
    EMPTY_CONTEXT,
    is_call_suppressed,
    make_context_reader,
    read_otel_context,
    split_contexts,
)

SPAN = context.Context({"span": 1})


def test_the_context_is_read_past_the_api_and_is_none_where_nothing_was_attached() -> None:
    read = make_context_reader()
    assert getattr(read, "__self__", None) is context._RUNTIME_CONTEXT._current_context  # type: ignore[attr-defined]
    found = []

    def attached() -> None:
        found.append(read(None))
        token = context.attach(SPAN)
        found.append(read(None))
        context.detach(token)
        found.append(read(None))

    contextvars.Context().run(attached)
    assert found == [None, SPAN, None]


def test_of_a_runtime_of_another_kind_the_api_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Foreign:
        def __init__(self) -> None:
            self.current = context.Context()

        def get_current(self) -> context.Context:
            return self.current

        def attach(self, found: context.Context) -> context.Context:
            before, self.current = self.current, found
            return before

        def detach(self, token: context.Context) -> None:
            self.current = token

    monkeypatch.setattr(context, "_RUNTIME_CONTEXT", Foreign())
    read = make_context_reader()
    before = read(None)
    token = context.attach(SPAN)
    during = read(None)
    context.detach(token)
    assert (before, during, read(None)) == (None, SPAN, None)


def test_what_is_carried_beside_a_context_is_told_apart() -> None:
    assert split_contexts([None, None]) == ([EMPTY_CONTEXT, EMPTY_CONTEXT], ())
    assert split_contexts([None, SPAN]) == ([EMPTY_CONTEXT, SPAN], ())
    assert split_contexts([SPAN, (SPAN, "around")]) == ([SPAN, SPAN], [None, "around"])
    assert split_contexts([None, SPAN, (SPAN, "around"), (None, "alone")]) == (
        [EMPTY_CONTEXT, SPAN, SPAN, EMPTY_CONTEXT],
        [None, None, "around", "alone"],
    )
    assert [read_otel_context(captured) for captured in (None, SPAN, (None, "alone"))] == [
        EMPTY_CONTEXT,
        SPAN,
        EMPTY_CONTEXT,
    ]


def test_suppression_is_not_looked_for_in_a_context_that_is_no_mapping() -> None:
    assert not is_call_suppressed(object())


def test_suppression_is_seen_beside_anything() -> None:
    quiet = context.Context({"suppress_instrumentation": True})
    assert [is_call_suppressed(captured) for captured in (None, SPAN, quiet, (quiet, "around"), (None, "alone"))] == [
        False,
        False,
        True,
        True,
        False,
    ]
