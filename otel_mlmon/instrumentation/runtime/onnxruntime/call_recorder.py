"""What a session is, read at its first call, and which closure copies its calls.

The closures hang on the session itself in a dictionary, which the patched method finds in 0.03 µs. They hold the
session's description, never the session: it is freed when its owner lets go of it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from otel_mlmon.guard import Guard, guard
from otel_mlmon.instrumentation.runtime.call import Plan, SessionInfo, Sink, Tensor
from otel_mlmon.instrumentation.runtime.load import Load, Stamp, path_of, provider_names
from otel_mlmon.instrumentation.runtime.onnxruntime.copies import (
    RECORD_BYTES,
    Capture,
    Context,
    capture_of,
    feeds_back,
    plan_input,
    plan_outputs,
)
from otel_mlmon.instrumentation.runtime.onnxruntime.ort_values import OrtValueRecorder, shape_placeholder

ATTRIBUTE: Final = "_otel_mlmon"
MAX_PLANS: Final = 64
"""Choices of outputs of one session that are told apart; calls with another are timed only."""

MAX_LOADS: Final = 1024
_DIGEST_BYTES: Final = 1 << 20

DROP_FAULT: Final = "capture_failed"
DROP_OFF: Final = "switched_off"


class CallRecorder:
    """Copies the calls of all sessions into a sink.

    Runs on: the host's threads. Nothing waits, nothing raises to the host; what fails is counted and dropped.

    Args:
        sink: Where calls go.
        reader: Gives what reads the OpenTelemetry context of a call; another one once there is more to read.
        model_name: What the user calls a session's model, empty to let it be found.
        runtime_version: The version of the runtime.
        is_whole: Whether a session's outputs are copied as they are, for the developer's own function.
    """

    def __init__(
        self,
        *,
        sink: Sink,
        reader: Callable[[], Context],
        model_name: Callable[[Any], str],
        runtime_version: str,
        is_whole: Callable[[SessionInfo], bool] = lambda _: False,
    ) -> None:
        self.sink = sink
        self.stage: Guard = guard("call")
        self.loads: deque[Load] = deque(maxlen=MAX_LOADS)
        self._reader = reader
        self._context = reader()
        self._model_name = model_name
        self._runtime_version = runtime_version
        self._is_whole = is_whole
        # By identity: a subclass may be unhashable, or equal to another of its kind.
        self._known: dict[int, weakref.ref[Any]] = {}
        self._is_closed = False

    def attach(self, session: Any, output_names: Any, feed: Mapping[str, Any], outputs: Sequence[Any]) -> Capture:
        """The closure that copies the calls of `session` with these outputs, made at the first of them."""
        self.renew()
        context, captures = self._context, self._captures(session)
        key = None if output_names is None else tuple(output_names)
        info = captures["session"]
        if len(captures) > MAX_PLANS:
            return self._bare(captures, info, context)
        nodes = {node.name: node for node in session.get_outputs()}
        asked = list(key) if key else list(nodes)
        inputs = _inputs(session, feed)
        seen = {at: (nodes[name], outputs[at]) for at, name in enumerate(asked) if name in nodes}
        planned = plan_outputs(seen, is_whole=self._is_whole(info))
        plan = Plan(session=info, operation="run", inputs=inputs, outputs=tuple(planned.values()), made=tuple(nodes))
        capture = capture_of(plan, list(planned), sink=self.sink, context=context)
        self._hang(captures, key, capture, info, context)
        return capture

    def tap(
        self,
        session: Any,
        operation: str,
        output_names: Any,
        feed: Mapping[str, Any],
        *,
        are_values: bool,
    ) -> OrtValueRecorder:
        """What copies the calls of `session` by a method other than `run` with these outputs."""
        names = tuple(output_names) if output_names else None
        found: OrtValueRecorder | None = session.__dict__.get(ATTRIBUTE, {}).get((operation, names))
        if found is not None:
            return found
        context, captures = self._context, self._captures(session)
        info = captures["session"]
        if len(captures) > MAX_PLANS:
            bare: OrtValueRecorder | None = captures.get(("bare", operation))
            if bare is None:
                bare = OrtValueRecorder(info, operation, inputs=(), asked={}, sink=self.sink, are_values=are_values)
                self._hang(captures, ("bare", operation), bare, info, context)
            return bare
        nodes = {node.name: node for node in session.get_outputs()}
        seen = {name: shape_placeholder(value) for name, value in feed.items()} if are_values else feed
        found = OrtValueRecorder(
            info,
            operation,
            inputs=_inputs(session, seen) if feed else (),
            asked={position: nodes[name] for position, name in enumerate(names or nodes) if name in nodes},
            sink=self.sink,
            are_values=are_values,
            is_whole=self._is_whole(info),
            made=tuple(nodes),
        )
        self._hang(captures, (operation, names), found, info, context)
        return found

    def failed(
        self, session: Any, started_ns: int, ended_ns: int, error: BaseException, operation: str = "run"
    ) -> None:
        """Record a call that raised: when, how long, what class of error; nothing of its inputs."""
        with self.stage:
            if self.stage.is_open:
                self.sink.drop(DROP_OFF)
                return
            try:
                captures = self._captures(session)
                plan = captures.get(("failed", operation))
                if plan is None:
                    plan = captures["failed", operation] = Plan(session=captures["session"], operation=operation)
                record = (plan, started_ns, ended_ns, self.context(), (), (), type(error).__qualname__)
                self.sink.offer(record, RECORD_BYTES)
            except BaseException:
                self.sink.drop(DROP_FAULT)
                raise

    def context(self) -> object:
        """The OpenTelemetry context of this thread; None if there is none."""
        self.renew()
        return self._context(None)

    def renew(self) -> None:
        """Read contexts by another function, if there is one now: new closures then copy the calls of all sessions."""
        found = self._reader()
        if found is not self._context:
            self._context = found
            for session in self._alive():
                _let_go(session.__dict__.get(ATTRIBUTE, {}))

    def fault(self, error: BaseException) -> bool:
        """Whether `error`, raised by our code after a call of the host's, is kept from it; the call is dropped."""
        self.sink.drop(DROP_FAULT)
        return self.stage.swallow(error)

    def loaded(
        self,
        session: Any,
        source: object,
        providers: Any,
        *,
        duration_s: float,
        error: BaseException | None,
        stamp: Stamp | None = None,
    ) -> None:
        """Note that a session was created in `duration_s`, or that it was not."""
        with self.stage:
            captures = {} if error else self._captures(session)
            requested = captures["requested"] = provider_names(providers)
            self.loads.append(
                Load(
                    session=captures.get("session"),
                    path=path_of(source),
                    ended_ns=time.perf_counter_ns(),
                    context=self.context(),
                    duration_s=duration_s,
                    error_type=type(error).__qualname__ if error else None,
                    requested=requested,
                    stamp=stamp,
                )
            )

    def changed(self, session: Any, requested: tuple[str, ...]) -> None:
        """Note that a session was put on other execution providers; its next calls are read anew."""
        with self.stage:
            is_new = ATTRIBUTE not in session.__dict__
            captures = self._captures(session)
            info = captures["session"] = self._describe(session)
            captures["requested"] = requested
            _let_go(captures)
            self.loads.append(
                Load(info, info.path, time.perf_counter_ns(), self.context(), is_new=is_new, requested=requested)
            )

    def requested(self, session: Any) -> tuple[str, ...]:
        """The execution providers that were asked for when `session` was created; empty if that was not seen."""
        found: tuple[str, ...] = session.__dict__.get(ATTRIBUTE, {}).get("requested", ())
        return found

    def sessions(self) -> list[SessionInfo]:
        """Those alive now."""
        captures = [getattr(session, ATTRIBUTE, {}) for session in self._alive()]
        return [found["session"] for found in captures if "session" in found]

    def close(self) -> None:
        """Let go of every session, and of the copies that `copy.copy` made of it, which share the dictionary.

        A call that began before and ends later is still put into the sink, and nothing is hung on its session.
        """
        self._is_closed = True
        for session in self._alive():
            session.__dict__.pop(ATTRIBUTE, {}).clear()
        self._known.clear()

    def _alive(self) -> list[Any]:
        return [session for known in list(self._known.values()) if (session := known()) is not None]

    def _captures(self, session: Any) -> dict[Any, Any]:
        if self._is_closed:
            # What hangs on the session from now on is another observer's, or nobody's.
            return {"session": self._describe(session)}
        found: dict[Any, Any] = session.__dict__.setdefault(ATTRIBUTE, {})
        if "session" not in found:
            found["session"] = self._describe(session)
        if id(session) not in self._known:
            forget = functools.partial(_forget, self._known, id(session))
            self._known[id(session)] = weakref.ref(session, forget)
        return found

    def _bare(self, captures: dict[Any, Any], info: SessionInfo, context: Context) -> Capture:
        found: Capture | None = captures.get("bare")
        if found is None:
            found = capture_of(Plan(session=info, operation="run"), [], sink=self.sink, context=context)
            self._hang(captures, "bare", found, info, context)
        return found

    def _hang(self, captures: dict[Any, Any], key: object, made: object, info: SessionInfo, context: Context) -> None:
        """Keep what was made of `info` and `context`, unless it is out of date.

        Another thread that renewed, changed or closed meanwhile has not seen it.
        """
        captures[key] = made
        if self._is_closed or context is not self._context or captures.get("session") is not info:
            captures.pop(key, None)

    def _describe(self, session: Any) -> SessionInfo:
        meta = session.get_modelmeta()
        path = getattr(session, "_model_path", None)
        providers = session.get_providers()
        return SessionInfo(
            given_name=self._model_name(session),
            path=os.fspath(path) if isinstance(path, (str, os.PathLike)) else "",
            digest=_digest(getattr(session, "_model_bytes", None)),
            graph_name=meta.graph_name,
            version=meta.version,
            metadata=dict(meta.custom_metadata_map),
            provider=providers[0] if providers else "",
            runtime_version=self._runtime_version,
            providers=tuple(providers),
            content=functools.partial(_content, weakref.ref(session)),
        )


