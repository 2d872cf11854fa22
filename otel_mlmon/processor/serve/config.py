"""Defines the sections `forward` and `web` of the configuration file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from otel_mlmon.processor.config.section import ConfigSection, Duration, OptionalAddress, OptionalUrl, TlsSection, Token


class ForwardSection(ConfigSection):
    """The configuration of the OTLP endpoint that results are sent to: usually a second receiver of the Collector."""

    endpoint: OptionalUrl = Field(default=None, description="Such as http://127.0.0.1:14317; null sends nothing.")
    protocol: Literal["grpc", "http/protobuf"] = Field(default="grpc", description="grpc or http/protobuf.")
    interval_s: Duration = Field(default=10.0, alias="interval", gt=0, description="Time between two exports.")


class WebSection(ConfigSection):
    """The configuration of the web port: JSON, Prometheus, health; read-only without an administrator's token."""

    listen: OptionalAddress = Field(default="127.0.0.1:8080", description='"" switches it off.')
    hosts: tuple[str, ...] = Field(
        default=(),
        description=(
            "Names by which the port is addressed, without port, besides localhost, the name in `listen` and any"
            ' IP address; "*.example.org" stands for all of a domain. Others are refused, so that no other site'
            "'s page reads the answers."
        ),
    )
    tls: TlsSection = Field(default=TlsSection(), description="TLS of the web port.")
    read_token: Token = Field(
        default=None,
        description=(
            "Whoever reads must send this token, or it as the password of HTTP Basic; null asks for none. "
            "Health checks need none."
        ),
    )
    admin_token: Token = Field(
        default=None,
        description=(
            "Who sends this token may have references learned again (`otel-mlmon reference relearn`) and silence "
            "alerts (`otel-mlmon alert silence`); null allows nobody. Keep it out of the file: "
            "`${env:OTEL_MLMON_ADMIN_TOKEN}`."
        ),
    )
