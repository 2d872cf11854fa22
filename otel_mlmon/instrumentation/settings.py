"""Every setting of the application half: one row an option, read by code and documentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.options import UNSET, Option, Origin, Unset, not_negative, parse_bool, positive, ratio, resolve
from otel_mlmon.types import OUTPUT_KINDS, OutputKind

OutputFunction = Callable[[dict[str, Any]], "tuple[object, object]"]
"""From copies of the outputs of one call, numpy arrays by name, to labels and confidences: a sequence each, or None."""

SentryMode = Literal["auto", "native", "otlp", "off"]

SENTRY_MODES: Final[tuple[SentryMode, ...]] = ("auto", "native", "otlp", "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """What the developer says of one model; everything left out is found from the model and its first calls.

    Raises:
        ConfigurationError: A value is not one of those named here.
    """

    version: str = ""
    scores: OutputKind | Mapping[str, OutputKind] | OutputFunction | None = None
    """What the output that holds the scores is; or what each named output is; or a function that reads them, run behind
    on copies."""
    labels: Sequence[str] = ()
    """Class names, in the order of the scores."""
    features: Sequence[str] = ()
    """Names of the columns of the inputs, in order."""
    categorical: Sequence[str] | None = None
    """Features whose values are categories although they are numbers; None to find out from the values."""
    latency_threshold_s: float | None = None
    """A slower call is always worth a span; above 0."""
    confidence_floor: float | None = None
    """A less confident prediction is unsure; within [0, 1]."""

    def __post_init__(self) -> None:
        said = None if callable(self.scores) else self.scores
        kinds = said.values() if isinstance(said, Mapping) else [said]
        faults = [
            f"scores must be one of {', '.join(OUTPUT_KINDS)}, got {kind!r}."
            for kind in kinds
            if kind not in (None, *OUTPUT_KINDS)
        ]
        if isinstance(self.labels, str) or isinstance(self.features, str) or isinstance(self.categorical, str):
            faults.append("labels, features and categorical must be lists of strings.")
        if self.latency_threshold_s is not None and positive(self.latency_threshold_s):
            faults.append(f"latency_threshold_s must be above 0, got {self.latency_threshold_s!r}.")
        if self.confidence_floor is not None and ratio(self.confidence_floor):
            faults.append(f"confidence_floor must be within 0 and 1, got {self.confidence_floor!r}.")
        if faults:
            raise ConfigurationError(*faults)


def _sentry_mode(value: str) -> str | None:
    return None if value in SENTRY_MODES else f"must be one of {', '.join(SENTRY_MODES)}"


def _at_least_one(value: float) -> str | None:
    return None if value >= 1 else "must be 1 or above"


def _above_zero(value: float) -> str | None:
    return None if value > 0 else "must be above 0"


OPTIONS: Final[tuple[Option[Any], ...]] = (
    Option(name="model_name", default="", parse=str, doc="Name of the model, if the process has one; else found."),
    Option(
        name="span_ratio",
        default=1.0,
        parse=float,
        check=ratio,
        doc="Share of calls outside any trace that get a span; failed, slow and unsure calls get one beyond it.",
    ),
    Option(
        name="spans_per_second",
        default=10.0,
        parse=float,
        check=not_negative,
        doc="Spans a second at most for calls outside any trace; failed, slow and unsure calls come first.",
    ),
    Option(
        name="events_per_second",
        default=10.0,
        parse=float,
        check=not_negative,
        doc="`ml.prediction` events a second at most, failed and unsure first; likewise `ml.inference.exception`.",
    ),
    Option(
        name="latency_threshold_s",
        default=math.inf,
        parse=float,
        check=_above_zero,
        doc="A call that takes longer is slow; so is one slower than the running 99th percentile.",
    ),
    Option(
        name="confidence_floor",
        default=0.5,
        parse=float,
        check=ratio,
        doc="A prediction of less confidence is unsure.",
    ),
    Option(
        name="max_labels",
        default=50,
        parse=int,
        check=_at_least_one,
        doc="Labels, and values of a category, that are counted by name; the rest is `_OTHER`.",
    ),
    Option(
        name="max_features",
        default=100,
        parse=int,
        check=not_negative,
        doc="Input features of a model that are profiled; the first ones. 0: no inputs are looked at.",
    ),
    Option(
        name="buffer_records",
        default=16_384,
        parse=int,
        check=_at_least_one,
        doc="Calls that wait to be aggregated at most; more are dropped and counted.",
    ),
    Option(
        name="buffer_bytes",
        default=16_777_216,
        parse=int,
        check=_at_least_one,
        doc="Bytes that those calls weigh at most.",
    ),
    Option(
        name="flush_interval_s",
        default=1.0,
        parse=float,
        check=positive,
        doc="How often the calls are aggregated; every collection of metrics does it too.",
    ),
    Option(
        name="shutdown_timeout_s",
        default=1.8,
        parse=float,
        check=not_negative,
        doc="How long the end of the process may wait for the last export; the interpreter's own end comes on top.",
    ),
    Option(
        name="sentry",
        default="auto",
        parse=str,
        check=_sentry_mode,
        doc="`native`: Sentry's tracing; `otlp`: OpenTelemetry's spans sent to Sentry; `off`; "
        "`auto`: `native` once Sentry is initialised or a DSN is known.",
    ),
    Option(
        name="sentry_traces_sample_rate",
        default=0.1,
        parse=float,
        check=ratio,
        doc="What Sentry's `traces_sample_rate` is raised to where it is None or 0; 0 or None: it is left alone.",
    ),
    Option(
        name="sentry_dsn",
        default="",
        parse=str,
        doc="Where Sentry is, if nobody has initialised it; else `SENTRY_DSN`.",
    ),
    Option(
        name="onnxruntime_telemetry",
        default=True,
        parse=parse_bool,
        doc="What onnxruntime itself sends to Microsoft from 1.29 on: true leaves it as it is, false switches it off "
        "from now on; only `ORT_DISABLE_TELEMETRY=1`, set before onnxruntime is imported, stops it from the start.",
    ),
)
"""Every option that an environment variable can set too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, resolved."""

    model_name: str | Callable[[Any], str]
    span_ratio: float
    spans_per_second: float
    events_per_second: float
    latency_threshold_s: float
    confidence_floor: float
    max_labels: int
    max_features: int
    buffer_records: int
    buffer_bytes: int
    flush_interval_s: float
    shutdown_timeout_s: float
    sentry: SentryMode
    sentry_traces_sample_rate: float
    sentry_dsn: str
    onnxruntime_telemetry: bool
    models: dict[str, ModelOptions] = field(default_factory=dict)
    """By the model's name; may grow while the process runs."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Where each value came from."""

    def of(self, model: str) -> ModelOptions:
        """What was said of one model, and of all where nothing was."""
        said = self.models.get(model, ModelOptions())
        return ModelOptions(
            **{
                **{each.name: getattr(said, each.name) for each in fields(ModelOptions)},
                "latency_threshold_s": said.latency_threshold_s
                if said.latency_threshold_s is not None
                else self._budget_s,
                "confidence_floor": self.confidence_floor if said.confidence_floor is None else said.confidence_floor,
            }
        )

    @property
    def _budget_s(self) -> float | None:
        return None if math.isinf(self.latency_threshold_s) else self.latency_threshold_s

    def differences(self, other: Settings) -> list[str]:
        """The options that `other` has from arguments, with another value than here; `models` aside."""
        return [
            option.name
            for option in OPTIONS
            if other.origins.get(option.name) == "argument"
            and getattr(other, option.name) != getattr(self, option.name)
        ]