def _let_go(captures: dict[Any, Any]) -> None:
    """Of the closures of a session, not of what is known of it."""
    for key in [key for key in list(captures) if key not in {"session", "requested"}]:
        captures.pop(key, None)


def _forget(known: dict[int, weakref.ref[Any]], identity: int, gone: weakref.ref[Any]) -> None:
    """Take off a session that was freed, unless another one has its place in memory by now."""
    if known.get(identity) is gone:
        del known[identity]


def _content(session: weakref.ref[Any]) -> object:
    return getattr(session(), "_model_bytes", None)


def _digest(content: object) -> str:
    """Of the first and last megabyte, which differ between trainings; all of a large model would take seconds."""
    if not isinstance(content, bytes):
        return ""
    return hashlib.sha256(content[:_DIGEST_BYTES] + content[-_DIGEST_BYTES:] + b"%d" % len(content)).hexdigest()


def _inputs(session: Any, feed: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The inputs to copy."""
    made, given = list(session.get_outputs()), session.get_inputs()
    states = {node.name for node in given if len(given) > 1 and feeds_back(node, made)}
    inputs = [plan_input(node, feed.get(node.name)) for node in given if node.name not in states]
    profiled = [tensor for tensor in inputs if tensor.layout not in {"none", "shape"}]
    # Without any input to profile, one shape still tells the batch's size.
    shapes = [tensor for tensor in inputs if tensor.layout == "shape"][:1]
    return tuple(profiled or shapes)
