"""The wire contract: every attribute, metric, event and stream name that crosses it. Data only.

OpenTelemetry has no convention for classic machine-learning inference (semantic-conventions#3420 is open), so these
are the names most public code already uses, under `ml.`, all of stability *development*. Units are UCUM.
`docs/semconv.md` is generated from this file.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

SCOPE: Final = "otel_mlmon"
"""Instrumentation scope of the application half."""

PROCESSOR_SCOPE: Final = "otel_mlmon.processor"
"""Instrumentation scope of the processor's own output; the processor ignores it on input, so there are no loops."""

# ---- attributes
MODEL_NAME: Final = "ml.model.name"
MODEL_VERSION: Final = "ml.model.version"
MODEL_VERSION_BEFORE: Final = "ml.model.version.before"
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
SAMPLING_REASON: Final = "ml.sampling.reason"
SAMPLING_PROBABILITY: Final = "ml.sampling.probability"
PREDICTION_LABEL: Final = "ml.prediction.label"
PREDICTION_CONFIDENCE: Final = "ml.prediction.confidence"
PREDICTION_CONFIDENCE_MIN: Final = "ml.prediction.confidence.min"
OUTPUT_NAME: Final = "ml.output.name"
OUTPUT_KINDS: Final = "ml.output.kinds"
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
HOST_NAME: Final = "host.name"
TEXT_KEY_ID: Final = "ml.text.key_id"
DEPLOYMENT_ENVIRONMENT: Final = "deployment.environment.name"

OTHER: Final = "_OTHER"
"""The value that stands for labels or categories that are neither named nor counted in a bucket."""

MISSING: Final = "_MISSING"
"""The bin of values that are NaN, None or infinite."""

RUNTIME_ONNXRUNTIME: Final = "onnxruntime"

REFERENCE_METADATA_KEY: Final = "otel_mlmon.reference"
"""Key of a model's ONNX metadata whose value is its reference profile; `ml.model.reference` is that value, unread."""


class Attribute(NamedTuple):
    """Describes one attribute of the telemetry: its type, and when it is present."""

    name: str
    type: Literal["string", "double", "int"]
    when: str


SPAN_ATTRIBUTES: Final = (
    Attribute(MODEL_NAME, "string", "always"),
    Attribute(MODEL_VERSION, "string", "if known"),
    Attribute(RUNTIME_NAME, "string", "always; `onnxruntime`, or the argument `runtime` of `observe()`, else `manual`"),
    Attribute(RUNTIME_VERSION, "string", "if known"),
    Attribute(EXECUTION_PROVIDER, "string", "of `onnxruntime`"),
    Attribute(OPERATION_NAME, "string", "always; the method that ran, such as `run`, or `observe`"),
    Attribute(INFERENCE_DURATION, "double", "if measured; seconds"),
    Attribute(BATCH_SIZE, "int", "if known"),
    Attribute(OUTPUT_NAME, "string", "model of several heads: the output that label and confidence come from"),
    Attribute(PREDICTION_LABEL, "string", "classification of one row"),
    Attribute(PREDICTION_CONFIDENCE, "double", "classification; [0, 1]: of the row, or the mean over the batch"),
    Attribute(PREDICTION_CONFIDENCE_MIN, "double", "classification, batch above 1"),
    Attribute(ERROR_TYPE, "string", "the call failed; the span's status is ERROR"),
    Attribute(SAMPLING_REASON, "string", "in no trace: chosen as `failed` `slow` `unsure` `share` `chance`"),
    Attribute(
        SAMPLING_PROBABILITY, "double", "likewise: how likely it was chosen; figures are true weighted by 1 over it"
    ),
)
"""The attributes of a `predict {ml.model.name}` span. Scalars only: some back-ends cannot search arrays."""

