"""The sections `forward` and `web` of the configuration file."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from otel_mlmon.processor.config.section import Duration, OptionalAddress, OptionalUrl, Section

MIN_TOKEN: Final = 16
"""Characters of a token; a shorter one could be guessed."""


def _off_if_empty(value: Any) -> Any:
    return None if value == "" else value


def _check_token(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if len(text) < MIN_TOKEN or not all("!" <= character <= "~" for character in text):
        raise ValueError(f"must be {MIN_TOKEN} or more ASCII characters without spaces; try `openssl rand -hex 32`")
    return token


AdminToken = Annotated[Annotated[SecretStr, AfterValidator(_check_token)] | None, BeforeValidator(_off_if_empty)]


class ForwardSection(Section):
    """Where results are sent over OTLP: usually a second receiver of the Collector."""

    endpoint: OptionalUrl = Field(default=None, description="Such as http://127.0.0.1:14317; null sends nothing.")
    protocol: Literal["grpc", "http/protobuf"] = Field(default="grpc", description="grpc or http/protobuf.")
    interval_s: Duration = Field(default=10.0, alias="interval", gt=0, description="Time between two exports.")


class WebSection(Section):
    """The web port: JSON, Prometheus, health; read-only without an administrator's token."""

    listen: OptionalAddress = Field(default="127.0.0.1:8080", description='"" switches it off.')
    admin_token: AdminToken = Field(
        default=None,
        description=(
            "Who sends this token may have references learned again (`otel-mlmon reference relearn`); null allows "
            "nobody. Keep it out of the file: `${env:OTEL_MLMON_ADMIN_TOKEN}`."
        ),
    )
