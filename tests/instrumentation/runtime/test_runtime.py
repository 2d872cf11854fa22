"""Runtimes are instrumented one by one: what fails, or is not installed, keeps no other from it."""

from __future__ import annotations

import logging
import sys
from collections import deque
from types import ModuleType
from typing import Any

import pytest

from otel_mlmon import semconv
from otel_mlmon.instrumentation.runtime.call import SessionInfo
from otel_mlmon.instrumentation.runtime.runtime import (
    Capture,
    Instrumentation,
    Runtime,
    instrument_all,
    undo_all,
)
from otel_mlmon.internal_events import JOURNAL
from otel_mlmon.registry import PluginRegistry
from tests.support.calls import Sink


class Recorded:
    """An instrumentation that notes when it is undone."""

    methods = ("run",)

    def __init__(self, name: str, order: list[str], *, leaves: bool = False, error: Exception | None = None) -> None:
        self.name, self.order, self.leaves, self.error = name, order, leaves, error

    def sessions(self) -> list[SessionInfo]:
        return []

    def session_of(self, model: Any) -> SessionInfo | None:
        return None

    def renew_context(self) -> None:
        pass

    def undo(self) -> bool:
        self.order.append(self.name)
        if self.error is not None:
            raise self.error
        return not self.leaves


class Absent:
    def instrument(self, capture: Capture) -> None:
        return None


class Broken:
    def instrument(self, capture: Capture) -> Instrumentation:
        raise RuntimeError("no such method")


class Present:
    def instrument(self, capture: Capture) -> Instrumentation:
        capture.sink.drop("asked")
        return Recorded("present", [])


class Drops(Sink):
    def drop(self, reason: str) -> None:
        self.queue.append(reason)


@pytest.mark.guarded
def test_a_runtime_that_fails_or_is_absent_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = ModuleType("some_runtimes")
    vars(module).update(BROKEN=Broken(), ABSENT=Absent(), PRESENT=Present())
    monkeypatch.setitem(sys.modules, "some_runtimes", module)
    runtimes: PluginRegistry[Runtime] = PluginRegistry(
        "otel_mlmon.none_such",
        {
            "missing": "some_runtimes:MISSING",
            "broken": "some_runtimes:BROKEN",
            "absent": "some_runtimes:ABSENT",
            "present": "some_runtimes:PRESENT",
        },
    )
    sink = Drops()
    capture = Capture(
        sink=sink,
        loads=deque(),
        context_reader=lambda: lambda absent: absent,
        model_name=lambda _: "",
        has_output_function=lambda _: False,
    )
    caplog.set_level(logging.INFO, logger="otel_mlmon")
    instrumentations = instrument_all(capture, runtimes=runtimes)
    assert list(instrumentations) == ["present"]
    assert sink.queue == ["asked"]
    assert "absent is not installed: its calls are not monitored." in caplog.messages
    assert JOURNAL.read_totals(semconv.FAILURES.name) == {
        (("error.type", "AttributeError"), ("stage", "runtime")): 1,
        (("error.type", "RuntimeError"), ("stage", "runtime")): 1,
    }


@pytest.mark.guarded
@pytest.mark.parametrize(
    ("leaves", "error", "is_restored"), [(False, None, True), (True, None, False), (False, KeyError(), False)]
)
def test_all_are_undone_the_last_first(leaves: bool, error: Exception | None, is_restored: bool) -> None:
    order: list[str] = []
    instrumentations = {
        "a": Recorded("a", order),
        "b": Recorded("b", order, leaves=leaves, error=error),
        "c": Recorded("c", order),
    }
    assert undo_all(instrumentations) is is_restored
    assert order == ["c", "b", "a"]
