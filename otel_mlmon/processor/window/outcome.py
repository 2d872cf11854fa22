"""Outcomes of what a request delivers to the window step."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

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
    "mismatch",
]
"""Outcome of adding a point. Counted: `accepted`; `out_of_order`: a later one of its series came first; `reset`: its
series began anew; `late`: its pane is closed, so it is no evidence; `duplicate`: it was counted before. Of a metric
that no stream is made of: `unused`. Not counted: `starting_point`: a first total, of which nobody knows how much was
counted already, or one over other buckets; `overlap`: a late delta of a time that is counted already; `too_late`: its
pane is not stored any more; `too_many_…`: a limit is reached; `mismatch`: a histogram where a counter is expected or
the reverse."""

REJECTED_OUTCOMES: Final[frozenset[PointOutcome]] = frozenset(
    {
        "starting_point",
        "overlap",
        "too_late",
        "too_many_models",
        "too_many_streams",
        "too_many_features",
        "too_many_series",
        "mismatch",
    }
)
"""Outcomes of points that were not counted, which their sender learns."""

ReferenceOutcome: TypeAlias = Literal["accepted", "unchanged", "older", "none", "refused", "overflow"]
"""Outcome of adding a loaded model's reference. `older`: another one was made later. `none`: the model
carries none. `refused`: it cannot be read, or is of another version. `overflow`: dropped, too many models without
points carry one."""
