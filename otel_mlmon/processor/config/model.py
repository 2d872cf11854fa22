"""The configuration's shape: every key, its type, its default, and the sentence that explains it.

The keys of the file are the aliases; the attributes carry their units. Each description is also the comment
that `otel-mlmon check-config --print-defaults` writes, so there is one place to change.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    model_serializer,
    model_validator,
)

from otel_mlmon.processor.config import units
from otel_mlmon.processor.detect.statistics.registry import STATISTICS

Section = TypeVar("Section", bound=BaseModel)


def _not_a_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a whole number")  # noqa: TRY004 (pydantic collects ValueError only)
    return value


def _off_or(check: Callable[[object], str]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value in (None, "") else check(value))


def _check_statistic(name: str) -> str:
    if name not in STATISTICS.names():
        raise ValueError(f"must be one of {', '.join(STATISTICS.names())}")
    return name


StatisticName = Annotated[str, AfterValidator(_check_statistic)]
Duration = Annotated[float, BeforeValidator(units.duration_s), PlainSerializer(units.duration_text)]
Size = Annotated[int, BeforeValidator(units.size_bytes), PlainSerializer(units.size_text)]
Share = Annotated[float, BeforeValidator(units.share), PlainSerializer(units.share_text)]
Count = Annotated[int, BeforeValidator(_not_a_bool)]
OptionalAddress = Annotated[str | None, _off_or(units.address)]
OptionalUrl = Annotated[str | None, _off_or(units.http_url)]
Url = Annotated[str, BeforeValidator(units.http_url)]
FalseAlarmRate = Annotated[
    units.FalseAlarms, BeforeValidator(units.false_alarms), PlainSerializer(units.false_alarms_text)
]


class _Part(BaseModel):
    """What all sections share: frozen, and a key that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, data: Any) -> Any:
        """A section whose keys are all commented out is None to YAML; it means the defaults."""
        return {} if data is None else data


class ReceiverConfig(_Part):
    """Where telemetry comes in."""

    grpc: OptionalAddress = Field(default="127.0.0.1:4317", description='OTLP over gRPC; "" switches it off.')
    http: OptionalAddress = Field(default="127.0.0.1:4318", description='OTLP over HTTP; "" switches it off.')
    max_request_bytes: Size = Field(
        default=64 * 2**20, alias="max_request", gt=0, description="The largest request, after decompression."
    )
    max_pending_bytes: Size = Field(
        default=256 * 2**20,
        alias="max_pending",
        gt=0,
        description="Requests in work together; beyond it senders are asked to come again.",
    )

    @model_validator(mode="after")
    def _fits(self) -> ReceiverConfig:
        if self.grpc is None and self.http is None:
            raise ValueError("grpc and http are both off: nothing could come in")
        if self.max_pending_bytes < self.max_request_bytes:
            raise ValueError("max_pending must be at least max_request")
        return self


class ForwardConfig(_Part):
    """Where results go over OTLP: usually a second receiver of the Collector."""

    endpoint: OptionalUrl = Field(default=None, description="Such as http://127.0.0.1:14317; null sends nothing.")
    protocol: Literal["grpc", "http/protobuf"] = Field(default="grpc", description="grpc or http/protobuf.")
    interval_s: Duration = Field(default=10.0, alias="interval", gt=0, description="Time between two exports.")


class StorageConfig(_Part):
    """What survives a restart."""

    path: Path = Field(
        default=Path("mlmon-data"), description="A directory of this processor alone, made if it is missing."
    )
    engine: str = Field(default="sqlite", description="sqlite, or the name of a repository that a package adds.")
    retention_s: Duration = Field(
        default=14 * 86400.0, alias="retention", gt=0, description="How long closed panes are kept."
    )
    commit_interval_s: Duration = Field(
        default=0.05,
        alias="commit_interval",
        ge=0,
        le=1,
        description="The longest an answer waits for its commit.",
    )


class WebConfig(_Part):
    """The read-only web port: JSON, Prometheus, health."""

    listen: OptionalAddress = Field(default="127.0.0.1:8080", description='"" switches it off.')


class WindowsConfig(_Part):
    """How time is cut."""

    pane_s: Duration = Field(default=10.0, alias="pane", gt=0, description="The unit of evidence.")
    lateness_s: Duration = Field(
        default=15.0, alias="lateness", ge=0, description="How long a pane waits for late data."
    )
    rolling_s: Duration = Field(default=3600.0, alias="rolling", gt=0, description="What is reported and drawn.")

    @model_validator(mode="after")
    def _fits(self) -> WindowsConfig:
        if self.rolling_s < self.pane_s:
            raise ValueError("rolling must be at least pane")
        return self


