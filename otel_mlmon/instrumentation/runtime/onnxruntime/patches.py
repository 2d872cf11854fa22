"""Patches the methods of onnxruntime that run a model; the only module that imports onnxruntime.

`run` and its kin live on `Session`, the base of `InferenceSession`; patched there in place, they cover sessions made
earlier, names imported earlier, subclasses and `onnxruntime.backend`.

Not covered: bound methods taken before, the C++ binding `session._sess`, and runtimes that are not onnxruntime.

Choice: plain functions set on the class, not wrapt's proxies, which cost 1 µs more a call and cannot be taken off once
another library patched the same method on top.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

import numpy as np

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.runtime.call import DROP_OFF, FileStamp, read_file_stamp, read_model_path
from otel_mlmon.instrumentation.runtime.onnxruntime import run_methods
from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import ATTRIBUTE, CallRecorder
from otel_mlmon.instrumentation.runtime.onnxruntime.run_methods import Method, MethodReplacement, read_parameter_names
from otel_mlmon.instrumentation.runtime.runtime import Capture

_RUN_PARAMETERS: Final = ("self", "output_names", "input_feed", "run_options")


class OnnxRuntime:
    """The runtime plug-in that instruments onnxruntime."""

    def instrument(self, capture: Capture) -> OnnxRuntimeInstrumentation | None:
        """Imports onnxruntime and patches its sessions, so that calls are recorded; None if not installed."""
        module = import_onnxruntime()
        if module is None:
            return None
        if not capture.allows_telemetry:
            with guard("onnxruntime_telemetry"):
                stop_onnxruntime_telemetry(module)
        recorder = CallRecorder(capture, runtime_version=module.__version__, are_views=has_ort_value_views(module))
        return OnnxRuntimeInstrumentation(recorder, patch_run_methods(module, recorder))


class OnnxRuntimeInstrumentation:
    """The patched methods of onnxruntime, which can be restored.

    Args:
        recorder: Records the calls.
        patches: Every method that is patched, by its name.
    """

    def __init__(self, recorder: CallRecorder, patches: Mapping[str, MethodPatch]) -> None:
        self.sessions = recorder.sessions
        self.session_of = recorder.session_of
        self.renew_context = recorder.renew_context
        self._recorder = recorder
        self._patches = dict(patches)

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the patched methods of onnxruntime."""
        return tuple(self._patches)

    def undo(self) -> bool:
        """Restores the methods of onnxruntime; returns whether all could be restored.

        The sessions are released at once: the next instrumentation must not find closures of this one.
        """
        undone, self._patches = [patch.restore_method() for patch in reversed(self._patches.values())], {}
        self._recorder.close()
        return all(undone)


class MethodPatch:
    """A method of onnxruntime that is replaced on its class, and can be restored.

    Args:
        owner: The class; the method is replaced where its method resolution order defines it, so that patches of others
            below ours are kept.
        name: The method.
        replace: Makes the replacement of the method as it is now.
    """

    def __init__(self, owner: type, name: str, replace: Callable[[Method], MethodReplacement]) -> None:
        self._owner = next(base for base in owner.__mro__ if name in base.__dict__)
        self._name = name
        self._original: Method = self._owner.__dict__[name]
        self._replacement = replace(self._original)
        setattr(self._owner, name, self._replacement.function)

    def restore_method(self) -> bool:
        """Restores the method; returns whether that was possible, with no other library's patch above ours."""
        self._replacement.switch_off()
        if self._owner.__dict__.get(self._name) is not self._replacement.function:
            return False
        setattr(self._owner, self._name, self._original)
        return True