RESOURCE_ATTRIBUTES: Final = (
    Attribute(SERVICE_INSTANCE_ID, "string", "of providers of our own, unless the environment has one: a new UUID"),
    Attribute(DEPLOYMENT_ENVIRONMENT, "string", "if set by the operator; part of the model's key in the processor"),
)
"""The resource attributes that this contract has a use for."""

# ---- metrics
Bounds = tuple[float, ...]

Instrument = Literal[
    "histogram", "exponential_histogram", "counter", "observable_counter", "observable_up_down_counter", "gauge"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Describes one metric: instrument, unit, bucket bounds, and attributes besides the model's name and version."""

    name: str
    instrument: Instrument
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    bounds: Bounds | None = None
    """Upper, inclusive bucket bounds, strictly increasing; only for explicit histograms."""


def _declare_metric(
    instrument: Instrument, name: str, unit: str, description: str, *attributes: str, bounds: Bounds | None = None
) -> Metric:
    return Metric(
        name=name, instrument=instrument, unit=unit, description=description, attributes=attributes, bounds=bounds
    )


_counter, _gauge = functools.partial(_declare_metric, "counter"), functools.partial(_declare_metric, "gauge")
_histogram = functools.partial(_declare_metric, "histogram")
_exponential_histogram = functools.partial(_declare_metric, "exponential_histogram")
_observable_counter = functools.partial(_declare_metric, "observable_counter")


def _compute_decade_bounds(first: int, last: int) -> Bounds:
    """Computes histogram bounds 1, 2.5 and 5 times each power of ten, from 10^first to 10^last."""
    steps = (f"{digit}e{exponent}" for exponent in range(first, last) for digit in ("1", "2.5", "5"))
    return (*map(float, steps), 10.0**last)


DURATION_BOUNDS_S: Final = _compute_decade_bounds(-5, 1)
"""10 µs … 10 s: the usual bounds begin at 5 ms, blind to small models."""
CONFIDENCE_BOUNDS: Final = (*(round(0.05 * step, 2) for step in range(1, 20)), 0.975, 0.99, 0.995, 0.999)
BATCH_SIZE_BOUNDS: Final = tuple(float(2**power) for power in range(11))

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
    "ml.predictions", "{prediction}", "Predictions by label; beyond K names in buckets.",
    PREDICTION_LABEL, OUTPUT_NAME, TEXT_KEY_ID,
)  # fmt: skip
UNCOUNTED: Final = _counter(
    "ml.prediction.uncounted", "{prediction}", "Rows without a label: not read, or without a number.", OUTPUT_NAME
)
CONFIDENCE: Final = _histogram(
    PREDICTION_CONFIDENCE, "1", "Confidence of a prediction.", OUTPUT_NAME, bounds=CONFIDENCE_BOUNDS
)
VALUE: Final = _exponential_histogram(
    "ml.prediction.value", "1", "Value of a regression, or length of an embedding, `<output>.norm`.", OUTPUT_NAME
)
ITEMS: Final = _histogram(
    "ml.output.items",
    "{item}",
    "Boxes, tokens or frames that a call gave, of detection and sequence outputs.",
    OUTPUT_NAME,
    bounds=(0.0, *(float(2**power) for power in range(17))),
)
ITEM_CONFIDENCE: Final = _histogram(
    "ml.output.item.confidence", "1", "Score of a box, token or frame.", OUTPUT_NAME, bounds=CONFIDENCE_BOUNDS
)
FEATURE: Final = _exponential_histogram(
    "ml.input.feature", "1", "Value of an input feature, or of an image's property.", FEATURE_NAME
)
MISSING_VALUES: Final = _counter("ml.input.missing", "{value}", "Inputs that are NaN, None or infinite.", FEATURE_NAME)
CATEGORY: Final = _counter(
    "ml.input.category",
    "{value}",
    "Values of a categorical input; beyond K names in buckets.",
    FEATURE_NAME,
    FEATURE_VALUE,
    TEXT_KEY_ID,
)
SAMPLES: Final = _counter("ml.input.samples", "{sample}", "Rows whose inputs were profiled.")
LOAD_DURATION: Final = _histogram(
    MODEL_LOAD_DURATION, "s", "Duration of creating a session.", ERROR_TYPE, bounds=_compute_decade_bounds(-3, 2)
)
SESSIONS: Final = _declare_metric(
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
    DURATION, BATCH, PREDICTIONS, UNCOUNTED, CONFIDENCE, VALUE, ITEMS, ITEM_CONFIDENCE, FEATURE, MISSING_VALUES,
    CATEGORY, SAMPLES, LOAD_DURATION, SESSIONS, RECORDS_DROPPED, VALUES_DROPPED, FAILURES,
)  # fmt: skip
"""The metrics that the application half emits."""


