"""Describes the sessions of onnxruntime at their first call, and makes the functions that copy their calls.

They hang on the session itself in a dictionary, which the patched method finds in 0.03 µs, and hold its description,
never the session: it is freed when its owner releases it.
"""

from __future__ import annotations

import functools
import os
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from otel_mlmon.guard import Guard, guard
from otel_mlmon.instrumentation.runtime.call import (
    DROP_FAULT,
    DROP_OFF,
    RECORD_BYTES,
    Context,
    FileStamp,
    Load,
    Plan,
    SessionInfo,
    Tensor,
    make_output_names_key,
    read_file_stamp,
    read_model_path,
    read_provider_names,
)
from otel_mlmon.instrumentation.runtime.model_graph import NO_LAZY_GRAPH, LazyModelGraph, ModelGraph
from otel_mlmon.instrumentation.runtime.onnxruntime.async_calls import AsyncCopier
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import CopyCall, make_call_copier
from otel_mlmon.instrumentation.runtime.onnxruntime.graph.read import MAX_WHOLE_BYTES, read_model_bytes, read_model_file
from otel_mlmon.instrumentation.runtime.onnxruntime.ort_values import (
    CopyValues,
    DeviceSampler,
    make_ort_value_call_copier,
    make_shape_placeholder,
)
from otel_mlmon.instrumentation.runtime.onnxruntime.plans import SessionNode, plan_inputs, plan_output, plan_outputs
from otel_mlmon.instrumentation.runtime.runtime import Capture

ATTRIBUTE: Final = "_otel_mlmon"
RUNTIME_NAME: Final = "onnxruntime"
CPU_PROVIDER: Final = "CPUExecutionProvider"

MAX_PLANS: Final = 64
"""The largest number of output choices of one session; calls with another choice are timed only."""


