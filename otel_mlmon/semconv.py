"""The wire contract: every attribute, metric, event and stream name that crosses it. Data only.

OpenTelemetry has no convention for classic machine-learning inference (semantic-conventions#3420 is open), so these
are the names most public code already uses, under `ml.`, all of stability *development*. Units are UCUM.
`docs/semconv.md` is generated from this file.
"""

from __future__ import annotations

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


DURATION_BOUNDS_S: Final = (
    *(float(f"{digit}e{exponent}") for exponent in range(-5, 1) for digit in ("1", "2.5", "5")),
    10.0,
)
"""1e-5 … 10 seconds in 1-2.5-5 steps: the usual defaults begin at 5 ms, blind to small models."""

CONFIDENCE_BOUNDS: Final = (*(round(0.05 * step, 2) for step in range(1, 20)), 0.975, 0.99, 0.995, 0.999)
BATCH_SIZE_BOUNDS: Final = tuple(float(2**power) for power in range(11))

_SIGNED_BOUNDS = tuple(float(f"{digit}e{exponent}") for exponent in range(-4, 7) for digit in ("1", "2", "5"))
VALUE_BOUNDS: Final = (*(-bound for bound in reversed(_SIGNED_BOUNDS)), 0.0, *_SIGNED_BOUNDS)
"""For `exponential_histogram` metrics where the reader's owner set no exponential view: ±1e-4 … ±5e6."""

DURATION: Final = Metric(
    name=INFERENCE_DURATION,
    instrument="histogram",
    unit="s",
    description="Duration of an inference call, failed calls included.",
    attributes=(ERROR_TYPE,),
    bounds=DURATION_BOUNDS_S,
)
BATCH: Final = Metric(
    name="ml.inference.batch.size",
    instrument="histogram",
    unit="{sample}",
    description="Rows in an inference call.",
    bounds=BATCH_SIZE_BOUNDS,
)
PREDICTIONS: Final = Metric(
    name="ml.predictions",
    instrument="counter",
    unit="{prediction}",
    description="Predictions by label; labels beyond the first K are `_OTHER`.",
    attributes=(PREDICTION_LABEL,),
)
CONFIDENCE: Final = Metric(
    name=PREDICTION_CONFIDENCE,
    instrument="histogram",
    unit="1",
    description="Confidence of a prediction, the probability of its label.",
    bounds=CONFIDENCE_BOUNDS,
)
VALUE: Final = Metric(
    name="ml.prediction.value",
    instrument="exponential_histogram",
    unit="1",
    description="Value of a regression output, length of an embedding, or confidence of a further classification.",
    attributes=(OUTPUT_NAME,),
)
FEATURE: Final = Metric(
    name="ml.input.feature",
    instrument="exponential_histogram",
    unit="1",
    description="Value of an input feature, or of an image's property.",
    attributes=(FEATURE_NAME,),
)
MISSING_VALUES: Final = Metric(
    name="ml.input.missing",
    instrument="counter",
    unit="{value}",
    description="Input values that are NaN, None or infinite.",
    attributes=(FEATURE_NAME,),
)
CATEGORY: Final = Metric(
    name="ml.input.category",
    instrument="counter",
    unit="{value}",
    description="Values of a categorical input; those beyond the first K are `_OTHER`.",
    attributes=(FEATURE_NAME, FEATURE_VALUE),
)
SAMPLES: Final = Metric(
    name="ml.input.samples",
    instrument="counter",
    unit="{sample}",
    description="Rows whose inputs were profiled.",
)
LOAD_DURATION: Final = Metric(
    name=MODEL_LOAD_DURATION,
    instrument="histogram",
    unit="s",
    description="Duration of creating a session.",
    attributes=(ERROR_TYPE,),
    bounds=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0),
)
SESSIONS: Final = Metric(
    name="ml.sessions.active",
    instrument="observable_up_down_counter",
    unit="{session}",
    description="Sessions alive in this process.",
)
RECORDS_DROPPED: Final = Metric(
    name="otel_mlmon.records.dropped",
    instrument="observable_counter",
    unit="{record}",
    description="Inference calls not measured, by reason; of `exporter_blocked`, measured without span and event.",
    attributes=(REASON,),
)
VALUES_DROPPED: Final = Metric(
    name="otel_mlmon.values.dropped",
    instrument="observable_counter",
    unit="{value}",
    description="Values of measured calls that no histogram took, by reason.",
    attributes=(REASON,),
)
FAILURES: Final = Metric(
    name="otel_mlmon.failures",
    instrument="observable_counter",
    unit="{failure}",
    description="Faults of this package that it kept from its host, by stage.",
    attributes=(STAGE, ERROR_TYPE),
)

APPLICATION_METRICS: Final = (
    DURATION,
    BATCH,
    PREDICTIONS,
    CONFIDENCE,
    VALUE,
    FEATURE,
    MISSING_VALUES,
    CATEGORY,
    SAMPLES,
    LOAD_DURATION,
    SESSIONS,
    RECORDS_DROPPED,
    VALUES_DROPPED,
    FAILURES,
)
"""What the application half emits."""

DRIFT_SCORE: Final = Metric(
    name="ml.drift.score",
    instrument="gauge",
    unit="{score}",
    description="Value of a drift statistic of the rolling window against the reference.",
    attributes=(DRIFT_STREAM, DRIFT_STATISTIC),
)
DRIFT_EVIDENCE: Final = Metric(
    name="ml.drift.evidence",
    instrument="gauge",
    unit="{decade}",
    description="Evidence of drift: log10 of the e-value over the alarm line; 0 and above is an alarm.",
    attributes=(DRIFT_STREAM,),
)
DRIFT_WINDOW_COUNT: Final = Metric(
    name="ml.drift.window.count",
    instrument="gauge",
    unit="{value}",
    description="Values in the rolling window.",
    attributes=(DRIFT_STREAM,),
)
ALERT_STATE: Final = Metric(
    name="ml.alert.state",
    instrument="gauge",
    unit="{state}",
    description="State of a rule: 0 ok, 1 pending, 2 firing, 3 no data, 4 error.",
    attributes=(ALERT_RULE,),
)

ACCURACY: Final = Metric(
    name="ml.model.accuracy.estimated",
    instrument="gauge",
    unit="1",
    description="Expected share of right predictions in the rolling window, from confidences, without labels.",
)
ACCURACY_LOW: Final = Metric(
    name="ml.model.accuracy.estimated.low",
    instrument="gauge",
    unit="1",
    description="Lower end of the 95 % interval of `ml.model.accuracy.estimated`.",
)
ACCURACY_HIGH: Final = Metric(
    name="ml.model.accuracy.estimated.high",
    instrument="gauge",
    unit="1",
    description="Upper end of the 95 % interval of `ml.model.accuracy.estimated`.",
)

PROCESSOR_METRICS: Final = (
    DRIFT_SCORE,
    DRIFT_EVIDENCE,
    DRIFT_WINDOW_COUNT,
    ALERT_STATE,
    ACCURACY,
    ACCURACY_LOW,
    ACCURACY_HIGH,
)
"""What the processor sends on."""

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
    "image.brightness",
    "image.contrast",
    "image.width",
    "image.height",
    "image.aspect_ratio",
    "image.red",
    "image.green",
    "image.blue",
)
