"""The settings of the instrumentation: one field of `InstrumentationSettings` is one option of `instrument()`.

From these fields follow the signature and the documentation of `instrument()`, its environment variables,
docs/settings.md, `otel-mlmon settings` and the section of OpenTelemetry's configuration file.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, make_dataclass, replace
from typing import Any, Final, Literal, TypeVar, cast, get_args

from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from otel_mlmon.errors import ConfigurationError
from otel_mlmon.guard import guard
from otel_mlmon.options import (
    DAY_S,
    Origin,
    check_duration,
    check_not_negative,
    check_ratio,
    declare_option,
    is_real_number,
    list_options,
    resolve_option,
    warn_of_unknown_variables,
)
from otel_mlmon.types import OUTPUT_KINDS, OutputKind

S = TypeVar("S")

OutputFunction = Callable[[dict[str, Any]], "tuple[object, object]"]
"""Reads the outputs of one call: from copies of them, numpy arrays by name, to labels and confidences, a sequence each
or None."""

TextMode = Literal["hash", "keep"]

TEXT_MODES: Final[tuple[TextMode, ...]] = get_args(TextMode)

SentryMode = Literal["auto", "native", "otlp", "off"]

_PROVIDER_METHODS: Final = {
    "tracer_provider": "get_tracer",
    "meter_provider": "get_meter",
    "logger_provider": "get_logger",
}

SENTRY_MODES: Final[tuple[SentryMode, ...]] = get_args(SentryMode)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """The options of one model; what the developer leaves out is inferred from the model and its first calls.

    Raises:
        ConfigurationError: A value is not one of those named here.
    """

    version: str = ""
    output_kind: OutputKind | Mapping[str, OutputKind] | OutputFunction | None = None
    """The kind of the output that holds the scores; or of each output by name; or a function that reads copies of the
    outputs, on the worker thread."""
    labels: Sequence[str] = ()
    """Class names, in the order of the scores."""
    features: Sequence[str] = ()
    """Names of the columns of the inputs, in order."""
    categorical: Sequence[str] | None = None
    """Features whose values are categories although they are numbers; None to infer them from the values."""
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Values of features that leave the process as they are, by feature; they make it one of categories."""
    keep_text: Sequence[str] = ()
    """Features whose texts all leave as they are."""
    text: TextMode | None = None
    """How texts that nobody declared leave the process; None for the option of the same name."""
    text_key: str | None = None
    """The key of their buckets; None for the option of the same name."""
    latency_threshold_s: float | None = None
    """A slower call always gets a span; above 0."""
    confidence_floor: float | None = None
    """A prediction of less confidence is unsure; within [0, 1]."""
    device_outputs: Literal["never", "sample"] = "never"
    """Outputs that stay in a device's memory, by IOBinding or as `OrtValue`: never read, or `sample`: those of at most
    64 KiB are copied to the host, of at most ten calls a second a session, which waits for the device: not for
    processes that capture CUDA graphs while they serve. Calls that leave the device at work are never read."""

    def __post_init__(self) -> None:
        faults: list[str] = []
        version: object = self.version
        if not isinstance(version, str):
            faults.append(f"version must be of type str, got {version!r}.")
        faults.extend(_find_output_kind_faults(self.output_kind))
        for name in ("labels", "features", "categorical", "keep_text"):
            value = getattr(self, name)
            if name == "categorical" and value is None:
                continue
            names, fault = _read_name_list(value, is_unique=name != "labels")
            if fault:
                faults.append(f"{name} {fault}")
            object.__setattr__(self, name, names)
        for name, check in (("latency_threshold_s", _check_above_zero), ("confidence_floor", check_ratio)):
            value = getattr(self, name)
            if value is None:
                continue
            value_fault = check(float(value)) if is_real_number(value) else "must be of type float"
            if value_fault:
                faults.append(f"{name} {value_fault}, got {value!r}.")
            else:
                object.__setattr__(self, name, float(value))
        faults.extend(self._read_text_options())
        if self.device_outputs not in ("never", "sample"):
            faults.append(f"device_outputs must be never or sample, got {self.device_outputs!r}.")
        if faults:
            raise ConfigurationError(*faults)

    def _read_text_options(self) -> Iterable[str]:
        """Reads the options that decide how texts are exported, and yields their faults."""
        mapping, key = cast("object", self.categories), cast("object", self.text_key)
        if self.text not in (None, *TEXT_MODES):
            yield f"text must be one of {', '.join(TEXT_MODES)}, got {self.text!r}."
        if key is not None and not isinstance(key, str):
            yield f"text_key must be of type str, got {type(key).__name__}."
        if not isinstance(mapping, Mapping):
            yield f"categories must be lists of strings by feature, got {mapping!r}."
            return
        categories = {feature: _read_name_list(values, is_unique=True) for feature, values in mapping.items()}
        yield from (f"categories of {feature!r} {fault}" for feature, (_, fault) in categories.items() if fault)
        object.__setattr__(self, "categories", {feature: names for feature, (names, _) in categories.items()})


