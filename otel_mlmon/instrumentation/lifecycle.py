"""Starts and ends the instrumentation of this process: `instrument()`, `uninstrument()` and the handle.

A fork copies one thread and the locks of all. If another thread of otel_mlmon were importing a module, the child would
inherit it half initialised, and its import lock held for ever; likewise the lock of an exporter of the application that
our thread hands a span to. So a fork waits, with a limit, for the work under way.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, ParamSpec, TypeVar

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.exit_hook import ExitHook
from otel_mlmon.instrumentation.host_hooks import HostHooks
from otel_mlmon.instrumentation.pipeline import InstrumentationPipeline
from otel_mlmon.instrumentation.settings import (
    InstrumentationSettings,
    describe_arguments,
    list_changed_arguments,
    resolve_settings,
)
from otel_mlmon.instrumentation.status import Status

P = ParamSpec("P")
R = TypeVar("R")

_LOG: Final = logging.getLogger("otel_mlmon")


class Handle:
    """Controls the instrumentation that `instrument()` has started; usable even if nothing could be instrumented.

    Runs on: any thread of the application. No method raises.

    Args:
        running: The instrumentation, or None.
        reason: Why there is none.
    """

    def __init__(self, running: RunningInstrumentation | None, *, reason: str = "") -> None:
        self._running = running
        self._reason = reason

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Exports everything recorded so far; returns whether that was done within `timeout_s` seconds."""
        return self._running is None or self._running.pipeline.flush(timeout_s)

    def shutdown(self, timeout_s: float = 2.0) -> bool:
        """Uninstruments and exports the remaining calls; returns whether that was done within `timeout_s` seconds.

        A second call does nothing.
        """
        return self._running is None or _stop_instrumentation(self._running, timeout_s)

    def uninstrument(self) -> None:
        """Ends the instrumentation of this process within the time that the option `shutdown_timeout_s` allows."""
        if self._running is not None:
            _stop_instrumentation(self._running, self._running.pipeline.settings.shutdown_timeout_s)

    def status(self) -> Status:
        """Returns what the instrumentation is doing, as one snapshot."""
        if self._running is None:
            return Status(is_active=False, inactive_reason=self._reason)
        return self._running.pipeline.status()


class RunningInstrumentation:
    """The running instrumentation of this process, with its hooks at forks and at the end."""

    def __init__(self, pipeline: InstrumentationPipeline) -> None:
        self.pipeline = pipeline
        self.timeout_s: float = pipeline.settings.shutdown_timeout_s
        self._exit_hook = ExitHook(self.shutdown_at_exit)
        # Whoever registers last ends first: an error tracker that is initialised later must get our last calls.
        pipeline.on_client = self._exit_hook.register_again
        self._fork_hooks = ForkHooks(list_locks=pipeline.list_fork_locks, in_child=self._reset_after_fork)
        self._host_hooks = HostHooks(self)
        self._host_hooks.hook_loaded_modules()
        pipeline.before_round = self._host_hooks.hook_loaded_modules

    def shutdown(self, timeout_s: float, *, is_exit: bool = False, with_host: bool = False) -> bool:
        """Ends the instrumentation and removes all hooks; returns whether all was exported in time."""
        is_done = self.pipeline.shutdown(timeout_s, is_exit=is_exit, with_host=with_host)
        self._exit_hook.unregister()
        self._host_hooks.remove_hooks()
        return is_done

    def flush_all(self) -> None:
        """Exports all signals, also those that the application's own providers hold, within a time limit."""
        with guard("flush"):
            self.pipeline.flush(self.timeout_s, with_host=True)

    def flush_to_provider(self, provider: object) -> None:
        """Writes all waiting signals to one of the application's providers that is about to be flushed."""
        with guard("flush"):
            self.pipeline.flush_to_provider(provider)

    def shutdown_at_exit(self, is_abrupt: bool) -> None:  # noqa: FBT001 - a callback's one argument
        """Ends the instrumentation at the end of the process, also where `atexit` will not run."""
        with guard("shutdown"):
            self.shutdown(self.timeout_s, is_exit=not is_abrupt, with_host=is_abrupt)

    def _reset_after_fork(self) -> None:
        self._exit_hook.register_after_fork()
        self.pipeline.reset_after_fork()


