"""Defines the outcomes of received data points and references, and the limits on models, streams and series."""

from __future__ import annotations

import logging
from typing import Final, Literal, TypeAlias

_LOG: Final = logging.getLogger("otel_mlmon.processor")

PointOutcome: TypeAlias = Literal[
    "accepted",
    "out_of_order",
    "reset",
    "duplicate",
    "late",
    "unused",
    "starting_point",
    "overlap",
    "too_late",
    "too_many_models",
    "too_many_streams",
    "too_many_features",
    "too_many_series",
    "too_many_bounds",
    "mismatch",
]
"""Outcome of adding a point. Counted: `accepted`; `out_of_order`: a later one of its series came first; `reset`: its
series began anew; `late`: its pane is closed, so it is no evidence; `duplicate`: it was counted before. Of a metric
that no stream is made of: `unused`. Not counted: `starting_point`: a first total, of which nobody knows how much was
counted already, or one over other buckets; `overlap`: another value for the time of a point, or a late delta of a time
that is counted already; `too_late`: its pane is not stored any more; `too_many_…`: a limit is reached; `mismatch`: a
histogram where a counter is expected or the reverse."""

REJECTED_OUTCOMES: Final[frozenset[PointOutcome]] = frozenset(
    {
        "starting_point",
        "overlap",
        "too_late",
        "too_many_models",
        "too_many_streams",
        "too_many_features",
        "too_many_series",
        "too_many_bounds",
        "mismatch",
    }
)
"""Outcomes of points that were not counted, which their sender learns."""

ReferenceOutcome: TypeAlias = Literal["accepted", "unchanged", "older", "none", "refused", "overflow"]
"""Outcome of adding a loaded model's reference. `older`: another one was made later. `none`: the model
carries none. `refused`: it cannot be read, or is of another version. `overflow`: dropped, too many models without
points carry one."""

WARNING_SHARE: Final = 0.8
"""Share of a limit at which its first warning is logged."""


class ResourceLimit:
    """One limit of the section `limits`, with a warning at 80 % and at 100 % until there is room again.

    Args:
        option: The key in the configuration file.
        maximum: The largest count, 1 or above.
        subject: The counted things, in the plural.
        consequence: A clause that says what happens when it is reached.
        remedy: A clause that says what helps besides raising it.
    """

    def __init__(
        self,
        option: str,
        maximum: int,
        subject: str,
        *,
        consequence: str = "new ones are rejected",
        remedy: str = "lower limits.stale_after",
    ) -> None:
        self._option = option
        self.maximum: int = maximum
        self._subject = subject
        self._consequence = consequence
        self._remedy = remedy
        self._warned_share = 0.0

    def has_room(self, count: int, added: int = 1) -> bool:
        """Returns whether `added` more things fit under the limit beside `count` present ones."""
        return count + added <= self.maximum

    def report(self, count: int) -> None:
        """Warns if a limit is nearly or wholly reached and was not before."""
        share = count / self.maximum
        level = 1.0 if share >= 1.0 else WARNING_SHARE if share >= WARNING_SHARE else 0.0
        if level > self._warned_share:
            _LOG.warning(
                "%d of %d %s are in use (limits.%s): %s%s. Raise the limit, or %s.",
                count,
                self.maximum,
                self._subject,
                self._option,
                self._consequence,
                "" if level == 1.0 else " when it is reached",
                self._remedy,
            )
        if level == 0.0 or level > self._warned_share:
            self._warned_share = level