class CallRecorder:
    """Records the inference calls of all sessions of onnxruntime.

    Runs on: the host's threads. Nothing waits, nothing raises to the host; what fails is counted and dropped.

    Args:
        capture: Where calls and loads go.
        runtime_version: The version of the runtime.
        are_views: Whether the array of an `OrtValue` in host memory is a view of it, not a copy of all of it.
    """

    def __init__(self, capture: Capture, *, runtime_version: str, are_views: bool = False) -> None:
        self.sink = capture.sink
        self.stage: Guard = guard("call")
        self._capture = capture
        self._context = capture.context_reader()
        self._runtime_version = runtime_version
        self._are_views = are_views
        # By identity: a subclass may be unhashable, or equal to another of its kind.
        self._references: dict[int, weakref.ref[Any]] = {}
        self._sessions: dict[int, SessionInfo] = {}
        self.sessions = self._sessions.values
        """Lists the sessions that are alive now."""
        self._is_closed = False

    def attach_run_copier(
        self, session: Any, output_names: Any, feed: Mapping[str, Any], outputs: Sequence[Any]
    ) -> CopyCall:
        """Makes the function that copies a session's calls of `run`, at the first call."""
        self.renew_context()
        context, copiers, key = self._context, self._find_copiers(session), make_output_names_key(output_names)
        info = copiers["session"]
        if len(copiers) > MAX_PLANS:
            timed = Plan(session=info, operation="run")
            timing: CopyCall = copiers.get("timing") or make_call_copier(timed, [], sink=self.sink, context=context)
            self._attach_copier(copiers, "timing", timing, info, context)
            return timing
        nodes = {node.name: node for node in session.get_outputs()}
        names = nodes if key is None else key
        inputs = plan_inputs(session, feed)
        values = {at: (nodes[name], outputs[at]) for at, name in enumerate(names) if name in nodes}
        planned = plan_outputs(values, is_whole=self._capture.has_output_function(info))
        plan = Plan(
            session=info,
            operation="run",
            inputs=inputs,
            outputs=tuple(planned.values()),
            output_names=tuple(nodes),
        )
        copier = make_call_copier(plan, list(planned), sink=self.sink, context=context)
        self._attach_copier(copiers, key, copier, info, context)
        return copier

    def attach_value_copier(
        self, session: Any, operation: str, output_names: Any, feed: Mapping[str, Any], values: Any
    ) -> CopyValues:
        """Makes the function that copies a session's calls with `OrtValue`s, at the first call.

        Args:
            session: The session.
            operation: The method; a value of `ml.operation.name`.
            output_names: The outputs in the host's order; None or nothing for all; empty names for none.
            feed: The inputs of the first call, by name; empty if they are not read.
            values: The outputs of the first call.
        """
        self.renew_context()
        context, copiers = self._context, self._find_copiers(session)
        info = copiers["session"]
        names = make_output_names_key(output_names)
        key: tuple[str, object] = (operation, names)
        nodes = {node.name: node for node in session.get_outputs()}
        inputs: tuple[Tensor, ...] = ()
        planned: dict[int, Tensor] = {}
        if len(copiers) > MAX_PLANS:
            key = ("timing", operation)
            if key in copiers:
                timing: CopyValues = copiers[key]
                return timing
        else:
            arrays = {name: make_shape_placeholder(value) for name, value in feed.items()}
            has_feed = operation == "run_with_ort_values" and names != ("",)
            inputs = plan_inputs(session, arrays) if has_feed else ()
            planned = self._plan_ort_values(info, nodes, nodes if names is None else names, values, inputs)
        copier = make_ort_value_call_copier(
            Plan(
                session=info,
                operation=operation,
                inputs=inputs,
                outputs=tuple(planned.values()),
                output_names=tuple(nodes),
            ),
            list(planned),
            sink=self.sink,
            context=context,
            is_host_only=info.providers == (CPU_PROVIDER,),
            are_views=self._are_views,
            sampler=self._find_device_sampler(copiers, info),
        )
        self._attach_copier(copiers, key, copier, info, context)
        return copier

    def _plan_ort_values(
        self,
        info: SessionInfo,
        nodes: Mapping[str, SessionNode],
        names: Iterable[str],
        values: Any,
        inputs: Sequence[Tensor],
    ) -> dict[int, Tensor]:
        """Plans which `OrtValue` outputs are copied; if nothing else is, one shape that tells the batch size."""
        described = {
            position: (nodes[name], make_shape_placeholder(values[position]))
            for position, name in enumerate(names)
            if name in nodes and position < len(values)
        }
        planned = plan_outputs(described, is_whole=self._capture.has_output_function(info))
        if planned or inputs:
            return planned
        tensors = {position: plan_output(node, value) for position, (node, value) in described.items()}
        return dict([(position, tensor) for position, tensor in tensors.items() if tensor.layout == "shape"][:1])

    def _find_device_sampler(self, copiers: dict[Any, Any], info: SessionInfo) -> DeviceSampler | None:
        """Returns the sampler of a session's outputs on a GPU, if the developer asked for such samples."""
        if info.providers == (CPU_PROVIDER,) or not self._capture.samples_device_outputs(info):
            return None
        sampler: DeviceSampler = copiers.setdefault("sampler", DeviceSampler())
        return sampler

    def attach_async_copier(self, session: Any, output_names: Any, feed: Mapping[str, Any]) -> AsyncCopier:
        """Makes the object that copies a session's calls of `run_async`, at the first call."""
        self.renew_context()
        context, copiers = self._context, self._find_copiers(session)
        info = copiers["session"]
        names = make_output_names_key(output_names)
        key: tuple[str, object] = ("run_async", names)
        nodes = {node.name: node for node in session.get_outputs()}
        inputs: tuple[Tensor, ...] = ()
        chosen: dict[int, SessionNode] = {}
        if len(copiers) > MAX_PLANS:
            key = ("timing", "run_async")
            if key in copiers:
                timing: AsyncCopier = copiers[key]
                return timing
        else:
            inputs = () if names == ("",) else plan_inputs(session, feed)
            chosen = {at: nodes[name] for at, name in enumerate(nodes if names is None else names) if name in nodes}
        plan_results = functools.partial(plan_outputs, is_whole=self._capture.has_output_function(info))
        plan = Plan(session=info, operation="run_async", inputs=inputs, output_names=tuple(nodes))
        copier = AsyncCopier(plan, chosen, plan_results, sink=self.sink, context=context)
        self._attach_copier(copiers, key, copier, info, context)
        return copier

    def record_failure(
        self, session: Any, started_ns: int, ended_ns: int, error: BaseException, operation: str = "run"
    ) -> None:
        """Records an inference call that raised an exception: when, how long it took, the exception's class."""
        with self.stage:
            if self.stage.is_open:
                self.sink.drop(DROP_OFF)
                return
            self._record_times(session, operation, started_ns, ended_ns, type(error).__qualname__)

    def _record_times(self, session: Any, operation: str, started_ns: int, ended_ns: int, error: str | None) -> None:
        try:
            copiers = self._find_copiers(session)
            plan = copiers.get(("times", operation))
            if plan is None:
                plan = copiers["times", operation] = Plan(session=copiers["session"], operation=operation)
            self.sink.offer((plan, started_ns, ended_ns, self.read_context(), (), (), error), RECORD_BYTES)
        except BaseException:
            self.sink.drop(DROP_FAULT)
            raise

    def read_context(self) -> object:
        """Returns the OpenTelemetry context of the current thread; None if there is none."""
        self.renew_context()
        return self._context(None)

    def renew_context(self) -> None:
        """Adopts, for all sessions, the function that reads the trace context now, if that has changed."""
        reader = self._capture.context_reader()
        if reader is not self._context:
            self._context = reader
            for session in self._list_live_sessions():
                _detach_copiers(session.__dict__.get(ATTRIBUTE, {}))

    def swallow_error(self, error: BaseException, session: Any, operation: str, started_ns: int, ended_ns: int) -> bool:
        """Records only the times of an inference call that could not be copied, because of an internal error.

        Returns:
            Whether the error is kept from the host; else the call is dropped.
        """
        if not self.stage.swallow(error):
            self.sink.drop(DROP_FAULT)
            return False
        with self.stage:
            self._record_times(session, operation, started_ns, ended_ns, None)
        return True

    def record_session_load(
        self,
        session: Any,
        source: object,
        providers: Any,
        *,
        duration_s: float,
        error: BaseException | None,
        stamp: FileStamp | None = None,
    ) -> None:
        """Records that a session was created, or could not be, and how long that took."""
        with self.stage:
            copiers = {} if error else self._find_copiers(session, stamp)
            requested = copiers["requested"] = read_provider_names(providers)
            self._capture.loads.append(
                Load(
                    session=copiers.get("session"),
                    path=read_model_path(source),
                    ended_ns=time.perf_counter_ns(),
                    context=self.read_context(),
                    duration_s=duration_s,
                    error_type=type(error).__qualname__ if error else None,
                    requested=requested,
                    stamp=stamp,
                )
            )

    def record_provider_change(self, session: Any, requested: tuple[str, ...]) -> None:
        """Records that a session changed to other execution providers."""
        with self.stage:
            is_new = ATTRIBUTE not in session.__dict__
            copiers = self._find_copiers(session)
            info = copiers["session"] = self._describe_session(session, graph=copiers["session"].graph)
            if id(session) in self._references:
                self._sessions[id(session)] = info
            copiers["requested"] = requested
            _detach_copiers(copiers)
            self._capture.loads.append(
                Load(info, info.path, time.perf_counter_ns(), self.read_context(), is_new=is_new, requested=requested)
            )

    def find_requested_providers(self, session: Any) -> tuple[str, ...]:
        """Returns the execution providers that a session was created with; empty if not observed."""
        names: tuple[str, ...] = session.__dict__.get(ATTRIBUTE, {}).get("requested", ())
        return names

    def session_of(self, session: Any) -> SessionInfo | None:
        """Returns the description of a session that was seen before; None for any other object."""
        info: SessionInfo | None = getattr(session, ATTRIBUTE, {}).get("session")
        return info

    def close(self) -> None:
        """Releases every session of onnxruntime, and removes the copying functions attached to it.

        A call that began before and ends later is still put into the sink, and nothing is attached to its session.
        """
        self._is_closed = True
        for session in self._list_live_sessions():
            session.__dict__.pop(ATTRIBUTE, {}).clear()
        self._references.clear()
        self._sessions.clear()

    def _list_live_sessions(self) -> list[Any]:
        return [session for reference in list(self._references.values()) if (session := reference()) is not None]

    def _find_copiers(self, session: Any, stamp: FileStamp | None = None) -> dict[Any, Any]:
        """Returns what is attached to a session: its description, and a function for each choice of outputs."""
        if self._is_closed:
            # From now on everything attached to the session belongs to another recorder, or to none.
            return {"session": self._describe_session(session)}
        copiers: dict[Any, Any] = session.__dict__.setdefault(ATTRIBUTE, {})
        if "session" not in copiers:
            copiers["session"] = self._describe_session(session, stamp=stamp)
        if id(session) not in self._references:
            forget = functools.partial(_forget_session, self._references, self._sessions, id(session))
            self._references[id(session)] = weakref.ref(session, forget)
            self._sessions[id(session)] = copiers["session"]
        return copiers

    def _attach_copier(
        self, copiers: dict[Any, Any], key: object, copier: object, info: SessionInfo, context: Context
    ) -> None:
        """Attaches a copying function to its session, unless it is out of date already.

        Another thread that renewed, changed or closed meanwhile has not removed it.
        """
        copiers[key] = copier
        if self._is_closed or context is not self._context or copiers.get("session") is not info:
            copiers.pop(key, None)

    def _describe_session(
        self, session: Any, *, stamp: FileStamp | None = None, graph: LazyModelGraph | None = None
    ) -> SessionInfo:
        meta = session.get_modelmeta()
        source = getattr(session, "_model_path", None)
        path = read_model_path(source)
        path = os.path.abspath(path) if path else ""  # noqa: PTH100 - a Path costs more than the call
        providers = session.get_providers()
        return SessionInfo(
            model_name=self._capture.model_name(session),
            path=path,
            graph_name=meta.graph_name,
            version=meta.version,
            metadata=dict(meta.custom_metadata_map),
            provider=providers[0] if providers else "",
            runtime_name=RUNTIME_NAME,
            runtime_version=self._runtime_version,
            providers=tuple(providers),
            graph=graph or _make_lazy_graph(session, path, stamp),
        )


