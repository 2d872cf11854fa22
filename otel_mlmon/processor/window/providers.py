"""The execution providers on which processes have reported to run one model version, and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from otel_mlmon.types import ModelKey

MAX_PROVIDERS: Final = 16
"""Pairs of execution providers remembered of a model version; the one that was reported longest ago gives way."""


class ExecutionProviderUse(NamedTuple):
    """An execution provider that processes run a model on, with the time of the first and the last report."""

    requested: str
    """The execution provider that was asked for first, where the model fell back from it; else empty."""
    provider: str
    first_ns: int
    """Unix nanoseconds."""
    last_ns: int


class ModelProviders(NamedTuple):
    """All reports on the execution providers of one model version; repeated and late ones change nothing."""

    model: ModelKey
    uses: tuple[ExecutionProviderUse, ...] = ()
    """The one that was reported last comes first."""

    @property
    def last_ns(self) -> int:
        """The time of the latest report on an execution provider, Unix nanoseconds; 0 if there is none."""
        return max((use.last_ns for use in self.uses), default=0)

    def add(self, *, requested: str, provider: str, time_ns: int) -> ModelProviders:
        """Returns the reports on execution providers with one report added."""
        times_ns = {(use.requested, use.provider): (use.first_ns, use.last_ns) for use in self.uses}
        first_ns, last_ns = times_ns.get((requested, provider), (time_ns, time_ns))
        times_ns[requested, provider] = (min(first_ns, time_ns), max(last_ns, time_ns))
        return self._replace(
            uses=_select_newest_reports(ExecutionProviderUse(*pair, *span) for pair, span in times_ns.items())
        )


def _select_newest_reports(uses: Iterable[ExecutionProviderUse]) -> tuple[ExecutionProviderUse, ...]:
    return tuple(sorted(uses, key=lambda use: (-use.last_ns, use))[:MAX_PROVIDERS])
