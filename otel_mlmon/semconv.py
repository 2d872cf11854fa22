"""The wire contract: every attribute, metric, event and stream name that crosses it. Data only.

OpenTelemetry has no convention for classic machine-learning inference (semantic-conventions#3420 is open), so these
are the names most public code already uses, under `ml.`, all of stability *development*. Units are UCUM.
`docs/semconv.md` is generated from this file.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

SCOPE: Final = "otel_mlmon"
"""Instrumentation scope of the application half."""

PROCESSOR_SCOPE: Final = "otel_mlmon.processor"
"""Instrumentation scope of the processor's own output; the processor ignores it on input, so there are no loops."""

# ---------------------------------------------------------------- attributes

MODEL_NAME: Final = "ml.model.name"
MODEL_VERSION: Final = "ml.model.version"
MODEL_REFERENCE: Final = "ml.model.reference"
MODEL_FILE_SHA256: Final = "ml.model.file.sha256"
MODEL_LOAD_DURATION: Final = "ml.model.load.duration"
RUNTIME_NAME: Final = "ml.runtime.name"
RUNTIME_VERSION: Final = "ml.runtime.version"
EXECUTION_PROVIDER: Final = "ml.execution_provider"
EXECUTION_PROVIDERS: Final = "ml.execution_providers"
EXECUTION_PROVIDERS_REQUESTED: Final = "ml.execution_providers.requested"
OPERATION_NAME: Final = "ml.operation.name"
BATCH_SIZE: Final = "ml.batch.size"
INFERENCE_DURATION: Final = "ml.inference.duration"
PREDICTION_ID: Final = "ml.prediction.id"
PREDICTION_LABEL: Final = "ml.prediction.label"
PREDICTION_CONFIDENCE: Final = "ml.prediction.confidence"
PREDICTION_CONFIDENCE_MIN: Final = "ml.prediction.confidence.min"
OUTPUT_NAME: Final = "ml.output.name"
FEATURE_NAME: Final = "ml.feature.name"
FEATURE_VALUE: Final = "ml.feature.value"
ERROR_TYPE: Final = "error.type"
EXCEPTION_TYPE: Final = "exception.type"
DRIFT_STREAM: Final = "ml.drift.stream"
DRIFT_STATISTIC: Final = "ml.drift.statistic"
ALERT_RULE: Final = "ml.alert.rule"
REASON: Final = "reason"
STAGE: Final = "stage"
OUTCOME: Final = "outcome"
SIGNAL: Final = "signal"
NOTIFIER: Final = "notifier"
RULE: Final = "rule"
STATE: Final = "state"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
DEPLOYMENT_ENVIRONMENT: Final = "deployment.environment.name"

OTHER: Final = "_OTHER"
"""The value that stands for all labels or categories beyond the first K."""

MISSING: Final = "_MISSING"
"""The bin of values that are NaN, None or infinite."""

RUNTIME_ONNXRUNTIME: Final = "onnxruntime"

REFERENCE_METADATA_KEY: Final = "otel_mlmon.reference"
"""Key of a model's ONNX metadata whose value is its reference profile; `ml.model.reference` is that value, unread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One attribute: its type on the wire and when it is there."""

    name: str
    type: Literal["string", "double", "int"]
    when: str


SPAN_ATTRIBUTES: Final = (
    Attribute(name=MODEL_NAME, type="string", when="always"),
    Attribute(name=MODEL_VERSION, type="string", when="if known"),
    Attribute(name=RUNTIME_NAME, type="string", when="always; `onnxruntime`"),
    Attribute(name=RUNTIME_VERSION, type="string", when="always"),
    Attribute(name=EXECUTION_PROVIDER, type="string", when="always"),
    Attribute(name=OPERATION_NAME, type="string", when="always; the method that ran, such as `run`"),
    Attribute(name=INFERENCE_DURATION, type="double", when="always; seconds"),
    Attribute(name=BATCH_SIZE, type="int", when="if known"),
    Attribute(name=PREDICTION_LABEL, type="string", when="classification of one row"),
    Attribute(
        name=PREDICTION_CONFIDENCE,
        type="double",
        when="classification; [0, 1]: of the row, or the mean over the batch",
    ),
    Attribute(name=PREDICTION_CONFIDENCE_MIN, type="double", when="classification, batch above 1"),
    Attribute(name=ERROR_TYPE, type="string", when="the call failed; the span's status is ERROR"),
)
"""What a `predict {ml.model.name}` span carries. Scalars only: some back-ends cannot search arrays."""