class LimitsConfig(_Part):
    """What keeps memory bounded."""

    max_streams: Count = Field(default=10_000, ge=1, description="Streams watched at once, over all models.")
    stale_after_s: Duration = Field(
        default=86400.0,
        alias="stale_after",
        gt=0,
        description="A stream without data for so long is forgotten.",
    )


class LogConfig(_Part):
    """Alerts as lines of the processor's log."""


class OtlpConfig(_Part):
    """Alerts as OTLP events to `forward.endpoint`; nothing while that is null."""


class WebhookConfig(_Part):
    """Alerts as JSON to an address."""

    url: Url = Field(repr=False, description="The address. It may hold a token, so it is never printed.")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Sent with each request.")
    timeout_s: Duration = Field(default=5.0, alias="timeout", gt=0, description="For one attempt.")
    secret: SecretStr | None = Field(default=None, description="Key of the HMAC-SHA256 signature.")


class NotifierConfig(_Part):
    """One notifier: exactly one of these keys."""

    log: LogConfig | None = None
    webhook: WebhookConfig | None = None
    otlp: OtlpConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_key(cls, data: Any) -> Any:
        if not isinstance(data, dict) or len(data) != 1:
            raise ValueError("must have exactly one key: log, webhook or otlp")
        return {key: {} if value is None else value for key, value in data.items()}

    @model_serializer
    def _only_the_key(self) -> dict[str, Any]:
        present = {"log": self.log, "webhook": self.webhook, "otlp": self.otlp}
        return {key: value for key, value in present.items() if value is not None}


class AlertsConfig(_Part):
    """When people are told, and how."""

    false_alarms: FalseAlarmRate = Field(
        default=units.FalseAlarms(count=1, per_s=30 * 86400.0),
        description="The false-alarm budget over all models and streams.",
    )
    for_s: Duration = Field(default=0.0, alias="for", ge=0, description="How long drift must last before it fires.")
    keep_firing_for_s: Duration = Field(
        default=0.0,
        alias="keep_firing_for",
        ge=0,
        description="How long quiet must last before it is resolved.",
    )
    links: dict[str, Url] = Field(
        default_factory=dict, description="Put into each alert, by name: a dashboard, a runbook."
    )
    notify: tuple[NotifierConfig, ...] = Field(
        default=(NotifierConfig(log=LogConfig()), NotifierConfig(otlp=OtlpConfig())),
        description="Who is told, any of `log: {}`, `otlp: {}`, `webhook: {url: …, headers: {}, secret: …}`.",
    )


class ReferenceConfig(_Part):
    """What drift is measured against."""

    learn: Count = Field(default=5000, ge=1, description="Predictions of a model version that make its reference.")
    file: Path | None = Field(default=None, description="A reference profile, used in place of learning.")
    rolling_s: Duration | None = Field(
        default=None,
        alias="rolling",
        ge=3600,
        description="Once it is learned, go by so much of the past, such as 7d; null goes by what was learned.",
    )
    lag_s: Duration = Field(
        default=86400.0,
        alias="lag",
        ge=3600,
        description="What a rolling reference holds is so much older, at least, than what it judges.",
    )
    hour_of_week: bool = Field(
        default=False, description="Go by the same hour of the weeks before: `rolling`, 28d unless given."
    )

    @model_validator(mode="after")
    def _fits(self) -> ReferenceConfig:
        if self.file is not None and (self.rolling_s is not None or self.hour_of_week):
            raise ValueError("file is a reference that stays; it cannot be rolling too")
        return self


class LatencyConfig(_Part):
    """Rule `latency`: too many slow calls."""

    enabled: bool = Field(default=True, description="Whether the rule is judged.")
    threshold_s: Duration = Field(default=0.2, alias="threshold", gt=0, description="A call above it is slow.")
    max_ratio: Share = Field(default=0.01, gt=0, lt=1, description="The share of calls that may be slow.")


class ErrorsConfig(_Part):
    """Rule `errors`: too many failed calls."""

    enabled: bool = Field(default=True, description="Whether the rule is judged.")
    max_ratio: Share = Field(default=0.01, gt=0, lt=1, description="The share of calls that may fail.")


class OutputRuleConfig(_Part):
    """A drift rule on outputs."""

    enabled: bool = Field(default=True, description="Whether the rule is judged.")
    tolerance: Share = Field(default=0.02, lt=1, description="Total variation that is forgiven.")


class InputRuleConfig(_Part):
    """A drift rule on inputs."""

    enabled: bool = Field(default=True, description="Whether the rule is judged.")
    tolerance: Share = Field(default=0.05, lt=1, description="Total variation that is forgiven, of each feature.")


