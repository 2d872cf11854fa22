"""Joins the five steps of the application half: capture, queue, decode, aggregate, export.

    on the application's thread      on the background thread, or on that of a collection of metrics
    session.run                      drain ──▶ _catch_up ──▶ _decode_chunk:
      └▶ CallRecorder (capture)                    take_batches (queue) ──▶ Decoder.decode (decode)
           └▶ CallQueue (queue)                      ├▶ Aggregator.add (aggregate)
                                                     └▶ SpanQueue.keep
                                            ──▶ _write_metrics: Aggregator.take ──▶ Metrics.observe (export)
                                     send  ──▶ SpanQueue.take ──▶ Spans, Events, Exceptions, Sentry (export)

One pipeline a process. The first call starts its thread. The thread, every collection of metrics and `flush` drain it.
A forked child resets it and shares nothing with its parent.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from otel_mlmon import semconv
from otel_mlmon.guard import guard, guards
from otel_mlmon.instrumentation.aggregate.aggregator import Aggregator
from otel_mlmon.instrumentation.decode.announcements import Announcer
from otel_mlmon.instrumentation.decode.batching import gather
from otel_mlmon.instrumentation.decode.findings import Findings
from otel_mlmon.instrumentation.decode.model_identity import identify, model_name
from otel_mlmon.instrumentation.decode.observations import CallReader, make_reader
from otel_mlmon.instrumentation.decode.vocabulary import Vocabularies
from otel_mlmon.instrumentation.export.context import is_suppressed, make_context_reader, split_contexts
from otel_mlmon.instrumentation.export.providers import (
    Providers,
    create_resource,
    find_providers,
    has_host_providers,
)
from otel_mlmon.instrumentation.export.signal_writers import SignalWriters, unavailable_reasons
from otel_mlmon.instrumentation.export.span_queue import SpanQueue
from otel_mlmon.instrumentation.queue.call_queue import CallQueue
from otel_mlmon.instrumentation.queue.worker import Worker, give_way_unless
from otel_mlmon.instrumentation.runtime.call import FIELDS, Load, Plan, SessionInfo
from otel_mlmon.instrumentation.runtime.runtime import MAX_LOADS, Capture, Instrumentation, instrument_all, undo_all
from otel_mlmon.instrumentation.sentry.tracker import make_error_tracker
from otel_mlmon.instrumentation.settings import InstrumentationSettings
from otel_mlmon.instrumentation.status import Status
from otel_mlmon.internal_events import JOURNAL, RecordsDropped
from otel_mlmon.types import ModelKey

CHUNK: Final = 16_384
"""Calls read at a time at most: the more, the more of it is numpy's work, which does not hold the interpreter."""

MAX_READERS: Final = 1024
"""Plans whose readers are kept; a process that makes sessions without end forgets the oldest."""

COLLECT_WAIT_S: Final = 1.0
"""How long a collection of metrics waits for a round that is under way."""

ROUND_WAIT_S: Final = 60.0
"""How long a round waits for another one."""