# ---------------------------------------------------------------- metrics

Instrument = Literal[
    "histogram", "exponential_histogram", "counter", "observable_counter", "observable_up_down_counter", "gauge"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: instrument, unit, attributes besides the model's name and version, bucket bounds."""

    name: str
    instrument: Instrument
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] | None = None
    """Upper, inclusive bucket bounds, strictly increasing; only for explicit histograms."""


def _metric(
    instrument: Instrument,
    name: str,
    unit: str,
    description: str,
    *attributes: str,
    bounds: tuple[float, ...] | None = None,
) -> Metric:
    return Metric(
        name=name, instrument=instrument, unit=unit, description=description, attributes=attributes, bounds=bounds
    )


_counter = functools.partial(_metric, "counter")
_gauge = functools.partial(_metric, "gauge")
_histogram = functools.partial(_metric, "histogram")
_exponential_histogram = functools.partial(_metric, "exponential_histogram")
_observable_counter = functools.partial(_metric, "observable_counter")

DURATION_BOUNDS_S: Final = (
    *(float(f"{digit}e{exponent}") for exponent in range(-5, 1) for digit in ("1", "2.5", "5")),
    10.0,
)
"""1e-5 … 10 seconds in 1-2.5-5 steps: the usual defaults begin at 5 ms, blind to small models."""

CONFIDENCE_BOUNDS: Final = (*(round(0.05 * step, 2) for step in range(1, 20)), 0.975, 0.99, 0.995, 0.999)
BATCH_SIZE_BOUNDS: Final = tuple(float(2**power) for power in range(11))

LOAD_DURATION_BOUNDS_S: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
)
"""1 ms … 100 s in 1-2.5-5 steps."""

_SIGNED_BOUNDS = tuple(float(f"{digit}e{exponent}") for exponent in range(-4, 7) for digit in ("1", "2", "5"))
VALUE_BOUNDS: Final = (*(-bound for bound in reversed(_SIGNED_BOUNDS)), 0.0, *_SIGNED_BOUNDS)
"""For `exponential_histogram` metrics where the reader's owner set no exponential view: ±1e-4 … ±5e6."""

DURATION: Final = _histogram(
    INFERENCE_DURATION,
    "s",
    "Duration of an inference call, failed calls included.",
    ERROR_TYPE,
    bounds=DURATION_BOUNDS_S,
)
BATCH: Final = _histogram("ml.inference.batch.size", "{sample}", "Rows in an inference call.", bounds=BATCH_SIZE_BOUNDS)
PREDICTIONS: Final = _counter(
    "ml.predictions", "{prediction}", "Predictions by label; labels beyond the first K are `_OTHER`.", PREDICTION_LABEL
)
CONFIDENCE: Final = _histogram(
    PREDICTION_CONFIDENCE, "1", "Confidence of a prediction, the probability of its label.", bounds=CONFIDENCE_BOUNDS
)
VALUE: Final = _exponential_histogram(
    "ml.prediction.value",
    "1",
    "Value of a regression output, length of an embedding, or confidence of a further classification.",
    OUTPUT_NAME,
)
FEATURE: Final = _exponential_histogram(
    "ml.input.feature", "1", "Value of an input feature, or of an image's property.", FEATURE_NAME
)
MISSING_VALUES: Final = _counter(
    "ml.input.missing", "{value}", "Input values that are NaN, None or infinite.", FEATURE_NAME
)
CATEGORY: Final = _counter(
    "ml.input.category",
    "{value}",
    "Values of a categorical input; those beyond the first K are `_OTHER`.",
    FEATURE_NAME,
    FEATURE_VALUE,
)
SAMPLES: Final = _counter("ml.input.samples", "{sample}", "Rows whose inputs were profiled.")
LOAD_DURATION: Final = _histogram(
    MODEL_LOAD_DURATION, "s", "Duration of creating a session.", ERROR_TYPE, bounds=LOAD_DURATION_BOUNDS_S
)
SESSIONS: Final = _metric(
    "observable_up_down_counter", "ml.sessions.active", "{session}", "Sessions alive in this process."
)
RECORDS_DROPPED: Final = _observable_counter(
    "otel_mlmon.records.dropped",
    "{record}",
    "Inference calls not measured, by reason; of `exporter_blocked`, measured without span and event.",
    REASON,
)
VALUES_DROPPED: Final = _observable_counter(
    "otel_mlmon.values.dropped", "{value}", "Values of measured calls that no histogram took, by reason.", REASON
)
FAILURES: Final = _observable_counter(
    "otel_mlmon.failures",
    "{failure}",
    "Faults of this package that it kept from its host, by stage.",
    STAGE,
    ERROR_TYPE,
)

