"""Replaces the methods that run a model besides `run`, and the one that changes what it runs on.

A method is replaced by one of its exact signature, as in onnxruntime 1.17 to 1.31. Where another library put one of
other parameters in its place, the arguments are passed on unchanged and the call is timed only.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from otel_mlmon.instrumentation.runtime.call import DROP_FAULT, DROP_OFF, provider_names
from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import CallRecorder
from otel_mlmon.instrumentation.runtime.onnxruntime.ort_values import OrtValueRecorder

ASYNC_ERROR: Final = "RuntimeError"
"""The `error.type` of a call that fails on onnxruntime's own thread, which passes its callback a text and no class."""

DROP_CALLBACK: Final = "no_callback"
"""The reason of a call without a callback, whose end cannot be observed."""

CPU_PROVIDER: Final = "CPUExecutionProvider"

Method: TypeAlias = Callable[..., Any]

CallReader = Callable[..., "tuple[Any, Mapping[str, Any], Sequence[Any]]"]
"""Reads a session and the arguments of a call: the outputs' names, the feed, the outputs."""


class Replacement(NamedTuple):
    """Holds the function that replaces a method."""

    function: Method
    switch_off: Callable[[], None]
    """Makes `function` call the original method only, for good."""


class Switch:
    """Whether a replacement still does anything of its own."""

    __slots__ = ("is_on",)

    def __init__(self) -> None:
        self.is_on = True

    def off(self) -> None:
        """Switches the replacement off, for good."""
        self.is_on = False


def replace_run_async(original: Method, recorder: CallRecorder) -> Replacement:
    """Replaces `run_async`, whose call ends in its callback, on a thread of onnxruntime's without any context."""
    switch = Switch()

    @functools.wraps(original)
    def run_async(self, output_names, input_feed, callback, user_data, run_options=None):  # type: ignore[no-untyped-def]
        if not switch.is_on:
            return original(self, output_names, input_feed, callback, user_data, run_options)

        def call(wrapped: object) -> object:
            return original(self, output_names, input_feed, wrapped, user_data, run_options)

        return _call_with_callback(recorder, switch, self, output_names, input_feed, callback, call)

    @functools.wraps(original)
    def any_async(self: Any, *arguments: Any, **keywords: Any) -> Any:
        callback = next((value for value in (*arguments, *keywords.values()) if callable(value)), None)
        if not switch.is_on or callback is None:
            return original(self, *arguments, **keywords)

        def call(wrapped: object) -> object:
            swapped = [wrapped if value is callback else value for value in arguments]
            swapped_keywords = {name: wrapped if value is callback else value for name, value in keywords.items()}
            return original(self, *swapped, **swapped_keywords)

        return _call_with_callback(recorder, switch, self, ("",), {}, callback, call)

    names = ("self", "output_names", "input_feed", "callback", "user_data", "run_options")
    return Replacement(run_async if parameters_of(original) == names else any_async, switch.off)


def replace_run_with_ort_values(original: Method, recorder: CallRecorder) -> Replacement:
    """Replaces `run_with_ort_values`: what lies in host memory is read, of the rest the shape."""
    operation = "run_with_ort_values"
    if parameters_of(original) != ("self", "output_names", "input_dict_ort_values", "run_options"):
        return _timed_only(original, recorder, operation)
    switch, clock, record_failure = Switch(), time.perf_counter_ns, recorder.record_failure
    record = _make_record(recorder, operation, lambda _, names, feed, outputs: (names, feed, outputs))

    @functools.wraps(original)
    def run_with_ort_values(self, output_names, input_dict_ort_values, run_options=None):  # type: ignore[no-untyped-def]
        if not switch.is_on:
            return original(self, output_names, input_dict_ort_values, run_options)
        started_ns = clock()
        try:
            outputs = original(self, output_names, input_dict_ort_values, run_options)
        except BaseException as error:
            record_failure(self, started_ns, clock(), error, operation)
            raise
        record(self, started_ns, clock(), output_names, input_dict_ort_values, outputs)
        return outputs

    return Replacement(run_with_ort_values, switch.off)


