"""Replaces the methods of onnxruntime, other than `run`, that run a model, and `set_providers`.

A method is replaced by one of its exact signature, as in onnxruntime 1.17 to 1.31. Where another library put one of
other parameters in its place, the arguments are passed on unchanged and the call is timed only.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from otel_mlmon.instrumentation.runtime.call import DROP_OFF, Side, read_provider_names
from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import CallRecorder

DROP_CALLBACK: Final = "no_callback"
"""The reason of a call without a callback, whose end cannot be observed."""

Method: TypeAlias = Callable[..., Any]


_NO_FEED: Final[dict[str, Any]] = {}


class MethodReplacement(NamedTuple):
    """A function that replaces a method of onnxruntime, and the function that makes it do nothing."""

    function: Method
    switch_off: Callable[[], None]
    """Makes `function` call the original method only, for good."""


class ReplacementSwitch:
    """Says whether the replacement of a method still records calls, or only passes them on."""

    __slots__ = ("is_on",)

    def __init__(self) -> None:
        self.is_on = True

    def switch_off(self) -> None:
        """Makes the replacement of a method pass calls on without recording them, for good."""
        self.is_on = False


def replace_run_async(original: Method, recorder: CallRecorder) -> MethodReplacement:
    """Makes the replacement of `run_async`, whose calls end in a callback on another thread."""
    switch = ReplacementSwitch()
    names = ("self", "output_names", "input_feed", "callback", "user_data", "run_options")
    if read_parameter_names(original) == names:
        return MethodReplacement(_replace_exact_async(original, recorder, switch), switch.switch_off)

    def call_original(self: Any, _names: Any, _feed: Any, wrapped: Any, callback: Any, run_options: Any) -> Any:
        arguments, keywords = run_options
        swapped = [wrapped if value is callback else value for value in arguments]
        swapped_keywords = {name: wrapped if value is callback else value for name, value in keywords.items()}
        return original(self, *swapped, **swapped_keywords)

    exact = _replace_exact_async(call_original, recorder, switch)

    @functools.wraps(original)
    def any_async(self: Any, *arguments: Any, **keywords: Any) -> Any:
        callback = next((value for value in (*arguments, *keywords.values()) if callable(value)), None)
        if not switch.is_on or callback is None:
            return original(self, *arguments, **keywords)
        return exact(self, ("",), {}, callback, callback, (arguments, keywords))

    return MethodReplacement(any_async, switch.switch_off)


def _replace_exact_async(original: Method, recorder: CallRecorder, switch: ReplacementSwitch) -> Method:
    clock, stage, wrap = time.perf_counter_ns, recorder.stage, _make_callback_wrapper(recorder, switch)

    @functools.wraps(original)
    def run_async(self, output_names, input_feed, callback, user_data, run_options=None):  # type: ignore[no-untyped-def]
        if not switch.is_on:
            return original(self, output_names, input_feed, callback, user_data, run_options)
        wrapped = callback
        if callable(callback) and not stage.is_open:
            wrapped = wrap(self, output_names, input_feed, callback)
        started_ns = clock()
        try:
            result = original(self, output_names, input_feed, wrapped, user_data, run_options)
        except BaseException as error:
            recorder.record_failure(self, started_ns, clock(), error, "run_async")
            raise
        if wrapped is callback:
            recorder.sink.drop(DROP_OFF if stage.is_open else DROP_CALLBACK)
        return result

    return run_async


def _make_callback_wrapper(recorder: CallRecorder, switch: ReplacementSwitch) -> Callable[[Any, Any, Any, Any], Any]:
    """Makes a function that wraps the callback of a `run_async` call, so that the call is recorded first."""
    clock, stage, swallow = time.perf_counter_ns, recorder.stage, recorder.swallow_error
    attach, drop = recorder.attach_async_copier, recorder.sink.drop

    def wrap(session: Any, output_names: Any, feed: Any, callback: Any) -> Any:
        try:
            copier, inputs, context = _copy_call_start(attach, session, output_names, feed)
        except Exception as error:  # noqa: BLE001 - counted by the guard when the call ends
            copier, inputs, context = _FailedCopier(error), (), None

        def wrapped(*arguments: Any) -> Any:
            ended_ns = clock()
            if switch.is_on:
                try:
                    if stage.is_open:
                        drop(DROP_OFF)
                    else:
                        copier.record(started_ns, ended_ns, context, inputs, *arguments)
                except BaseException as error:
                    if not swallow(error, session, "run_async", started_ns, ended_ns):
                        raise
            return callback(*arguments)

        started_ns = clock()
        return wrapped

    return wrap


def _copy_call_start(attach: Method, session: Any, output_names: Any, feed: Any) -> tuple[Any, Side, object]:
    if not hasattr(output_names, "__len__"):  # an iterator is onnxruntime's to read
        output_names = None if output_names is None else iter(())
    try:
        copier = session._otel_mlmon["run_async", tuple(output_names) if output_names else None]
    except (AttributeError, KeyError):
        copier = attach(session, output_names, feed)
    # Now: when it comes back, the host may have filled its buffers anew, and the thread is another.
    return copier, copier.copy_inputs(feed), copier.context(None)


class _FailedCopier:
    """Stands in for the copier of a `run_async` call whose inputs could not be copied."""

    __slots__ = ("_error",)

    def __init__(self, error: Exception) -> None:
        self._error = error

    def record(self, *_: object) -> None:
        """Raises the error that copying has caused, after the call has ended."""
        raise self._error


def replace_run_with_ort_values(original: Method, recorder: CallRecorder) -> MethodReplacement:
    """Makes the replacement of `run_with_ort_values`, which records what lies in host memory."""
    operation = "run_with_ort_values"
    if read_parameter_names(original) != ("self", "output_names", "input_dict_ort_values", "run_options"):
        return _make_timing_replacement(original, recorder, operation)
    switch, clock, stage, attach = (
        ReplacementSwitch(),
        time.perf_counter_ns,
        recorder.stage,
        recorder.attach_value_copier,
    )
    record_failure, swallow, drop = recorder.record_failure, recorder.swallow_error, recorder.sink.drop

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
        ended_ns = clock()
        if stage.is_open:
            drop(DROP_OFF)
            return outputs
        try:
            try:
                copy_call = self._otel_mlmon[operation, tuple(output_names) if output_names else None]
            except (AttributeError, KeyError):
                copy_call = attach(self, operation, output_names, input_dict_ort_values, outputs)
            copy_call(input_dict_ort_values, outputs, run_options, started_ns, ended_ns)
        except BaseException as error:
            if not swallow(error, self, operation, started_ns, ended_ns):
                raise
        return outputs

    return MethodReplacement(run_with_ort_values, switch.switch_off)


def replace_run_with_iobinding(original: Method, recorder: CallRecorder) -> MethodReplacement:
    """Makes the replacement of `run_with_iobinding`, which records the outputs and no inputs."""
    operation = "run_with_iobinding"
    if read_parameter_names(original) != ("self", "iobinding", "run_options"):
        return _make_timing_replacement(original, recorder, operation)
    switch, clock, stage, attach = (
        ReplacementSwitch(),
        time.perf_counter_ns,
        recorder.stage,
        recorder.attach_value_copier,
    )
    record_failure, swallow, drop, nothing = (
        recorder.record_failure,
        recorder.swallow_error,
        recorder.sink.drop,
        _NO_FEED,
    )

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
        ended_ns = clock()
        if stage.is_open:
            drop(DROP_OFF)
            return result
        try:
            # As they are: `get_outputs` would wrap each, for 3 µs.
            values = iobinding.get_outputs_as_ortvaluevector()
            try:
                copy_call = self._otel_mlmon[operation, tuple(iobinding._bound_outputs)]
            except (AttributeError, KeyError):
                copy_call = attach(self, operation, _find_bound_names(self, iobinding, values), nothing, values)
            copy_call(nothing, values, run_options, started_ns, ended_ns)
        except BaseException as error:
            if not swallow(error, self, operation, started_ns, ended_ns):
                raise
        return result

    return MethodReplacement(run_with_iobinding, switch.switch_off)


def replace_run_with_ortvaluevector(original: Method, recorder: CallRecorder) -> MethodReplacement:
    """Makes the replacement of `run_with_ortvaluevector`, used in training, which records no inputs."""
    operation = "run_with_ortvaluevector"
    expected = ("self", "run_options", "feed_names", "feeds", "fetch_names", "fetches", "fetch_devices")
    if read_parameter_names(original) != expected:
        return _make_timing_replacement(original, recorder, operation)
    switch, clock, stage, attach = (
        ReplacementSwitch(),
        time.perf_counter_ns,
        recorder.stage,
        recorder.attach_value_copier,
    )
    record_failure, swallow, drop, nothing = (
        recorder.record_failure,
        recorder.swallow_error,
        recorder.sink.drop,
        _NO_FEED,
    )

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
        ended_ns = clock()
        if stage.is_open:
            drop(DROP_OFF)
            return result
        try:
            try:
                copy_call = self._otel_mlmon[operation, tuple(fetch_names)]
            except (AttributeError, KeyError):
                copy_call = attach(self, operation, fetch_names, nothing, fetches)
            copy_call(nothing, fetches, run_options, started_ns, ended_ns)
        except BaseException as error:
            if not swallow(error, self, operation, started_ns, ended_ns):
                raise
        return result

    return MethodReplacement(run_with_ortvaluevector, switch.switch_off)


def replace_set_providers(original: Method, recorder: CallRecorder) -> MethodReplacement:
    """Makes the replacement of `set_providers`, which records that a session changed execution providers."""
    switch = ReplacementSwitch()

    @functools.wraps(original)
    def set_providers(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if not switch.is_on or recorder.stage.is_open:
            return original(self, *arguments, **keywords)
        requested: tuple[str, ...] = ()
        with recorder.stage:
            providers = arguments[0] if arguments else keywords.get("providers")
            requested = _find_requested_providers(recorder, self, providers)
        result = original(self, *arguments, **keywords)
        recorder.record_provider_change(self, requested)
        return result

    return MethodReplacement(set_providers, switch.switch_off)


def read_parameter_names(method: Method) -> tuple[str, ...]:
    """Returns the names of a method's parameters; empty if it has no signature."""
    try:
        return tuple(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        return ()


def _find_requested_providers(recorder: CallRecorder, session: Any, providers: Any) -> tuple[str, ...]:
    """Returns the execution providers that the host asked for, also in onnxruntime's own second attempt."""
    if providers is not None and providers is getattr(session, "_fallback_providers", None):
        return recorder.find_requested_providers(session) or tuple(session.get_providers())
    return read_provider_names(providers)


def _make_timing_replacement(original: Method, recorder: CallRecorder, operation: str) -> MethodReplacement:
    switch, clock, stage, attach = (
        ReplacementSwitch(),
        time.perf_counter_ns,
        recorder.stage,
        recorder.attach_value_copier,
    )

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
        ended_ns = clock()
        if stage.is_open:
            recorder.sink.drop(DROP_OFF)
            return result
        try:
            try:
                copy_call = self._otel_mlmon[operation, ("",)]
            except (AttributeError, KeyError):
                copy_call = attach(self, operation, ("",), {}, ())
            copy_call({}, (), None, started_ns, ended_ns)
        except BaseException as error:
            if not recorder.swallow_error(error, self, operation, started_ns, ended_ns):
                raise
        return result

    return MethodReplacement(timed, switch.switch_off)


def _find_bound_names(session: Any, iobinding: Any, values: Sequence[Any]) -> tuple[str, ...]:
    """Returns the names of the outputs that an IOBinding has bound; empty names if the release does not tell."""
    names = tuple(getattr(iobinding, "_bound_outputs", ()))
    if len(names) == len(values):
        return names
    all_names = tuple(node.name for node in session.get_outputs())
    return all_names if len(all_names) == len(values) == 1 else ("",) * len(values)