APPLICATION_METRICS: Final = (
    DURATION, BATCH, PREDICTIONS, CONFIDENCE, VALUE, FEATURE, MISSING_VALUES, CATEGORY, SAMPLES, LOAD_DURATION,
    SESSIONS, RECORDS_DROPPED, VALUES_DROPPED, FAILURES,
)  # fmt: skip
"""What the application half emits."""


def _explain(states: Mapping[str, int]) -> str:
    return ", ".join(f"{value} {state.replace('_', ' ')}" for state, value in states.items())


DRIFT_SCORE: Final = _gauge(
    "ml.drift.score",
    "{score}",
    "Value of a drift statistic of the rolling window against the reference.",
    DRIFT_STREAM,
    DRIFT_STATISTIC,
)
DRIFT_EVIDENCE: Final = _gauge(
    "ml.drift.evidence",
    "{decade}",
    "Evidence of drift: log10 of the e-value over the alarm line; 0 and above is an alarm.",
    DRIFT_STREAM,
)
DRIFT_WINDOW_COUNT: Final = _gauge("ml.drift.window.count", "{value}", "Values in the rolling window.", DRIFT_STREAM)
DRIFT_STATES: Final[Mapping[str, int]] = {"ok": 0, "drift": 1, "learning": 2, "weak": 3, "no_data": 4, "error": 5}
"""The value of `ml.drift.state` in each state of a stream."""

DRIFT_STATE: Final = _gauge("ml.drift.state", "{state}", f"State of a stream: {_explain(DRIFT_STATES)}.", DRIFT_STREAM)

ALERT_STATES: Final[Mapping[str, int]] = {"ok": 0, "pending": 1, "firing": 2, "no_data": 3, "error": 4}
"""The value of `ml.alert.state` in each state of a rule."""

ALERT_STATE: Final = _gauge("ml.alert.state", "{state}", f"State of a rule: {_explain(ALERT_STATES)}.", ALERT_RULE)

ACCURACY: Final = _gauge(
    "ml.model.accuracy.estimated",
    "1",
    "Expected share of right predictions in the rolling window, from confidences, without labels.",
)
ACCURACY_LOW: Final = _gauge(
    "ml.model.accuracy.estimated.low", "1", "Lower end of the 95 % interval of `ml.model.accuracy.estimated`."
)
ACCURACY_HIGH: Final = _gauge(
    "ml.model.accuracy.estimated.high", "1", "Upper end of the 95 % interval of `ml.model.accuracy.estimated`."
)

PROCESSOR_METRICS: Final = (
    DRIFT_SCORE, DRIFT_EVIDENCE, DRIFT_WINDOW_COUNT, DRIFT_STATE, ALERT_STATE, ACCURACY, ACCURACY_LOW,
    ACCURACY_HIGH,
)  # fmt: skip
"""What the processor reports of models: at `/metrics`, and as OTLP where it forwards."""