def _find_output_kind_faults(kind: Any) -> Iterable[str]:
    if isinstance(kind, Mapping):
        names = [name for name in kind if not isinstance(name, str) or not name.strip()]
        yield from (f"output_kind must have names of outputs as keys, got {name!r}." for name in names)
        kinds = list(kind.values())
    else:
        kinds = [] if kind is None or callable(kind) else [kind]
    for value in kinds:
        if not isinstance(value, str) or value not in OUTPUT_KINDS:
            yield f"output_kind must be one of {', '.join(OUTPUT_KINDS)}, got {value!r}."


def _read_name_list(value: Any, *, is_unique: bool) -> tuple[tuple[str, ...], str]:
    """Reads a list of names that the developer gave, and returns it with its fault, or an empty text."""
    if isinstance(value, (str, bytes, Mapping, Set)) or not isinstance(value, Iterable):
        return (), f"must be a list of strings, got {value!r}."
    names: dict[int, str] = {}
    for position, name in enumerate(value):
        if not isinstance(name, str) or not name.strip():
            return (), f"must be a list of strings that are not empty, got {name!r} at position {position}."
        names[position] = str(name)
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if is_unique and twice:
        return (), f"must be different strings, got {twice[0]!r} twice."
    return tuple(names.values()), ""


def _make_choice_check(modes: Sequence[str]) -> Callable[[str], str | None]:
    return lambda value: None if value in modes else f"must be one of {', '.join(modes)}"


def _check_at_least_one(value: float) -> str | None:
    return None if value >= 1 else "must be 1 or above"


def _check_above_zero(value: float) -> str | None:
    return None if value > 0 else "must be above 0"


def _check_not_blank(value: object) -> str | None:
    return "must not be blank" if isinstance(value, str) and value and not value.strip() else None


def _check_wait_time(value: float) -> str | None:
    return None if 0 <= value <= DAY_S else f"must be 0 or above, and at most {DAY_S}"


