"""What a notifier is: one method, two ways to fail."""

from __future__ import annotations

from typing import Protocol

from otel_mlmon.errors import MlmonError
from otel_mlmon.processor.alert.alert import Alert


class Notifier(Protocol):
    """Tells one alert to one addressee."""

    def notify(self, alert: Alert) -> None:
        """Tell `alert`; may block, may be called again with the same alert.

        Runs on: a thread of its delivery.

        Raises:
            TransientError: It was not told; the same again may work.
            PermanentError: It was not told, and never will be.
        """


class TransientError(MlmonError):
    """An alert was not told; the same again may work.

    Args:
        reason: What happened, with no secret in it.
        retry_after_s: When the addressee asks to be tried again, in seconds, 0 or above; None if not said.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s: float | None = retry_after_s


class PermanentError(MlmonError):
    """An alert was not told, and never will be."""