def import_onnxruntime() -> ModuleType | None:
    """Imports onnxruntime; None if it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    module: ModuleType = onnxruntime
    return module if hasattr(module, "InferenceSession") else None


def has_ort_value_views(module: ModuleType) -> bool:
    """Returns whether this release gives the memory of an `OrtValue` as a view, and not as a copy."""
    value = module.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32))
    return bool(np.shares_memory(value.numpy(), value.numpy()))


def stop_onnxruntime_telemetry(module: ModuleType) -> None:
    """Switches off the telemetry that onnxruntime itself sends."""
    stop = getattr(module, "disable_telemetry_events", None)
    if stop is not None:
        stop()


def patch_run_methods(module: ModuleType, recorder: CallRecorder) -> dict[str, MethodPatch]:
    """Patches the methods that run a model, as far as this release has them; returns the patches by name."""
    session = module.InferenceSession
    return {
        name: MethodPatch(session, name, functools.partial(_replace_method, replace, recorder))
        for name, replace in METHODS.items()
        if hasattr(session, name)
    }


def _replace_method(
    replace: Callable[[Method, CallRecorder], MethodReplacement], recorder: CallRecorder, original: Method
) -> MethodReplacement:
    return replace(original, recorder)


def _replace_run(original: Method, recorder: CallRecorder) -> MethodReplacement:
    is_exact = read_parameter_names(original) == _RUN_PARAMETERS
    return _replace_exact_run(original, recorder) if is_exact else _replace_any_run(original, recorder)


def _replace_exact_run(original: Method, recorder: CallRecorder) -> MethodReplacement:
    # Everything the hot path touches is a cell or a local: a global or an attribute costs 0.02 µs each.
    clock, stage, attach_copier = time.perf_counter_ns, recorder.stage, recorder.attach_run_copier
    record_failure, swallow, drop = recorder.record_failure, recorder.swallow_error, recorder.sink.drop
    is_on = True

    @functools.wraps(original)
    def run(self, output_names, input_feed, run_options=None):  # type: ignore[no-untyped-def]
        if not is_on:
            return original(self, output_names, input_feed, run_options)
        started_ns = clock()
        try:
            outputs = original(self, output_names, input_feed, run_options)
        except BaseException as error:
            record_failure(self, started_ns, clock(), error)
            raise
        ended_ns = clock()
        if stage.is_open:
            drop(DROP_OFF)
            return outputs
        try:
            try:
                copy_call = self._otel_mlmon[tuple(output_names) if output_names else None]
            except (AttributeError, KeyError):
                copy_call = attach_copier(self, output_names, input_feed, outputs)
            copy_call(input_feed, outputs, started_ns, ended_ns)
        except BaseException as error:
            if not swallow(error, self, "run", started_ns, ended_ns):
                raise
        return outputs

    def switch_off() -> None:
        nonlocal is_on
        is_on = False

    return MethodReplacement(run, switch_off)


def _replace_any_run(original: Method, recorder: CallRecorder) -> MethodReplacement:
    """Makes a replacement of `run` for any parameters, where another library has replaced it before."""

    def call_original(self: Any, _names: Any, _feed: Any, run_options: Any = None) -> Any:
        arguments, keywords = run_options
        return original(self, *arguments, **keywords)

    exact_run, switch_off = _replace_exact_run(call_original, recorder)

    @functools.wraps(original)
    def run(self: Any, *arguments: Any, **keywords: Any) -> Any:
        names = arguments[0] if arguments else keywords.get("output_names")
        mappings = (value for value in (*arguments, *keywords.values()) if isinstance(value, Mapping))
        feed: Mapping[str, Any] = next(mappings, {})
        return exact_run(self, names, feed, (arguments, keywords))

    return MethodReplacement(run, switch_off)


def _replace_session_init(original: Method, recorder: CallRecorder) -> MethodReplacement:
    clock = time.perf_counter
    is_on = True

    @functools.wraps(original)
    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:  # noqa: N807
        if not is_on:
            original(self, *arguments, **keywords)
            return
        source = arguments[0] if arguments else keywords.get("path_or_bytes")
        providers = arguments[2] if len(arguments) > 2 else keywords.get("providers")
        stamp: FileStamp | None = None
        with recorder.stage:
            stamp = read_file_stamp(read_model_path(source))
        started_s = clock()
        try:
            original(self, *arguments, **keywords)
        except BaseException as error:
            recorder.record_session_load(self, source, providers, duration_s=clock() - started_s, error=error)
            raise
        recorder.record_session_load(self, source, providers, duration_s=clock() - started_s, error=None, stamp=stamp)

    def switch_off() -> None:
        nonlocal is_on
        is_on = False

    return MethodReplacement(__init__, switch_off)


METHODS: Final[Mapping[str, Callable[[Method, CallRecorder], MethodReplacement]]] = {
    "run": _replace_run,
    "run_async": run_methods.replace_run_async,
    "run_with_iobinding": run_methods.replace_run_with_iobinding,
    "run_with_ort_values": run_methods.replace_run_with_ort_values,
    "run_with_ortvaluevector": run_methods.replace_run_with_ortvaluevector,
    "set_providers": run_methods.replace_set_providers,
    "__init__": _replace_session_init,
}
"""The function that replaces each method that is patched."""

RUNTIME: Final = OnnxRuntime()

assert ATTRIBUTE == "_otel_mlmon", "the hot path spells the attribute out"  # noqa: S101
