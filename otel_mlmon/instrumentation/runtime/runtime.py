"""The Protocol of a runtime, such as onnxruntime, that can be instrumented, and the registry of all of them.

A runtime is a library that runs models, such as onnxruntime. To add one, write a class that implements `Runtime`, and
name it in an entry point of your package; nothing here changes:

    [project.entry-points."otel_mlmon.runtimes"]
    lightgbm = "my_package.lightgbm:RUNTIME"
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.runtime.call import Context, Load, SessionInfo, Sink
from otel_mlmon.registry import PluginRegistry

_LOG: Final = logging.getLogger("otel_mlmon")

MAX_LOADS: Final = 1024
"""The largest number of loads that wait to be announced; beyond it the oldest are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Capture:
    """The parts that a runtime plug-in gets: the queues for calls and loads, and the options that it may read."""

    sink: Sink
    """Takes calls, from any thread of the host's."""
    loads: deque[Load]
    """Takes models loaded, from any thread of the host's."""
    context_reader: Callable[[], Context]
    """Returns the function that reads the OpenTelemetry context of a call; another one once there is more to read."""
    model_name: Callable[[Any], str]
    """Returns the name that the user gave the model of a session object; empty to infer it."""
    has_output_function: Callable[[SessionInfo], bool]
    """Whether the developer's own function reads a session's outputs, which are then copied as they are."""
    samples_device_outputs: Callable[[SessionInfo], bool] = lambda _: False
    """Whether small outputs of a session may be copied from a device, of a sample of its calls."""
    allows_telemetry: bool = True
    """Whether the runtime may send telemetry of its own."""


class Instrumentation(Protocol):
    """The Protocol of a runtime that is instrumented, and can be restored.

    Runs on: `undo`, `sessions` and `renew_context` on any thread; none of them raises because it is called twice.
    """

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the runtime's methods that are patched; empty if none is."""

    def sessions(self) -> Iterable[SessionInfo]:
        """Lists the sessions, or models, of the runtime that are alive now."""

    def session_of(self, source: Any) -> SessionInfo | None:
        """Returns the description of a session, or of the model that raised an exception; None if unknown."""

    def renew_context(self) -> None:
        """Adopts the function that reads the trace context now, which may have changed since the last call."""

    def undo(self) -> bool:
        """Restores the runtime and releases every session; returns whether no patch is left in it."""


class Runtime(Protocol):
    """The Protocol of the plug-in for a library that runs models, such as onnxruntime."""

    def instrument(self, capture: Capture) -> Instrumentation | None:
        """Imports the library and patches it, so that its inference calls are recorded; None if not installed.

        Every call is recorded into `capture.sink`, or dropped there by a reason; no result, exception or signature of
        the host's changes, and nothing waits. The calls name the runtime in `SessionInfo.runtime_name`.
        """


RUNTIMES: Final[PluginRegistry[Runtime]] = PluginRegistry(
    "otel_mlmon.runtimes",
    {
        "onnxruntime": "otel_mlmon.instrumentation.runtime.onnxruntime.patches:RUNTIME",
        "manual": "otel_mlmon.instrumentation.runtime.manual:RUNTIME",
    },
)
"""Every runtime, by name."""


def instrument_all(capture: Capture, *, runtimes: PluginRegistry[Runtime] = RUNTIMES) -> dict[str, Instrumentation]:
    """Instruments every runtime that is installed; leaves out one that fails, and counts the error."""
    instrumentations: dict[str, Instrumentation] = {}
    for name in runtimes.list_names():
        with guard("runtime"):
            instrumentation = runtimes.load_plugin(name).instrument(capture)
            if instrumentation is None:
                _LOG.info("%s is not installed: its calls are not monitored.", name)
            else:
                instrumentations[name] = instrumentation
    return instrumentations


def undo_all(instrumentations: Mapping[str, Instrumentation]) -> bool:
    """Restores every instrumented runtime, the last one first; returns whether no patch is left in any."""
    is_restored = True
    for instrumentation in reversed(list(instrumentations.values())):
        is_undone = False
        with guard("runtime"):
            is_undone = instrumentation.undo()
        is_restored = is_restored and is_undone
    return is_restored
