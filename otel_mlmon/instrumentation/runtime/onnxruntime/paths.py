"""The ways to run a model besides `run`, and the one to change what it runs on; each replaced by its exact signature.

Signatures: onnxruntime 1.17 to 1.31. Where somebody else put a method of other parameters in a place, its arguments are
handed on as they come and the call is timed only.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from otel_mlmon.instrumentation.runtime.load import provider_names
from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import DROP_FAULT, DROP_OFF, CallRecorder
from otel_mlmon.instrumentation.runtime.onnxruntime.ort_values import OrtValueRecorder
from otel_mlmon.instrumentation.runtime.patch import Method, Replacement

ASYNC_ERROR: Final = "RuntimeError"
"""The `error.type` of a call that fails on onnxruntime's own thread, which tells its callback a text and no class."""

DROP_CALLBACK: Final = "no_callback"
"""Nothing tells when a call without a callback ends."""

CPU_PROVIDER: Final = "CPUExecutionProvider"

Read = Callable[..., "tuple[Any, Mapping[str, Any], Sequence[Any]]"]
"""From a session and the arguments of a call: the outputs' names, the feed, the outputs."""


class Switch:
    """Whether a replacement still does anything of its own."""

    __slots__ = ("is_on",)

    def __init__(self) -> None:
        self.is_on = True

    def off(self) -> None:
        """For good."""
        self.is_on = False


def replace_run_async(original: Method, observer: CallRecorder) -> Replacement:
    """`run_async`, whose call ends in its callback, on a thread of onnxruntime's without any context."""
    switch = Switch()

    @functools.wraps(original)
    def run_async(self, output_names, input_feed, callback, user_data, run_options=None):  # type: ignore[no-untyped-def]
        if not switch.is_on:
            return original(self, output_names, input_feed, callback, user_data, run_options)

        def call(watched: object) -> object:
            return original(self, output_names, input_feed, watched, user_data, run_options)

        return _started(observer, switch, self, output_names, input_feed, callback, call)

    @functools.wraps(original)
    def any_async(self: Any, *arguments: Any, **keywords: Any) -> Any:
        given = (value for value in (*arguments, *keywords.values()) if callable(value))
        callback = next(given, None)
        if not switch.is_on or callback is None:
            return original(self, *arguments, **keywords)

        def call(watched: object) -> object:
            swapped = [watched if value is callback else value for value in arguments]
            named = {name: watched if value is callback else value for name, value in keywords.items()}
            return original(self, *swapped, **named)

        return _started(observer, switch, self, ("",), {}, callback, call)

    names = ("self", "output_names", "input_feed", "callback", "user_data", "run_options")
    return Replacement(run_async if parameters_of(original) == names else any_async, switch.off)


def replace_run_with_ort_values(original: Method, observer: CallRecorder) -> Replacement:
    """`run_with_ort_values`: what lies in host memory is read, of the rest the shape."""
    operation = "run_with_ort_values"
    if parameters_of(original) != ("self", "output_names", "input_dict_ort_values", "run_options"):
        return _timed_only(original, observer, operation)
    switch, clock, failed = Switch(), time.perf_counter_ns, observer.failed
    record = _recorder(observer, operation, lambda _, names, feed, outputs: (names, feed, outputs))

    @functools.wraps(original)
    def run_with_ort_values(self, output_names, input_dict_ort_values, run_options=None):  # type: ignore[no-untyped-def]
        if not switch.is_on:
            return original(self, output_names, input_dict_ort_values, run_options)
        started_ns = clock()
        try:
            outputs = original(self, output_names, input_dict_ort_values, run_options)
        except BaseException as error:
            failed(self, started_ns, clock(), error, operation)
            raise
        record(self, started_ns, clock(), output_names, input_dict_ort_values, outputs)
        return outputs

    return Replacement(run_with_ort_values, switch.off)