def resolve_settings(
    arguments: Mapping[str, object],
    *,
    models: Mapping[str, ModelOptions] | None = None,
    environ: Mapping[str, str],
) -> Settings:
    """Settings from arguments, environment and defaults, in this order.

    Raises:
        ConfigurationError: Arguments are refused; carries every fault.
    """
    faults: list[str] = []
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for option in OPTIONS:
        argument = arguments.get(option.name, UNSET)
        if argument is None and option.name == "sentry_traces_sample_rate":
            argument = 0.0
        if fault := _type_fault(option, argument):
            faults.append(fault)
            continue
        try:
            resolved = resolve(option, argument=argument, environ=environ)
        except ConfigurationError as error:
            faults.extend(error.faults)
            continue
        values[option.name], origins[option.name] = resolved.value, resolved.origin
    for name, said in (models or {}).items():
        if type(said) is not ModelOptions:
            faults.append(f"models[{name!r}] must be ModelOptions, got {type(said).__name__}.")
    if faults:
        raise ConfigurationError(*faults)
    return Settings(**values, models=dict(models or {}), origins=origins)


def _type_fault(option: Option[Any], argument: object) -> str | None:
    if isinstance(argument, Unset) or (option.name == "model_name" and callable(argument)):
        return None
    wanted = (int, float) if isinstance(option.default, float) else type(option.default)
    if isinstance(argument, wanted) and isinstance(argument, bool) is isinstance(option.default, bool):
        return None
    return f"{option.name} must be of type {type(option.default).__name__}, got {argument!r}."
