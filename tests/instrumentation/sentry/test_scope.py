"""What is read around a call, against what Sentry itself says is there."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any

import pytest
import sentry_sdk
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.sentry.scope import MAX_CACHED_TRACES, make_context_reader, read_span_ids
from tests.support.sentry_endpoint import no_sentry

CONTEXT: ContextVar[object] = ContextVar("context", default=None)


class Context(dict[str, str]):
    """Of OpenTelemetry's kind; can be watched as it goes."""


@pytest.fixture(autouse=True)
def _sentry() -> Iterator[None]:
    CONTEXT.set(None)
    with no_sentry():
        yield


def initialise() -> None:
    sentry_sdk.init(default_integrations=False, auto_enabling_integrations=False, traces_sample_rate=1.0)


def reading(
    *,
    on_client: Callable[[], None] = lambda: None,
    is_enabled: Callable[[], bool] = lambda: True,
    has_spans: Callable[[], bool] = lambda: True,
    is_open: Callable[[Any], bool] = lambda _: True,
) -> Callable[[None], Any]:
    return make_context_reader(
        CONTEXT.get, on_client=on_client, is_enabled=is_enabled, has_spans=has_spans, is_open=is_open
    )


def said() -> tuple[str, str]:
    """Trace and span id of the trace that Sentry has for this thread."""
    around = sentry_sdk.get_current_scope().get_active_propagation_context()
    return around.trace_id, around.span_id


def test_outside_any_span_the_same_pair_is_given_and_the_garbage_collector_does_not_walk_it() -> None:
    initialise()
    read = reading()
    pair = read(None)
    assert pair == (None, said())
    assert all(read(None) is pair for _ in range(1000))
    gc.collect()
    gc.collect()
    assert not gc.is_tracked(pair)


MOVES: dict[str, Callable[[ExitStack], object]] = {
    "isolation scope": lambda stack: stack.enter_context(sentry_sdk.isolation_scope()),
    "new scope": lambda stack: stack.enter_context(sentry_sdk.new_scope()),
    "leave": lambda stack: stack.close(),
    "new trace": lambda _: sentry_sdk.get_isolation_scope().set_new_propagation_context(),
    "trace of the current scope": lambda _: sentry_sdk.get_current_scope().set_new_propagation_context(),
    "continued trace": lambda _: sentry_sdk.get_isolation_scope().generate_propagation_context(
        {"sentry-trace": f"{'ab' * 16}-{'cd' * 8}-1"}
    ),
    "another trace id": lambda _: setattr(
        sentry_sdk.get_current_scope().get_active_propagation_context(), "trace_id", "12" * 16
    ),
    "cleared": lambda _: sentry_sdk.get_isolation_scope().clear(),
    "other client": lambda _: initialise(),
    "span": lambda stack: stack.enter_context(sentry_sdk.start_transaction(name="request")),
    "context": lambda _: CONTEXT.set(Context(key="value")),
    "no context": lambda _: CONTEXT.set(None),
}


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(sorted(MOVES)), max_size=25))
def test_whatever_the_host_does_the_ids_are_what_sentry_says(moves: list[str]) -> None:
    with no_sentry(), ExitStack() as stack:
        CONTEXT.set(None)
        initialise()
        read = reading()
        for move in moves:
            MOVES[move](stack)
            # Read first: it is not Sentry's question that makes the ids.
            context, around = read(None)
            span = sentry_sdk.get_current_scope().span
            assert context is CONTEXT.get()
            assert around is span if span is not None else around == said()


def test_threads_have_traces_of_their_own_which_the_first_error_there_belongs_to() -> None:
    initialise()
    read, both = reading(), threading.Barrier(2)
    found: list[tuple[Any, Any]] = []

    def work() -> None:
        given = []
        for _ in range(200):
            both.wait(10.0)
            given.append(read(None))
        found.append((set(map(id, given)), (given[-1][1], said())))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # They take turns, and still nothing is made a call.
    assert [len(pairs) for pairs, _ in found] == [1, 1]
    assert all(ours == sentrys for _, (ours, sentrys) in found)
    assert len({ours for _, (ours, _) in found}) == 2


def test_more_traces_than_are_kept() -> None:
    initialise()
    read = reading()
    first, found = read(None), set()
    for _ in range(3 * MAX_CACHED_TRACES):
        with sentry_sdk.isolation_scope() as scope:
            scope.set_new_propagation_context()
            assert read(None)[1] == said()
            found.add(read(None)[1])
    assert len(found) == 3 * MAX_CACHED_TRACES
    again = read(None)
    assert again == first
    assert again is not first  # forgotten, not kept for ever


def test_nothing_of_the_host_is_held() -> None:
    initialise()
    read = reading()
    context = Context(key="value")
    gone = weakref.ref(context)
    token = CONTEXT.set(context)
    assert read(None)[0] is context
    assert read(None)[0] is context
    CONTEXT.reset(token)
    del context
    gc.collect()
    assert gone() is None


def test_a_span_that_is_over_is_not_around() -> None:
    initialise()
    open_spans: set[Any] = set()
    read = reading(is_open=lambda span: span in open_spans)
    with sentry_sdk.start_transaction(name="request") as span:
        assert read(None) is None
        open_spans.add(span)
        assert read(None) == (None, span)


def test_another_client_is_told_of_by_the_next_call() -> None:
    clients: list[Any] = []
    read = reading(
        on_client=lambda: clients.append(sentry_sdk.get_client()),
        is_enabled=lambda: sentry_sdk.get_client().is_active(),
    )
    assert [read(None), read(None)] == [None, None]
    assert not clients.pop().is_active()  # Sentry is imported
    for _ in range(3):
        initialise()
        assert [read(None), read(None)] == [(None, said())] * 2
        assert clients.pop() is sentry_sdk.get_client()
        assert clients == []


def test_nothing_is_given_while_nothing_is_wanted() -> None:
    initialise()
    wanted: list[bool] = []
    read = reading(is_enabled=lambda: bool(wanted))
    with sentry_sdk.start_transaction(name="request") as span:
        assert read(None) is None
        wanted.append(True)
        assert read(None) == (None, span)
        wanted.clear()
        assert read(None) == (None, span)  # asked with a client
        initialise()
        assert read(None) is None


@pytest.mark.parametrize("name", ["_current_scope", "_isolation_scope"])
def test_a_version_that_keeps_its_scopes_elsewhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    initialise()
    seen: list[None] = []
    read = reading(on_client=lambda: seen.append(None))
    with monkeypatch.context() as patch:
        patch.delattr(sentry_sdk.scope, name)
        assert [read(None), read(None)] == [None, None]
    assert read(None) is None
    assert seen == [None]


@pytest.mark.parametrize(
    ("context", "ids"),
    [
        (("0" * 31 + "f", "0" * 15 + "a"), (15, 10)),
        (("0" * 32, "a" * 16), None),
        (("a" * 32, "0" * 16), None),
        (("no id", "a" * 16), None),
        (None, None),
    ],
)
def test_ids_as_numbers(context: object, ids: tuple[int, int] | None) -> None:
    assert read_span_ids(context) == ids
