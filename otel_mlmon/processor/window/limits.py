"""Limits on what is kept in memory, and the warnings before and when they are reached."""

from __future__ import annotations

import logging
from typing import Final

_LOG: Final = logging.getLogger("otel_mlmon.processor")

WARNING_SHARE: Final = 0.8
"""Share of a limit at which its first warning is logged."""


class Limit:
    """One limit of the section `limits`, which warns at 80 % and at 100 %, once each until there is room again.

    Args:
        option: The key in the configuration file.
        maximum: The largest count, 1 or above.
        subject: The counted things, in the plural.
    """

    def __init__(self, option: str, maximum: int, subject: str) -> None:
        self._option = option
        self.maximum: int = maximum
        self._subject = subject
        self._warned_share = 0.0

    def has_room(self, count: int, added: int = 1) -> bool:
        """Returns whether `added` more fit beside `count`."""
        return count + added <= self.maximum

    def report(self, count: int) -> None:
        """Warns if the limit is nearly or wholly reached and was not before."""
        share = count / self.maximum
        level = 1.0 if share >= 1.0 else WARNING_SHARE if share >= WARNING_SHARE else 0.0
        if level > self._warned_share:
            consequence = "new ones are rejected" if level == 1.0 else "new ones are rejected when it is reached"
            _LOG.warning(
                "%d of %d %s are in use (limits.%s): %s. Raise the limit, or lower limits.stale_after.",
                count,
                self.maximum,
                self._subject,
                self._option,
                consequence,
            )
        if level == 0.0 or level > self._warned_share:
            self._warned_share = level