class _ProcessInstrumentation:
    """Holds the instrumentation that runs in this process; None while there is none."""

    running: RunningInstrumentation | None = None
    lock = threading.Lock()


def _copy_settings_signature(constructor: Callable[P, object]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Gives a function the parameters and the documentation of the fields of the settings."""
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


@_copy_settings_signature(InstrumentationSettings)
def instrument(**arguments: Any) -> Handle:  # noqa: D417 - the arguments are the settings' fields
    """Starts to measure every inference of onnxruntime, and all calls of `observe()`, in this process.

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
    with _ProcessInstrumentation.lock:
        if _ProcessInstrumentation.running is not None:
            _merge_settings(_ProcessInstrumentation.running.pipeline, settings, arguments)
            return Handle(_ProcessInstrumentation.running)
        _ProcessInstrumentation.running = RunningInstrumentation(InstrumentationPipeline(settings))
        return Handle(_ProcessInstrumentation.running)


def uninstrument() -> None:
    """Ends what `instrument()` has started; does nothing if it was not called."""
    running = _ProcessInstrumentation.running
    if running is not None:
        _stop_instrumentation(running, running.pipeline.settings.shutdown_timeout_s)


def flush_all() -> None:
    """Exports all recorded signals, also those that the application's own providers hold."""
    running = _ProcessInstrumentation.running
    if running is not None:
        running.flush_all()


def shutdown_abruptly() -> None:
    """Exports all signals at the end of a process that runs no `atexit` functions."""
    running = _ProcessInstrumentation.running
    if running is not None:
        running.shutdown_at_exit(is_abrupt=True)


def is_instrumented() -> bool:
    """Returns whether this process is instrumented at present."""
    return _ProcessInstrumentation.running is not None


def _merge_settings(
    pipeline: InstrumentationPipeline, settings: InstrumentationSettings, arguments: Iterable[str]
) -> None:
    pipeline.add_model_options(settings.models)
    ignored = list_changed_arguments(pipeline.settings, settings, arguments)
    if ignored:
        _LOG.warning(
            "instrument() was called before: %s of this call is ignored; call uninstrument() first.", ", ".join(ignored)
        )


def _stop_instrumentation(running: RunningInstrumentation, timeout_s: float) -> bool:
    with _ProcessInstrumentation.lock:
        if _ProcessInstrumentation.running is not running:
            return True
        # Here: another thread's `instrument()` must not patch on top of what is about to be taken off.
        running.pipeline.uninstrument()
        _ProcessInstrumentation.running = None
    return running.shutdown(timeout_s)


class ForkHooks:
    """Holds locks while the process forks, and calls a function in the forked child.

    Runs on: the thread that forks.

    Args:
        list_locks: Returns the locks to hold, in the order in which they are taken, and for how many seconds a fork
            waits for each at most; called at each fork, since the child makes others.
        in_child: A bound method, referred to weakly.
    """

    def __init__(
        self, *, list_locks: Callable[[], Mapping[threading.Lock, float]], in_child: Callable[[], None]
    ) -> None:
        self._list_locks = list_locks
        self._in_child = weakref.WeakMethod(in_child)
        self._held: dict[int, list[threading.Lock]] = {}
        if hasattr(os, "register_at_fork"):
            methods = (self._hold_locks, self._release_locks, self._reset_child)
            before, after, child = map(weakref.WeakMethod, methods)
            os.register_at_fork(
                before=lambda: (method := before()) and method(),
                after_in_parent=lambda: (method := after()) and method(),
                after_in_child=lambda: (method := child()) and method(),
            )

    def _hold_locks(self) -> None:
        held: list[threading.Lock] = []
        try:
            for lock, timeout_s in self._list_locks().items():
                if lock.acquire(timeout=timeout_s):
                    held.append(lock)
        finally:  # a signal handler of the application may raise here, and the fork takes place all the same
            self._held[threading.get_ident()] = held

    def _release_locks(self) -> None:
        for lock in self._held.pop(threading.get_ident(), ()):
            lock.release()

    def _reset_child(self) -> None:
        self._held.clear()  # the child has locks of its own
        if (in_child := self._in_child()) is not None:
            in_child()


def _renew_process_lock() -> None:
    _ProcessInstrumentation.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_process_lock)
