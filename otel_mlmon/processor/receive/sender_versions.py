"""Warns once of each version of otel_mlmon, later than the processor's, with which an application sends telemetry.

Names of metrics and attributes only come to be more, so releases may differ either way: what this release does not know
is ignored and counted, and what an earlier one does not send is not there. The release is the version of the
instrumentation scope.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any, Final

from otel_mlmon import semconv
from otel_mlmon.version import __version__

MAX_VERSIONS: Final = 16
"""Later versions that are said; one processor does not meet more, unless somebody makes them up."""

MAX_VERSION_CHARACTERS: Final = 64
"""How much of a version is remembered and logged."""

_LOG: Final = logging.getLogger("otel_mlmon.receiver")
_RELEASE: Final = re.compile(r"(\d{1,6})\.(\d{1,6})(?:\.\d{1,6})?(?:[.a-z+-]|$)")


class SenderVersions:
    """Warns of senders whose otel_mlmon is of a later release than the processor's, once a version.

    Runs on: any thread; two threads that meet a version at the same moment may both say it.

    Args:
        version: The version of the processor.
    """

    def __init__(self, version: str = __version__) -> None:
        self._version = version
        self._release = parse_release(version)
        self._checked: set[str] = set()

    def warn_of_version(self, request: Any) -> None:
        """Checks the versions of the instrumentation scopes in a parsed metrics or logs request."""
        for scope in _list_instrumentation_scopes(request):
            version = "".join(c if c.isprintable() else "?" for c in scope.version[:MAX_VERSION_CHARACTERS])
            if scope.name != semconv.SCOPE or version in self._checked or len(self._checked) >= MAX_VERSIONS:
                continue
            self._checked.add(version)
            release = parse_release(version)
            if release is not None and self._release is not None and release > self._release:
                _LOG.warning(
                    "Applications use otel_mlmon %s, and this processor is %s: what is new in theirs is ignored and "
                    "counted as such, everything else is monitored. Update the processor.",
                    version,
                    self._version,
                )


def parse_release(version: str) -> tuple[int, int] | None:
    """Parses the major and minor number of a version such as `1.2.3`; None if the text is no version."""
    match = _RELEASE.match(version)
    return (int(match[1]), int(match[2])) if match is not None else None


def _list_instrumentation_scopes(request: Any) -> Iterator[Any]:
    for resource in getattr(request, "resource_metrics", ()):
        for metrics in resource.scope_metrics:
            yield metrics.scope
    for resource in getattr(request, "resource_logs", ()):
        for logs in resource.scope_logs:
            yield logs.scope
