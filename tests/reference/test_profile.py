from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from otel_mlmon import semconv
from otel_mlmon.errors import ProfileError
from otel_mlmon.reference.profile import Profile
from otel_mlmon.sketch.exponential import ExponentialHistogram
from otel_mlmon.sketch.moments import Moments


def profile(rows: slice = slice(None)) -> Profile:
    ages = np.array([20.0, 30.0, np.nan, 40.0, np.inf, 50.0])
    cities = np.array(["Rome", None, "Bern", "Rome", float("nan"), "Bern"], dtype=object)
    return Profile.from_data(
        model="fraud",
        version="7",
        labels=["ham", "spam", "ham", "ham", "ham", "spam"][rows],
        confidences=np.array([0.9, 0.8, 0.7, np.nan, 1.0, 0.0])[rows],
        values=np.array([1.0, -1.0, 0.0, 2.0, np.inf, 3.0])[rows],
        features={"age": ages[rows], "city": cities[rows], "is_new": np.array([True, False] * 3)[rows]},
        now=lambda: datetime(2026, 1, 31, 12, tzinfo=timezone.utc),
    )


def test_what_it_counts() -> None:
    built = profile()
    streams = built.streams
    assert (built.model, built.version, built.created) == ("fraud", "7", "2026-01-31T12:00:00Z")
    assert streams["prediction.label"].categories.counts == {"ham": 4, "spam": 2}
    (confidence,) = streams["prediction.confidence"].explicit.values()
    assert (confidence.bounds, confidence.total) == (semconv.CONFIDENCE_BOUNDS, 5)
    assert streams["prediction.value"].numbers == 5
    assert streams["prediction.value"].moments.mean == pytest.approx(1.0, abs=7 / 5 * 4e-3)
    assert (streams["input.age"].numbers, streams["input.age"].missing) == (4, 2)
    assert streams["input.age"].moments.mean == pytest.approx(35.0, rel=4e-3)
    assert (dict(streams["input.city"].categories.counts), streams["input.city"].missing) == (
        {"Rome": 2, "Bern": 2},
        2,
    )
    assert streams["input.is_new"].moments.mean == pytest.approx(0.5, rel=4e-3)


def test_a_file_is_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "fraud.reference.json"
    profile().write_file(path)
    assert Profile.read_file(path) == profile()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_profiles_of_parts_merge_to_that_of_the_whole() -> None:
    assert profile(slice(0, 2)).merge(profile(slice(2, None))) == profile()


def test_inputs_and_values_are_buckets_only() -> None:
    ages, heights = np.array([20.25, 30.5, 61.125]), np.array([171.3] * 3)
    built = Profile.from_data(model="m", features={"age": ages, "height": heights}, values=ages)
    text = json.dumps(built.to_dict())
    assert not [
        value for value in ("20.25", "61.125", "171.3", Moments.from_values(ages).to_dict()["sum"]) if value in text
    ]
    for sketch in built.streams.values():
        assert (sketch.moments.minimum, sketch.moments.maximum) == (math.inf, -math.inf)
    # Other numbers of the same buckets make the same profile.
    others = Profile.from_data(
        model="m", features={"age": ages * 1.000001, "height": heights * 1.000001}, values=ages * 1.000001
    )
    assert others.streams == built.streams


def test_what_other_programs_put_into_a_profile_is_reduced_too() -> None:
    exact = ExponentialHistogram.from_values(np.array([20.25, 30.5]))
    document = profile().to_dict()
    document["streams"] = {"input.age": {"exponential": exact.to_dict()}, "latency": {"exponential": exact.to_dict()}}
    read = Profile.from_dict(document)
    assert read.streams["input.age"].exponential == exact.hide_values()
    assert read.streams["latency"].exponential == exact


def test_what_moved_is_kept_and_merged() -> None:
    one, other = replace(profile(), unstationary=("b", "c")), replace(profile(), unstationary=("a", "b"))
    assert Profile.from_dict(one.to_dict()) == one
    assert one.merge(other).unstationary == ("a", "b", "c")
    assert "unstationary" not in profile().to_dict()


def test_degenerate_data_is_legal() -> None:
    built = Profile.from_data(
        model="m", features={"none": np.full(3, np.nan), "no_rows": np.zeros(0), "constant": np.ones(3)}
    )
    assert Profile.from_dict(built.to_dict()) == built
    assert (built.streams["input.none"].total, built.streams["input.no_rows"].total) == (3, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a reference profile"),
        ({"version": 2}, "version: 2 is unknown, this release reads 1"),
        ({"extra": 1}, "extra: unknown key"),
        ({"model": []}, "model: not an object"),
        ({"model": {}}, "model.name: not a text"),
        ({"created": 5}, "created: not a text"),
        ({"streams": {"latency": []}}, "streams['latency']: not an object"),
        ({"streams": {"latency": {"rows": 1}}}, "streams['latency']: unknown key 'rows'"),
        ({"streams": {"x": {"exponential": {"scale": 1}}}}, "streams['x']: 'ordinals' is missing"),
        ({"streams": {"x": {"categories": 5}}}, "streams['x']: "),
        ({"streams": {"x": {"explicit": [5]}}}, "streams['x']: "),
        ({"streams": {"x": {"categories": {"a": 10**30}}}}, "streams['x']: more than 4611686018427387904 values"),
        ({"unstationary": "x"}, "unstationary: not a list"),
        ({"unstationary": ["x", 5]}, "unstationary[1]: not a text"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(profile().to_dict() | change))
    with pytest.raises(ProfileError) as caught:
        Profile.read_file(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"[]", b"null"])
def test_what_is_no_profile_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError):
        Profile.read_file(path)


def test_a_key_that_is_missing_is_named() -> None:
    document = profile().to_dict()
    del document["streams"]
    with pytest.raises(ProfileError, match="streams: missing"):
        Profile.from_dict(document)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="No such file"):
        Profile.read_file(tmp_path / "none.json")