def _is_none(value: object) -> bool:
    return value is None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentationSettings:
    """Holds the value of every option of `instrument()`."""

    tracer_provider: TracerProvider | None = None
    """For spans; else the global one, else one of our own that exports by OTLP."""
    meter_provider: MeterProvider | None = None
    """For metrics; likewise."""
    logger_provider: LoggerProvider | None = None
    """For events; likewise."""
    models: dict[str, ModelOptions] = field(default_factory=dict)
    """Descriptions of models, by name; later calls of `instrument()` add to them."""

    model_name: str | Callable[[Any], str] = declare_option(
        default="",
        doc="Name of the model, or a function from session to name; if empty, it is inferred from the model.",
        check=_check_not_blank,
        accepts=callable,
    )
    span_ratio: float = declare_option(
        default=1.0,
        doc="Share of calls outside any trace that get a span, within [0, 1]; failed, slow and unsure calls get one "
        "beyond it.",
        check=check_ratio,
    )
    spans_per_second: float = declare_option(
        default=10.0,
        doc="Maximum number of spans a second for calls outside any trace; failed, slow and unsure calls come first.",
        check=check_not_negative,
    )
    events_per_second: float = declare_option(
        default=10.0,
        doc="Maximum number of `ml.prediction` events a second, failed and unsure calls first; likewise of "
        "`ml.inference.exception`.",
        check=check_not_negative,
    )
    latency_threshold_s: float = declare_option(
        default=math.inf,
        doc="A call that takes longer is slow, as is one slower than the running 99th percentile.",
        check=_check_above_zero,
    )
    confidence_floor: float = declare_option(
        default=0.5, doc="A prediction of less confidence is unsure; within [0, 1].", check=check_ratio
    )
    text: TextMode = declare_option(
        default="hash",
        doc="What leaves of texts that neither the model nor the developer declares. `hash`: one of 64 buckets of a "
        "keyed hash, enough to see drift and nothing to read; `keep`: the text itself, the first `max_labels` of them.",
        check=_make_choice_check(TEXT_MODES),
    )
    text_key: str = declare_option(
        default="",
        doc="Key of these buckets, the same in every process and for `otel-mlmon reference build`; if empty, it is "
        "made from the model's name.",
        is_secret=True,
    )
    max_labels: int = declare_option(
        default=50,
        doc="Number of labels, and values of a category, that are counted by name; others in buckets.",
        check=_check_at_least_one,
    )
    max_features: int = declare_option(
        default=100,
        doc="Number of input features of a model that are profiled, the first ones; 0 leaves inputs alone.",
        check=check_not_negative,
    )
    min_new_values: int = declare_option(
        default=10,
        doc="Number of new values of a feature or a regression that leave together at least; fewer wait, so that no "
        "export shows the input of one call.",
        check=_check_at_least_one,
    )
    buffer_records: int = declare_option(
        default=16_384,
        doc="Maximum number of calls that wait to be aggregated; more are dropped and counted.",
        check=_check_at_least_one,
    )
    buffer_bytes: int = declare_option(
        default=16_777_216, doc="Maximum size of those calls in bytes.", check=_check_at_least_one
    )
    flush_interval_s: float = declare_option(
        default=1.0, doc="Time between two aggregations; a collection of metrics aggregates too.", check=check_duration
    )
    shutdown_timeout_s: float = declare_option(
        default=1.8,
        doc="Time that the end of the process may wait for the last export, without the interpreter's own shutdown.",
        check=_check_wait_time,
    )
    sentry: SentryMode = declare_option(
        default="auto",
        doc="How inferences reach Sentry. `native`: Sentry's tracing; `otlp`: OpenTelemetry's spans sent to Sentry; "
        "`off`; `auto`: what fits Sentry's set-up once it is initialised or a DSN is known: `otlp` beside its "
        '`OTLPIntegration`, `otel` with `instrumenter="otel"`, else `native`.',
        check=_make_choice_check(SENTRY_MODES),
    )
    sentry_traces_sample_rate: float | None = declare_option(
        default=0.1,
        doc="Value that Sentry's `traces_sample_rate` is raised to where it is None or 0, within [0, 1]; 0 or None "
        "leaves it alone.",
        check=check_ratio,
        accepts=_is_none,
    )
    sentry_decides_downstream: bool = declare_option(
        default=True,
        doc="Whether services called from here follow the sampling decisions of a raised `traces_sample_rate`; false "
        "leaves the decision out of Sentry's headers, as they are without tracing.",
    )
    sentry_dsn: str = declare_option(
        default="",
        doc="Sentry's DSN, if the application has not initialised Sentry; else `SENTRY_DSN`.",
        is_secret=True,
    )
    onnxruntime_telemetry: bool = declare_option(
        default=True,
        doc="Whether onnxruntime 1.29 and later may send its own telemetry to Microsoft: true leaves it as it is, "
        "false switches it off from now on; only `ORT_DISABLE_TELEMETRY=1`, set before onnxruntime is imported, stops "
        "it from the start.",
    )

    def find_declared_name(self, session: Any) -> str:
        """Returns the name that the developer gave the model of a session; empty if there is none."""
        if not callable(self.model_name):
            return self.model_name
        name: object = ""
        with guard("model_name"):
            name = self.model_name(session)
        return name.strip() if isinstance(name, str) else ""

    def find_model_options(self, model: str) -> ModelOptions:
        """Returns the options of one model, with the general thresholds where it has none of its own."""
        options = self.models.get(model, ModelOptions())
        thresholds = {
            name: getattr(self, name)
            for name in ("latency_threshold_s", "confidence_floor", "text", "text_key")
            if getattr(options, name) is None
        }
        return replace(options, **thresholds) if thresholds else options


