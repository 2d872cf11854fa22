"""Starts and ends the instrumentation: `instrument()`, `uninstrument()`, the handle, and the hooks of the process.

A fork copies one thread and the locks of all. If another thread of otel_mlmon were importing a module, the child would
inherit it half initialised, and its import lock held for ever. So a fork waits, with a limit, for the work under way.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final, ParamSpec, TypeVar

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.exit_hook import ExitHook
from otel_mlmon.instrumentation.host_hooks import HostHooks
from otel_mlmon.instrumentation.pipeline import InstrumentationPipeline
from otel_mlmon.instrumentation.settings import (
    InstrumentationSettings,
    describe_arguments,
    differences,
    resolve_settings,
)
from otel_mlmon.instrumentation.status import Status

P = ParamSpec("P")
R = TypeVar("R")

FORK_WAIT_S: Final = 5.0
"""Time that a fork waits at most: mostly milliseconds, but the first round may import the exporters."""

_LOG: Final = logging.getLogger("otel_mlmon")


class Handle:
    """Controls the instrumentation that `instrument()` started; valid even if nothing could be instrumented.

    Runs on: any thread of the application. No method raises.

    Args:
        running: The instrumentation, or None.
        reason: Why there is none.
    """

    def __init__(self, running: RunningInstrumentation | None, *, reason: str = "") -> None:
        self._running = running
        self._reason = reason

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Exports everything recorded so far; returns whether it was done within `timeout_s`."""
        return self._running is None or self._running.pipeline.flush(timeout_s)

    def shutdown(self, timeout_s: float = 2.0) -> bool:
        """Uninstruments and exports the remaining calls; returns whether it was done within `timeout_s`.

        A second call does nothing.
        """
        return self._running is None or _stop(self._running, timeout_s)

    def uninstrument(self) -> None:
        """Calls `shutdown` with the time that the option `shutdown_timeout_s` allows."""
        if self._running is not None:
            _stop(self._running, self._running.pipeline.settings.shutdown_timeout_s)

    def status(self) -> Status:
        """Returns what the instrumentation is doing."""
        if self._running is None:
            return Status(is_active=False, inactive_reason=self._reason)
        return self._running.pipeline.status()


class RunningInstrumentation:
    """The pipeline of the process, with its hooks at forks, at the end, and in the programs around the application."""

    def __init__(self, pipeline: InstrumentationPipeline) -> None:
        self.pipeline = pipeline
        self.timeout_s: float = pipeline.settings.shutdown_timeout_s
        self._exit_hook = ExitHook(self.shutdown_at_exit)
        # Whoever registers last ends first: an error tracker that is initialised later must get our last calls.
        pipeline.on_client = self._exit_hook.renew
        self._fork_hooks = ForkHooks(lock=lambda: pipeline.drain_lock, in_child=self._after_fork)
        self._host_hooks = HostHooks(self)
        self._host_hooks.set_loaded()
        pipeline.before_round = self._host_hooks.set_loaded

    def shutdown(self, timeout_s: float, *, is_exit: bool = False, with_host: bool = False) -> bool:
        """Shuts the pipeline down and removes every hook; see `InstrumentationPipeline.shutdown`."""
        is_done = self.pipeline.shutdown(timeout_s, is_exit=is_exit, with_host=with_host)
        self._exit_hook.cancel()
        self._host_hooks.undo()
        return is_done

    def flush_all(self) -> None:
        """Exports everything, through the application's providers too, within the time that an end may take."""
        with guard("flush"):
            self.pipeline.flush(self.timeout_s, with_host=True)

    def flush_into(self, provider: object) -> None:
        """Writes what waits, if `provider` is one of the application's that are in use."""
        with guard("flush"):
            self.pipeline.flush_into(provider)

    def shutdown_at_exit(self, is_abrupt: bool) -> None:  # noqa: FBT001 - a callback's one argument
        """Shuts down at the end of the process; `is_abrupt` where `atexit` will not run."""
        with guard("shutdown"):
            self.shutdown(self.timeout_s, is_exit=not is_abrupt, with_host=is_abrupt)

    def _after_fork(self) -> None:
        self._exit_hook.after_fork()
        self.pipeline.after_fork()


class _Process:
    """The instrumentation of this process."""

    running: RunningInstrumentation | None = None
    lock = threading.Lock()


