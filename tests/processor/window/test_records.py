"""A restart at any point is no restart: windows and summaries equal bit for bit."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon import semconv
from otel_mlmon.errors import StoreError
from otel_mlmon.processor.receive.data_point import DataPoint, ModelLoaded
from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.processor.window.aggregator import WindowAggregator
from otel_mlmon.processor.window.reference import ModelWindowSettings
from otel_mlmon.processor.window.window import WindowSettings
from otel_mlmon.reference.embedding import encode_profile
from otel_mlmon.reference.profile import Profile
from otel_mlmon.types import ModelKey
from tests.support.observations import MODEL, SECOND, T0, Bench, durations, facts, label, numbers, point

WINDOWS = WindowSettings(pane_s=10.0, lateness_s=10.0, rolling_s=40.0, short_panes=3)
SETTINGS = ModelWindowSettings(learn=12, max_labels=2)


def observation(kind: int, size: int, at_s: float, model: ModelKey) -> DataPoint:
    """One of the ways in which a writer counts; totals begin with the first point."""
    total: dict[str, Any] = {"since_s": 1.0, "is_cumulative": True}
    makers = (
        lambda: label(
            size, at_s=at_s, label="abcd"[size % 4], model=model, exemplars=(f"{size:032x}",), exemplar_value=0.1 * size
        ),
        lambda: label(size + int(at_s), at_s=at_s, series=f"t{model.name}", model=model, **total),
        lambda: point(semconv.DURATION.name, durations(*[0.01 * size] * size), at_s=at_s, model=model),
        lambda: point(
            semconv.DURATION.name, durations(*[0.1] * (size + int(at_s))), at_s=at_s, key="E", model=model, **total
        ),
        lambda: point(semconv.FEATURE.name, numbers(*[size * 1.1, 10.0**-size]), at_s=at_s, key="x", model=model),
        lambda: point(semconv.FEATURE.name, numbers(*[3.0] * int(at_s), 5.0), at_s=at_s, key="y", model=model, **total),
        lambda: point(semconv.MISSING_VALUES.name, size, at_s=at_s, key="x", model=model),
        lambda: point(semconv.CATEGORY.name, size, at_s=at_s, key="c", category="uvw"[size % 3], model=model),
    )
    return makers[kind]()


STEPS = st.lists(
    st.tuples(st.integers(0, 7), st.integers(1, 9), st.integers(-12, 15), st.sampled_from([MODEL, ModelKey("b", "")])),
    max_size=40,
)


@settings(deadline=None, max_examples=50)
@given(steps=STEPS, saves=st.sets(st.integers(0, 40), max_size=6))
def test_a_restart_is_no_restart(steps: list[tuple[int, int, int, ModelKey]], saves: set[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        steady = Bench(settings=SETTINGS, windows=WINDOWS)
        killed = Bench(settings=SETTINGS, windows=WINDOWS)
        now_s = 20.0
        for number, (kind, size, later_s, model) in enumerate(steps):
            now_s = max(now_s + later_s / 2, 2.0)
            data_point = observation(kind, size, round(now_s) + 0.5, model)
            assert steady.add(data_point) == killed.add(data_point)
            steady.out += steady.panes.close_panes(steady.clock.now_ns)
            killed.out += killed.panes.close_panes(killed.clock.now_ns)
            if number in saves:
                restart(killed, directory)
        steady.flush()
        killed.flush()
        # Models are apart: one that is silent closes by our clock, which stands still while no processor runs.
        by_model = [sorted(bench.out, key=lambda window: window.stream.model) for bench in (killed, steady)]
        assert facts(by_model[0]) == facts(by_model[1])
        assert killed.panes.models == steady.panes.models
        for model in steady.panes.models:
            assert repr(killed.panes.summary(model)) == repr(steady.panes.summary(model))


def restart(bench: Bench, directory: str) -> None:
    """Save, add what is never saved, and start again from the disk."""
    store = SqliteRepository(directory, synchronous="OFF")
    bench.panes.save(store)
    store.commit()
    store.put("point", [("lost", b"")])
    store.close()
    store = SqliteRepository(directory, synchronous="OFF")
    bench.reload(store)
    store.close()


def rows(directory: Path) -> dict[str, int]:
    database = sqlite3.connect(directory / "mlmon.sqlite3")
    counted = dict(database.execute("SELECT kind, count(*) FROM state GROUP BY kind"))
    database.close()
    return counted


def test_only_what_is_needed_stays(tmp_path: Path) -> None:
    bench = Bench(
        settings=SETTINGS, windows=WindowSettings(pane_s=10, lateness_s=0, rolling_s=40, stored_s=0, retention_s=1e5)
    )
    for step in range(1, 30):
        bench.add(label(5, at_s=step * 10))
        bench.out += bench.panes.close_panes(bench.clock.now_ns)
        store = SqliteRepository(tmp_path, synchronous="OFF")
        bench.panes.save(store)
        store.commit()
        store.close()
    assert rows(tmp_path) == {
        "started": 1,
        "model": 1,
        "presence": 1,
        "pane": 29,
        "sender": 1,
        "identities": 1,
        "series": 1,
        "stream": 1,
    }
    bench.clock.now_ns += 200_000 * SECOND
    bench.panes.close_panes(bench.clock.now_ns)
    store = SqliteRepository(tmp_path, synchronous="OFF")
    bench.panes.save(store)
    store.commit()
    store.close()
    assert rows(tmp_path) == {"started": 1, "ended": 1}


def test_a_save_without_change_writes_nothing(tmp_path: Path) -> None:
    bench = Bench()
    bench.add(label(5, at_s=10))
    store = SqliteRepository(tmp_path)
    bench.panes.save(store)
    store.commit()
    before = store._database.total_changes
    bench.panes.save(store)
    store.commit()
    assert store._database.total_changes == before
    store.close()


def test_an_empty_store_is_an_empty_state(tmp_path: Path) -> None:
    store = SqliteRepository(tmp_path)
    windows = WindowAggregator()
    windows.load(store)
    assert windows.models == []
    store.close()


def test_a_save_that_was_rolled_back_is_written_by_the_next(tmp_path: Path) -> None:
    bench = Bench()
    bench.add(label(5, at_s=10))
    store = SqliteRepository(tmp_path)
    bench.panes.save(store)
    deny = 22  # SQLITE_TRANSACTION
    store._database.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action == deny else sqlite3.SQLITE_OK)
    with pytest.raises(StoreError):
        store.commit()
    store._database.set_authorizer(None)
    store.close()
    store = SqliteRepository(tmp_path)
    bench.panes.save(store)
    store.commit()
    before = bench.panes
    bench.reload(store)
    assert facts(bench.panes.close_panes(T0 + 3600 * SECOND)) == facts(before.close_panes(T0 + 3600 * SECOND)) != []
    store.close()


def test_settings_that_changed_are_followed(tmp_path: Path) -> None:
    bench = Bench(settings=ModelWindowSettings(learn=5, latency_threshold_s=0.1))
    for at_s in (10, 20, 30):
        for name in "ab":
            bench.add(label(5, at_s=at_s, label=name))
        bench.add(point(semconv.DURATION.name, durations(0.2), at_s=at_s))
    bench.flush()
    bench.settings = ModelWindowSettings(learn=5, latency_threshold_s=0.3, max_labels=1)
    restart(bench, str(tmp_path))
    _, latency, labels = bench.panes.summary(MODEL).streams
    assert labels.bins.names == ("a", "_OTHER")
    assert (labels.current_count, labels.reference_count) == (0, 10)
    assert latency.origin == "budget"


def counting_bench(steps: int = 12) -> Bench:
    """A model that has learned a reference, with panes, senders and a pending point."""
    bench = Bench(settings=ModelWindowSettings(learn=12), windows=WINDOWS)
    for step in range(1, steps + 1):
        bench.add(label(5, at_s=step * 10))
        bench.out += bench.panes.close_panes(bench.clock.now_ns)
    return bench


@pytest.mark.parametrize("kind", ["started", "model", "sender", "stream", "identities", "series", "pane", "point"])
def test_a_damaged_record_is_set_aside_and_everything_else_goes_on(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = counting_bench()
    store = SqliteRepository(tmp_path, synchronous="OFF")
    bench.panes.save(store)
    store.commit()
    *_, key = store.load(kind)
    store.put(kind, [(key, b"no record")])
    bench.reload(store)
    bench.panes.save(store)
    store.commit()
    assert f"{kind} {key}" in store.load("damaged")
    assert any(f"set aside: {kind} {key}" in message for message in caplog.messages)
    assert bench.panes.models == [MODEL]
    (stream,) = bench.panes.summary(MODEL).streams
    assert stream.origin == ("" if kind == "stream" else "learned")
    for step in (14, 15):
        bench.add(label(5, at_s=step * 10))
    bench.out.clear()
    bench.flush()
    assert [window.end_ns - T0 for window in bench.out][-2:] == [140 * SECOND, 150 * SECOND]
    bench.panes.save(store)
    store.commit()
    damaged = store.load("damaged").keys()
    bench.reload(store)  # what was set aside is not looked at again, and what came since is whole
    assert (store.load("damaged").keys(), bench.panes.series_count) == (damaged, 1)
    store.close()


def test_a_sender_whose_progress_is_lost_begins_anew_with_what_it_sends_then(tmp_path: Path) -> None:
    bench = counting_bench()
    bench.add(label(5, at_s=125, label="b"))
    store = SqliteRepository(tmp_path, synchronous="OFF")
    bench.panes.save(store)
    store.put("series", [(key, b"no record") for key in store.load("series")])
    bench.reload(store)
    bench.panes.save(store)
    store.commit()
    assert (bench.panes.series_count, store.load("identities")) == (0, {})
    bench.add(label(5, at_s=145, label="b"))
    bench.panes.save(store)
    store.commit()
    damaged = store.load("damaged").keys()
    bench.reload(store)
    assert (bench.panes.series_count, store.load("damaged").keys()) == (1, damaged)
    store.close()


def test_points_of_a_series_that_is_not_stored_are_set_aside(tmp_path: Path) -> None:
    bench = counting_bench(1)
    store = SqliteRepository(tmp_path)
    bench.panes.save(store)
    store.delete("series", list(store.load("series")))
    WindowAggregator().load(store)
    assert (len(store.load("damaged")), store.load("point")) == (1, {})
    store.close()


def test_a_model_whose_progress_was_damaged_goes_on_after_its_last_pane(tmp_path: Path) -> None:
    bench = counting_bench()
    store = SqliteRepository(tmp_path, synchronous="OFF")
    bench.panes.save(store)
    before = bench.panes.summary(MODEL)
    store.put("model", [(key, b"") for key in store.load("model")])
    bench.reload(store)
    after = bench.panes.summary(MODEL)
    assert (after.updated_ns, repr(after.streams)) == (before.updated_ns, repr(before.streams))
    assert bench.panes._state.models[MODEL].progress.closed_ns == before.updated_ns
    store.close()


def test_panes_from_before_a_model_was_removed_are_none_of_its_next_life(tmp_path: Path) -> None:
    bench = Bench(settings=SETTINGS, windows=WindowSettings(lateness_s=0, stale_after_s=1e6, retention_s=86_400))
    store = SqliteRepository(tmp_path, synchronous="OFF")
    for at_s in (10, 20, 30):
        bench.add(label(5, at_s=at_s, label="ab"[at_s // 10 % 2]))
        bench.add(point(semconv.DURATION.name, durations(0.2), at_s=at_s))
    bench.flush()
    bench.panes.save(store)
    bench.panes.close_panes(bench.clock.now_ns + 90_000 * SECOND)
    assert bench.panes.models == []
    bench.add(point(semconv.DURATION.name, durations(0.1, 0.1), at_s=4000))
    bench.panes.save(store)
    store.commit()
    for expected in (0, 2):
        bench.reload(store)
        errors, latency = bench.panes.summary(MODEL).streams
        assert (errors.current_count, latency.current_count) == (expected, expected)
        assert bench.panes.summary(MODEL).calls == expected
        bench.flush()
        bench.panes.save(store)
    store.close()


class FailingRepository:
    """The built-in repository, of which one write fails: the `fails_at`th from now on."""

    def __init__(self, repository: SqliteRepository, fails_at: int) -> None:
        self._repository = repository
        self.remaining = fails_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)

    def put(self, kind: str, records: Iterable[tuple[str, bytes]], /) -> None:
        self._count()
        self._repository.put(kind, records)

    def delete(self, kind: str, keys: Iterable[str], /) -> None:
        self._count()
        self._repository.delete(kind, keys)

    def prune(self, kind: str, before: str, /) -> int:
        self._count()
        return self._repository.prune(kind, before)

    def _count(self) -> None:
        self.remaining -= 1
        if self.remaining == 0:
            raise StoreError("the disk is full")


@pytest.mark.parametrize("fails_at", range(1, 12))
@pytest.mark.parametrize("is_first", [True, False])
def test_a_save_that_fails_midway_is_written_by_the_next_and_nothing_is_counted_twice(
    tmp_path: Path, fails_at: int, is_first: bool
) -> None:
    steady, broken = (Bench(settings=SETTINGS, windows=WINDOWS) for _ in range(2))
    store = SqliteRepository(tmp_path, synchronous="OFF")
    failing = FailingRepository(store, fails_at)
    for step in range(1, 16):
        for bench in (steady, broken):
            for kind in (0, 3, 4, 6):
                bench.add(observation(kind, 2, 10.0 * step, MODEL))
            bench.out += bench.panes.close_panes(bench.clock.now_ns)
        if step == 8 or (is_first and step == 1):
            failing.remaining = fails_at
            try:
                broken.panes.save(failing)
            except StoreError:
                store.rollback()  # as whoever commits does
            failing.remaining = 0
        else:
            broken.panes.save(store)
            store.commit()
    broken.reload(store)
    steady.flush()
    broken.flush()
    assert facts(broken.out) == facts(steady.out)
    broken.panes.save(store)
    assert store.load("point") == {}
    store.close()


def test_a_reference_that_a_model_carries_is_stored_until_the_model_is_removed(tmp_path: Path) -> None:
    bench = Bench(settings=SETTINGS, windows=WindowSettings(lateness_s=0, retention_s=86_400))
    store = SqliteRepository(tmp_path, synchronous="OFF")
    profile = Profile.from_data(model="digits", version="1", labels=["a", "a", "b"])
    loaded = ModelLoaded(model=MODEL, reference=encode_profile(profile))
    assert bench.panes.add_reference(loaded) == "accepted"
    bench.panes.save(store)
    bench.reload(store)
    assert bench.panes.add_reference(loaded) == "unchanged"
    bench.add(label(5, at_s=10))
    (window,) = bench.flush()
    assert window.reference is not None
    assert (window.reference.origin, window.reference.counts.tolist()) == ("model", [2, 1, 0])
    bench.panes.save(store)
    bench.reload(store)
    (summary,) = bench.panes.summary(MODEL).streams
    assert (summary.origin, summary.current_counts) == ("model", (5, 0, 0))
    bench.panes.close_panes(bench.clock.now_ns + 90_000 * SECOND)
    bench.panes.save(store)
    bench.reload(store)
    assert bench.panes.add_reference(loaded) == "accepted"
    assert {kind: len(store.load(kind)) for kind in ("embedded", "model", "stream", "series", "point")} == {
        "embedded": 0, "model": 0, "stream": 0, "series": 0, "point": 0,
    }  # fmt: skip
    store.close()


def test_the_points_of_each_request_are_stored_by_themselves_and_once(tmp_path: Path) -> None:
    bench = Bench(settings=SETTINGS, windows=WindowSettings(lateness_s=20.0))
    store = SqliteRepository(tmp_path, synchronous="OFF")
    bench.add_request([label(1, at_s=1, since_s=0), label(2, at_s=1, since_s=0, label="b")])
    bench.add_request([label(3, at_s=2, since_s=1)])
    bench.panes.save(store)
    earlier = dict(store.load("point"))
    assert len(earlier) == 2
    bench.add_request([label(4, at_s=3, since_s=2)])
    bench.panes.save(store)
    later = dict(store.load("point"))
    assert (len(later), later.items() >= earlier.items()) == (3, True)
    bench.reload(store)
    bench.add_request([label(5, at_s=4, since_s=3)])
    bench.panes.save(store)
    assert (len(store.load("point")), store.load("point").items() >= later.items()) == (4, True)
    bench.flush()
    bench.panes.save(store)
    assert store.load("point") == {}
    store.close()


def test_what_was_sent_while_no_process_ran_is_not_late_after_a_restart(tmp_path: Path) -> None:
    bench = Bench(settings=SETTINGS, windows=WindowSettings(pane_s=10.0, lateness_s=5.0))
    store = SqliteRepository(tmp_path, synchronous="OFF")
    assert bench.add(label(5, at_s=12)) == "accepted"
    bench.panes.save(store)
    bench.clock.now_ns = T0 + 600 * SECOND
    bench.reload(store)
    assert bench.panes.close_panes(bench.clock.now_ns) == []
    assert bench.add(label(7, at_s=13, since_s=12)) == "accepted"
    bench.clock.now_ns += 15 * SECOND
    assert {window.end_ns for window in bench.panes.close_panes(bench.clock.now_ns)} == {T0 + 20 * SECOND}
    store.close()
