from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from sqlite3 import SQLITE_DENY, SQLITE_OK
from typing import Any

import numpy as np
import pytest

from otel_mlmon import semconv
from otel_mlmon.errors import StoreError
from otel_mlmon.processor.alert.alert import Alert, RuleState
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.evidence_slices import EVIDENCE
from otel_mlmon.processor.notify.dispatcher import OutboxEntry
from otel_mlmon.processor.pipeline import ProcessorPipeline
from otel_mlmon.processor.receive.data_point import (
    DataPoint,
    ModelLoaded,
    ProviderFallback,
    TelemetryItem,
    group_points,
)
from otel_mlmon.processor.records import RECORD_KINDS
from otel_mlmon.processor.self_telemetry import SelfTelemetry
from otel_mlmon.processor.settings import ProcessorSettings
from otel_mlmon.processor.state.maintenance import check_state
from otel_mlmon.processor.state.repository import encode_record
from otel_mlmon.processor.state.sqlite import SqliteRepository
from otel_mlmon.processor.state.thread import ClockWork
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.reference.embedding import encode_profile
from otel_mlmon.reference.profile import Profile
from otel_mlmon.sketch.histogram import Histogram
from otel_mlmon.types import ModelKey
from tests.support.observations import SECOND, T0, Clock, label, numbers, point

CALM = {"a": 40, "b": 30, "c": 20, "d": 10}
DRIFTED = {"a": 10, "b": 30, "c": 20, "d": 40}

SQLITE_TRANSACTION = 22


