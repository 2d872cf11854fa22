"""Defines the receivers' own log messages, of which each is logged once a minute and reason at most."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from otel_mlmon import semconv


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsRejected:
    """The log message that data points were rejected; their sender was answered so and does not send them again."""

    metric: ClassVar[str] = semconv.REJECTED_POINTS.name
    level: ClassVar[int] = logging.WARNING
    signal: str
    reason: str
    count: int

    def metric_attributes(self) -> Mapping[str, str]:
        """Returns the attributes of a rejection of data points: its reason."""
        return {semconv.REASON: self.reason}

    def log_message(self) -> str:
        """Returns the log line on rejected data points: how many, and why."""
        return (
            f"{self.count} points of a {self.signal} request were rejected: {self.reason}. "
            f"Their sender was told; {self.metric} counts all, and more of this reason are logged once a minute."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMalformed:
    """The log message that an OTLP request is not valid in its encoding; its sender drops the request."""

    metric: ClassVar[str] = semconv.REQUESTS_MALFORMED.name
    level: ClassVar[int] = logging.WARNING
    explanation: str
    count: int = 1

    def metric_attributes(self) -> Mapping[str, str]:
        """Returns no attributes, since all malformed requests are counted together."""
        return {}

    def log_message(self) -> str:
        """Returns the log line on a malformed request: what is wrong, and where all such requests are counted."""
        return (
            f"A request is lost, since it is malformed: {self.explanation} {self.metric} counts all; "
            "logged once a minute."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRefused:
    """The log message that an OTLP request was refused, and why."""

    metric: ClassVar[str] = semconv.REQUESTS_REFUSED.name
    level: ClassVar[int] = logging.WARNING
    reason: str
    explanation: str
    count: int = 1

    def metric_attributes(self) -> Mapping[str, str]:
        """Returns the attributes of a refused OTLP request: its reason."""
        return {semconv.REASON: self.reason}

    def log_message(self) -> str:
        """Returns the log line on a refused OTLP request: what is wrong, and where all refusals are counted."""
        return f"A request was refused: {self.explanation} {self.metric} counts all; logged once a minute."
