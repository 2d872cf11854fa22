"""Stored evidence is refused as a whole where any of its columns does not fit the others, and nothing is added."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest

from otel_mlmon.errors import BinMismatchError
from otel_mlmon.processor.detect.evidence import EvidenceBank
from otel_mlmon.processor.detect.state import EvidenceColumns
from tests.support.evidence import plain

BINS = 4


def make_columns(streams: int = 3) -> EvidenceColumns:
    """The evidence of streams, one of which has drifted, and one of which has a daily cycle's history."""
    bank, rng = EvidenceBank(BINS), np.random.default_rng(1)
    rows = np.array([bank.add(np.array([5, 300, 400, 300 + stream]), 0.02) for stream in range(streams)])
    for end in range(60):
        shares = np.tile([0.005, 0.3, 0.4, 0.295], (streams, 1))
        if end > 55:
            shares[1] = [0.02, 0.34, 0.4, 0.24]
        panes = np.array([rng.multinomial(300, row) for row in shares])
        bank.update(rows, panes, np.full(streams, end + 1), 14.0)
    bank.column("has_cycle")[rows[-1]] = True
    bank.column("expected")[rows[-1]] = 7.0
    return bank.pack(rows.tolist())


COLUMNS = make_columns()


def list_arrays(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for field in fields(value):
        part = getattr(value, field.name)
        if is_dataclass(part):
            yield from list_arrays(part, (*path, field.name))
        elif isinstance(part, np.ndarray):
            yield (*path, field.name), part


ARRAYS = dict(list_arrays(COLUMNS))


def change(value: Any, path: tuple[str, ...], array: Any) -> Any:
    name, *rest = path
    return replace(value, **{name: change(getattr(value, name), tuple(rest), array) if rest else array})


def test_columns_restore_what_they_were_packed_from() -> None:
    bank = EvidenceBank(BINS)
    rows = bank.restore(COLUMNS)
    assert plain(bank.pack(rows)) == plain(COLUMNS)
    assert all(array.size for array in ARRAYS.values())  # so that every column is looked at here


SPOILERS: dict[str, Callable[[Any], Any]] = {
    "one too few": lambda array: array[:-1],
    "one too many": lambda array: np.concatenate([array, array[:1]]),
    "another axis": lambda array: array[..., None],
    "one for all": lambda array: array[:1] if len(array) > 1 else array[:0],
}


@pytest.mark.parametrize("spoiler", SPOILERS.values(), ids=SPOILERS)
@pytest.mark.parametrize("path", ARRAYS, ids=".".join)
def test_a_column_of_another_shape_is_refused(path: tuple[str, ...], spoiler: Callable[[Any], Any]) -> None:
    bank = EvidenceBank(BINS)
    with pytest.raises(ValueError, match=r"shape|values of|numbers of their values"):
        bank.restore(change(COLUMNS, path, spoiler(ARRAYS[path])))
    assert bank._row_count == 0


PLACES = [("components",), ("rare_bins", "bins"), ("rare_bins", "bets")]


@pytest.mark.parametrize("value", [-1, 10**6])
@pytest.mark.parametrize("path", PLACES, ids=".".join)
def test_a_place_outside_is_refused(path: tuple[str, ...], value: int) -> None:
    for position in (0, -1):
        places = ARRAYS[path].copy()
        places[position] = value
        with pytest.raises(ValueError, match="the places of some values are not those of their streams"):
            EvidenceBank(BINS).restore(change(COLUMNS, path, places))


def test_a_place_that_is_taken_twice_is_refused() -> None:
    places, counts = COLUMNS.components.copy(), COLUMNS.component_counts
    stream = int(counts.argmax())
    assert counts[stream] > 1
    first = int(counts[:stream].sum())
    places[first + 1] = places[first]
    with pytest.raises(ValueError, match="the places of some values are not those of their streams"):
        EvidenceBank(BINS).restore(replace(COLUMNS, components=places))


@pytest.mark.parametrize(
    "path",
    [
        ("component_counts",),
        ("rare_bins", "bin_counts"),
        ("rare_bins", "bet_counts"),
        ("design_effects", "difference_counts"),
        ("design_effects", "pending_counts"),
    ],
    ids=".".join,
)
@pytest.mark.parametrize("value", [-1, 10**15])
def test_a_number_of_values_that_cannot_be_is_refused(path: tuple[str, ...], value: int) -> None:
    counts = ARRAYS[path].copy()
    counts.flat[0] = value
    if path[-1] == "pending_counts" and value > 0:
        EvidenceBank(BINS).restore(change(COLUMNS, path, counts))  # all that there are, and more, is all
        return
    with pytest.raises(ValueError, match=r"numbers of their values|less than no differences"):
        EvidenceBank(BINS).restore(change(COLUMNS, path, counts))


def test_evidence_of_other_bins_or_of_another_direction_is_refused() -> None:
    with pytest.raises(BinMismatchError, match=r"references of shape \(3, 4\) in a bank of 5 bins"):
        EvidenceBank(5).restore(COLUMNS)
    with pytest.raises(ValueError, match="two-sided evidence has bets on rare bins, and no other has"):
        EvidenceBank(BINS, "up").restore(COLUMNS)
    with pytest.raises(ValueError, match="two-sided evidence has bets on rare bins, and no other has"):
        EvidenceBank(BINS).restore(replace(COLUMNS, rare_bins=None))
    with pytest.raises(ValueError, match="finite and not negative"):
        EvidenceBank(BINS).restore(replace(COLUMNS, reference=-COLUMNS.reference))
