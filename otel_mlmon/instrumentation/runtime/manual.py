"""`observe()`: reports predictions of any model from Python code.

The host's thread copies the values into the queue that calls of onnxruntime go into, and nothing more; what they mean
is decided on the worker thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, overload

from otel_mlmon.guard import guard
from otel_mlmon.instrumentation.runtime.call import (
    DROP_FAULT,
    DROP_OFF,
    FIELDS,
    OBSERVED_INPUTS,
    OBSERVED_OUTPUTS,
    RECORD_BYTES,
    Plan,
    SessionInfo,
)
from otel_mlmon.instrumentation.runtime.runtime import Capture
from otel_mlmon.instrumentation.runtime.values import (
    SMALL_BYTES,
    UNREADABLE,
    Features,
    Outcome,
    copy_observed_features,
    copy_observed_outcome,
    copy_readable_values,
    estimate_observed_bytes,
    is_small_outcome,
    to_nanoseconds,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

OPERATION: Final = "observe"
DEFAULT_RUNTIME: Final = "manual"

MAX_MODELS: Final = 1024
"""The largest number of models, versions and runtimes that are distinguished; beyond it the oldest is evicted."""

_NOTHING: Final = (None, None, None, None)
"""The outcome of a call of which only the times are recorded."""

MAX_FAILURES: Final = 64
"""Exceptions out of blocks whose model is known, the latest ones: an error tracker asks for it at once."""

ModelId: TypeAlias = tuple[str, str, str]
"""The model's name and version, and the name of its runtime."""


class Prediction:
    """A prediction that the `with` block of `observe()` is making; assign the model's outputs to its attributes.

    The block's duration is the call's. An exception inside makes it a failed call, and is raised on untouched.
    """

    __slots__ = ("_model", "_started_ns", "confidence", "features", "label", "scores", "value")

    def __init__(self, model: ModelId, features: Features | None) -> None:
        self._model = model
        self._started_ns = 0
        self.label: ArrayLike | None = None
        """The class, or one a row of a batch."""
        self.confidence: ArrayLike | None = None
        """Probability of the label, within [0, 1]; or one a row."""
        self.value: ArrayLike | None = None
        """The number that a regression gives; or one a row."""
        self.scores: ArrayLike | None = None
        """A probability or score a class, shape (k,), or (n, k) of a batch."""
        self.features: Features | None = features
        """Numbers and texts by name; or a sequence of them a name, one a row."""

    def __enter__(self) -> Prediction:
        self._started_ns = time.perf_counter_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended_ns = time.perf_counter_ns()
        recorder = _ActiveRecorder.recorder
        if recorder is None:
            return
        if error is None:
            outcome = (self.label, self.confidence, self.value, self.scores)
            recorder.record(self._model, self._started_ns, ended_ns, None, self.features, outcome)
        else:
            recorder.record_failure(self._model, self._started_ns, ended_ns, error)


class _BlockFailure(NamedTuple):
    """Remembers where an exception left the `with` block of `observe()`, and for which model."""

    place: tuple[CodeType, int]
    """The code and the line inside the block."""
    session: SessionInfo
    ended_ns: int


class _ActiveRecorder:
    """Holds the recorder of `observe()` in this process; None before `instrument()`."""

    recorder: ManualRecorder | None = None


@overload
def observe(
    model: str, *, features: Features | None = None, version: str = "", runtime: str = DEFAULT_RUNTIME
) -> Prediction: ...


@overload
def observe(
    model: str,
    *,
    label: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
    value: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    features: Features | None = None,
    duration_s: float | None = None,
    version: str = "",
    runtime: str = DEFAULT_RUNTIME,
) -> None: ...