def settings(folder: Path, **models: Any) -> ProcessorSettings:
    path = folder / "mlmon.yaml"
    document = {
        "storage": {"path": str(folder / "data")},
        "windows": {"pane": "10s", "lateness": "0s", "rolling": "5m"},
        "models": {"*": {"reference": {"learn": 1000}, **models}},
        "alerts": {"keep_firing_for": "0s"},
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return ProcessorSettings(load_config(path, {}))


class ListDispatcher:
    """One recipient, which has what it is given at once, or never."""

    names = ("list",)

    def __init__(self, notified: list[Alert], has_recipient: Callable[[], bool]) -> None:
        self.notified = notified
        self.has_recipient = has_recipient
        self.settled: list[tuple[str, str]] = []
        self.active: list[Alert] = []

    def start(self, active: Iterable[Alert]) -> None:
        self.active = list(active)

    def submit(self, entry: OutboxEntry) -> None:
        self.notified.append(entry.alert)
        if self.has_recipient():
            self.settled.append(("list", entry.alert.key))

    def pop_settled(self) -> list[tuple[str, str]]:
        settled, self.settled = self.settled, []
        return settled

    def shutdown(self) -> None:
        pass


@dataclass
class Bench:
    """A pipeline without its thread: each `pane` is one turn."""

    settings: ProcessorSettings
    notified: list[Alert] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    telemetry: SelfTelemetry = field(default_factory=SelfTelemetry)
    number: int = 0
    has_recipient: bool = True
    """Whether what is notified arrives."""

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.dispatcher = ListDispatcher(self.notified, lambda: self.has_recipient)
        self.pipeline = ProcessorPipeline(
            self.settings, dispatcher=self.dispatcher, telemetry=self.telemetry, clock_ns=self.clock
        )
        self.pipeline.open()

    def kill(self) -> None:
        """As `kill -9` leaves it: nothing is said to the store any more."""
        self.pipeline._repository.close()

    def pane(self, shares: dict[str, int], *more: DataPoint) -> None:
        """One pane of 100 predictions."""
        self.number += 1
        at_s = 10.0 * self.number
        self.clock.now_ns = max(self.clock.now_ns, T0 + round(at_s * SECOND))
        points = [label(count, at_s=at_s, since_s=at_s - 10, label=name) for name, count in shares.items()]
        self.turn(*group_points([*points, *more]))

    def load(self, profile: Profile, version: str = "1") -> None:
        """A process loads a model that carries `profile`."""
        self.turn(ModelLoaded(model=ModelKey("digits", version), reference=encode_profile(profile)))

    def turn(self, *points: TelemetryItem) -> None:
        self.pipeline.apply(points)
        self.pipeline.advance()
        self.pipeline.commit()
        self.pipeline.publish(is_busy=False)

    def stream(self, name: str = "prediction.label") -> dict[str, Any]:
        (model,) = self.pipeline.read()["models"].values()
        return next(stream for stream in model["streams"] if stream["stream"] == name)


def carried(*, day: int, version: str = "1", labels: dict[str, int] | None = None) -> Profile:
    """The reference that a model carries, made on some day: 9,000 labelled predictions, 90 % of them right."""
    return Profile.from_data(
        model="digits",
        version=version,
        labels=[name for name, count in (labels or CALM).items() for _ in range(90 * count)],
        confidences=np.full(9000, 0.95),
        calibration=Calibration.from_predictions(np.full(9000, 0.95), np.arange(9000) < 8100),
        now=lambda: datetime(2026, 1, day, tzinfo=timezone.utc),
    )


def confidences(bench: Bench, value: float = 0.95) -> DataPoint:
    """A hundred predictions of one confidence in the next pane."""
    at_s = 10.0 * (bench.number + 1)
    histogram = Histogram.from_values(np.full(100, value), semconv.CONFIDENCE_BOUNDS)
    return point(semconv.CONFIDENCE.name, histogram, at_s=at_s, since_s=at_s - 10)


def facts(bench: Bench) -> str:
    """The documents as text: a mean that is not known is not equal to itself."""
    return json.dumps(bench.pipeline.read(), sort_keys=True)


def changes(alerts: list[Alert]) -> list[tuple[str, RuleState]]:
    return [(alert.rule, alert.state) for alert in alerts]


def play(bench: Bench, *, restart_after: frozenset[int] = frozenset()) -> Bench:
    """Thirty calm panes, six drifted ones, and calm again until the end is told."""
    for number in range(90):
        bench.pane(DRIFTED if 30 <= number < 36 else CALM)
        if number in restart_after:
            bench.kill()
            bench.open()
    bench.kill()
    return bench


def test_a_fallback_is_in_the_document_of_its_model(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    digits = ModelKey("digits", "1")
    bench.turn(
        ModelLoaded(model=digits, reference="", provider="CPU", time_ns=T0 - 1),
        ProviderFallback(model=digits, requested="CUDA", provider="CPU", time_ns=T0 - 2),
    )
    bench.pane(CALM)
    (model,) = bench.pipeline.read()["models"].values()
    assert (model["providers"], model["fallbacks"]) == (
        [{"provider": "CPU", "first_ns": T0 - 1, "last_ns": T0 - 1}],
        [{"requested": "CUDA", "provider": "CPU", "first_ns": T0 - 2, "last_ns": T0 - 2}],
    )


def test_a_drift_is_told_once_with_its_onset_and_so_is_its_end(tmp_path: Path) -> None:
    bench = play(Bench(settings(tmp_path)))
    assert changes(bench.notified) == [("prediction_drift", RuleState.FIRING), ("prediction_drift", RuleState.OK)]
    fired = bench.notified[0]
    assert fired.onset_ns == T0 + 300 * SECOND
    (cause,) = fired.causes
    assert (cause.stream, cause.reference, cause.current) == ("prediction.label", "class d: 10 %", "40 %")


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A pipeline that was never restarted."""
    return play(Bench(settings(tmp_path_factory.mktemp("steady"))))


@pytest.mark.parametrize(
    # As the drift begins; at the first pane, while it learns, and while it fires; and in half of all panes.
    "restart_after",
    [{29}, {0, 5, 15, 16, 31, 34, 40}, set(range(0, 90, 2)), set(range(1, 90, 4))],
    ids=str,
)
def test_a_restart_at_any_time_is_no_restart(tmp_path: Path, steady: Bench, restart_after: set[int]) -> None:
    broken = play(Bench(settings(tmp_path)), restart_after=frozenset(restart_after))
    # Told at least once: what is told again after a restart has the same identity, and receivers know it by that.
    assert list({alert.time_ns: alert for alert in broken.notified}.values()) == steady.notified
    assert facts(broken) == facts(steady)


def test_an_alert_that_was_committed_but_not_told_is_told_after_the_restart(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    for number in range(40):
        bench.pane(DRIFTED if number >= 30 else CALM)
        if bench.notified:
            break
    (fired,) = bench.notified
    bench.kill()  # before the turn in which the outbox is cleared is committed
    bench.open()
    assert bench.notified == [fired] * 2
    bench.pane(DRIFTED)
    bench.kill()
    bench.open()
    assert len(bench.notified) == 2
    bench.kill()


def test_an_alert_stays_stored_until_its_recipient_has_it(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path), has_recipient=False)
    for number in range(60):
        bench.pane(DRIFTED if 30 <= number < 45 else CALM)
    expected = list(bench.notified)
    assert [alert.state for alert in expected] == [RuleState.FIRING, RuleState.OK]
    for _ in range(3):
        bench.kill()
        bench.notified.clear()
        bench.open()
        assert bench.notified == expected
    bench.kill()
    bench.has_recipient = True
    bench.open()
    bench.pane(CALM)
    bench.kill()
    bench.notified.clear()
    bench.open()
    assert (bench.notified, bench.dispatcher.active) == ([], [])
    bench.kill()


def test_recipients_that_forget_are_told_again_after_a_restart_what_is_not_over(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    for number in range(40):
        bench.pane(DRIFTED if number >= 30 else CALM)
    bench.kill()
    bench.open()
    assert list(bench.dispatcher.active) == bench.notified[:1]
    bench.kill()


def test_after_an_orderly_stop_nothing_is_told_again(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    for number in range(40):
        bench.pane(DRIFTED if number >= 30 else CALM)
    assert len(bench.notified) == 1
    bench.pipeline.close()
    bench.open()
    bench.pipeline.close()
    assert len(bench.notified) == 1


def test_what_was_there_is_known_right_after_a_restart(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    for number in range(36):
        bench.pane(DRIFTED if number >= 30 else CALM)
    before = facts(bench)
    assert bench.stream()["state"] == "drift"
    bench.kill()
    bench.open()
    assert facts(bench) == before
    bench.kill()


def test_a_rule_that_is_switched_off_is_not_judged(tmp_path: Path) -> None:
    bench = play(Bench(settings(tmp_path, prediction_drift={"enabled": False})))
    assert bench.notified == []


def test_a_moved_feature_is_told_by_its_mean(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    rng = np.random.default_rng(5)
    for number in range(60):
        values = rng.normal(0.6 if number < 40 else 0.3, 0.1, 100)
        at_s = 10.0 * (bench.number + 1)
        feature = point(semconv.FEATURE.name, numbers(*values), at_s=at_s, since_s=at_s - 10, key="image.brightness")
        bench.pane(CALM, feature)
    (fired,) = bench.notified
    assert (fired.rule, fired.state) == ("data_drift", RuleState.FIRING)
    (cause,) = fired.causes
    assert cause.stream == "input.image.brightness"
    assert cause.reference.startswith("mean 0.6")
    assert 0.28 < float(cause.current.removeprefix("mean ")) < 0.32
    bench.kill()


def test_silence_is_told_as_no_data(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path, no_data={"after": "1m"}))
    for _ in range(15):
        bench.pane(CALM)
    bench.clock.now_ns += 120 * SECOND
    bench.turn()
    assert changes(bench.notified) == [("no_data", RuleState.NO_DATA)]
    bench.number += 12
    bench.pane(CALM)
    bench.pane(CALM)
    assert changes(bench.notified) == [("no_data", RuleState.NO_DATA), ("no_data", RuleState.OK)]
    bench.kill()


def test_a_model_whose_panes_are_closed_in_a_later_part_is_not_silent_and_others_are(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path, no_data={"after": "1m"}))
    first, second, silent = models = [ModelKey(name, "1") for name in ("first", "second", "silent")]
    parts = list[set[tuple[str, RuleState]]]()
    for number in range(1, 17):
        at_s = 10.0 * (number if number < 16 else 28)  # away for two minutes before the last
        bench.clock.now_ns = T0 + round(at_s * SECOND)
        senders = models[:2] if number == 16 else models
        bench.pipeline.apply(
            (*group_points(label(100, at_s=at_s, since_s=at_s - 10, model=model) for model in senders),)
        )
        bench.clock.now_ns += 20 * SECOND if number == 16 else 0
        while bench.pipeline.advance(0.0).is_incomplete:
            bench.pipeline.commit()
            bench.pipeline.publish(is_busy=False)
            statuses = bench.pipeline._alerts.list_current_alerts()
            parts.append({(status.model.name, status.state) for status in statuses if status.rule == "no_data"})
        bench.pipeline.commit()
        bench.pipeline.publish(is_busy=False)
    assert len(parts) >= 10
    assert parts[-1] == {
        (first.name, RuleState.OK), (second.name, RuleState.OK), (silent.name, RuleState.NO_DATA)
    }  # fmt: skip
    assert [(alert.model, alert.rule, alert.state) for alert in bench.notified] == [
        ("silent", "no_data", RuleState.NO_DATA)
    ]
    bench.kill()


def test_a_model_of_which_only_a_backlog_comes_is_silent_before_the_backlog_is_over(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path, no_data={"after": "1m"}))
    for _ in range(15):
        bench.pane(CALM)
    bench.clock.now_ns += 120 * SECOND
    ends_s = [-10.0 * pane for pane in range(1, 5)]
    bench.pipeline.apply((*group_points(label(1, at_s=end_s, since_s=end_s - 10, sender="away") for end_s in ends_s),))
    is_behind = [bench.pipeline.advance(0.0).is_incomplete]
    bench.pipeline.commit()
    bench.pipeline.publish(is_busy=True)
    assert changes(bench.notified) == [("no_data", RuleState.NO_DATA)]
    is_behind += [bench.pipeline.advance(0.0).is_incomplete for _ in range(3)]
    assert is_behind == [True, True, True, False]
    bench.kill()


def test_what_panes_and_alerts_change_is_to_be_stored_at_once_and_what_a_tick_does_is_not(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path, no_data={"after": "1m"}))
    for _ in range(3):
        bench.pane(CALM)
    bench.clock.now_ns += 10 * SECOND
    bench.pipeline.apply((*group_points([label(100, at_s=40, since_s=30)]),))
    works = [bench.pipeline.advance(), bench.pipeline.advance()]
    assert works == [ClockWork(is_unsaved=True), ClockWork()]
    bench.clock.now_ns += 120 * SECOND
    works = [bench.pipeline.advance(), bench.pipeline.advance()]
    bench.pipeline.commit()
    bench.pipeline.publish(is_busy=False)
    assert (works, changes(bench.notified)) == (
        [ClockWork(is_unsaved=True), ClockWork()],
        [("no_data", RuleState.NO_DATA)],
    )
    bench.kill()


def test_whoever_is_alerted_finds_the_page_to_say_the_same_however_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(settings(tmp_path, no_data={"after": "1m"}))
    for _ in range(15):
        bench.pane(CALM)
    bench.clock.now_ns += 120 * SECOND
    bench.pipeline.publish(is_busy=True)  # all pages are published, and not due again for a second
    published, submit = list[str](), bench.dispatcher.submit

    def look(entry: OutboxEntry) -> None:
        (model,) = bench.pipeline.read()["models"].values()
        published.append(next(rule["state"] for rule in model["rules"] if rule["rule"] == "no_data"))
        submit(entry)

    monkeypatch.setattr(bench.dispatcher, "submit", look)
    bench.pipeline.advance()
    bench.pipeline.commit()
    bench.pipeline.publish(is_busy=True)
    assert (published, changes(bench.notified)) == (["no_data"], [("no_data", RuleState.NO_DATA)])
    bench.kill()


def test_under_load_publishing_takes_a_tenth_of_the_time_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(settings(tmp_path))
    monkeypatch.setattr("otel_mlmon.processor.pipeline.time.monotonic_ns", bench.clock)
    publish_models, began_s = bench.pipeline.publication.publish_models, list[float]()

    def publish_slowly(*arguments: Any, **options: Any) -> None:
        began_s.append((bench.clock.now_ns - T0) / SECOND)
        publish_models(*arguments, **options)
        bench.clock.now_ns += 300_000_000 if len(began_s) <= 3 else 0

    monkeypatch.setattr(bench.pipeline.publication, "publish_models", publish_slowly)
    while len(began_s) < 6:
        bench.clock.now_ns += 100_000_000
        bench.pipeline.publish(is_busy=True)
    assert began_s == pytest.approx([1.0, 4.0, 7.0, 10.0, 11.0, 12.0])
    bench.kill()


def test_a_clock_that_jumps_while_pages_are_published_makes_them_no_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(settings(tmp_path))
    publish_models, hours = bench.pipeline.publication.publish_models, list[float]()

    def jump(*arguments: Any, **options: Any) -> None:
        publish_models(*arguments, **options)
        hours.append((bench.clock.now_ns - T0) // (3600 * SECOND))
        bench.clock.now_ns += 3600 * SECOND

    monkeypatch.setattr(bench.pipeline.publication, "publish_models", jump)
    for _ in range(3):
        bench.clock.now_ns += 60 * SECOND
        bench.pipeline.publish(is_busy=True)
    assert hours == [0, 1, 2]
    bench.kill()


def test_a_model_that_was_silent_for_the_retention_is_forgotten_by_every_step(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    for _ in range(15):
        bench.pane(CALM)
    for after_s in (700, 15 * 86_400):
        bench.clock.now_ns += after_s * SECOND
        bench.turn()
    assert changes(bench.notified) == [("no_data", RuleState.NO_DATA), ("no_data", RuleState.OK)]
    for _ in range(2):
        assert (bench.pipeline.read()["models"], bench.pipeline._alerts.build_record().models) == ({}, [])
        bench.kill()
        bench.open()
    bench.kill()


def test_a_processor_that_was_down_for_the_retention_forgets_what_waited_too(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    for _ in range(15):
        bench.pane(CALM)
    bench.turn(*group_points([label(5, at_s=155.0, since_s=150.0)]))  # half a pane: it waits
    bench.kill()
    bench.clock.now_ns += 15 * 86_400 * SECOND
    bench.open()
    bench.turn()
    assert (bench.pipeline._alerts.build_record().models, list(bench.pipeline._evidence.evaluator.streams())) == (
        [],
        [],
    )
    bench.kill()


def test_the_gauges_are_those_of_the_wire_contract(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    bench.load(carried(day=1))
    for _ in range(30):
        bench.pane(CALM, confidences(bench))
    gauges = list(bench.pipeline.gauges())
    assert {gauge.metric for gauge in gauges} == set(semconv.PROCESSOR_METRICS)
    labels = [gauge for gauge in gauges if gauge.attributes.get("ml.drift.stream") == "prediction.label"]
    (evidence,) = [gauge for gauge in labels if gauge.metric == semconv.DRIFT_EVIDENCE]
    assert evidence.value < 0
    assert evidence.attributes == {
        "ml.model.name": "digits", "ml.model.version": "1", "ml.drift.stream": "prediction.label",
    }  # fmt: skip
    statistics = {gauge.attributes["ml.drift.statistic"] for gauge in gauges if gauge.metric == semconv.DRIFT_SCORE}
    assert {"psi", "chi_squared", "jensen_shannon", "total_variation"} <= statistics
    bench.kill()


def test_a_disk_that_refuses_is_the_senders_to_know_and_nothing_is_lost(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    bench.pane(CALM)
    database = bench.pipeline._repository._database  # type: ignore[attr-defined]
    database.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        bench.pane(CALM)
    database.execute("PRAGMA query_only = OFF")
    bench.turn()
    bench.kill()
    bench.open()
    bench.pane(CALM)
    (model,) = bench.pipeline.read()["models"].values()
    assert model["predictions"] == 300
    bench.kill()


def test_evidence_of_a_removed_stream_is_removed_though_the_commit_fails_at_first(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    for _ in range(15):
        bench.pane(CALM)
    repository: Any = bench.pipeline._repository
    assert len(repository.load(EVIDENCE.name)) == 1
    bench.clock.now_ns += 15 * 86_400 * SECOND
    repository._database.execute("BEGIN")
    # COMMIT is refused, as on a full disk; what was written before it is rolled back.
    repository._database.set_authorizer(lambda action, *_: SQLITE_DENY if action == SQLITE_TRANSACTION else SQLITE_OK)
    with pytest.raises(StoreError):
        bench.turn()
    repository._database.set_authorizer(None)
    repository._database.execute("ROLLBACK")
    assert len(repository.load(EVIDENCE.name)) == 1
    bench.turn()
    assert repository.load(EVIDENCE.name) == {}
    bench.kill()


def test_evidence_that_contradicts_itself_is_set_aside_and_that_of_other_streams_goes_on(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    for _ in range(15):
        bench.pane(CALM, confidences(bench))
    bench.pipeline.close()
    evaluator = bench.pipeline._evidence.evaluator
    states = {stream: encode_record(evaluator.pack([stream])) for stream in evaluator.streams()}
    repository = SqliteRepository(tmp_path / "data")
    (damaged, blob), *others = repository.load(EVIDENCE.name).items()
    record = EVIDENCE.decode(blob)
    columns = record.evidence
    assert columns is not None
    effects = columns.evidence.design_effects
    effects = replace(effects, difference_counts=effects.difference_counts + 1)
    columns = replace(columns, evidence=replace(columns.evidence, design_effects=effects))
    repository.put(EVIDENCE.name, [(damaged, encode_record(replace(record, evidence=columns)))])
    repository.commit()
    repository.close()
    (fault,) = check_state(tmp_path / "data", RECORD_KINDS).faults
    assert fault.startswith(f"evidence {damaged}: the record contradicts itself: ")
    bench.open()
    evaluator = bench.pipeline._evidence.evaluator
    assert {stream: encode_record(evaluator.pack([stream])) for stream in evaluator.streams()} == {
        stream: state for stream, state in states.items() if stream not in record.list_streams()
    }
    assert others
    bench.pane(CALM, confidences(bench))
    assert evaluator.streams() == states.keys()
    bench.kill()


def test_streams_of_two_environments_have_evidence_of_their_own(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    models = [ModelKey("digits", "1", environment) for environment in ("production", "staging")]
    for number in range(1, 61):
        at_s = 10.0 * number
        bench.clock.now_ns = T0 + round(at_s * SECOND)
        shares = [CALM, DRIFTED if number > 30 else CALM]
        bench.turn(
            *group_points(
                label(count, at_s=at_s, since_s=at_s - 10, label=name, model=model)
                for model, counts in zip(models, shares, strict=True)
                for name, count in counts.items()
            )
        )
    (fired,) = bench.notified
    key = ModelKey(fired.model, fired.version, fired.environment)
    assert (key, fired.rule, fired.state) == (models[1], "prediction_drift", RuleState.FIRING)
    before = facts(bench)
    bench.kill()
    bench.open()
    assert facts(bench) == before
    bench.kill()


def test_the_reference_that_a_model_carries_is_what_its_streams_are_judged_by(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    bench.load(carried(day=1))
    bench.pane(CALM)
    stream = bench.stream()
    assert (stream["origin"], stream["reference_count"], stream["calibrating"]) == ("model", 9000, True)
    for number in range(25):
        bench.pane(DRIFTED if number > 14 else CALM)
    assert changes(bench.notified) == [("prediction_drift", RuleState.FIRING)]
    bench.kill()


def test_a_learned_reference_gives_way_and_the_evidence_begins_anew(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    for number in range(33):
        bench.pane(DRIFTED if number > 29 else CALM)
    before = bench.stream()
    assert (before["origin"], before["log10_evidence"] > 1) == ("learned", True)
    bench.load(carried(day=1, labels=DRIFTED))
    bench.pane(DRIFTED)
    after = bench.stream()
    assert (after["origin"], after["calibrating"], after["current_count"]) == ("model", True, 100)
    assert after["log10_evidence"] < 0.5
    bench.kill()
    bench.open()
    assert bench.stream() == after
    bench.kill()


def test_the_later_reference_counts_in_whatever_order_they_come(tmp_path: Path) -> None:
    first, second = carried(day=1), carried(day=2, labels=DRIFTED)
    documents = []
    for name, order in {"a": (first, second), "b": (second, first), "c": (second, first, second, first)}.items():
        (tmp_path / name).mkdir()
        bench = Bench(settings(tmp_path / name))
        for profile in order:
            bench.load(profile)
        bench.pane(CALM)
        documents.append(facts(bench))
        bench.kill()
    assert documents[0] == documents[1] == documents[2]
    counts = {
        str(reading.attributes["outcome"]): reading.value
        for reading in bench.telemetry.values()
        if reading.metric == semconv.REFERENCES
    }
    assert counts == {"accepted": 1, "older": 2, "unchanged": 1}


def test_a_reference_of_another_version_or_none_at_all_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    bench.load(carried(day=1, version="2"))
    bench.turn(ModelLoaded(model=ModelKey("digits", "1"), reference="zlib:no profile"))
    bench.turn(ModelLoaded(model=ModelKey("digits", "1"), reference=""))
    endless = {**carried(day=1).to_dict(), "streams": {"prediction.label": {"categories": {"a": 10**30}}}}
    bench.turn(ModelLoaded(model=ModelKey("digits", "1"), reference=json.dumps(endless)))
    bench.pane(CALM)
    assert (bench.stream()["origin"], bench.stream()["state"]) == ("", "learning")
    bench.kill()


def test_accuracy_is_estimated_from_confidences_and_falls_with_them(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    bench.load(carried(day=1))
    for _ in range(5):
        bench.pane(CALM, confidences(bench))
    (model,) = bench.pipeline.read()["models"].values()
    accuracy = model["accuracy"]
    assert accuracy["labelled"] == {"accuracy": 0.9, "n": 9000}
    assert (accuracy["n"], accuracy["level"], accuracy["supported_ratio"]) == (500, 0.95, 1.0)
    assert accuracy["estimated"] == pytest.approx(0.9, abs=0.001)
    assert accuracy["low"] < 0.9 < accuracy["high"]
    assert accuracy["high"] - accuracy["low"] < 0.1
    for _ in range(5):
        bench.pane(CALM, confidences(bench, 0.35))
    (model,) = bench.pipeline.read()["models"].values()
    assert model["accuracy"]["estimated"] < 0.7
    assert model["accuracy"]["supported_ratio"] == 0.5
    bench.kill()


def test_a_reference_that_moved_while_it_was_learned_is_used_late_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(settings(tmp_path))
    origins = []
    for number in range(40):
        bench.pane(CALM if number < 5 else DRIFTED if number < 20 else {"a": 10, "b": 10, "c": 70, "d": 10})
        origins.append(bench.stream()["origin"])
    assert origins.index("learned") == 39  # four times the thousand that were asked for
    assert bench.stream()["stationary"] is False
    assert "moved while its reference was learned from 4000 values" in caplog.text
    bench.kill()
    bench.open()
    assert bench.stream()["stationary"] is False
    bench.kill()


def test_a_quiet_reference_says_that_it_is_one_thing(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    for _ in range(12):
        bench.pane(CALM)
    assert (bench.stream()["origin"], bench.stream()["stationary"]) == ("learned", True)
    bench.kill()


def test_windows_are_measured_for_publication_and_again_after_a_restart(tmp_path: Path) -> None:
    """They are not stored: the rolling window that they are of is."""
    bench = Bench(settings(tmp_path))
    for _ in range(15):
        bench.pane(CALM)
    for _ in range(2):  # two panes of one publication: the last window is measured
        bench.number += 1
        at_s = 10.0 * bench.number
        bench.clock.now_ns = T0 + round(at_s * SECOND)
        bench.pipeline.apply(
            (*group_points(label(count, at_s=at_s, since_s=at_s - 10, label=name) for name, count in CALM.items()),)
        )
        bench.pipeline.advance()
    (scores,) = bench.pipeline._evidence.scores.values()
    assert all(score.statistics is None for score in scores.values() if score.state == "ok")
    bench.pipeline.commit()
    bench.pipeline.publish(is_busy=False)
    before = facts(bench)
    assert "psi" in bench.stream()["statistics"]
    bench.kill()
    bench.open()
    assert facts(bench) == before


def test_an_empty_rolling_window_has_no_statistics(tmp_path: Path) -> None:
    bench = Bench(settings(tmp_path))
    for _ in range(15):
        bench.pane(CALM, confidences(bench))
    assert bench.stream("prediction.confidence")["statistics"]
    for _ in range(31):
        bench.pane(CALM)
    before = facts(bench)
    assert (bench.stream("prediction.confidence")["current_count"], bench.stream()["current_count"]) == (0, 3000)
    assert bench.stream("prediction.confidence")["statistics"] == {}
    assert bench.stream()["statistics"]
    bench.kill()
    bench.open()
    assert facts(bench) == before