def replace_run_with_iobinding(original: Method, recorder: CallRecorder) -> Replacement:
    """Replaces `run_with_iobinding`, which returns None; its inputs may have changed since: none is read."""
    operation = "run_with_iobinding"
    if parameters_of(original) != ("self", "iobinding", "run_options"):
        return _timed_only(original, recorder, operation)
    switch, clock, record_failure = Switch(), time.perf_counter_ns, recorder.record_failure
    record = _make_record(recorder, operation, _read_binding)

    @functools.wraps(original)
    def run_with_iobinding(self, iobinding, run_options=None):  # type: ignore[no-untyped-def]
        if not switch.is_on:
            return original(self, iobinding, run_options)
        started_ns = clock()
        try:
            result = original(self, iobinding, run_options)
        except BaseException as error:
            record_failure(self, started_ns, clock(), error, operation)
            raise
        record(self, started_ns, clock(), iobinding, run_options)
        return result

    return Replacement(run_with_iobinding, switch.off)


def replace_run_with_ortvaluevector(original: Method, recorder: CallRecorder) -> Replacement:
    """Replaces `run_with_ortvaluevector`, which training uses; its feeds hold the weights too, so none is read."""
    operation = "run_with_ortvaluevector"
    expected = ("self", "run_options", "feed_names", "feeds", "fetch_names", "fetches", "fetch_devices")
    if parameters_of(original) != expected:
        return _timed_only(original, recorder, operation)
    switch, clock, record_failure = Switch(), time.perf_counter_ns, recorder.record_failure
    record = _make_record(recorder, operation, lambda _, names, outputs: (names, {}, outputs))

    @functools.wraps(original)
    def run_with_ortvaluevector(self, run_options, feed_names, feeds, fetch_names, fetches, fetch_devices):  # type: ignore[no-untyped-def]
        if not switch.is_on:
            return original(self, run_options, feed_names, feeds, fetch_names, fetches, fetch_devices)
        started_ns = clock()
        try:
            result = original(self, run_options, feed_names, feeds, fetch_names, fetches, fetch_devices)
        except BaseException as error:
            record_failure(self, started_ns, clock(), error, operation)
            raise
        record(self, started_ns, clock(), fetch_names, fetches)
        return result

    return Replacement(run_with_ortvaluevector, switch.off)


