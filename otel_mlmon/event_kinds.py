"""The events of the wire contract: name, severity, attributes, and when each is sent. Data only."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from otel_mlmon import semconv


class EventKind(NamedTuple):
    """Describes one kind of OpenTelemetry event, which is a log record with an event name."""

    name: str
    severity: Literal["INFO", "WARN", "ERROR"]
    when: str
    attributes: tuple[str, ...]
    """The attributes that it may carry; unknown ones are left out."""


_MODEL: Final = (semconv.MODEL_NAME, semconv.MODEL_VERSION)
_PROVIDERS: Final = (semconv.EXECUTION_PROVIDER, semconv.EXECUTION_PROVIDERS, semconv.EXECUTION_PROVIDERS_REQUESTED)

EVENTS: Final = (
    EventKind(
        semconv.EVENT_PREDICTION,
        "INFO",
        "the prediction log of calls, with their trace context; rate-limited, failed and unsure calls first",
        (
            *_MODEL,
            semconv.PREDICTION_ID,
            semconv.INFERENCE_DURATION,
            semconv.BATCH_SIZE,
            semconv.OUTPUT_NAME,
            semconv.PREDICTION_LABEL,
            semconv.PREDICTION_CONFIDENCE,
            semconv.PREDICTION_CONFIDENCE_MIN,
            semconv.ERROR_TYPE,
            semconv.SAMPLING_REASON,
            semconv.SAMPLING_PROBABILITY,
        ),
    ),
    EventKind(
        semconv.EVENT_MODEL_LOADED,
        "INFO",
        "a session was created; `ml.model.reference` is the reference profile that the model carries, if any; "
        "`ml.output.kinds` is what its file says each output is, as `label: labels (the class of the greatest score, "
        "by its operator ArgMax); …`",
        (
            *_MODEL,
            *_PROVIDERS,
            semconv.RUNTIME_NAME,
            semconv.RUNTIME_VERSION,
            semconv.MODEL_FILE_SHA256,
            semconv.MODEL_LOAD_DURATION,
            semconv.MODEL_REFERENCE,
            semconv.OUTPUT_KINDS,
        ),
    ),
    EventKind(
        semconv.EVENT_PROVIDER_FALLBACK,
        "WARN",
        "a session runs on another execution provider than the one asked for first",
        (*_MODEL, *_PROVIDERS),
    ),
    EventKind(
        semconv.EVENT_INFERENCE_EXCEPTION,
        "ERROR",
        "a call failed, with its trace context and never the exception's message; rate-limited",
        (
            *_MODEL,
            semconv.OPERATION_NAME,
            semconv.EXCEPTION_TYPE,
            semconv.SAMPLING_REASON,
            semconv.SAMPLING_PROBABILITY,
        ),
    ),
    EventKind(
        semconv.EVENT_ALERT,
        "WARN",
        "an alert changed its state; INFO once resolved, ERROR if critical; stream, value, bound, reference and "
        "current are those of the first cause",
        (*_MODEL, semconv.DEPLOYMENT_ENVIRONMENT, semconv.ALERT_RULE, semconv.DRIFT_STREAM, *semconv.ALERT_ATTRIBUTES),
    ),
    EventKind(
        semconv.EVENT_VERSION_CHANGED,
        "WARN",
        "the first 1,000 predictions of a new version were held against the version before; INFO if no difference was "
        "found; stream, value (the total variation), reference and current are those of the largest move",
        (
            *_MODEL,
            semconv.MODEL_VERSION_BEFORE,
            semconv.DEPLOYMENT_ENVIRONMENT,
            semconv.VERSION_PREDICTIONS,
            semconv.VERSION_MOVED,
            semconv.DRIFT_STREAM,
            semconv.VERSION_VALUE,
            semconv.VERSION_REFERENCE,
            semconv.VERSION_CURRENT,
        ),
    ),
)
