"""Stores closed panes: one by one at first, then merged to 5 minutes, then to hours.

Panes merge exactly, so nothing is lost but the time of day within 5 minutes or an hour. What comes late for a pane is
merged into its record, in whatever form that is by then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final, NamedTuple

from otel_mlmon.processor.state.repository import RecordKind, Repository, load_records, put_records
from otel_mlmon.processor.window.window import ModelPane, WindowSettings
from otel_mlmon.types import ModelKey

COMPACTION_INTERVAL_NS: Final = 300_000_000_000
"""How often panes are merged to longer ones, at most."""

_MINUTE_NS: Final = 60_000_000_000
_DAY_NS: Final = 1440 * _MINUTE_NS


class _Tier(NamedTuple):
    """Holds how panes of one age are stored."""

    kind: RecordKind[ModelPane]
    length_ns: int
    """Length that panes are merged to; 0 for panes as they closed."""
    kept_ns: int
    """Age at which they go on to the next tier; 0 for the retention."""


PANE: Final = RecordKind("pane", ModelPane, is_compressed=True)
PANE_MINUTES: Final = RecordKind("pane5m", ModelPane, is_compressed=True)
PANE_HOURS: Final = RecordKind("pane1h", ModelPane, is_compressed=True)


def put_panes(repository: Repository, panes: Iterable[ModelPane]) -> None:
    """Puts panes that have just closed.

    Raises:
        StoreError: The repository refused it.
    """
    put_records(repository, PANE, [(_key(pane), pane) for pane in panes])


def merge_panes(repository: Repository, panes: Iterable[ModelPane], kind: RecordKind[ModelPane] = PANE) -> None:
    """Merges panes into the stored ones of their time and model; those without one are put.

    Raises:
        StoreError: The repository refused it.
    """
    merged: dict[str, ModelPane] = {}
    for pane in panes:
        key = _key(pane)
        if key not in merged:
            merged |= load_records(repository, kind, key, f"{key}\0")
        merged[key] = merged[key].merge(pane) if key in merged else pane
    put_records(repository, kind, merged.items())


def load_panes(repository: Repository, since_ns: int) -> Iterator[ModelPane]:
    """Loads the panes that are stored one by one and end at `since_ns` or later, in the order of time.

    Raises:
        StoreError: The repository cannot be read.
    """
    yield from load_records(repository, PANE, f"{max(since_ns, 0):020d}").values()


def compact_panes(
    repository: Repository, windows: WindowSettings, now_ns: int, *, rolling_since_ns: Mapping[ModelKey, int]
) -> None:
    """Merges the panes that are old enough to longer ones, and removes those that are older than the retention.

    Args:
        repository: Where they are stored.
        windows: How long they are kept in which form.
        now_ns: The time by our clock, Unix nanoseconds.
        rolling_since_ns: By model, the start of its rolling window, whose panes stay as they are.

    Raises:
        StoreError: The repository refused it.
    """
    tiers = (
        _Tier(PANE, 0, windows.stored_ns),
        _Tier(PANE_MINUTES, 5 * _MINUTE_NS, max(2 * _DAY_NS, windows.stored_ns)),
        _Tier(PANE_HOURS, 60 * _MINUTE_NS, 0),
    )
    for tier, following in pairwise(tiers):
        # Whole periods only, so that no record has to be merged a second time.
        until_ns = (now_ns - tier.kept_ns) // following.length_ns * following.length_ns
        until = f"{max(until_ns, 0):020d}~"
        panes = {
            key: pane
            for key, pane in load_records(repository, tier.kind, "", until).items()
            if pane.end_ns <= rolling_since_ns.get(pane.model, pane.end_ns)
        }
        if panes:
            merge_panes(repository, (_lengthen(pane, following.length_ns) for pane in panes.values()), following.kind)
            repository.delete(tier.kind.name, panes)
    for tier in tiers:
        repository.prune(tier.kind.name, f"{max(now_ns - windows.retention_ns, 0):020d}")


def _lengthen(pane: ModelPane, length_ns: int) -> ModelPane:
    """Returns the pane as a part of the period of `length_ns` that it ends in."""
    end_ns = -(-pane.end_ns // length_ns) * length_ns
    return ModelPane(
        model=pane.model,
        start_ns=min(pane.start_ns, end_ns - length_ns),
        end_ns=end_ns,
        duration=pane.duration,
        failed=pane.failed,
        streams={
            name: counts._replace(start_ns=end_ns - length_ns, end_ns=end_ns) for name, counts in pane.streams.items()
        },
    )


def _key(pane: ModelPane) -> str:
    return f"{pane.end_ns:020d} {json.dumps(pane.model)}"
