"""Calls of many sessions, sorted by plan."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Final

from otel_mlmon.instrumentation.call.call import CallTuple, Plan

_PLAN_OF: Final = operator.itemgetter(0)
_CONTEXT_OF: Final = operator.itemgetter(3)


def by_plan(calls: Sequence[CallTuple]) -> dict[Plan, Sequence[CallTuple]]:
    """In one step where all are of one plan, as they mostly are."""
    keys = set(map(_PLAN_OF, calls))
    if len(keys) == 1:
        return {keys.pop(): calls}
    found: dict[Plan, list[CallTuple]] = {}
    for key, group in itertools.groupby(calls, key=_PLAN_OF):
        found.setdefault(key, []).extend(group)
    return dict(found)


def wanted(calls: Sequence[CallTuple], *, is_suppressed: Callable[[object], bool]) -> Sequence[CallTuple]:
    """Those that the host did not ask to leave alone; most have no context at all."""
    if not any(map(_CONTEXT_OF, calls)):
        return calls
    return [call for call in calls if call[3] is None or not is_suppressed(call[3])]
