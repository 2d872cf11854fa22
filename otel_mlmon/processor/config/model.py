"""Defines the whole configuration file from the sections of all steps, alert rules and notifiers."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, Field, create_model, model_serializer, model_validator

from otel_mlmon.processor.alert.config import AlertSection
from otel_mlmon.processor.alert.rules.rule import RULES
from otel_mlmon.processor.config.section import ConfigSection, Count
from otel_mlmon.processor.notify.notifier import NOTIFIERS
from otel_mlmon.processor.receive.config import ReceiverSection
from otel_mlmon.processor.serve.config import ForwardSection, WebSection
from otel_mlmon.processor.state.config import StorageSection
from otel_mlmon.processor.window.config import LimitsSection, ReferenceSection, WindowsSection

SectionT = TypeVar("SectionT", bound=BaseModel)


class NotifierEntryBase(ConfigSection):
    """One entry of `alerts.notify`: exactly one key, the name of a notifier, with its section."""

    @model_validator(mode="before")
    @classmethod
    def _check_single_key(cls, data: Any) -> Any:
        if not isinstance(data, dict) or len(data) != 1:
            raise ValueError(f"must have exactly one key, one of {', '.join(cls.model_fields)}")
        return {key: {} if value is None else value for key, value in data.items()}

    @model_serializer
    def _serialize_entry(self) -> dict[str, Any]:
        return {self.name: self.section}

    @property
    def name(self) -> str:
        """The name of the notifier that an entry of `alerts.notify` configures."""
        return next(iter(self.model_fields_set))

    @property
    def section(self) -> ConfigSection:
        """The configuration section of the notifier that an entry of `alerts.notify` names."""
        section: ConfigSection = getattr(self, self.name)
        return section


class ModelSectionBase(ConfigSection):
    """The configuration section of one model, without its alert rules."""

    reference: ReferenceSection = Field(default=ReferenceSection(), description="What drift is measured against.")
    max_labels: Count = Field(
        default=50, ge=1, description="Labels and categories that are counted by name; the others are counted as one."
    )
    max_features: Count = Field(default=100, ge=0, description="Input features that are monitored.")

    def find_rule_section(self, name: str) -> Any:
        """Returns the configuration section of one of the model's alert rules."""
        return getattr(self, name)


if TYPE_CHECKING:

    class NotifierEntry(NotifierEntryBase):
        """One entry of `alerts.notify`, with an optional field for every notifier."""

    class ModelSection(ModelSectionBase):
        """The configuration section of one model, with a field for every alert rule."""

else:
    NotifierEntry = create_model(
        "NotifierEntry",
        __base__=NotifierEntryBase,
        **{name: (notifier.section_type | None, None) for name, notifier in NOTIFIERS.load_all_plugins().items()},
    )
    ModelSection = create_model(
        "ModelSection",
        __base__=ModelSectionBase,
        **{
            name: (
                rule.section_type,
                Field(default=rule.section_type(), description=rule.section_type.__doc__),
            )
            for name, rule in RULES.load_all_plugins().items()
        },
    )


def _build_yaml_example(name: str, section_type: type[ConfigSection]) -> str:
    keys = ", ".join(f"{field.alias or key}: …" for key, field in section_type.model_fields.items())
    return f"`{name}: {{{keys}}}`"


class AlertsSection(AlertSection):
    """The section `alerts` of the configuration file: when people are alerted, and how."""

    notify: tuple[NotifierEntry, ...] = Field(
        default=tuple(NotifierEntry.model_validate({name: {}}) for name in ("log", "otlp")),
        description="Who is notified, any of "
        + ", ".join(
            _build_yaml_example(name, notifier.section_type) for name, notifier in NOTIFIERS.load_all_plugins().items()
        )
        + ".",
    )

    def named_notifiers(self) -> dict[str, NotifierEntry]:
        """Returns the configured notifiers by name: `webhook`, and `webhook-2` where there is a second one."""
        entries: dict[str, NotifierEntry] = {}
        for entry in self.notify:
            number = sum(other.name == entry.name for other in entries.values()) + 1
            entries[entry.name if number == 1 else f"{entry.name}-{number}"] = entry
        return entries


class Config(ConfigSection):
    """The whole configuration file of the processor."""

    receiver: ReceiverSection = Field(default=ReceiverSection(), description="Where telemetry comes in.")
    forward: ForwardSection = Field(
        default=ForwardSection(),
        description="Where results are sent over OTLP: usually a second receiver of the Collector.",
    )
    storage: StorageSection = Field(default=StorageSection(), description="What survives a restart.")
    web: WebSection = Field(default=WebSection(), description="The web port: JSON, Prometheus, health.")
    windows: WindowsSection = Field(default=WindowsSection(), description="How time is divided.")
    limits: LimitsSection = Field(default=LimitsSection(), description="What keeps memory bounded.")
    alerts: AlertsSection = Field(default=AlertsSection(), description="When people are alerted, and how.")
    models: dict[str, ModelSection] = Field(
        default={"*": ModelSection()},
        description=(
            "By name or pattern (`fraud-*`). A key that is left out is taken from the next less specific "
            "entry that matches, at last from `*`."
        ),
    )

    def find_model_section(self, name: str) -> ModelSection:
        """Returns the configuration section of a model: all entries that match its name, the more specific on top.

        Patterns are ordered by how many characters they spell out; this very name is the most specific.
        """
        matches = [pattern for pattern in self.models if pattern == name or fnmatchcase(name, pattern)]
        matches.sort(key=lambda pattern: (pattern == name, sum(char not in "*?[]" for char in pattern)))
        section = ModelSection()
        for pattern in matches:
            section = _overlay_section(section, self.models[pattern])
        return section


def _overlay_section(base: SectionT, over: BaseModel) -> SectionT:
    """Returns a configuration section with the keys that another one sets explicitly, nested sections key by key."""
    update: dict[str, Any] = {}
    for name in over.model_fields_set:
        value, other = getattr(base, name), getattr(over, name)
        update[name] = _overlay_section(value, other) if isinstance(other, BaseModel) else other
    return base.model_copy(update=update)
