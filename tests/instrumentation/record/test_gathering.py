from __future__ import annotations

import gc
from collections import Counter, deque
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.call.call import CallTuple, Item, Plan, Record, Side, Tensor, cell_of
from otel_mlmon.instrumentation.call.packing import Forms, Packer
from otel_mlmon.instrumentation.record.batch import Whole, each
from otel_mlmon.instrumentation.record.gathering import PIECE, gather
from tests.support.calls import copied, copies, session

SUPPRESSED = {"suppress": True}
ONE = Tensor(name="x", layout="rows", dtype="uint8", row_shape=(2,))
PLANS = [
    Plan(session=session(name="one"), operation="run", inputs=(ONE,), outputs=(ONE,)),
    Plan(session=session(name="two"), operation="run", inputs=(ONE, ONE), outputs=(ONE,)),
    Plan(session=session(name="none"), operation="run"),
]
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.binary(max_size=6), st.none(), st.just(((9, 2), b"ab")), st.just(((1,), ("a",)))
)


class Waiting(NamedTuple):
    call: CallTuple
    record: Record
    """The same, as it waits."""


@st.composite
def runs_of_calls(draw: st.DrawFn) -> tuple[list[Waiting], Forms]:
    """Runs of calls of a plan, by one of two cells of it; mostly the bytes of one tensor, and packed."""
    found: list[Waiting] = []
    forms = Forms()
    cells = [(plan, cell_of(plan), Packer(plan, forms)) for plan in PLANS for _ in range(2)]
    for at_cell in draw(st.lists(st.integers(0, len(cells) - 1), max_size=4)):
        plan, cell, packer = cells[at_cell]
        size = draw(st.integers(1, 3))
        is_bare = draw(st.booleans())
        for _ in range(draw(st.integers(1, PIECE + 2))):
            at = len(found)
            sides: list[Side] = []
            for tensors in (plan.inputs, plan.outputs):
                items = [b"ab" * size if is_bare else draw(ITEMS) for _ in tensors]
                sides.append(items[0] if len(items) == 1 and isinstance(items[0], bytes) else tuple(items))
            context = draw(st.sampled_from([None, None, None, None, {"a": 1}, SUPPRESSED]))
            error = None if is_bare else draw(st.sampled_from([None, "ValueError"]))
            call = (cell, at, at + 5, context, sides[0], sides[1], error)
            record: Record = call
            if is_bare and plan is PLANS[0] and context is None:
                packer.learn(2 * size, 2 * size)
                pack = packer.packs[2 * size]
                record = pack.pack(pack.number, at, at + 5, *sides)
            found.append(Waiting(call, record))
    return found, forms


def taken_from(waiting: deque[Any], limit: int) -> list[Any]:
    return [waiting.popleft() for _ in range(min(limit, len(waiting)))]


@settings(deadline=None, max_examples=60)
@given(runs_of_calls(), st.integers(1, 4 * PIECE))
def test_every_call_is_in_the_batch_of_its_plan_as_it_came_or_suppressed(
    drawn: tuple[list[Waiting], Forms], limit: int
) -> None:
    calls, forms = drawn
    waiting = deque(waits.record for waits in calls)
    gathered = gather(
        lambda most: taken_from(waiting, most),
        limit,
        forms=forms,
        is_suppressed=lambda context: context is SUPPRESSED,
    )
    assert list(waiting) == [waits.record for waits in calls[limit:]]
    taken = [waits.call for waits in calls[:limit] if waits.call[3] is not SUPPRESSED]
    assert gathered.suppressed == len(calls[:limit]) - len(taken)
    assert Counter(batch.plan for batch in gathered.batches) == Counter({call[0].item() for call in taken})
    if limit > len(calls):
        assert len(forms) == 0
    for batch in gathered.batches:
        mine = {call[1]: call for call in taken if call[0].item() is batch.plan}
        order = batch.started_ns.tolist()
        assert sorted(order) == sorted(mine)
        assert batch.ended_ns.tolist() == [mine[at][2] for at in order]
        assert list(batch.contexts) == [mine[at][3] for at in order]
        assert list(batch.errors) == [mine[at][6] for at in order]
        for columns, position in ((batch.inputs, 4), (batch.outputs, 5)):
            rows = [tuple(row) for row in zip(*map(each, columns), strict=True)] or [()] * len(order)
            assert rows == [copies(mine[at][position]) for at in order]  # type: ignore[arg-type]


def test_what_was_copied_whole_is_joined() -> None:
    rows = np.arange(20, dtype=np.float32).reshape(-1, 2)
    records = deque(copied([({"x": rows[:2]}, {"y": rows[:2]}), ({"x": rows[2:]}, {"y": rows[2:]})]))
    ((batch,), _) = gather(lambda most: taken_from(records, most), 100, forms=Forms(), is_suppressed=bool)
    ((given,), (made,)) = batch.inputs, batch.outputs
    assert isinstance(given, Whole)
    assert isinstance(made, Whole)
    assert (given.data, given.lengths.tolist()) == (made.data, made.lengths.tolist()) == (rows.tobytes(), [16, 64])


def test_the_garbage_collector_lets_go_of_a_call_that_waits() -> None:
    (call,) = copied([({"x": np.ones((1, 2))}, {"y": np.ones((1, 2))})])
    waiting = [(*call[:3], None, *call[4:])]
    assert gc.is_tracked(waiting[0])
    gc.collect()
    assert [gc.is_tracked(waiting[0]), *map(gc.is_tracked, waiting[0])] == [False] * 8