def observe(
    model: str,
    *,
    label: ArrayLike | None = None,
    confidence: ArrayLike | None = None,
    value: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    features: Features | None = None,
    duration_s: float | None = None,
    version: str = "",
    runtime: str = DEFAULT_RUNTIME,
) -> Prediction | None:
    """Reports a prediction of any model, or a batch of predictions, from Python code.

    With any of `label`, `confidence`, `value`, `scores` and `duration_s` the prediction is recorded at once. Without
    them, the result is used in a `with` block, which measures how long the prediction takes:

        with otel_mlmon.observe("churn", version="3") as prediction:
            prediction.label = model.predict(row)

    Does nothing before `otel_mlmon.instrument()` is called. Runs on any thread, waits for nothing, and keeps faults in
    values from the caller: what cannot be read is left out, counted in `otel_mlmon.values.dropped`, and warned of once;
    the call is recorded without it. A call that finds the queue full is dropped and counted.

    Args:
        model: The model's name.
        label: The class predicted, a text or a number; or one a row of a batch. Texts leave as they are: in
            metrics at most `max_labels` different ones, in spans and events at most 1,000.
        confidence: The probability of the label, within [0, 1]; or one a row.
        value: The number that a regression predicts; or one a row.
        scores: A probability or score a class, shape (k,), or (n, k) of a batch; label and confidence follow from it
            where they are not given. `ModelOptions(labels=…)` names the classes.
        features: The inputs by name: a number, a text or a truth value each; or a sequence of them, one a row. Texts
            and truth values are categories.
        duration_s: How long the prediction took, in seconds, 0 or above; None if it was not measured.
        version: The model's version, which comes before that of `ModelOptions(version=…)`; empty for the latter.
        runtime: What runs the model, such as `sklearn`, `xgboost` or `torch`: the value of `ml.runtime.name`.

    Returns:
        The block to enter; None where the prediction is recorded.

    Raises:
        TypeError: `model` is not a text, or an argument has another name.
    """
    if not isinstance(model, str):
        raise TypeError(f"model must be a str, the model's name, not {type(model).__name__}")
    if label is None and confidence is None and value is None and scores is None and duration_s is None:
        return Prediction((model, version, runtime), features)
    recorder = _ActiveRecorder.recorder
    if recorder is not None:
        now_ns = time.perf_counter_ns()
        outcome = (label, confidence, value, scores)
        recorder.record((model, version, runtime), now_ns, now_ns, duration_s, features, outcome)
    return None


class ManualRuntime:
    """The runtime plug-in by which predictions reported by `observe()` are recorded."""

    def instrument(self, capture: Capture) -> ManualRecorder:
        """Starts to record the predictions that are reported by `observe()`."""
        recorder = _ActiveRecorder.recorder = ManualRecorder(capture)
        return recorder


