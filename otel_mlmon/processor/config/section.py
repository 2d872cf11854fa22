"""Defines the base class of all configuration sections, and the types of their values.

A section is a frozen pydantic model. Its fields are the keys of the YAML file: the alias is the key, the attribute has
the unit in its name, and the description is the comment that `otel-mlmon check-config --print-defaults` writes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    model_validator,
)

from otel_mlmon.processor.config import units

MIN_TOKEN: Final = 16
"""Characters of a token; a shorter one could be guessed."""


class ConfigSection(BaseModel):
    """A section of the configuration file: immutable, with a default for every key, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _read_empty_section(cls, data: Any) -> Any:
        """Reads a section without keys, which YAML reads as None, as one with all defaults."""
        return {} if data is None else data


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a whole number")  # noqa: TRY004 (pydantic collects ValueError only)
    return value


def _build_off_validator(check: Callable[[object], str]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value in (None, "") else check(value))


Duration = Annotated[float, BeforeValidator(units.parse_duration), PlainSerializer(units.format_duration)]
Size = Annotated[int, BeforeValidator(units.parse_size), PlainSerializer(units.format_size)]
Ratio = Annotated[float, BeforeValidator(units.parse_ratio), PlainSerializer(units.format_ratio)]
Count = Annotated[int, BeforeValidator(_refuse_bool)]
Url = Annotated[str, BeforeValidator(units.parse_http_url)]
OptionalAddress = Annotated[str | None, _build_off_validator(units.parse_address)]
OptionalUrl = Annotated[str | None, _build_off_validator(units.parse_http_url)]
FalseAlarmRate = Annotated[
    units.FalseAlarms, BeforeValidator(units.parse_false_alarms), PlainSerializer(units.format_false_alarms)
]


def _replace_empty_text(value: Any) -> Any:
    return None if value == "" else value


def _check_token(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if len(text) < MIN_TOKEN or not all("!" <= character <= "~" for character in text):
        raise ValueError(f"must be {MIN_TOKEN} or more ASCII characters without spaces; try `openssl rand -hex 32`")
    return token


Token = Annotated[Annotated[SecretStr, AfterValidator(_check_token)] | None, BeforeValidator(_replace_empty_text)]


class TlsSection(ConfigSection):
    """The TLS certificates of a server port; read again at SIGHUP."""

    certificate: Path | None = Field(
        default=None, description="The server's certificate chain, a PEM file; null for no TLS."
    )
    key: Path | None = Field(default=None, description="Its private key, a PEM file.")
    client_ca: Path | None = Field(
        default=None, description="The authority whose client certificates are accepted (mTLS); null asks for none."
    )

    @model_validator(mode="after")
    def _check_file_pair(self) -> TlsSection:
        if (self.certificate is None) is not (self.key is None):
            raise ValueError("certificate and key belong together: set both or neither")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and key")
        return self
