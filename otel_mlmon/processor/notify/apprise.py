"""Sends alerts through Apprise: Slack, Teams, Discord, PagerDuty, Opsgenie, mail and a hundred more, each by a URL.

The library says whether a message was taken, and no more; that it never will be is read from the status code in its
log. That log may name addresses with their tokens, so it is read here and goes nowhere else. Of several URLs those that
took an alert are not sent it again. Source: https://appriseit.com (URLs of the services).
"""

from __future__ import annotations

import importlib.util
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from pydantic import Field, SecretStr, field_validator

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.message import format_alert, format_alert_title
from otel_mlmon.processor.config.section import ConfigSection, Duration
from otel_mlmon.processor.notify.http import TRANSIENT_STATUSES
from otel_mlmon.processor.notify.notifier import PermanentError, TransientError

MAX_REMEMBERED: Final = 1000
"""Alerts of which it is known which URLs took them."""
_STATUS: Final = re.compile(r"\berror=([1-5]\d\d)\b")
_LIBRARY: Final = "apprise"


class AppriseSection(ConfigSection):
    """The configuration of alerts through Apprise to chats, pagers and mail."""

    urls: tuple[SecretStr, ...] = Field(
        min_length=1,
        description="Apprise URLs; they hold tokens, so keep them in the environment: `${env:SLACK_URL}`.",
    )
    timeout_s: Duration = Field(
        default=10.0, alias="timeout", gt=0, description="For connecting, and for each read and write, of one URL."
    )

    @field_validator("urls")
    @classmethod
    def _check_urls(cls, urls: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if importlib.util.find_spec(_LIBRARY) is None:
            raise ValueError('needs apprise: pip install "otel-mlmon[apprise]"')
        for number, url in enumerate(urls, start=1):
            if _create_service(url, timeout_s=1.0) is None:
                raise ValueError(f"the URL in place {number} is none that Apprise knows")
        return urls


class AppriseNotifier:
    """Sends alerts as text to the chats, pagers and mailboxes that Apprise URLs name.

    Args:
        section: Its section of the configuration.
    """

    section_type: ClassVar = AppriseSection

    def __init__(self, section: AppriseSection) -> None:
        self._services = [_create_service(url, timeout_s=section.timeout_s) for url in section.urls]
        self._delivered: OrderedDict[str, set[int]] = OrderedDict()
        """The services that took an alert that others did not take yet, by the alert's key."""
        self.attempt_timeout_s: float = 3 * section.timeout_s * len(section.urls)

    @classmethod
    def create(cls, section: AppriseSection, emit_event: Any) -> AppriseNotifier:  # noqa: ARG003 (the Protocol's)
        """Makes the Apprise notifier from its configuration section."""
        return cls(section)

    def notify(self, alert: Alert) -> None:
        """Sends an alert to those of the Apprise services that do not have it yet."""
        delivered = self._delivered.setdefault(alert.key, set())
        while len(self._delivered) > MAX_REMEMBERED:
            self._delivered.popitem(last=False)
        failures: list[TransientError | PermanentError] = []
        for number, service in enumerate(self._services, start=1):
            if number in delivered:
                continue
            failure = _send_to_service(service, alert, number)
            if failure is None:
                delivered.add(number)
            else:
                failures.append(failure)
        transient = next((failure for failure in failures if isinstance(failure, TransientError)), None)
        if transient is not None:
            raise transient
        self._delivered.pop(alert.key, None)
        if failures:
            raise failures[0]


def _send_to_service(service: Any, alert: Alert, number: int) -> TransientError | PermanentError | None:
    """Sends an alert to one Apprise service; returns the failure if the service did not accept it."""
    kinds = {"warning": "warning", "critical": "failure"}
    kind = "success" if alert.is_resolved else kinds[alert.severity]
    with _collect_apprise_messages() as messages:
        is_taken = service.notify(
            title=format_alert_title(alert), body=format_alert(alert), notify_type=kind, body_format="text"
        )
    if is_taken:
        return None
    name = f"URL {number} ({service.service_name})"
    status = next((int(match[1]) for match in map(_STATUS.search, reversed(messages)) if match), None)
    if status is None:
        return TransientError(f"{name} did not take it", is_ambiguous=True)
    if status >= 500 or status in TRANSIENT_STATUSES:
        return TransientError(f"{name}: HTTP {status}")
    return PermanentError(f"{name}: HTTP {status}")


def _create_service(url: SecretStr, *, timeout_s: float) -> Any:
    """Makes the Apprise service of a URL; None if Apprise knows none."""
    import apprise

    logging.getLogger(_LIBRARY).propagate = False
    asset = apprise.AppriseAsset(app_id="otel-mlmon", app_desc="otel-mlmon", async_mode=False)
    service = apprise.Apprise.instantiate(url.get_secret_value(), asset=asset, suppress_exceptions=True)
    if service is not None:
        service.socket_connect_timeout = service.socket_read_timeout = timeout_s
    return service


@contextmanager
def _collect_apprise_messages() -> Iterator[list[str]]:
    """Yields the messages that Apprise logs on this thread."""
    messages: list[str] = []
    thread_id = threading.get_ident()

    class ThreadHandler(logging.Handler):
        """A log handler that collects the messages of one thread."""

        def handle(self, record: logging.LogRecord) -> bool:
            if record.thread == thread_id:
                messages.append(record.getMessage())
            return True

    handler, logger = ThreadHandler(logging.WARNING), logging.getLogger(_LIBRARY)
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