def _with_parameters_of(constructor: Callable[P, object]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Gives a function that takes any keyword arguments the signature and documentation of the settings' fields."""
    parameters = [
        parameter.replace(default={}) if parameter.name == "models" else parameter
        for parameter in inspect.signature(constructor).parameters.values()
    ]

    def decorate(function: Callable[..., R]) -> Callable[P, R]:
        signature = inspect.Signature(parameters, return_annotation=function.__annotations__["return"])

        @functools.wraps(function)
        def checked(*arguments: P.args, **options: P.kwargs) -> R:
            signature.bind(*arguments, **options)
            return function(**options)

        checked.__signature__ = signature  # type: ignore[attr-defined]
        checked.__doc__ = (function.__doc__ or "").replace("        {options}", describe_arguments(constructor))
        return checked

    return decorate


@_with_parameters_of(InstrumentationSettings)
def instrument(**arguments: Any) -> Handle:  # noqa: D417 - the arguments are the settings' fields
    """Measures every inference of onnxruntime in this process.

    An option that is not passed comes from its environment variable `OTEL_MLMON_<NAME>`, else from its default. A
    second call adds its `models` for sessions that have not run yet, and warns of the arguments it ignores.

    Args:
        tracer_provider: For spans; else the global one, else one of our own that exports by OTLP.
        meter_provider: For metrics; likewise.
        logger_provider: For events; likewise.
        models: Descriptions of models, by name.
        {options}

    Raises:
        ConfigurationError: Arguments are wrong; names each fault.
    """
    settings, _ = resolve_settings(InstrumentationSettings, arguments, environ=os.environ)
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Handle(None, reason="OTEL_SDK_DISABLED is true")
    with _Process.lock:
        if _Process.running is not None:
            _merge(_Process.running.pipeline, settings, arguments)
            return Handle(_Process.running)
        _Process.running = RunningInstrumentation(InstrumentationPipeline(settings))
        return Handle(_Process.running)


def uninstrument() -> None:
    """Undoes `instrument()`; does nothing if it was not called."""
    running = _Process.running
    if running is not None:
        _stop(running, running.pipeline.settings.shutdown_timeout_s)


def flush_all() -> None:
    """Exports everything recorded, through the application's providers too; does nothing if not instrumented."""
    running = _Process.running
    if running is not None:
        running.flush_all()


def shutdown_abruptly() -> None:
    """Exports everything, as at an end of the process that runs no `atexit`; does nothing if not instrumented."""
    running = _Process.running
    if running is not None:
        running.shutdown_at_exit(is_abrupt=True)


def is_instrumented() -> bool:
    """Returns whether `instrument()` was called and not undone."""
    return _Process.running is not None


def _merge(pipeline: InstrumentationPipeline, settings: InstrumentationSettings, arguments: Iterable[str]) -> None:
    pipeline.add_models(settings.models)
    ignored = differences(pipeline.settings, settings, arguments)
    if ignored:
        _LOG.warning(
            "instrument() was called before: %s of this call is ignored; call uninstrument() first.", ", ".join(ignored)
        )


def _stop(running: RunningInstrumentation, timeout_s: float) -> bool:
    with _Process.lock:
        if _Process.running is not running:
            return True
        # Here: another thread's `instrument()` must not patch on top of what is about to be taken off.
        running.pipeline.uninstrument()
        _Process.running = None
    return running.shutdown(timeout_s)


class ForkHooks:
    """Holds a lock during every fork, and calls a function in the child.

    Runs on: the thread that forks.

    Args:
        lock: Returns the lock to hold; called at each fork, since the child makes another.
        in_child: A bound method, referred to weakly.
    """

    def __init__(self, *, lock: Callable[[], Any], in_child: Callable[[], None]) -> None:
        self._lock = lock
        self._in_child = weakref.WeakMethod(in_child)
        self._holder: int | None = None
        if hasattr(os, "register_at_fork"):
            methods = (self._before, self._after_in_parent, self._after_in_child)
            before, after, child = map(weakref.WeakMethod, methods)
            os.register_at_fork(
                before=lambda: (method := before()) and method(),
                after_in_parent=lambda: (method := after()) and method(),
                after_in_child=lambda: (method := child()) and method(),
            )

    def _before(self) -> None:
        if self._lock().acquire(timeout=FORK_WAIT_S):
            self._holder = threading.get_ident()

    def _after_in_parent(self) -> None:
        if self._holder == threading.get_ident():
            self._holder = None
            self._lock().release()

    def _after_in_child(self) -> None:
        # The thread has the same identifier here, and holds nothing.
        self._holder = None
        if (in_child := self._in_child()) is not None:
            in_child()


def _renew_lock() -> None:
    _Process.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
