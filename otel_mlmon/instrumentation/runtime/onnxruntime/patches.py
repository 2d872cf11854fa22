"""The methods of onnxruntime that run a model, patched. The only import of onnxruntime.

`run` and its kin live on `Session`, the base of `InferenceSession`; patched there in place, they cover sessions made
earlier, names imported earlier, subclasses and `onnxruntime.backend`.

Not covered: bound methods taken before, the C++ binding `session._sess`, and runtimes that are not onnxruntime.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from otel_mlmon.instrumentation.runtime.load import Stamp, path_of, stamp_of
from otel_mlmon.instrumentation.runtime.onnxruntime import paths
from otel_mlmon.instrumentation.runtime.onnxruntime.call_recorder import ATTRIBUTE, DROP_OFF, CallRecorder
from otel_mlmon.instrumentation.runtime.onnxruntime.paths import parameters_of
from otel_mlmon.instrumentation.runtime.patch import Method, Patch, Replacement

_RUN_PARAMETERS: Final = ("self", "output_names", "input_feed", "run_options")


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One method that is patched."""

    method: str
    replace: Callable[[Method, CallRecorder], Replacement]


def load() -> ModuleType | None:
    """onnxruntime, imported now; None if it is not installed, or of it only a folder is left."""
    try:
        import onnxruntime
    except ImportError:
        return None
    module: ModuleType = onnxruntime
    return module if hasattr(module, "InferenceSession") else None


def stop_telemetry(module: ModuleType) -> None:
    """Switch off what the runtime itself sends from now on; nothing in a release that sends nothing."""
    stop = getattr(module, "disable_telemetry_events", None)
    if stop is not None:
        stop()


def patch(module: ModuleType, observer: CallRecorder) -> dict[str, Patch]:
    """Every path of `PATHS`, patched, by its method."""
    return {
        path.method: Patch(module.InferenceSession, path.method, functools.partial(_made, path, observer))
        for path in PATHS
        if hasattr(module.InferenceSession, path.method)
    }


def _made(path: Path, observer: CallRecorder, original: Method) -> Replacement:
    return path.replace(original, observer)


def _replace_run(original: Method, observer: CallRecorder) -> Replacement:
    is_exact = parameters_of(original) == _RUN_PARAMETERS
    return _exact_run(original, observer) if is_exact else _any_run(original, observer)


def _exact_run(original: Method, observer: CallRecorder) -> Replacement:
    # Everything the hot path touches is a cell or a local: a global or an attribute costs 0.02 µs each.
    clock, stage, attach = time.perf_counter_ns, observer.stage, observer.attach
    failed, fault, drop = observer.failed, observer.fault, observer.sink.drop
    is_on = True

    @functools.wraps(original)
    def run(self, output_names, input_feed, run_options=None):  # type: ignore[no-untyped-def]
        if not is_on:
            return original(self, output_names, input_feed, run_options)
        started_ns = clock()
        try:
            outputs = original(self, output_names, input_feed, run_options)
        except BaseException as error:
            failed(self, started_ns, clock(), error)
            raise
        ended_ns = clock()
        if stage.is_open:
            drop(DROP_OFF)
            return outputs
        try:
            try:
                capture = self._otel_mlmon[output_names if output_names is None else tuple(output_names)]
            except (AttributeError, KeyError):
                capture = attach(self, output_names, input_feed, outputs)
            capture(input_feed, outputs, started_ns, ended_ns)
        except BaseException as error:
            if not fault(error):
                raise
        return outputs

    def switch_off() -> None:
        nonlocal is_on
        is_on = False

    return Replacement(run, switch_off)


def _any_run(original: Method, observer: CallRecorder) -> Replacement:
    """For a `run` that somebody else replaced by one of other parameters, which are handed on as they come."""

    def inner(self: Any, _names: Any, _feed: Any, run_options: Any = None) -> Any:
        arguments, keywords = run_options
        return original(self, *arguments, **keywords)

    timed, switch_off = _exact_run(inner, observer)

    @functools.wraps(original)
    def run(self: Any, *arguments: Any, **keywords: Any) -> Any:
        names = arguments[0] if arguments else keywords.get("output_names")
        given = (value for value in (*arguments, *keywords.values()) if isinstance(value, Mapping))
        feed: Mapping[str, Any] = next(given, {})
        return timed(self, names, feed, (arguments, keywords))

    return Replacement(run, switch_off)


def _replace_init(original: Method, observer: CallRecorder) -> Replacement:
    clock = time.perf_counter
    is_on = True

    @functools.wraps(original)
    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:  # noqa: N807
        if not is_on:
            original(self, *arguments, **keywords)
            return
        source = arguments[0] if arguments else keywords.get("path_or_bytes")
        providers = arguments[2] if len(arguments) > 2 else keywords.get("providers")
        stamp: Stamp | None = None
        with observer.stage:
            stamp = stamp_of(path_of(source))
        started_s = clock()
        try:
            original(self, *arguments, **keywords)
        except BaseException as error:
            observer.loaded(self, source, providers, duration_s=clock() - started_s, error=error)
            raise
        observer.loaded(self, source, providers, duration_s=clock() - started_s, error=None, stamp=stamp)

    def switch_off() -> None:
        nonlocal is_on
        is_on = False

    return Replacement(__init__, switch_off)


PATHS: Final = (
    Path(method="run", replace=_replace_run),
    Path(method="run_async", replace=paths.replace_run_async),
    Path(method="run_with_iobinding", replace=paths.replace_run_with_iobinding),
    Path(method="run_with_ort_values", replace=paths.replace_run_with_ort_values),
    Path(method="run_with_ortvaluevector", replace=paths.replace_run_with_ortvaluevector),
    Path(method="set_providers", replace=paths.replace_set_providers),
    Path(method="__init__", replace=_replace_init),
)
"""What is patched; one row a method."""

assert ATTRIBUTE == "_otel_mlmon", "the hot path spells the attribute out"  # noqa: S101