def replace_run_with_iobinding(original: Method, observer: CallRecorder) -> Replacement:
    """`run_with_iobinding`, which returns None; its inputs are bound once and may change since, so none is read."""
    operation = "run_with_iobinding"
    if parameters_of(original) != ("self", "iobinding", "run_options"):
        return _timed_only(original, observer, operation)
    switch, clock, failed = Switch(), time.perf_counter_ns, observer.failed
    record = _recorder(observer, operation, _of_binding)

    @functools.wraps(original)
    def run_with_iobinding(self, iobinding, run_options=None):  # type: ignore[no-untyped-def]
        if not switch.is_on:
            return original(self, iobinding, run_options)
        started_ns = clock()
        try:
            result = original(self, iobinding, run_options)
        except BaseException as error:
            failed(self, started_ns, clock(), error, operation)
            raise
        record(self, started_ns, clock(), iobinding, run_options)
        return result

    return Replacement(run_with_iobinding, switch.off)


def replace_run_with_ortvaluevector(original: Method, observer: CallRecorder) -> Replacement:
    """`run_with_ortvaluevector`, the way of training; its feeds hold the weights too, so none is read."""
    operation = "run_with_ortvaluevector"
    expected = ("self", "run_options", "feed_names", "feeds", "fetch_names", "fetches", "fetch_devices")
    if parameters_of(original) != expected:
        return _timed_only(original, observer, operation)
    switch, clock, failed = Switch(), time.perf_counter_ns, observer.failed
    record = _recorder(observer, operation, lambda _, names, outputs: (names, {}, outputs))

    @functools.wraps(original)
    def run_with_ortvaluevector(self, run_options, feed_names, feeds, fetch_names, fetches, fetch_devices):  # type: ignore[no-untyped-def]
        if not switch.is_on:
            return original(self, run_options, feed_names, feeds, fetch_names, fetches, fetch_devices)
        started_ns = clock()
        try:
            result = original(self, run_options, feed_names, feeds, fetch_names, fetches, fetch_devices)
        except BaseException as error:
            failed(self, started_ns, clock(), error, operation)
            raise
        record(self, started_ns, clock(), fetch_names, fetches)
        return result

    return Replacement(run_with_ortvaluevector, switch.off)


