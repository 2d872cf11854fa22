"""Reads inference calls that wait in the queue, for a span that cannot wait for the worker thread.

They stay in the queue: batches count them later, as if nobody had looked. Only those that no single reading settles,
such as the first of a model, are taken out and decoded at once. The file of a model is not read then.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.decode.decoder import DeclaredModelOptions, DecoderCache
from otel_mlmon.instrumentation.decode.model_identity import ModelIdentity, find_model_name, identify_model
from otel_mlmon.instrumentation.decode.predictions import CallDescription, CallSummary
from otel_mlmon.instrumentation.runtime.call import FIELDS, Call, Load
from otel_mlmon.instrumentation.runtime.model_graph import LazyModelGraph

GRAPH_POLL_S: Final = 0.001
"""Time between two looks whether the worker thread has read a model's file."""

MAX_LOOKED_AT: Final = 4096
"""Waiting calls, the latest, whose models' files are read ahead."""

_CONTEXT: Final = Call._fields.index("context")


class WaitingCallQueue(Protocol):
    """The Protocol of a queue of inference calls out of which calls at any position can be taken."""

    queue: list[Any]
    """See `Sink.queue`."""

    def take_calls_at(self, positions: Sequence[int]) -> Sequence[Any]:
        """Removes the calls at the given positions of the queue, and returns their fields."""


