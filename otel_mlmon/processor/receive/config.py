"""Defines the section `receiver` of the configuration file."""

from __future__ import annotations

from pydantic import Field, model_validator

from otel_mlmon.processor.config.section import ConfigSection, OptionalAddress, Size, TlsSection, Token


class ReceiverSection(ConfigSection):
    """The configuration of the OTLP receivers: ports, limits, tokens and certificates."""

    grpc: OptionalAddress = Field(default="127.0.0.1:4317", description='OTLP over gRPC; "" switches it off.')
    http: OptionalAddress = Field(default="127.0.0.1:4318", description='OTLP over HTTP; "" switches it off.')
    max_request_bytes: Size = Field(
        default=64 * 2**20, alias="max_request", gt=0, description="The largest request, after decompression."
    )
    max_pending_bytes: Size = Field(
        default=256 * 2**20,
        alias="max_pending",
        gt=0,
        description=(
            "All requests in progress together, and as much again of bodies that arrive; beyond it senders are asked "
            "to try again later."
        ),
    )

    tls: TlsSection = Field(default=TlsSection(), description="TLS of both ports.")
    token: Token = Field(
        default=None,
        description=(
            "Senders must send this token as `Authorization: Bearer …`; it allows nothing else. null asks for none. "
            "Keep it out of the file: `${env:OTEL_MLMON_INGEST_TOKEN}`."
        ),
    )

    @model_validator(mode="after")
    def _check_limits(self) -> ReceiverSection:
        if self.grpc is None and self.http is None:
            raise ValueError("grpc and http are both off: nothing could come in")
        if self.max_pending_bytes < self.max_request_bytes:
            raise ValueError("max_pending must be at least max_request")
        return self