RECEIVED_POINTS: Final = _counter(
    "otel_mlmon.processor.received.points",
    "{point}",
    "Data points received: accepted, refused, ignored, loop_dropped or rejected.",
    OUTCOME,
)
REJECTED_POINTS: Final = _counter(
    "otel_mlmon.processor.rejected.points", "{point}", "Data points that break the data model, by reason.", REASON
)
RECEIVED_UNUSED: Final = _counter(
    "otel_mlmon.processor.received.unused",
    "{record}",
    "Log records and spans received, of which no use is made.",
    SIGNAL,
)
REQUESTS_MALFORMED: Final = _counter(
    "otel_mlmon.processor.requests.malformed", "{request}", "Requests that could not be decoded."
)
REQUESTS_REFUSED: Final = _counter(
    "otel_mlmon.processor.requests.refused",
    "{request}",
    "Requests refused before parsing, since too many bytes were in flight; senders send them again.",
)
REQUESTS_DEAD_LETTERS: Final = _counter(
    "otel_mlmon.processor.requests.dead_letters", "{request}", "Requests that failed twice and were put aside."
)
REQUESTS_PENDING: Final = _gauge(
    "otel_mlmon.processor.requests.pending", "By", "Bytes of requests that are not answered yet."
)
WINDOW_POINTS: Final = _counter(
    "otel_mlmon.processor.points", "{point}", "Data points that reached the windows, by what became of them.", OUTCOME
)
REFERENCES: Final = _counter(
    "otel_mlmon.processor.references",
    "{reference}",
    "Reference profiles that came with models, by what became of them.",
    OUTCOME,
)
ALERTS: Final = _counter(
    "otel_mlmon.processor.alerts", "{alert}", "Alerts handed to the notifiers, by rule and new state.", RULE, STATE
)
NOTIFICATIONS: Final = _counter(
    "otel_mlmon.processor.notifications", "{notification}", "Notifications by notifier and outcome.", NOTIFIER, OUTCOME
)
NOTIFICATIONS_PENDING: Final = _gauge(
    "otel_mlmon.processor.notifications.pending", "{notification}", "Notifications that wait to be delivered.", NOTIFIER
)

PROCESSOR_SELF_METRICS: Final = (
    RECEIVED_POINTS, REJECTED_POINTS, RECEIVED_UNUSED, REQUESTS_MALFORMED, REQUESTS_REFUSED,
    REQUESTS_DEAD_LETTERS, REQUESTS_PENDING, WINDOW_POINTS, REFERENCES, ALERTS, NOTIFICATIONS,
    NOTIFICATIONS_PENDING, FAILURES,
)  # fmt: skip
"""What the processor counts of itself, at `/metrics`; running totals are counters."""

# ---------------------------------------------------------------- events

EVENT_PREDICTION: Final = "ml.prediction"
EVENT_MODEL_LOADED: Final = "ml.model.loaded"
EVENT_PROVIDER_FALLBACK: Final = "ml.execution_provider.fallback"
EVENT_INFERENCE_EXCEPTION: Final = "ml.inference.exception"
EVENT_ALERT: Final = "ml.alert"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventKind:
    """One event, a log record with an event name."""

    name: str
    severity: Literal["INFO", "WARN", "ERROR"]
    when: str


EVENTS: Final = (
    EventKind(
        name=EVENT_PREDICTION,
        severity="INFO",
        when="the prediction log: model, label, confidence, trace context; rate-limited, unsure and failed first",
    ),
    EventKind(
        name=EVENT_MODEL_LOADED,
        severity="INFO",
        when="a session was created; `ml.model.reference` is the reference profile that the model carries, if any",
    ),
    EventKind(
        name=EVENT_PROVIDER_FALLBACK,
        severity="WARN",
        when="a session runs on another execution provider than the one asked for first",
    ),
    EventKind(
        name=EVENT_INFERENCE_EXCEPTION,
        severity="ERROR",
        when="a call failed: `exception.type` and the call's trace context, never the message; rate-limited",
    ),
    EventKind(name=EVENT_ALERT, severity="WARN", when="an alert changed its state"),
)

# ---------------------------------------------------------------- streams

STREAM_LABEL: Final = "prediction.label"
STREAM_CONFIDENCE: Final = "prediction.confidence"
STREAM_VALUE: Final = "prediction.value"
STREAM_LATENCY: Final = "latency"
STREAM_ERRORS: Final = "errors"
STREAM_INPUT_PREFIX: Final = "input."
"""A stream is what drift is looked for in; a feature's is `input.<feature>`."""

CONFIDENCE_EDGES: Final = tuple(step / 10 for step in range(1, 10))
"""10 equal bins that confidence is judged and calibrated in; they nest in `CONFIDENCE_BOUNDS`."""

# ---------------------------------------------------------------- image features

IMAGE_FEATURES: Final = (
    "image.brightness", "image.contrast", "image.width", "image.height", "image.aspect_ratio",
    "image.red", "image.green", "image.blue",
)  # fmt: skip