def replace_set_providers(original: Method, observer: CallRecorder) -> Replacement:
    """`set_providers`, which onnxruntime calls itself to try again where a provider fails within `run`."""
    switch = Switch()

    @functools.wraps(original)
    def set_providers(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if not switch.is_on or observer.stage.is_open:
            return original(self, *arguments, **keywords)
        requested: tuple[str, ...] = ()
        with observer.stage:
            providers = arguments[0] if arguments else keywords.get("providers")
            requested = _requested(observer, self, providers)
        result = original(self, *arguments, **keywords)
        observer.changed(self, requested)
        return result

    return Replacement(set_providers, switch.off)


def parameters_of(method: Method) -> tuple[str, ...]:
    """The names of a method's parameters; empty if it does not tell."""
    try:
        return tuple(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        return ()


def _requested(observer: CallRecorder, session: Any, providers: Any) -> tuple[str, ...]:
    """What the host asked for: in onnxruntime's own second try, which hands over this very list, it is the first."""
    if providers is not None and providers is getattr(session, "_fallback_providers", None):
        return observer.requested(session) or tuple(session.get_providers())
    return provider_names(providers)


def _timed_only(original: Method, observer: CallRecorder, operation: str) -> Replacement:
    switch, clock = Switch(), time.perf_counter_ns
    record = _recorder(observer, operation, lambda _: (("",), {}, ()))

    @functools.wraps(original)
    def timed(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if not switch.is_on:
            return original(self, *arguments, **keywords)
        started_ns = clock()
        try:
            result = original(self, *arguments, **keywords)
        except BaseException as error:
            observer.failed(self, started_ns, clock(), error, operation)
            raise
        record(self, started_ns, clock())
        return result

    return Replacement(timed, switch.off)


def _recorder(observer: CallRecorder, operation: str, read: Read) -> Callable[..., None]:
    stage, drop = observer.stage, observer.sink.drop

    def record(session: Any, started_ns: int, ended_ns: int, *arguments: Any) -> None:
        if stage.is_open:
            drop(DROP_OFF)
            return
        try:
            names, feed, outputs = read(session, *arguments)
            tap = observer.tap(session, operation, names, feed, are_values=True)
            tap.record(started_ns, ended_ns, observer.context(), tap.take(feed), outputs)
        except BaseException as error:
            if not observer.fault(error):
                raise

    return record


def _of_binding(session: Any, iobinding: Any, run_options: Any) -> tuple[Any, Mapping[str, Any], Sequence[Any]]:
    # As they are: `get_outputs` would wrap each, for 3 µs.
    values = iobinding.get_outputs_as_ortvaluevector()
    names = tuple(getattr(iobinding, "_bound_outputs", ()))
    if len(names) != len(values):  # older releases do not tell which outputs are bound
        known = [node.name for node in session.get_outputs()]
        names = tuple(known) if len(known) == len(values) == 1 else ("",) * len(values)
    if run_options is not None and tuple(session.get_providers()) != (CPU_PROVIDER,):
        # A run option can leave the device still at work on them.
        return names, {}, [None] * len(values)
    return names, {}, values


class _Callback:
    """The host's callback of one call, told on after the call is recorded; holds nothing of the feed but copies."""

    __slots__ = ("_callback", "_context", "_inputs", "_observer", "_switch", "_tap", "started_ns")

    def __init__(
        self,
        observer: CallRecorder,
        switch: Switch,
        tap: OrtValueRecorder,
        feed: Mapping[str, Any],
        callback: Callable[..., Any],
    ) -> None:
        self._observer = observer
        self._switch = switch
        self._tap = tap
        # Now: when it comes back, the host may have filled its buffers anew, and the thread is another.
        self._inputs = tap.take(feed)
        self._context = observer.context()
        self._callback = callback
        self.started_ns = 0

    def __call__(self, *arguments: Any) -> Any:
        ended_ns = time.perf_counter_ns()
        if self._switch.is_on:
            observer = self._observer
            with observer.stage:
                try:
                    self._record(ended_ns, *arguments)
                except BaseException:
                    observer.sink.drop(DROP_FAULT)
                    raise
        return self._callback(*arguments)

    def _record(self, ended_ns: int, results: Sequence[Any], _: object = None, error: str = "", *__: object) -> None:
        if self._observer.stage.is_open:
            self._observer.sink.drop(DROP_OFF)
        elif error:
            self._tap.fail(self.started_ns, ended_ns, self._context, ASYNC_ERROR)
        else:
            self._tap.record(self.started_ns, ended_ns, self._context, self._inputs, results)


def _started(
    observer: CallRecorder,
    switch: Switch,
    session: Any,
    names: Any,
    feed: Any,
    callback: Any,
    call: Callable[[Any], Any],
) -> Any:
    """Start a call that ends in `callback`; what keeps us from watching it counts only if onnxruntime takes it."""
    watched: _Callback | None = None
    fault: Exception | None = None
    if callable(callback) and not observer.stage.is_open:
        try:
            tap = observer.tap(session, "run_async", names, feed, are_values=False)
            watched = _Callback(observer, switch, tap, feed, callback)
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            fault = error
    started_ns = time.perf_counter_ns()
    if watched is not None:
        watched.started_ns = started_ns
    try:
        result = call(callback if watched is None else watched)
    except BaseException as error:
        observer.failed(session, started_ns, time.perf_counter_ns(), error, "run_async")
        raise
    if fault is not None:
        observer.fault(fault)
    elif watched is None:
        observer.sink.drop(DROP_OFF if observer.stage.is_open else DROP_CALLBACK)
    return result
