from __future__ import annotations

import gc
from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.call.call import Plan, Record
from otel_mlmon.instrumentation.call.packing import MAX_FORMS, Forms, Packer
from otel_mlmon.instrumentation.call.snapshot import SMALL_BYTES, capture_of
from tests.support.calls import Sink, planned, session

PLANS = [Plan(session=session(name=name), operation="run") for name in "abc"]
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(0, 2), SIZES, st.integers(0, 2**62)), max_size=40), st.data())
def test_what_is_unpacked_is_what_was_packed_form_by_form(
    calls: list[tuple[int, tuple[int, int], int]], data: st.DataObject
) -> None:
    forms = Forms()
    packers = [Packer(plan, forms) for plan in PLANS]
    packed: list[bytes] = []
    expected: dict[tuple[Plan, int], list[tuple[Any, ...]]] = {}
    for which, (input_bytes, output_bytes), started_ns in calls:
        packers[which].learn(input_bytes, output_bytes)
        found = packers[which].packs[input_bytes]
        sides = [data.draw(st.binary(min_size=n, max_size=n)) for n in (input_bytes, found.output_bytes)]
        packed.append(found.pack(found.number, started_ns, started_ns + 3, *sides))
        expected.setdefault((PLANS[which], input_bytes), []).append((started_ns, started_ns + 3, *sides))
    unpacked: dict[tuple[Plan, int], list[tuple[Any, ...]]] = {}
    for plan, rows in forms.unpack(packed):
        key = (plan, rows["given"].itemsize)
        assert key not in unpacked
        unpacked[key] = [
            (int(row["started_ns"]), int(row["ended_ns"]), row["given"].tobytes(), row["made"].tobytes())
            for row in rows
        ]
    assert unpacked == expected


def test_there_are_as_many_forms_as_sizes_up_to_a_limit() -> None:
    forms = Forms()
    packer = Packer(PLANS[0], forms)
    for size in [0, 1, 1, 2, *range(3, MAX_FORMS + 5)]:
        packer.learn(size, 4)
    packer.learn(1, 0)
    assert (list(packer.packs), len(forms)) == (list(range(1, MAX_FORMS + 1)), MAX_FORMS)


def test_a_form_is_known_until_what_was_packed_by_it_is_taken() -> None:
    forms = Forms()
    packer = Packer(PLANS[0], forms)
    packer.learn(2, 2)
    pack, number, _ = packer.packs[2]
    waiting = pack(number, 1, 2, b"in", b"ou")
    assert forms.gone() == []
    del packer
    gc.collect()
    gone = forms.gone()
    ((plan, rows),) = forms.unpack([waiting])
    assert (plan, rows["made"].tobytes(), gone, len(forms)) == (PLANS[0], b"ou", [number], 1)
    forms.forget(gone)
    assert (forms.gone(), len(forms)) == ([], 0)


@pytest.mark.parametrize(
    ("rows", "context", "is_packed"),
    [
        (1, None, [False, True, True]),
        (SMALL_BYTES // 8, None, [False, True, True]),
        (SMALL_BYTES // 8 + 1, None, [False, False, False]),
        (1, {"span": 1}, [False, False, False]),
    ],
)
def test_small_calls_outside_any_context_are_packed_from_the_second_on(
    rows: int, context: object, is_packed: list[bool]
) -> None:
    sink: Sink = Sink(queue=deque([b"first"]))
    table = np.arange(2 * rows, dtype=np.float32).reshape(-1, 2)
    plan, positions = planned({"x": table}, {"y": table})
    capture = capture_of(plan, positions, sink=sink, context=lambda _: context, forms=Forms())
    for _ in is_packed:
        capture({"x": table}, [table], 1, 2)
    _, *records = sink.queue
    assert [isinstance(record, bytes) for record in records] == is_packed


def test_an_output_of_another_size_is_not_cut() -> None:
    forms, sink = Forms(), Sink(queue=deque[Record]([b"first"]))
    table = np.arange(4, dtype=np.float32).reshape(-1, 2)
    plan, positions = planned({"x": table}, {"y": table})
    capture = capture_of(plan, positions, sink=sink, context=lambda _: None, forms=forms)
    for made in (table, table, table[:1], np.tile(table, (2, 1))):
        capture({"x": table}, [made], 1, 2)
    _, first, packed, shorter, longer = sink.queue
    assert isinstance(packed, bytes)
    ((_, (row,)),) = forms.unpack([packed])
    assert row["made"].tobytes() == table.tobytes()
    assert [record[5] for record in (first, shorter, longer)] == [
        table.tobytes(),
        table[:1].tobytes(),
        np.tile(table, (2, 1)).tobytes(),
    ]