class ManualRecorder:
    """Records the predictions that are reported by `observe()`.

    Runs on: the host's threads. Nothing waits, nothing raises to the host; what fails is counted and left out.

    Args:
        capture: Where calls go.
    """

    methods: tuple[str, ...] = ()

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._stage = guard("observe")
        self._plans: dict[ModelId, Plan] = {}
        self._sessions: dict[ModelId, SessionInfo] = {}
        self._failures: dict[int, _BlockFailure] = {}
        self.sessions = self._sessions.values
        """Lists the models observed so far."""
        self.renew_context()

    def session_of(self, source: object) -> SessionInfo | None:
        """Returns the model in whose `observe()` block an exception was raised; None for any other object."""
        failure = self._failures.get(id(source))
        traceback = getattr(source, "__traceback__", None)
        while failure is not None and traceback is not None:
            if (traceback.tb_frame.f_code, traceback.tb_lineno) == failure.place:
                return failure.session
            traceback = traceback.tb_next
        return None

    def renew_context(self) -> None:
        """Adopts the function that reads the trace context now, which may have changed since the last call."""
        self._context = self._capture.context_reader()
        self.record = self._make_record_function()

    def undo(self) -> bool:
        """Ends the recording of predictions that are reported by `observe()`."""
        if _ActiveRecorder.recorder is self:
            _ActiveRecorder.recorder = None
        return True

    def record_failure(self, model: ModelId, started_ns: int, ended_ns: int, error: BaseException) -> None:
        """Records that a block of `observe()` raised an exception: when, how long it took, the exception's class."""
        sink = self._capture.sink
        if self._stage.is_open:
            sink.drop(DROP_OFF)
            return
        try:
            plan, unreadable = self._find_model_plan(model)
            inputs: Any = (None, unreadable) if unreadable else ()
            call = (plan, started_ns, ended_ns, self._context(None), inputs, (), type(error).__qualname__)
            sink.offer(call, RECORD_BYTES)
            self._note_failure(error, plan.session, started_ns, ended_ns)
        except BaseException as fault:
            sink.drop(DROP_FAULT)
            if not self._stage.swallow(fault):
                raise

    def _make_record_function(self) -> Callable[..., None]:
        # Everything the hot path touches is a cell or a local: a global or an attribute costs 0.02 µs each.
        sink, context, stage, plans, add_plan, record_readable = (
            self._capture.sink, self._context, self._stage, self._plans, self._add_plan, self._record_readable_values,
        )  # fmt: skip
        queue, extend, offer, drop = sink.queue, sink.queue.extend, sink.offer, sink.drop
        length_limit = FIELDS * min(sink.high_water, sink.max_bytes // SMALL_BYTES)

        def record(
            model: ModelId,
            started_ns: int,
            ended_ns: int,
            duration_s: float | None,
            features: Features | None,
            outcome: Outcome,
        ) -> None:
            """Records a call; it took `duration_s` and ended at `ended_ns`, unless that is None."""
            if stage.is_open:
                drop(DROP_OFF)
                return
            try:
                plan = plans.get(model) or add_plan(model)
                if duration_s is not None:
                    started_ns = ended_ns - to_nanoseconds(duration_s)
                copies, is_small = copy_observed_features(features)
                if not is_small_outcome(outcome):
                    outcome = copy_observed_outcome(outcome)
                    is_small = is_small and is_small_outcome(outcome)
                call: Any = (plan, started_ns, ended_ns, context(None), (copies, None), outcome, None)
                if is_small and 0 < len(queue) < length_limit:
                    extend(call)
                else:
                    offer(call, estimate_observed_bytes(copies, outcome))
            except BaseException as error:
                if not record_readable(error, model, (started_ns, ended_ns, duration_s), features, outcome):
                    raise

        return record

    def _record_readable_values(
        self,
        error: BaseException,
        model: ModelId,
        times: tuple[int, int, float | None],
        features: Features | None,
        outcome: Outcome,
    ) -> bool:
        """Records those values of an `observe()` call that can be read, where one raised `error`; at least its times.

        Of an error that no value is known to raise no value is read again. `times` are start, end, and the duration
        that the host reported, None if it reported none.

        Returns:
            Whether the error is kept from the host.
        """
        stage, is_recorded, are_values = self._stage, False, isinstance(error, UNREADABLE)
        try:
            if not are_values and not stage.swallow(error):
                return False
            if are_values:
                with stage:
                    is_explained = self._queue_readable_values(model, times, features, outcome)
                    is_recorded = True
                    if not is_explained:
                        stage.swallow(error)
            if not is_recorded:
                with stage:
                    self._queue_readable_values(model, times, None, _NOTHING)
                    is_recorded = True
        finally:
            if not is_recorded:
                self._capture.sink.drop(DROP_FAULT)
        return True

    def _queue_readable_values(
        self, model: ModelId, times: tuple[int, int, float | None], features: Features | None, outcome: Outcome
    ) -> bool:
        """Queues an `observe()` call with those values that can be read; returns whether there were others."""
        plan, unreadable = self._find_model_plan(model)
        copies, outcome, counts = copy_readable_values(features, outcome)
        started_ns, ended_ns, duration_s = times
        try:
            started_ns = ended_ns - to_nanoseconds(duration_s) if duration_s is not None else started_ns
        except UNREADABLE:
            counts["duration_s"] = 1
        unreadable |= counts
        inputs: Any = (copies, unreadable or None)
        call: Any = (plan, started_ns, ended_ns, self._context(None), inputs, outcome, None)
        self._capture.sink.offer(call, estimate_observed_bytes(copies, outcome))
        return bool(unreadable)

    def _find_model_plan(self, model: ModelId) -> tuple[Plan, dict[str, int]]:
        """Returns the plan of a model, and which of version and runtime cannot be read, and are left out."""
        try:
            return self._plans.get(model) or self._add_plan(model), {}
        except TypeError:  # a list, say, is no key
            name, version, runtime = model
            texts = {"version": isinstance(version, str), "runtime": isinstance(runtime, str)}
            key = (name, version if texts["version"] else "", runtime if texts["runtime"] else DEFAULT_RUNTIME)
            plan = self._plans.get(key) or self._add_plan(key)
            return plan, {argument: 1 for argument, is_text in texts.items() if not is_text}

    def _note_failure(self, error: BaseException, session: SessionInfo, started_ns: int, ended_ns: int) -> None:
        """Remembers which model's block raised an exception, without holding the exception itself.

        Its identity may be another exception's by the time it is asked for, so the line that left the block is noted
        too: whatever is raised through that line comes through here. Of blocks within blocks the inner one counts.
        """
        traceback, earlier = error.__traceback__, self._failures.get(id(error))
        is_inner = earlier is not None and earlier.ended_ns >= started_ns and self.session_of(error) is not None
        if traceback is None or is_inner:
            return
        while len(self._failures) >= MAX_FAILURES:
            self._failures.pop(next(iter(self._failures)), None)
        self._failures[id(error)] = _BlockFailure((traceback.tb_frame.f_code, traceback.tb_lineno), session, ended_ns)

    def _add_plan(self, model: ModelId) -> Plan:
        name, version, runtime = model
        runtime_version = getattr(sys.modules.get(runtime), "__version__", "")
        session = SessionInfo(
            model_name=str(name),
            path="",
            graph_name="",
            metadata={},
            provider="",
            model_version=str(version),
            runtime_name=str(runtime) or DEFAULT_RUNTIME,
            runtime_version=runtime_version if isinstance(runtime_version, str) else "",
        )
        plan = Plan(
            session=session, operation=OPERATION, inputs=OBSERVED_INPUTS, outputs=OBSERVED_OUTPUTS, is_observed=True
        )
        while len(self._plans) >= MAX_MODELS:
            oldest = next(iter(self._plans))
            self._plans.pop(oldest, None)
            self._sessions.pop(oldest, None)
        plan = self._plans.setdefault(model, plan)
        self._sessions[model] = plan.session
        return plan


RUNTIME: Final = ManualRuntime()
