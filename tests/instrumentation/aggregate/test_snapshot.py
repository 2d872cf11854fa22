from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.instrumentation.aggregate.snapshot import Snapshot, Values
from otel_mlmon.sketch.categories import Categories
from otel_mlmon.types import ModelKey

NUMBERS = st.lists(st.floats(0, 100), max_size=5)
SNAPSHOTS = st.builds(
    lambda numbers, labels, samples: Snapshot(
        model=ModelKey("m", ""),
        durations_s={"": Values(numbers=np.array(numbers), exemplar=(max(numbers), "c") if numbers else None)},
        features={"f0": Values(numbers=np.array(numbers))},
        labels=Categories(counts=labels),
        samples=samples,
    ),
    NUMBERS,
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)),
    st.integers(0, 9),
)


def _summary(snapshot: Snapshot) -> tuple[object, ...]:
    durations = snapshot.durations_s[""]
    return (
        durations.numbers.tolist(),
        durations.exemplar,
        snapshot.features["f0"].numbers.tolist(),
        dict(snapshot.labels.counts),
        snapshot.samples,
    )


@settings(deadline=None, max_examples=50)
@given(SNAPSHOTS, SNAPSHOTS, SNAPSHOTS)
def test_merging_is_associative_and_keeps_everything(a: Snapshot, b: Snapshot, c: Snapshot) -> None:
    assert _summary(a.merge(b).merge(c)) == _summary(a.merge(b.merge(c)))
    merged = a.merge(b)
    assert merged.durations_s[""].numbers.size == a.features["f0"].numbers.size + b.features["f0"].numbers.size
    assert merged.labels.total == a.labels.total + b.labels.total
    found = [s.durations_s[""].exemplar[0] for s in (a, b) if s.durations_s[""].exemplar]
    exemplar = merged.durations_s[""].exemplar
    assert (exemplar and exemplar[0]) == (max(found) if found else None)
