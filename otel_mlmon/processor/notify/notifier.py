"""Defines the Protocol of a notifier, its two kinds of failure, and the registry of all notifiers.

A notifier is a class that is made from its own section of the configuration. To add one from another package, write it
and name it in an entry point; its name is the key of its section under `alerts.notify`:

    [project.entry-points."otel_mlmon.notifiers"]
    pager = "my_package.pager:PagerNotifier"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, Literal, Protocol, TypeAlias, runtime_checkable

from otel_mlmon.errors import MlmonError
from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.config.section import ConfigSection
from otel_mlmon.registry import PluginRegistry

LogSeverity: TypeAlias = Literal["INFO", "WARN", "ERROR"]

EmitEvent: TypeAlias = Callable[[str, LogSeverity, str, dict[str, str | int | float | bool], int], None]
"""Sends an OTLP event, and returns at once: name, severity, body, attributes, time in Unix nanoseconds."""


class Notifier(Protocol):
    """A back end that sends alerts to one recipient."""

    section_type: ClassVar[type[ConfigSection]]

    @classmethod
    def create(cls, section: Any, emit_event: EmitEvent | None) -> Notifier | None:
        """Makes the notifier from its configuration section.

        Args:
            section: An instance of `section_type`.
            emit_event: Sends OTLP events to `forward.endpoint`; None while that is null.

        Returns:
            The notifier; None if it has nowhere to send alerts to, and none is notified.
        """

    def notify(self, alert: Alert) -> None:
        """Sends an alert to the recipient; may block, and may be called again with the same alert.

        Runs on: a thread of its delivery.

        Raises:
            TransientError: It was not sent; another attempt may succeed.
            PermanentError: It was not sent, and no attempt will succeed.
        """


@runtime_checkable
class RenewingNotifier(Protocol):
    """A notifier whose recipient forgets an alert that is not repeated."""

    renew_every_s: float
    """How often what is not over is repeated."""

    def renew(self, alerts: Sequence[Alert]) -> None:
        """Sends alerts that have not ended again, at least one; may block. Errors as those of `Notifier.notify`."""


@runtime_checkable
class SlowNotifier(Protocol):
    """A notifier that may take longer to send an alert than others."""

    attempt_timeout_s: float
    """After this time an attempt ends by itself."""


class TransientError(MlmonError):
    """An error of a notifier: an alert was not sent, but another attempt may succeed.

    Args:
        reason: What happened, with no secret in it.
        retry_after_s: When the recipient asks for another attempt, in seconds, 0 or above; None if it does not say.
        is_ambiguous: Whether the recipient may have it all the same, as after an answer that did not come.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None, is_ambiguous: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s: float | None = retry_after_s
        self.is_ambiguous = is_ambiguous


class PermanentError(MlmonError):
    """An error of a notifier: an alert was not sent, and no other attempt will succeed."""


_FOLDER: Final = "otel_mlmon.processor.notify"

NOTIFIERS: Final[PluginRegistry[type[Notifier]]] = PluginRegistry(
    "otel_mlmon.notifiers",
    {
        "log": f"{_FOLDER}.log:LogNotifier",
        "otlp": f"{_FOLDER}.otlp:OtlpNotifier",
        "webhook": f"{_FOLDER}.webhook:WebhookNotifier",
        "alertmanager": f"{_FOLDER}.alertmanager:AlertmanagerNotifier",
        "command": f"{_FOLDER}.command:CommandNotifier",
        "sentry": f"{_FOLDER}.sentry:SentryNotifier",
        "apprise": f"{_FOLDER}.apprise:AppriseNotifier",
    },
)
"""Every notifier by name."""