OPTIONS: Final = list_options(InstrumentationSettings)
"""Every option that an environment variable can set too."""


def resolve_settings(
    settings_type: type[S], arguments: Mapping[str, Any], *, environ: Mapping[str, str]
) -> tuple[S, dict[str, Origin]]:
    """Builds the settings from arguments, environment variables and defaults, in this order of precedence.

    Args:
        settings_type: `InstrumentationSettings`, or a dataclass with the same fields and further options.
        arguments: What the caller passed, by name; each a field of `settings_type`.
        environ: The environment.

    Returns:
        The settings, and the source of each option's value by name.

    Raises:
        ConfigurationError: Arguments are refused; carries every fault.
    """
    options = list_options(settings_type)
    faults: list[str] = []
    origins: dict[str, Origin] = {}
    values = dict(arguments)
    for option in options:
        try:
            values[option.name], origins[option.name] = resolve_option(option, arguments=arguments, environ=environ)
        except ConfigurationError as error:  # noqa: PERF203 - every fault is reported, not the first
            faults.extend(error.faults)
    for name, method in _PROVIDER_METHODS.items():
        provider = arguments.get(name)
        if provider is not None and (isinstance(provider, type) or not callable(getattr(provider, method, None))):
            faults.append(f"{name} must be a provider of OpenTelemetry with the method {method}, got {provider!r}.")
    values["models"], model_faults = _read_model_options(arguments.get("models"))
    faults.extend(model_faults)
    warn_of_unknown_variables(options, environ)
    if faults:
        raise ConfigurationError(*faults)
    return settings_type(**values), origins


def _read_model_options(models: Any) -> tuple[dict[str, ModelOptions], list[str]]:
    if models is None:
        return {}, []
    if not isinstance(models, Mapping):
        return {}, [f"models must be a mapping of names to ModelOptions, got {models!r}."]
    faults: list[str] = []
    for name, options in models.items():
        if not isinstance(name, str) or not name.strip():
            faults.append(f"models must have names of models as keys, got {name!r}.")
        if type(options) is not ModelOptions:
            faults.append(f"models[{name!r}] must be ModelOptions, got {type(options).__name__}.")
    return dict(models), faults


def list_changed_arguments(running: object, settings: object, arguments: Iterable[str]) -> list[str]:
    """Lists the arguments whose value differs between the running settings and new ones, `models` aside."""
    return [name for name in arguments if name != "models" and getattr(settings, name) != getattr(running, name)]


def describe_arguments(settings_type: Any) -> str:
    """Returns the part of the docstring of `instrument()` that describes its options."""
    return "\n".join(
        textwrap.indent(textwrap.fill(f"{option.name}: {option.doc}", 112, subsequent_indent=" " * 4), " " * 8)
        for option in list_options(settings_type)
    )


def make_configuration_type(settings_type: type[Any], name: str, module: str) -> type[Any]:
    """Makes the dataclass of our section in OpenTelemetry's configuration file, with the same options."""
    models: tuple[str, Any, Any] = ("models", Mapping[str, ModelOptions], field(default_factory=dict))
    options = [(option.name, option.annotation | None, None) for option in list_options(settings_type)]
    configuration = make_dataclass(name, [models, *options], kw_only=True)
    configuration.__module__ = module
    return configuration
