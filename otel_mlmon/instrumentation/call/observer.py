"""What a session is, read at its first call, and which closure copies its calls.

The closures hang on the session itself in a dictionary, which the patched method finds in 0.03 µs. They hold the
session's description, never the session: it is freed when its owner lets go of it.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from otel_mlmon.guard import Guard, guard
from otel_mlmon.instrumentation.call.call import Plan, SessionInfo, Sink, Tensor
from otel_mlmon.instrumentation.call.snapshot import Capture, capture_of, feeds_back, plan_input, plan_output, whole

ATTRIBUTE: Final = "_otel_mlmon"
MAX_PLANS: Final = 64
"""Choices of outputs of one session that are told apart; calls with another are timed only."""

MAX_LOADS: Final = 1024
_DIGEST_BYTES: Final = 1 << 20

DROP_FAULT: Final = "capture_failed"
DROP_OFF: Final = "switched_off"


class Load(NamedTuple):
    """One session created, or not."""

    session: SessionInfo | None
    """None if it failed."""
    path: str
    duration_s: float
    error_type: str | None


class Observer:
    """Copies the calls of all sessions into a sink.

    Runs on: the host's threads. Nothing waits, nothing raises to the host; what fails is counted and dropped.

    Args:
        sink: Where calls go.
        context: The OpenTelemetry context at the call.
        model_name: What the user calls a session's model, empty to let it be found.
        runtime_version: The version of the runtime.
        is_whole: Whether a session's outputs are copied as they are, for the developer's own function.
    """

    def __init__(
        self,
        *,
        sink: Sink,
        context: Callable[[], object],
        model_name: Callable[[Any], str],
        runtime_version: str,
        is_whole: Callable[[SessionInfo], bool] = lambda _: False,
    ) -> None:
        self.sink = sink
        self.stage: Guard = guard("call")
        self.loads: deque[Load] = deque(maxlen=MAX_LOADS)
        self._context = context
        self._model_name = model_name
        self._runtime_version = runtime_version
        self._is_whole = is_whole
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def attach(self, session: Any, output_names: Any, feed: Mapping[str, Any], outputs: Sequence[Any]) -> Capture:
        """The closure that copies the calls of `session` with these outputs, made at the first of them."""
        captures = self._captures(session)
        key = None if output_names is None else tuple(output_names)
        info = captures["session"]
        if len(captures) > MAX_PLANS:
            return cast("Capture", self._bare(captures, info))
        made = [node.name for node in session.get_outputs()]
        asked = list(key) if key else made
        inputs, planned = _tensors(session, asked, feed, outputs, is_whole=self._is_whole(info))
        outputs_copied = tuple(planned.values())
        plan = Plan(session=info, operation="run", inputs=inputs, outputs=outputs_copied, made=tuple(made))
        capture = capture_of(plan, list(planned), sink=self.sink, context=self._context)
        captures[key] = capture
        return capture

    def failed(self, session: Any, started_ns: int, ended_ns: int, error: BaseException) -> None:
        """Record a call that raised: when, how long, what class of error; nothing of its inputs."""
        with self.stage:
            if self.stage.is_open:
                self.sink.drop(DROP_OFF)
                return
            try:
                plan = Plan(session=self._captures(session)["session"], operation="run")
                record = (plan, started_ns, ended_ns, self._context(), (), (), type(error).__qualname__)
                self.sink.offer(record, 400)
            except BaseException:
                self.sink.drop(DROP_FAULT)
                raise

    def fault(self, error: BaseException) -> bool:
        """Whether `error`, raised by our code after a call of the host's, is kept from it; the call is dropped."""
        self.sink.drop(DROP_FAULT)
        return self.stage.swallow(error)

    def loaded(self, session: Any, path: str, duration_s: float, error: BaseException | None) -> None:
        """Note that a session was created in `duration_s`, or that it was not."""
        with self.stage:
            info = None if error else self._captures(session)["session"]
            self.loads.append(Load(info, path, duration_s, type(error).__qualname__ if error else None))

    def sessions(self) -> list[SessionInfo]:
        """Those alive now."""
        captures = [getattr(session, ATTRIBUTE, {}) for session in list(self._known)]
        return [found["session"] for found in captures if "session" in found]

    def close(self) -> None:
        """Let go of every session, and of the copies that `copy.copy` made of it, which share the dictionary."""
        for session in list(self._known):
            session.__dict__.pop(ATTRIBUTE, {}).clear()
        self._known.clear()

    def _captures(self, session: Any) -> dict[Any, Any]:
        found: dict[Any, Any] = session.__dict__.setdefault(ATTRIBUTE, {})
        if "session" not in found:
            found["session"] = self._describe(session)
        self._known.add(session)
        return found

    def _bare(self, captures: dict[Any, Any], info: SessionInfo) -> object:
        if "bare" not in captures:
            plan = Plan(session=info, operation="run")
            captures["bare"] = capture_of(plan, [], sink=self.sink, context=self._context)
        return captures["bare"]

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
        )


def _digest(content: object) -> str:
    """Of the first and last megabyte, which differ between trainings; all of a large model would take seconds."""
    if not isinstance(content, bytes):
        return ""
    return hashlib.sha256(content[:_DIGEST_BYTES] + content[-_DIGEST_BYTES:] + b"%d" % len(content)).hexdigest()


def _tensors(
    session: Any,
    asked: list[str],
    feed: Mapping[str, Any],
    outputs: Sequence[Any],
    *,
    is_whole: bool,
) -> tuple[tuple[Tensor, ...], dict[int, Tensor]]:
    """The inputs to copy, and the outputs by their position among the host's."""
    nodes = {node.name: node for node in session.get_outputs()}
    given = session.get_inputs()
    states = {node.name for node in given if len(given) > 1 and feeds_back(node, list(nodes.values()))}
    inputs = [plan_input(node, feed.get(node.name)) for node in given if node.name not in states]
    profiled = [tensor for tensor in inputs if tensor.layout not in {"none", "shape"}]
    # Without any input to profile, one shape still tells the batch's size.
    shapes = [tensor for tensor in inputs if tensor.layout == "shape"][:1]
    planned = {
        position: plan_output(nodes[name], outputs[position]) for position, name in enumerate(asked) if name in nodes
    }
    if is_whole:
        planned = {position: whole(tensor) for position, tensor in planned.items()}
    read = {"rows", "text", "maps", "whole"}
    useful = {position: tensor for position, tensor in planned.items() if tensor.layout in read}
    return tuple(profiled or shapes), useful
