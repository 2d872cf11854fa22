from __future__ import annotations

import gc
from collections import Counter, deque

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.call.call import CallTuple, Item, Plan, Side, Tensor, cell_of
from otel_mlmon.instrumentation.record.batch import Whole, each
from otel_mlmon.instrumentation.record.gathering import PIECE, gather
from tests.support.calls import Sink, copied, copies, session

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


@st.composite
def calls(draw: st.DrawFn) -> list[CallTuple]:
    """Runs of calls of a plan, by one of two cells of it; mostly the bytes of one tensor."""
    found: list[CallTuple] = []
    cells = [(plan, cell_of(plan)) for plan in PLANS for _ in range(2)]
    for _ in range(draw(st.integers(0, 4))):
        plan, cell = draw(st.sampled_from(cells))
        is_bare = draw(st.booleans())
        for _ in range(draw(st.integers(1, PIECE + 2))):
            sides: list[Side] = []
            for tensors in (plan.inputs, plan.outputs):
                items = [b"ab" if is_bare else draw(ITEMS) for _ in tensors]
                sides.append(items[0] if len(items) == 1 and isinstance(items[0], bytes) else tuple(items))
            context = draw(st.sampled_from([None, None, {"a": 1}, SUPPRESSED]))
            at = len(found)
            found.append((cell, at, at + 5, context, sides[0], sides[1], draw(st.sampled_from([None, "ValueError"]))))
    return found


def taken_from(waiting: deque[CallTuple], limit: int) -> list[CallTuple]:
    return [waiting.popleft() for _ in range(min(limit, len(waiting)))]


@settings(deadline=None, max_examples=60)
@given(calls(), st.integers(1, 4 * PIECE))
def test_every_call_is_in_the_batch_of_its_plan_as_it_came_or_suppressed(records: list[CallTuple], limit: int) -> None:
    waiting = deque(records)
    gathered = gather(
        lambda most: taken_from(waiting, most), limit, is_suppressed=lambda context: context is SUPPRESSED
    )
    assert list(waiting) == records[limit:]
    taken = [record for record in records[:limit] if record[3] is not SUPPRESSED]
    assert gathered.suppressed == len(records[:limit]) - len(taken)
    assert Counter(batch.plan for batch in gathered.batches) == Counter({record[0].item() for record in taken})
    for batch in gathered.batches:
        mine = [record for record in taken if record[0].item() is batch.plan]
        assert batch.started_ns.tolist() == [record[1] for record in mine]
        assert batch.ended_ns.tolist() == [record[2] for record in mine]
        assert list(batch.contexts) == [record[3] for record in mine]
        assert list(batch.errors) == [record[6] for record in mine]
        for made, columns in enumerate((batch.inputs, batch.outputs)):
            found = [tuple(row) for row in zip(*map(each, columns), strict=True)] or [()] * len(mine)
            assert found == [copies((record[4], record[5])[made]) for record in mine]


def test_what_was_copied_whole_is_joined() -> None:
    rows = np.arange(20, dtype=np.float32).reshape(-1, 2)
    records = deque(copied([({"x": rows[:2]}, {"y": rows[:2]}), ({"x": rows[2:]}, {"y": rows[2:]})]))
    ((batch,), _) = gather(lambda most: taken_from(records, most), 100, is_suppressed=bool)
    ((given,), (made,)) = batch.inputs, batch.outputs
    assert isinstance(given, Whole)
    assert isinstance(made, Whole)
    assert (given.data, given.lengths.tolist()) == (made.data, made.lengths.tolist()) == (rows.tobytes(), [16, 64])


def test_the_garbage_collector_lets_go_of_a_call_that_waits() -> None:
    sink = Sink()
    sink.queue.extend(copied([({"x": np.ones((1, 2))}, {"y": np.ones((1, 2))})]))
    gc.collect()
    (record,) = sink.queue
    assert [gc.is_tracked(record), *map(gc.is_tracked, record)] == [False] * 8
