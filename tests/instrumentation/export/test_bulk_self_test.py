from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.version import __version__

from otel_mlmon.instrumentation.export import bulk
from otel_mlmon.instrumentation.export.bulk_self_test import BulkUnavailableReasons, check_bulk_recording
from otel_mlmon.instrumentation.export.metrics import make_exponential_views
from otel_mlmon.types import Floats

SDK = f"opentelemetry-sdk {__version__}"


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    bulk.import_private_name.cache_clear()
    check_bulk_recording.cache_clear()
    yield
    bulk.import_private_name.cache_clear()
    check_bulk_recording.cache_clear()


def test_this_release_is_one_that_is_known() -> None:
    assert check_bulk_recording() == BulkUnavailableReasons("", "")
    assert len(make_exponential_views()) == 2


def test_a_release_with_a_module_elsewhere_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics._internal.measurement", None)
    reason, exemplars = check_bulk_recording()
    assert reason == exemplars
    assert reason.startswith(f"{SDK} is laid out in another way: ModuleNotFoundError: ")
    assert reason.count("_internal.measurement") == 1
    assert make_exponential_views() == []
    line = f"Values are recorded in metrics one by one, which takes 500 times as long: {reason}."
    assert [record.getMessage() for record in caplog.records] == [line]


def test_a_release_that_counts_in_another_way_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(aggregation: Any, values: Floats) -> None:
        fill(aggregation, values)
        fill(aggregation, values)

    fill = bulk._fill_explicit_buckets
    monkeypatch.setattr(bulk, "_fill_explicit_buckets", twice)
    said = f"{SDK} gives other explicit histograms than by `record`"
    assert check_bulk_recording() == BulkUnavailableReasons(said, said)


def test_without_a_way_to_exemplars_values_still_go_in_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "offer_exemplar", lambda *_: None)
    assert check_bulk_recording() == BulkUnavailableReasons(
        "", f"{SDK} gives other explicit and exponential histograms than by `record`"
    )
    assert len(make_exponential_views()) == 2


@pytest.mark.guarded
def test_whatever_the_sdk_raises_is_no_ones_fault_but_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def divide(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(bulk, "_split_extreme_values", divide)
    said = f"{SDK} fails in the self-test"
    assert check_bulk_recording() == BulkUnavailableReasons(said, said)