def _format_state_codes(states: Mapping[str, int]) -> str:
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
DRIFT_DETECTABLE: Final = _gauge(
    "ml.drift.detectable",
    "1",
    "Smallest total variation that would be found within a day with probability 0.9; 1 where none would be.",
    DRIFT_STREAM,
)
DRIFT_WINDOW_SIZE: Final = _gauge("ml.drift.window.size", "{value}", "Values in the rolling window.", DRIFT_STREAM)
DRIFT_STATES: Final[Mapping[str, int]] = {"ok": 0, "drift": 1, "learning": 2, "weak": 3, "no_data": 4, "error": 5}
"""The value of `ml.drift.state` in each state of a stream."""

DRIFT_STATE: Final = _gauge(
    "ml.drift.state", "{state}", f"State of a stream: {_format_state_codes(DRIFT_STATES)}.", DRIFT_STREAM
)

ALERT_STATES: Final[Mapping[str, int]] = {"ok": 0, "pending": 1, "firing": 2, "no_data": 3, "error": 4, "unknown": 5}
"""The value of `ml.alert.state` in each state of a rule."""

ALERT_STATE: Final = _gauge(
    "ml.alert.state", "{state}", f"State of a rule: {_format_state_codes(ALERT_STATES)}.", ALERT_RULE
)

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
    DRIFT_SCORE, DRIFT_EVIDENCE, DRIFT_DETECTABLE, DRIFT_WINDOW_SIZE, DRIFT_STATE, ALERT_STATE, ACCURACY, ACCURACY_LOW,
    ACCURACY_HIGH,
)  # fmt: skip
"""The metrics that the processor reports about models: at `/metrics`, and as OTLP where it forwards."""