class NoDataConfig(_Part):
    """Rule `no_data`: a model fell silent."""

    enabled: bool = Field(default=True, description="Whether the rule is judged.")
    after_s: Duration = Field(default=600.0, alias="after", gt=0, description="How long without predictions.")


class ThresholdConfig(_Part):
    """A threshold on a familiar statistic of the rolling window."""

    statistic: StatisticName = Field(description="Its name, such as psi.")
    stream: str = Field(default="*", min_length=1, description="Which streams, as in `input.*`.")
    above: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="Alert above this value.")
    p_below: float | None = Field(default=None, gt=0, lt=1, description="Alert below this p-value.")

    @model_validator(mode="after")
    def _fits(self) -> ThresholdConfig:
        if (self.above is None) == (self.p_below is None):
            raise ValueError("must have exactly one of above and p_below")
        if self.p_below is not None and not STATISTICS.load(self.statistic).has_p_value:
            names = ", ".join(name for name, statistic in STATISTICS.load_all().items() if statistic.has_p_value)
            raise ValueError(f"{self.statistic} has no p-value: p_below is for {names}")
        return self


class StatisticConfig(_Part):
    """Rule `statistic`: a statistic of the rolling window is over its threshold."""

    enabled: bool = Field(default=True, description="Whether the rule is judged.")
    thresholds: tuple[ThresholdConfig, ...] = Field(
        default=(),
        description=(
            "Any of `{statistic: psi, stream: prediction.label, above: 0.2}` or "
            "`{statistic: chi_squared, p_below: 0.001}`. They carry no false-alarm budget."
        ),
    )


class ModelConfig(_Part):
    """What is watched of one model."""

    reference: ReferenceConfig = Field(default=ReferenceConfig(), description="What drift is measured against.")
    latency: LatencyConfig = Field(default=LatencyConfig(), description="Too many slow calls.")
    errors: ErrorsConfig = Field(default=ErrorsConfig(), description="Too many failed calls.")
    prediction_drift: OutputRuleConfig = Field(
        default=OutputRuleConfig(), description="Predicted labels or values are distributed otherwise."
    )
    confidence: OutputRuleConfig = Field(default=OutputRuleConfig(), description="Confidence falls.")
    data_drift: InputRuleConfig = Field(default=InputRuleConfig(), description="Inputs are distributed otherwise.")
    no_data: NoDataConfig = Field(default=NoDataConfig(), description="The model fell silent.")
    statistic: StatisticConfig = Field(
        default=StatisticConfig(), description="A statistic is over its threshold; off until thresholds are given."
    )
    max_labels: Count = Field(default=50, ge=1, description="Labels and categories told apart; the rest are one.")
    max_features: Count = Field(default=100, ge=0, description="Features watched.")


class Config(_Part):
    """The whole file."""

    receiver: ReceiverConfig = Field(default=ReceiverConfig(), description="Where telemetry comes in.")
    forward: ForwardConfig = Field(
        default=ForwardConfig(),
        description="Where results go over OTLP: usually a second receiver of the Collector.",
    )
    storage: StorageConfig = Field(default=StorageConfig(), description="What survives a restart.")
    web: WebConfig = Field(default=WebConfig(), description="The read-only web port: JSON, Prometheus, health.")
    windows: WindowsConfig = Field(default=WindowsConfig(), description="How time is cut.")
    limits: LimitsConfig = Field(default=LimitsConfig(), description="What keeps memory bounded.")
    alerts: AlertsConfig = Field(default=AlertsConfig(), description="When people are told, and how.")
    models: dict[str, ModelConfig] = Field(
        default={"*": ModelConfig()},
        description=(
            "By name or pattern (`fraud-*`). A key that is not given is taken from the next less specific "
            "entry that fits, at last from `*`."
        ),
    )

    def model(self, name: str) -> ModelConfig:
        """What is watched of the model called `name`: all entries that fit, laid over each other.

        The more specific lies on top: patterns by how many characters they spell out, then this very name.
        """
        fitting = [pattern for pattern in self.models if pattern == name or fnmatchcase(name, pattern)]
        fitting.sort(key=lambda pattern: (pattern == name, sum(char not in "*?[]" for char in pattern)))
        result = ModelConfig()
        for pattern in fitting:
            result = _overlay(result, self.models[pattern])
        return result


def _overlay(base: Section, over: BaseModel) -> Section:
    """`base` with the keys that were written in `over`, sections key by key."""
    update: dict[str, Any] = {}
    for name in over.model_fields_set:
        below, above = getattr(base, name), getattr(over, name)
        update[name] = _overlay(below, above) if isinstance(above, BaseModel) else above
    return base.model_copy(update=update)