def replace_set_providers(original: Method, recorder: CallRecorder) -> Replacement:
    """Replaces `set_providers`, which onnxruntime calls itself to try again where a provider fails within `run`."""
    switch = Switch()

    @functools.wraps(original)
    def set_providers(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if not switch.is_on or recorder.stage.is_open:
            return original(self, *arguments, **keywords)
        requested: tuple[str, ...] = ()
        with recorder.stage:
            providers = arguments[0] if arguments else keywords.get("providers")
            requested = _requested_providers(recorder, self, providers)
        result = original(self, *arguments, **keywords)
        recorder.record_providers(self, requested)
        return result

    return Replacement(set_providers, switch.off)


def parameters_of(method: Method) -> tuple[str, ...]:
    """Lists the names of a method's parameters; empty if it has no signature."""
    try:
        return tuple(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        return ()


def _requested_providers(recorder: CallRecorder, session: Any, providers: Any) -> tuple[str, ...]:
    """Finds the providers that the host requested: onnxruntime's own second attempt passes this very list again."""
    if providers is not None and providers is getattr(session, "_fallback_providers", None):
        return recorder.requested_providers(session) or tuple(session.get_providers())
    return provider_names(providers)


def _timed_only(original: Method, recorder: CallRecorder, operation: str) -> Replacement:
    switch, clock = Switch(), time.perf_counter_ns
    record = _make_record(recorder, operation, lambda _: (("",), {}, ()))

    @functools.wraps(original)
    def timed(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if not switch.is_on:
            return original(self, *arguments, **keywords)
        started_ns = clock()
        try:
            result = original(self, *arguments, **keywords)
        except BaseException as error:
            recorder.record_failure(self, started_ns, clock(), error, operation)
            raise
        record(self, started_ns, clock())
        return result

    return Replacement(timed, switch.off)


def _make_record(recorder: CallRecorder, operation: str, read: CallReader) -> Callable[..., None]:
    stage, drop = recorder.stage, recorder.sink.drop

    def record(session: Any, started_ns: int, ended_ns: int, *arguments: Any) -> None:
        if stage.is_open:
            drop(DROP_OFF)
            return
        try:
            names, feed, outputs = read(session, *arguments)
            values = recorder.value_recorder(session, operation, names, feed, are_values=True)
            values.record(started_ns, ended_ns, recorder.context(), values.copy_inputs(feed), outputs)
        except BaseException as error:
            if not recorder.swallow(error):
                raise

    return record


def _read_binding(session: Any, iobinding: Any, run_options: Any) -> tuple[Any, Mapping[str, Any], Sequence[Any]]:
    # As they are: `get_outputs` would wrap each, for 3 µs.
    values = iobinding.get_outputs_as_ortvaluevector()
    names = tuple(getattr(iobinding, "_bound_outputs", ()))
    if len(names) != len(values):  # older releases do not show which outputs are bound
        all_names = [node.name for node in session.get_outputs()]
        names = tuple(all_names) if len(all_names) == len(values) == 1 else ("",) * len(values)
    if run_options is not None and tuple(session.get_providers()) != (CPU_PROVIDER,):
        # A run option can leave the device still at work on them.
        return names, {}, [None] * len(values)
    return names, {}, values


class _Callback:
    """Records a call, then calls the host's callback of it; holds nothing of the feed but copies."""

    __slots__ = ("_arrays", "_callback", "_context", "_inputs", "_recorder", "_switch", "started_ns")

    def __init__(
        self,
        recorder: CallRecorder,
        switch: Switch,
        arrays: OrtValueRecorder,
        feed: Mapping[str, Any],
        callback: Callable[..., Any],
    ) -> None:
        self._recorder = recorder
        self._switch = switch
        self._arrays = arrays
        # Now: when it comes back, the host may have filled its buffers anew, and the thread is another.
        self._inputs = arrays.copy_inputs(feed)
        self._context = recorder.context()
        self._callback = callback
        self.started_ns = 0

    def __call__(self, *arguments: Any) -> Any:
        ended_ns = time.perf_counter_ns()
        if self._switch.is_on:
            recorder = self._recorder
            with recorder.stage:
                try:
                    self._record(ended_ns, *arguments)
                except BaseException:
                    recorder.sink.drop(DROP_FAULT)
                    raise
        return self._callback(*arguments)

    def _record(self, ended_ns: int, results: Sequence[Any], _: object = None, error: str = "", *__: object) -> None:
        if self._recorder.stage.is_open:
            self._recorder.sink.drop(DROP_OFF)
        elif error:
            self._arrays.record_failure(self.started_ns, ended_ns, self._context, ASYNC_ERROR)
        else:
            self._arrays.record(self.started_ns, ended_ns, self._context, self._inputs, results)


def _call_with_callback(
    recorder: CallRecorder,
    switch: Switch,
    session: Any,
    names: Any,
    feed: Any,
    callback: Any,
    call: Callable[[Any], Any],
) -> Any:
    """Starts a call that ends in `callback`; an error of ours is counted only if onnxruntime accepts the call."""
    wrapped: _Callback | None = None
    fault: Exception | None = None
    if callable(callback) and not recorder.stage.is_open:
        try:
            arrays = recorder.value_recorder(session, "run_async", names, feed, are_values=False)
            wrapped = _Callback(recorder, switch, arrays, feed, callback)
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            fault = error
    started_ns = time.perf_counter_ns()
    if wrapped is not None:
        wrapped.started_ns = started_ns
    try:
        result = call(callback if wrapped is None else wrapped)
    except BaseException as error:
        recorder.record_failure(session, started_ns, time.perf_counter_ns(), error, "run_async")
        raise
    if fault is not None:
        recorder.swallow(fault)
    elif wrapped is None:
        recorder.sink.drop(DROP_OFF if recorder.stage.is_open else DROP_CALLBACK)
    return result