PROCESSOR_INFO: Final = _gauge(
    "otel_mlmon.processor.info",
    "{processor}",
    "1; its attributes tell the processor from others, over its restarts.",
    SERVICE_INSTANCE_ID,
    HOST_NAME,
)
RECEIVED_POINTS: Final = _counter(
    "otel_mlmon.processor.received.points",
    "{point}",
    "Data points received: accepted, refused, ignored, loop_dropped or rejected.",
    OUTCOME,
)
REJECTED_POINTS: Final = _counter(
    "otel_mlmon.processor.rejected.points", "{point}", "Data points that were not counted, by reason.", REASON
)
RECEIVED_UNUSED: Final = _counter(
    "otel_mlmon.processor.received.unused", "{record}", "Log records and spans received and not used.", SIGNAL
)
REQUESTS_MALFORMED: Final = _counter(
    "otel_mlmon.processor.requests.malformed", "{request}", "Requests that could not be decoded."
)
REQUESTS_REFUSED: Final = _counter(
    "otel_mlmon.processor.requests.refused", "{request}", "Requests refused unread, by reason.", REASON
)
REQUESTS_REFUSED_BYTES: Final = _counter(
    "otel_mlmon.processor.requests.refused.bytes", "By", "Bytes of requests refused unread, by reason.", REASON
)
QUEUE_DURATION: Final = _gauge(
    "otel_mlmon.processor.queue.duration", "s", "Estimated time to work off the requests that are not answered yet."
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
POINTS_PENDING: Final = _gauge(
    "otel_mlmon.processor.points.pending", "{point}", "Data points that wait until their pane closes."
)
REFERENCES: Final = _counter(
    "otel_mlmon.processor.references", "{reference}", "Reference profiles that came with models, by outcome.", OUTCOME
)
ALERTS: Final = _counter(
    "otel_mlmon.processor.alerts", "{alert}", "Alerts passed to the notifiers, by rule and new state.", RULE, STATE
)
NOTIFICATIONS: Final = _counter(
    "otel_mlmon.processor.notifications", "{notification}", "Notifications by notifier and outcome.", NOTIFIER, OUTCOME
)
NOTIFICATIONS_PENDING: Final = _gauge(
    "otel_mlmon.processor.notifications.pending", "{notification}", "Notifications that wait to be delivered.", NOTIFIER
)
GAUGE_STREAMS_OMITTED: Final = _gauge(
    "otel_mlmon.processor.gauges.omitted",
    "{stream}",
    "Streams without gauges, since `limits.max_gauge_streams` others came first; they are monitored all the same.",
)

PROCESSOR_SELF_METRICS: Final = (
    PROCESSOR_INFO, RECEIVED_POINTS, REJECTED_POINTS, RECEIVED_UNUSED, REQUESTS_MALFORMED, REQUESTS_REFUSED,
    REQUESTS_REFUSED_BYTES, REQUESTS_DEAD_LETTERS, REQUESTS_PENDING, QUEUE_DURATION, WINDOW_POINTS, POINTS_PENDING,
    REFERENCES, ALERTS, NOTIFICATIONS, NOTIFICATIONS_PENDING, GAUGE_STREAMS_OMITTED, FAILURES,
)  # fmt: skip
"""The metrics that the processor reports about itself, at `/metrics`; running totals are counters."""

# ---- events
EVENT_PREDICTION: Final = "ml.prediction"
EVENT_MODEL_LOADED: Final = "ml.model.loaded"
EVENT_PROVIDER_FALLBACK: Final = "ml.execution_provider.fallback"
EVENT_INFERENCE_EXCEPTION: Final = "ml.inference.exception"
EVENT_ALERT: Final = "ml.alert"
EVENT_VERSION_CHANGED: Final = "ml.model.version_changed"

ALERT_ATTRIBUTES: Final = (
    "ml.alert.state", "ml.alert.previous", "ml.alert.severity", "ml.alert.fingerprint", "ml.alert.onset",
    "ml.alert.causes", "ml.alert.value", "ml.alert.bound", "ml.alert.reference", "ml.alert.current",
)  # fmt: skip
"""The attributes of `ml.alert` besides model, rule and stream."""

VERSION_PREDICTIONS: Final = "ml.model.version.predictions"
VERSION_MOVED: Final = "ml.model.version.moved"
VERSION_VALUE: Final = "ml.model.version.value"
VERSION_REFERENCE: Final = "ml.model.version.reference"
VERSION_CURRENT: Final = "ml.model.version.current"

# ---- streams
STREAM_LABEL: Final = "prediction.label"
STREAM_CONFIDENCE: Final = "prediction.confidence"
STREAM_VALUE: Final = "prediction.value"
STREAM_LATENCY: Final = "latency"
STREAM_ERRORS: Final = "errors"
STREAM_INPUT_PREFIX: Final = "input."

_IMAGE_PROPERTIES: Final = ("brightness", "contrast", "width", "height", "aspect_ratio")
IMAGE_FEATURES: Final = tuple(f"image.{name}" for name in _IMAGE_PROPERTIES)
"""The features that an image input is profiled by."""

CHANNEL_FEATURES: Final = tuple(f"image.channel_{index}" for index in range(3))
"""The mean of each of three colour channels, in the order of the input."""

COLOUR_FEATURES: Final = ("image.red", "image.green", "image.blue")
"""Their names where the model says which channel is which colour."""
