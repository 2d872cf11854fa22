"""The sections `forward` and `web` of the configuration file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from otel_mlmon.processor.config.section import Duration, OptionalAddress, OptionalUrl, Section


class ForwardSection(Section):
    """Where results are sent over OTLP: usually a second receiver of the Collector."""

    endpoint: OptionalUrl = Field(default=None, description="Such as http://127.0.0.1:14317; null sends nothing.")
    protocol: Literal["grpc", "http/protobuf"] = Field(default="grpc", description="grpc or http/protobuf.")
    interval_s: Duration = Field(default=10.0, alias="interval", gt=0, description="Time between two exports.")


class WebSection(Section):
    """The read-only web port: JSON, Prometheus, health."""

    listen: OptionalAddress = Field(default="127.0.0.1:8080", description='"" switches it off.')
