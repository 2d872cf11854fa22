"""The base of all configuration sections, and the types of their values.

A section is a frozen pydantic model. Its fields are the keys of the YAML file: the alias is the key, the attribute has
the unit in its name, and the description is the comment that `otel-mlmon check-config --print-defaults` writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, model_validator

from otel_mlmon.processor.config import units


class Section(BaseModel):
    """A part of the configuration file: frozen, with a default for every key, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _default_if_empty(cls, data: Any) -> Any:
        """Reads a section whose keys are all commented out, which is None in YAML, as the defaults."""
        return {} if data is None else data


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a whole number")  # noqa: TRY004 (pydantic collects ValueError only)
    return value


def _allow_off(check: Callable[[object], str]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value in (None, "") else check(value))


Duration = Annotated[float, BeforeValidator(units.parse_duration), PlainSerializer(units.format_duration)]
Size = Annotated[int, BeforeValidator(units.parse_size), PlainSerializer(units.format_size)]
Ratio = Annotated[float, BeforeValidator(units.parse_ratio), PlainSerializer(units.format_ratio)]
Count = Annotated[int, BeforeValidator(_refuse_bool)]
Url = Annotated[str, BeforeValidator(units.parse_http_url)]
OptionalAddress = Annotated[str | None, _allow_off(units.parse_address)]
OptionalUrl = Annotated[str | None, _allow_off(units.parse_http_url)]
FalseAlarmRate = Annotated[
    units.FalseAlarms, BeforeValidator(units.parse_false_alarms), PlainSerializer(units.format_false_alarms)
]