def _detach_copiers(copiers: dict[Any, Any]) -> None:
    """Removes the copying functions from a session, but not its description."""
    for key in [key for key in list(copiers) if key not in {"session", "requested", "sampler"}]:
        copiers.pop(key, None)


def _forget_session(
    references: dict[int, weakref.ref[Any]],
    sessions: dict[int, SessionInfo],
    identity: int,
    reference: weakref.ref[Any],
) -> None:
    """Forgets a session that was freed, unless another one has its memory address by now."""
    if references.get(identity) is reference:
        del references[identity]
        sessions.pop(identity, None)


def _make_lazy_graph(session: Any, path: str, stamp: FileStamp | None) -> LazyModelGraph:
    """Makes the object that reads a session's model file later, on the worker thread."""
    names = tuple(node.name for node in session.get_outputs())
    content = getattr(session, "_model_bytes", None)
    if not isinstance(content, bytes):
        if not path:
            return NO_LAZY_GRAPH
        return LazyModelGraph(
            functools.partial(read_model_file, path, stamp=stamp or read_file_stamp(path), names=names)
        )
    if len(content) <= MAX_WHOLE_BYTES:
        # Held until it was read, within a second, even if its session ends before.
        return LazyModelGraph(functools.partial(read_model_bytes, content, names=names))
    return LazyModelGraph(functools.partial(_read_live_model, weakref.ref(session), names))


def _read_live_model(session: weakref.ref[Any], names: Sequence[str]) -> ModelGraph:
    content = getattr(session(), "_model_bytes", None)
    return read_model_bytes(content, names=names) if isinstance(content, bytes) else ModelGraph(state="missing")
