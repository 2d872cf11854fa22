"""Joins the five steps in the application: capture, queue, decode, aggregate and export of inference calls.

    application's thread     background thread, or that of a collection of metrics
    session.run
      └▶ runtime: capture
           └▶ CallQueue ─▶ drain_queue ─▶ DecoderCache.decode_batch           ─┬▶ PredictionAggregator.add_predictions
                                                                                └▶ SpanQueue.push_uncounted_batch
                            drain_queue ─▶ PredictionAggregator.take_snapshots ─▶ SignalWriters.write_metrics
                            _send_spans ─▶ SpanQueue.pop_ready_batch           ─▶ SignalWriters.write_spans_and_events

One pipeline a process. The first call starts its thread. The thread, every collection of metrics and `flush` drain it.
A forked child resets it and shares nothing with its parent.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_mlmon.guard import guard, list_guards
from otel_mlmon.instrumentation.aggregate.aggregator import PredictionAggregator
from otel_mlmon.instrumentation.decode.batch import CHUNK_CALLS, take_call_batches
from otel_mlmon.instrumentation.decode.decoder import DecoderCache, make_model_vocabularies
from otel_mlmon.instrumentation.decode.findings import ModelFindings
from otel_mlmon.instrumentation.decode.model_identity import find_model_name, identify_model
from otel_mlmon.instrumentation.decode.model_loading import ModelLoadTracker
from otel_mlmon.instrumentation.decode.observations import make_call_decoder
from otel_mlmon.instrumentation.decode.waiting_calls import WaitingCallReader
from otel_mlmon.instrumentation.export.providers import (
    SignalProviders,
    create_otel_resource,
    find_providers,
    has_host_providers,
    is_host_provider,
)
from otel_mlmon.instrumentation.export.signal_writers import SignalWriters, find_unavailable_reasons
from otel_mlmon.instrumentation.export.spans import SpanQueue, is_call_suppressed, make_context_reader, split_contexts
from otel_mlmon.instrumentation.queue.call_queue import CallQueue, WorkerThread, make_interpreter_yield
from otel_mlmon.instrumentation.runtime.call import FIELDS, Load, SessionInfo, estimate_call_bytes
from otel_mlmon.instrumentation.runtime.runtime import MAX_LOADS, Capture, Instrumentation, instrument_all, undo_all
from otel_mlmon.instrumentation.sentry.tracker import make_error_tracker
from otel_mlmon.instrumentation.settings import InstrumentationSettings, ModelOptions
from otel_mlmon.instrumentation.status import Status, count_failures
from otel_mlmon.internal_events import JOURNAL, RecordsDropped
from otel_mlmon.types import ModelKey

MAX_CACHED: Final = 1024
"""Models whose options, and sessions whose models, are cached at most: the latest used ones."""

COLLECT_WAIT_S: Final = 1.0
"""Time that a collection of metrics waits for a drain that is under way."""

ROUND_WAIT_S: Final = 60.0
"""Time that a round of the worker thread waits for another drain."""

FORK_WAIT_S: Final = 5.0
"""Time that a fork waits for a drain that is under way, which takes milliseconds."""
IMPORT_WAIT_S: Final = 30.0
"""Time that a fork waits for the first drain, which imports the exporters: seconds on a machine under load."""


class InstrumentationPipeline:
    """Turns the inference calls of instrumented runtimes into metrics, spans and events.

    Args:
        settings: The value of every option.
        rng: Chooses the calls that get spans and events.
    """

    _writers: SignalWriters | None

    def __init__(self, settings: InstrumentationSettings, *, rng: random.Random | None = None) -> None:
        self.settings = settings
        self._options_for = functools.lru_cache(MAX_CACHED)(settings.find_model_options)
        self._model_of = functools.lru_cache(MAX_CACHED)(self._identify_model)
        self._rng = rng or random.Random()  # noqa: S311 - a choice of samples, not a secret
        self.on_client: Callable[[], object] = lambda: None
        """Called where the application has initialised an error tracker, which then ends before us at exit."""
        self._worker = WorkerThread(work=self._run_worker_round, interval_s=settings.flush_interval_s)
        self._queue = CallQueue(
            fields=FIELDS,
            max_records=settings.buffer_records,
            max_bytes=settings.buffer_bytes,
            attend=self._worker.wake_for_call,
            weigh=estimate_call_bytes,
        )
        self._error_tracker = make_error_tracker(
            settings,
            read_context=make_context_reader(),
            read_waiting=lambda *arguments: self._waiting.read_waiting_calls(*arguments),
            model_of=self._find_model_key,
            rng=self._rng,
            on_client=lambda: self.on_client(),
        )
        self._loads: collections.deque[Load] = collections.deque(maxlen=MAX_LOADS)
        capture = Capture(
            sink=self._queue,
            loads=self._loads,
            context_reader=self._error_tracker.find_context_reader,
            model_name=settings.find_declared_name,
            has_output_function=lambda session: callable(self._find_options(session).output_kind),
            samples_device_outputs=lambda session: self._find_options(session).device_outputs == "sample",
            allows_telemetry=settings.onnxruntime_telemetry,
        )
        for stage in list_guards():
            stage.reset_stage()
        self.before_round: Callable[[], object] = lambda: None
        """Called at the beginning of each round of the worker thread."""
        self._is_closed: bool = False
        self._resource: Any = None
        self._reset_state()
        arguments = (settings.tracer_provider, settings.meter_provider, settings.logger_provider)
        with guard("signals"):
            if has_host_providers() or None not in arguments:
                # The application's metric readers may collect before the first round of the worker thread.
                self._make_writers()
            else:
                self._resource = create_otel_resource()
        self._runtimes: dict[str, Instrumentation] = instrument_all(capture)

    def add_model_options(self, models: Mapping[str, ModelOptions]) -> None:
        """Adds the developer's options of further models, before these run."""
        self.settings.models.update(models)
        self._options_for.cache_clear()
        self._model_of.cache_clear()

    def drain_queue(self, timeout_s: float = COLLECT_WAIT_S, *, may_hold: bool = True) -> bool:
        """Decodes the waiting inference calls and writes their metrics."""
        if not self.drain_lock.acquire(timeout=max(0.0, timeout_s)):
            return False
        try:
            if self._is_closed or self._has_recorded_nothing():
                return True
            with guard("signals"):
                writers = self._make_writers()
                writers.adopt_meter_provider()
                pause = make_interpreter_yield(lambda: self._waiting.is_awaited or self._queue.is_nearly_full())
                self._decode_waiting_calls(ROUND_WAIT_S, pause)
                self._write_metrics(writers, may_hold=may_hold)
        finally:
            self.drain_lock.release()
        return True

    def flush(self, timeout_s: float, *, with_host: bool = False) -> bool:
        """Exports everything recorded so far; returns whether that was done within the time.

        Args:
            timeout_s: Seconds.
            with_host: Whether the application's own providers are flushed too.
        """
        deadline_s = time.monotonic() + timeout_s
        is_done = self.drain_queue(timeout_s, may_hold=False) and self._send_spans(deadline_s - time.monotonic())
        if self._error_tracker.is_active:
            self._error_tracker.flush_calls(deadline_s - time.monotonic())
        if self._writers is None or not is_done:
            return is_done
        return self._writers.providers.flush_providers(deadline_s - time.monotonic(), with_host=with_host)

    def flush_to_provider(self, provider: object) -> None:
        """Writes all waiting signals to one of the application's providers that is about to be flushed."""
        if self._is_closed or self._worker.is_current or not is_host_provider(provider, self.settings, self._providers):
            return
        self.drain_queue(may_hold=False)
        self._send_spans(COLLECT_WAIT_S)

    def uninstrument(self) -> bool:
        """Restores the methods of every runtime; returns whether all of them could be restored."""
        runtimes, self._runtimes = self._runtimes, {}
        return undo_all(runtimes)

    def shutdown(self, timeout_s: float, *, is_exit: bool = False, with_host: bool = False) -> bool:
        """Uninstruments, exports the remaining calls, and ends the worker thread and our own providers.

        Args:
            timeout_s: How long that may take.
            is_exit: Whether the process ends, and what the application uses flushes by itself after us.
            with_host: Whether the application's own providers are flushed too.

        Returns:
            Whether it was done within the time.
        """
        deadline_s = time.monotonic() + timeout_s
        self.uninstrument()
        is_done = self._worker.stop_thread(timeout_s)
        self._queue.close()
        is_done = is_done and self.drain_queue(deadline_s - time.monotonic(), may_hold=False)
        is_done = self._send_spans(deadline_s - time.monotonic()) and is_done
        if not is_exit:
            self._error_tracker.flush_calls(deadline_s - time.monotonic())
        if self._writers is not None:
            is_done = self._writers.shut_down_providers(deadline_s - time.monotonic(), with_host=with_host) and is_done
        self._error_tracker.close_tracker(deadline_s - time.monotonic(), is_exit=is_exit)
        self._is_closed, self._writers = True, None
        return is_done

    def status(self) -> Status:
        """Returns the state of the instrumentation, for the application to read."""
        reasons = find_unavailable_reasons(writers := self._writers, is_closed=self._is_closed)
        return Status(
            is_active=bool(self._runtimes),
            patched_methods={name: runtime.methods for name, runtime in self._runtimes.items()},
            active_sessions=len(self._list_sessions()),
            waiting_calls=len(self._queue),
            recorded_calls=self._recorded_calls,
            suppressed_calls=self._suppressed_calls,
            dropped_calls=self._count_dropped_calls(),
            dropped_span_batches=self._span_queue.dropped_batches,
            failures=count_failures(),
            bulk_unavailable_reason=reasons.bulk,
            exemplars_unavailable_reason=reasons.exemplars,
            metric_readers=writers.describe_metric_readers() if writers else {},
            owned_providers=tuple(type(provider).__name__ for provider in writers.providers.own) if writers else (),
            findings=self._findings.list_findings(),
            outputs=self._findings.outputs.list_reports(),
            sentry_mode=self._error_tracker.mode,
        )

    def list_fork_locks(self) -> dict[threading.Lock, float]:
        """Returns the locks to hold while the process forks, and how many seconds to wait for each at most."""
        drain_s = FORK_WAIT_S if self._writers is not None else IMPORT_WAIT_S
        return {self.drain_lock: drain_s, self._send_lock: COLLECT_WAIT_S}

    def reset_after_fork(self) -> None:
        """Resets the instrumentation in a forked child, without the calls and locks of its parent."""
        if self._writers is not None:
            self._writers.close_metrics()
        self._queue.reset()
        self._worker.reset_thread()
        self._loads.clear()
        JOURNAL.reset_totals()
        self._error_tracker.reset_calls()
        self._reset_state()

    def _reset_state(self) -> None:
        """Sets the state of a process that has recorded nothing yet."""
        self.drain_lock = threading.Lock()
        """Held while calls are decoded and their metrics written."""
        self._count_lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._decode_stage = guard("record")
        self._findings = ModelFindings(self.settings.models)
        vocabularies = make_model_vocabularies(
            self.settings.max_labels, self._options_for, on_full=self._findings.note_full_vocabulary
        )
        self._aggregator = PredictionAggregator(admit=vocabularies.limit_names, settles=vocabularies.is_naming_possible)
        self._span_queue = SpanQueue()
        self._load_tracker = ModelLoadTracker(
            self._loads, is_suppressed=is_call_suppressed, options=self._options_for, findings=self._findings
        )
        limit, findings = self.settings.max_features, self._findings
        make = functools.partial(make_call_decoder, options=self._options_for, max_features=limit, findings=findings)
        self._decoders = DecoderCache(make, on_new=lambda plan: self._load_tracker.announce_session(plan.session))
        # Its lock is taken inside `drain_lock`, or alone at the end of a request, which cannot wait for an exporter.
        self._waiting = WaitingCallReader(
            self._queue,
            decode=self._decode_chunk,
            decoders=self._decoders,
            options=self._options_for,
            is_suppressed=is_call_suppressed,
            wake=self._worker.wake_thread,
            loads=self._loads,
        )
        self._recorded_calls = self._suppressed_calls = 0
        self._reported_drops: dict[str, int] = {}
        self._providers: SignalProviders | None = None
        self._writers = None

    def _run_worker_round(self) -> None:
        with guard("host_hooks"):
            self.before_round()
        with guard("sentry"):
            self._waiting.read_model_graphs()  # before exporters are imported: the end of a request may wait for it
            self._error_tracker.adopt_client()
            for runtime in self._runtimes.values():
                runtime.renew_context()
        self.drain_queue(ROUND_WAIT_S)
        self._send_spans(timeout_s=0.0)

    def _has_recorded_nothing(self) -> bool:
        """Returns whether no inference call and no load of a model was recorded in this process."""
        return self._writers is None and not self._queue and not self._loads and not self._count_dropped_calls()

    def _decode_waiting_calls(self, timeout_s: float, pause: Callable[[], object] = lambda: None) -> None:
        """Decodes the calls that were queued at the start, and no later ones, so that it ends in a busy process."""
        deadline_s = time.monotonic() + timeout_s
        for _ in range(max(1, -(-len(self._queue) // CHUNK_CALLS))):
            if not self._waiting.lock.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
                return
            try:
                self._decode_chunk(self._queue.take_calls, CHUNK_CALLS, pause)
            finally:
                self._waiting.lock.release()

    def _decode_chunk(self, take: Callable[[int], list[Any]], limit: int, pause: Callable[[], object]) -> None:
        # The loads first: the sessions were created before their calls.
        if self._loads:
            with guard("model_events"):
                self._load_tracker.take_queued_loads()
        batches, suppressed = take_call_batches(take, limit, is_suppressed=is_call_suppressed, pause=pause)
        self._suppressed_calls += suppressed
        for batch in batches:
            calls, is_recorded = len(batch.errors), False
            with self._decode_stage:
                if self._decode_stage.is_open:
                    self._drop_calls("switched_off", calls)
                    continue
                predictions = self._decoders.decode_batch(batch)
                contexts, tracker_contexts = split_contexts(predictions.contexts)
                predictions = dataclasses.replace(predictions, contexts=contexts)
                self._aggregator.add_predictions(predictions)
                self._recorded_calls += calls
                is_recorded = True
                if self._error_tracker.is_active:
                    self._error_tracker.store_child_spans(predictions, tracker_contexts)
                self._span_queue.push_uncounted_batch(predictions, tracker_contexts)
            if not is_recorded:
                self._drop_calls("unreadable", calls)

    def _drop_calls(self, reason: str, count: int) -> None:
        with self._count_lock:
            for _ in range(count):
                self._queue.drop(reason)

    def _count_dropped_calls(self) -> dict[str, int]:
        with self._count_lock:
            return dict(self._queue.read_drop_counts())

    def _write_metrics(self, writers: SignalWriters, *, may_hold: bool) -> None:
        with self._waiting.lock:
            loads = self._load_tracker.take_load_durations() if self._load_tracker.unmeasured else []
            snapshots = self._aggregator.take_snapshots(may_hold=may_hold)
            batches = self._span_queue.pop_uncounted_batches()
        writers.write_metrics(snapshots, [(load.model.model_key, load.duration_s, load.error_type) for load in loads])
        self._span_queue.push_ready_batches(batches)
        for reason, total in self._count_dropped_calls().items():
            if count := total - self._reported_drops.get(reason, 0):
                self._reported_drops[reason] = total
                JOURNAL.emit_event(RecordsDropped(reason=reason, count=count))

    def _send_spans(self, timeout_s: float) -> bool:
        """Writes the spans and events of decoded calls; returns whether that was done in time."""
        # Outside any lock that a collection of metrics waits for: the application's span processors may block.
        writers = self._writers
        if writers is None:
            return True
        if not self._send_lock.acquire(timeout=max(0.0, timeout_s)):
            return False
        try:
            writers.adopt_tracer_and_logger()
            offset_ns = time.time_ns() - time.perf_counter_ns()
            if self._load_tracker.unannounced:
                with guard("model_events"):
                    for load in self._load_tracker.take_load_announcements():
                        writers.write_model_events(load, offset_ns=offset_ns)
            if batches := list(iter(self._span_queue.pop_ready_batch, None)):
                writers.write_spans_and_events(batches, offset_ns=offset_ns)
        finally:
            self._send_lock.release()
        return True

    def _make_writers(self) -> SignalWriters:
        if self._writers is None:
            # Stored by itself: what fails after it is tried again at the next round, without more exporters' threads.
            self._providers = self._providers or find_providers(self.settings, base=self._resource, environ=os.environ)
            self._writers = SignalWriters(
                self._providers,
                self.settings,
                options=self._options_for,
                drain=self.drain_queue,
                sessions=lambda: map(self._model_of, self._list_sessions()),
                error_tracker=self._error_tracker,
                rng=self._rng,
            )
        return self._writers

    def _list_sessions(self) -> list[SessionInfo]:
        return [session for runtime in self._runtimes.values() for session in runtime.sessions()]

    def _find_model_key(self, source: object) -> ModelKey | None:
        """Returns the model of a session object, or the one whose call raised an exception; else None.

        Runs on: the host's thread too, so that no file is read.
        """
        infos = (runtime.session_of(source) for runtime in self._runtimes.values())
        return next((self._identify_model(info, may_read=False) for info in infos if info is not None), None)

    def _find_options(self, session: SessionInfo, *, may_read: bool = False) -> ModelOptions:
        return self._options_for(find_model_name(session, may_read=may_read))

    def _identify_model(self, session: SessionInfo, *, may_read: bool = True) -> ModelKey:
        version = self._find_options(session, may_read=may_read).version
        separate = self._findings.separate_version
        return identify_model(session, version=version, may_read=may_read, separate=separate).model_key