class WaitingCallReader:
    """Reads inference calls that wait in the queue, one by one, before the worker thread does.

    Runs on: any thread.

    Args:
        queue: Where they wait.
        decode: Decodes calls from a function that takes so many at a time, at most `limit`, with pauses.
        decoders: The decoders of all plans.
        options: Returns what the developer declared of the model of a name.
        is_suppressed: Whether the application had suppressed instrumentation in a context.
        wake: Wakes the worker thread, which reads models' files; returns whether it runs.
        loads: Loads that were not announced yet: decoding announces them, which reads their files.
    """

    def __init__(
        self,
        queue: WaitingCallQueue,
        *,
        decode: Callable[[Callable[[int], list[Any]], int, Callable[[], object]], object],
        decoders: DecoderCache,
        options: Callable[[str], DeclaredModelOptions],
        is_suppressed: Callable[[object], bool],
        wake: Callable[[], bool],
        loads: Collection[Load] = (),
    ) -> None:
        self.lock = threading.Lock()
        """Held while calls are taken out of the queue and decoded."""
        self.is_awaited = False
        """Whether the end of a request waits for `lock`."""
        self._queue = queue
        self._decode = decode
        self._decoders = decoders
        self._options = options
        self._is_suppressed = is_suppressed
        self._wake = wake
        self._loads = loads
        self._slow_graphs: set[LazyModelGraph] = set()
        """Graphs that were waited for in vain: nobody waits for them twice."""

    def read_waiting_calls(
        self,
        timeout_s: float,
        is_wanted: Callable[[object], bool],
        count_wanted: Callable[[], tuple[int, int]],
        finish: Callable[[], object],
    ) -> Sequence[CallDescription]:
        """Reads those waiting inference calls whose trace context is wanted, such as the calls of one request.

        Args:
            timeout_s: How long to wait for a batch that is being decoded, and for the worker thread to read the file
                of a model; after that, less is read.
            is_wanted: Whether a call with this context is wanted.
            count_wanted: Returns how many calls are wanted at most, so that no more of the queue is searched, and how
                many of them, the earliest, are read.
            finish: Called when they were read, and before any further call is decoded.
        """
        deadline_s = time.monotonic() + timeout_s
        is_held = self._acquire_decode_lock(timeout_s)
        try:
            positions = self._find_wanted_calls(is_wanted, *count_wanted()) if is_held else []
            if graphs := self._list_unread_graphs(positions):
                self.lock.release()
                is_held = False
                self._await_graphs(graphs, deadline_s)
                is_held = self._acquire_decode_lock(max(deadline_s - time.monotonic(), GRAPH_POLL_S))
                positions = self._find_wanted_calls(is_wanted, *count_wanted()) if is_held else []
            descriptions = self._describe_calls(positions)
            finish()
        finally:
            if is_held:
                self.lock.release()
        return descriptions

    def read_model_graphs(self) -> None:
        """Reads the model files of waiting inference calls ahead of time, so that decoding them is fast.

        Runs on: the worker thread, without `lock`.
        """
        queue = self._queue.queue
        start = max(0, len(queue) // FIELDS - MAX_LOOKED_AT) * FIELDS
        for graph in {*(plan.session.graph for plan in set(queue[start::FIELDS])), *self._list_loaded_graphs()}:
            graph()

    def _acquire_decode_lock(self, timeout_s: float) -> bool:
        if self.lock.acquire(blocking=False):
            return True
        self.is_awaited = True
        try:
            return self.lock.acquire(timeout=timeout_s)
        finally:
            self.is_awaited = False

    def _find_wanted_calls(self, is_wanted: Callable[[object], bool], count: int, limit: int) -> list[int]:
        """Returns the positions in the queue of the inference calls that are wanted, the latest first."""
        queue = self._queue.queue
        positions: list[int] = []
        for position in range(len(queue) // FIELDS - 1, -1, -1):
            if len(positions) >= count:
                break
            if is_wanted(queue[position * FIELDS + _CONTEXT]):
                positions.append(position)
        return positions[::-1][:limit]

    def _list_unread_graphs(self, positions: Sequence[int]) -> set[LazyModelGraph]:
        queue = self._queue.queue
        plans = [queue[position * FIELDS] for position in positions]
        graphs = [plan.session.graph for plan in plans]
        if any(self._decoders.find_decoder(plan) is None for plan in plans):
            graphs += self._list_loaded_graphs()
        return {graph for graph in graphs if graph.known is None and graph not in self._slow_graphs}

    def _list_loaded_graphs(self) -> list[LazyModelGraph]:
        return [load.session.graph for load in list(self._loads) if load.session is not None]

    def _await_graphs(self, graphs: set[LazyModelGraph], deadline_s: float) -> None:
        is_running = self._wake()
        while is_running and any(graph.known is None for graph in graphs) and time.monotonic() < deadline_s:
            time.sleep(GRAPH_POLL_S)
        self._slow_graphs = {graph for graph in self._slow_graphs | graphs if graph.known is None}

    def _describe_calls(self, positions: Sequence[int]) -> Sequence[CallDescription]:
        descriptions: list[CallDescription] = []
        unsettled: list[tuple[int, Call]] = []
        for position in positions:
            call = Call(*self._queue.queue[position * FIELDS : (position + 1) * FIELDS])
            if self._is_suppressed(call.context):
                continue
            description = None
            with guard("read"):
                description = self._describe_call(call)
            if description is None:
                unsettled.append((position, call))
            else:
                descriptions.append(description)
        if unsettled:
            graphs = [*(call.plan.session.graph for _, call in unsettled), *self._list_loaded_graphs()]
            if any(graph.known is None for graph in graphs):
                return [*descriptions, *(self._describe_undecoded_call(call) for _, call in unsettled)]
            fields = iter(self._queue.take_calls_at([position for position, _ in unsettled]))
            self._decode(lambda calls: list(itertools.islice(fields, calls * FIELDS)), len(unsettled), lambda: None)
        return descriptions

    def _describe_call(self, call: Call) -> CallDescription | None:
        """Describes one inference call for its span; None if it can only be decoded in a batch."""
        decoder = self._decoders.find_decoder(call.plan)
        summary = decoder.read_call(call.inputs, call.outputs) if decoder is not None else None
        return None if decoder is None or summary is None else _build_call_description(call, decoder.model, summary)

    def _describe_undecoded_call(self, call: Call) -> CallDescription:
        """Describes an inference call by its times only, while its model's file is not read yet."""
        session, decoder = call.plan.session, self._decoders.find_decoder(call.plan)
        version = self._options(find_model_name(session, may_read=False)).version
        model = decoder.model if decoder is not None else identify_model(session, version=version, may_read=False)
        return _build_call_description(call, model, CallSummary())


def _build_call_description(call: Call, model: ModelIdentity, summary: CallSummary) -> CallDescription:
    duration_ns = max(call.ended_ns - call.started_ns, 0)
    return CallDescription(
        model, call.plan.operation, call.started_ns, duration_ns, call.error_type, summary, call.context
    )