class InstrumentationPipeline:
    """Turns calls of patched methods into signals.

    Args:
        settings: The value of every option.
        rng: Chooses the calls that get spans and events.
    """

    _writers: SignalWriters | None

    def __init__(self, settings: InstrumentationSettings, *, rng: random.Random | None = None) -> None:
        self.settings = settings
        self._rng = rng or random.Random()  # noqa: S311 - a choice of samples, not a secret
        self._worker = Worker(work=self._round, interval_s=settings.flush_interval_s)
        self._ring = CallQueue(
            fields=FIELDS,
            max_records=settings.buffer_records,
            max_bytes=settings.buffer_bytes,
            attend=self._worker.attend,
        )
        name = settings.model_name
        self._error_tracker = make_error_tracker(
            settings,
            read_context=make_context_reader(),
            catch_up=self._catch_up,
            model_of=self._model_of,
            rng=self._rng,
        )
        self._loads: collections.deque[Load] = collections.deque(maxlen=MAX_LOADS)
        capture = Capture(
            sink=self._ring,
            loads=self._loads,
            context_reader=self._error_tracker.context_reader,
            model_name=(lambda session: str(name(session))) if callable(name) else (lambda _: name),
            has_output_function=lambda session: callable(settings.options_for(model_name(session)).output_kind),
            allows_telemetry=settings.onnxruntime_telemetry,
        )
        for stage in guards():
            stage.reset()
        self._is_closed: bool = False
        self._resource: Any = None
        self._reset()
        arguments = (settings.tracer_provider, settings.meter_provider, settings.logger_provider)
        is_complete = has_host_providers() or None not in arguments
        with guard("signals"):
            if is_complete:
                # The host's readers may collect before our thread's first round.
                self._make_writers()
            else:
                self._resource = create_resource()
        self._runtimes: dict[str, Instrumentation] = instrument_all(capture)

    def drain(self, timeout_s: float = COLLECT_WAIT_S) -> bool:
        """Aggregate what is buffered and add it to the metrics; whether a round under way ended in time."""
        if not self.drain_lock.acquire(timeout=max(0.0, timeout_s)):
            return False
        try:
            if self._is_closed or self._has_nothing():
                return True
            with guard("signals"):
                writers = self._make_writers()
                self._catch_up(ROUND_WAIT_S, give_way_unless(self._ring.is_long))
                self._write_metrics(writers)
        finally:
            self.drain_lock.release()
        return True

    def flush(self, timeout_s: float) -> bool:
        """Everything that was called before, out of the process; whether it was done in time."""
        deadline_s = time.monotonic() + timeout_s
        is_done = self.drain(timeout_s) and self._send(deadline_s - time.monotonic())
        self._error_tracker.flush(deadline_s - time.monotonic())
        writers = self._writers
        return is_done and (writers is None or writers.providers.flush(deadline_s - time.monotonic()))

    def uninstrument(self) -> bool:
        """Restores every runtime; whether nothing of ours is left in any, as below another patch."""
        runtimes, self._runtimes = self._runtimes, {}
        return undo_all(runtimes)

    def shutdown(self, timeout_s: float) -> bool:
        """Uninstrument, send what is left, and end the thread and our own providers; whether it was done in time."""
        deadline_s = time.monotonic() + timeout_s
        self.uninstrument()
        is_done = self._worker.stop(timeout_s)
        self._ring.close()
        is_done = is_done and self.drain(deadline_s - time.monotonic())
        is_done = self._send(deadline_s - time.monotonic()) and is_done
        self._error_tracker.close(deadline_s - time.monotonic())
        if self._writers is not None:
            is_done = self._writers.shutdown(deadline_s - time.monotonic()) and is_done
        self._is_closed, self._writers = True, None
        return is_done

    def status(self) -> Status:
        """What is going on."""
        writers = self._writers
        failures: dict[str, int] = {}
        for attributes, count in JOURNAL.totals(semconv.FAILURES.name).items():
            stage = dict(attributes)[semconv.STAGE]
            failures[stage] = failures.get(stage, 0) + count
        with self._counting:
            dropped = dict(self._ring.dropped())
        reasons = unavailable_reasons(writers, is_closed=self._is_closed)
        return Status(
            is_active=bool(self._runtimes),
            patched_methods={name: runtime.methods for name, runtime in self._runtimes.items()},
            active_sessions=len(self._sessions()),
            waiting_calls=len(self._ring),
            recorded_calls=self._recorded,
            suppressed_calls=self._suppressed,
            dropped_calls=dropped,
            dropped_span_batches=self._span_queue.dropped_batches,
            failures=failures,
            bulk_unavailable_reason=reasons.bulk,
            exemplars_unavailable_reason=reasons.exemplars,
            metric_readers=writers.describe_readers() if writers else {},
            owned_providers=tuple(type(provider).__name__ for provider in writers.providers.own) if writers else (),
            findings=self._findings.all(),
            sentry_mode=self._error_tracker.mode,
        )

    def _reset(self) -> None:
        """The state of a process that has recorded nothing yet."""
        self._record_stage = guard("record")
        self.drain_lock = threading.Lock()
        """Held while calls are decoded and exported; a fork waits for it."""
        # Inside `_draining`, or by itself for `_catch_up`, which cannot wait for an exporter to be imported.
        self._reading = threading.Lock()
        self._counting = threading.Lock()
        self._sending = threading.Lock()
        self._readers: dict[Plan, CallReader] = {}
        self._findings = Findings()
        self._vocabularies = Vocabularies(limit=self.settings.max_labels, on_full=self._findings.full)
        self._aggregator = Aggregator(admit=self._vocabularies.admit)
        self._span_queue = SpanQueue()
        self._announcer = Announcer(
            self._loads,
            is_suppressed=is_suppressed,
            version_of=self._version_of,
        )
        self._recorded = 0
        self._suppressed = 0
        self._told: dict[str, int] = {}
        self._providers: Providers | None = None
        self._writers = None

    def after_fork(self) -> None:
        """Resets the child of a fork: it counts no call of its parent's, and takes no lock that a lost thread held."""
        if self._writers is not None:
            self._writers.close_metrics()
        self._ring.reset()
        self._worker.reset()
        self._loads.clear()
        JOURNAL.reset()
        self._error_tracker.reset()
        self._reset()

    def _round(self) -> None:
        with guard("sentry"):
            self._error_tracker.adopt_client()
            for runtime in self._runtimes.values():
                runtime.renew_context()
        self.drain(ROUND_WAIT_S)
        self._send(timeout_s=0.0)

    def _catch_up(self, timeout_s: float, pause: Callable[[], object] = lambda: None) -> None:
        """Read what waits now; what comes in meanwhile is for the next time: a busy host cannot hold a collection up.

        Once in any case: another thread may be at calls that it has taken.
        """
        deadline_s = time.monotonic() + timeout_s
        for _ in range(max(1, -(-len(self._ring) // CHUNK))):
            if not self._reading.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
                return
            try:
                self._read(pause)
            finally:
                self._reading.release()

    def _has_nothing(self) -> bool:
        """Whether nothing ever came: a process that runs no model gets no exporters, and ends without their waits."""
        if self._writers is not None or self._ring or self._loads:
            return False
        with self._counting:
            return not self._ring.dropped()

    def _read(self, pause: Callable[[], object]) -> None:
        """The next calls, at most a chunk of them, after the loads of their sessions, which came before."""
        with guard("model_events"):
            self._announcer.take()
        gathered = gather(self._ring.take, CHUNK, is_suppressed=is_suppressed, pause=pause)
        self._suppressed += gathered.suppressed
        for batch in gathered.batches:
            calls, is_read = len(batch.errors), False
            with self._record_stage:
                if self._record_stage.is_open:
                    self._drop("switched_off", calls)
                    continue
                predictions = self._reader(batch.plan).read(batch)
                contexts, tracker_contexts = split_contexts(predictions.contexts)
                predictions = dataclasses.replace(predictions, contexts=contexts)
                self._aggregator.add(predictions)
                self._recorded += calls
                is_read = True
                self._error_tracker.keep_child_spans(predictions, tracker_contexts)
                self._span_queue.push(predictions, tracker_contexts)
            if not is_read:
                self._drop("unreadable", calls)

    def _reader(self, plan: Plan) -> CallReader:
        reader = self._readers.get(plan)
        if reader is None:
            if len(self._readers) >= MAX_READERS:
                del self._readers[next(iter(self._readers))]
            reader = make_reader(
                plan,
                options=self.settings.options_for,
                max_features=self.settings.max_features,
                findings=self._findings,
            )
            self._readers[plan] = reader
            self._announcer.see(plan.session)
        return reader

    def _drop(self, reason: str, count: int) -> None:
        with self._counting:
            for _ in range(count):
                self._ring.drop(reason)

    def _write_metrics(self, writers: SignalWriters) -> None:
        with self._reading:
            loads, snapshots = self._announcer.timed(), self._aggregator.take()
            batches = self._span_queue.pop_unmeasured()
        writers.write_metrics(snapshots, ((model.key, duration_s, error) for model, duration_s, error in loads))
        self._span_queue.push_ready(batches)
        with self._counting:
            dropped = self._ring.dropped()
        for reason, total in dropped.items():
            count = total - self._told.get(reason, 0)
            if count:
                self._told[reason] = total
                JOURNAL.emit(RecordsDropped(reason=reason, count=count))

    def _send(self, timeout_s: float) -> bool:
        """Spans and events of what was read; whether somebody who sends already ended in time.

        Outside any lock that a collection of metrics waits for: the host's span processors may block.
        """
        writers = self._writers
        if writers is None:
            return True
        if not self._sending.acquire(timeout=max(0.0, timeout_s)):
            return False
        try:
            offset_ns = time.time_ns() - time.perf_counter_ns()
            with guard("model_events"):
                for loaded in self._announcer.announcements():
                    writers.write_model(loaded, offset_ns=offset_ns)
            while (batch := self._span_queue.pop()) is not None:
                with guard("spans_and_events"):
                    writers.write_calls(batch, offset_ns=offset_ns)
        finally:
            self._sending.release()
        return True

    def _make_writers(self) -> SignalWriters:
        if self._writers is None:
            # Stored by itself: what fails after it is tried again at the next round, without more exporters' threads.
            self._providers = self._providers or find_providers(self.settings, base=self._resource, environ=os.environ)
            self._writers = SignalWriters(
                self._providers,
                self.settings,
                drain=self.drain,
                sessions=self._models,
                error_tracker=self._error_tracker,
                rng=self._rng,
            )
        return self._writers

    def _models(self) -> Iterable[ModelKey]:
        return map(self._model, self._sessions())

    def _sessions(self) -> list[SessionInfo]:
        return [session for runtime in self._runtimes.values() for session in runtime.sessions()]

    def _model_of(self, session: Any) -> ModelKey | None:
        """The model of a session object of the host's; None of any other object."""
        infos = (runtime.session_of(session) for runtime in self._runtimes.values())
        return next((self._model(info) for info in infos if info is not None), None)

    def _model(self, session: SessionInfo) -> ModelKey:
        return identify(session, version=self._version_of(model_name(session))).key

    def _version_of(self, model: str) -> str:
        return self.settings.options_for(model).version
