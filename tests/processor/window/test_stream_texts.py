"""Texts of one stream that are hashed with different keys, or named here and hashed there, are no drift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from otel_mlmon.reference.profile import Profile
from otel_mlmon.sketch.stream_sketch import CategoryCounts, StreamSketch
from otel_mlmon.testing import SimulatedProcessor
from otel_mlmon.vocabulary import TextBuckets

WORDS = {f"word {number}": 10 + number for number in range(30)}


def hashed(key: str, words: Mapping[str, int] = WORDS) -> dict[str, int]:
    buckets = TextBuckets(key=key, model="shop")
    counts: dict[str, int] = {}
    for word, count in words.items():
        bucket = buckets.assign_bucket(word)
        counts[bucket] = counts.get(bucket, 0) + count
    return counts


@pytest.fixture
def processor() -> Iterator[SimulatedProcessor]:
    with SimulatedProcessor({"windows": {"pane": "10s"}, "models": {"*": {"reference": {"learn": 2000}}}}) as simulated:
        yield simulated


def send(processor: SimulatedProcessor, counts: Mapping[str, int], panes: int = 40) -> dict[str, Any]:
    for _ in range(panes):
        processor.send_counts("shop", features={"city": counts}, labels={"ok": sum(counts.values())})
        processor.advance(10)
    document = processor.stream("shop", "input.city")
    assert document is not None
    return document


def test_another_key_is_an_error_and_no_drift_and_the_right_key_mends_it(processor: SimulatedProcessor) -> None:
    assert send(processor, hashed("one"))["state"] == "weak"
    document = send(processor, hashed("two"))
    assert document["state"] == "error"
    one, two = (TextBuckets(key=key, model="shop").key_id for key in ("one", "two"))
    assert document["fault"] == (
        f"texts are hashed with the key {two}, those of the reference with {one}: set one OTEL_MLMON_TEXT_KEY "
        "everywhere, or learn the reference anew"
    )
    assert processor.alerts == []
    document = send(processor, hashed("one"))
    assert (document["state"], document["fault"], processor.alerts) == ("weak", "", [])


def test_drift_of_hashed_texts_is_found(processor: SimulatedProcessor) -> None:
    send(processor, hashed("one"))
    shifted = {word: count * (4 if number % 3 == 0 else 1) for number, (word, count) in enumerate(WORDS.items())}
    assert send(processor, hashed("one", shifted))["state"] == "drift"
    assert [alert.rule for alert in processor.alerts] == ["data_drift"]


def test_a_text_that_is_new_to_a_learned_reference_is_new(processor: SimulatedProcessor) -> None:
    named = {"basic": 300, "pro": 200}
    assert send(processor, named)["state"] == "weak"
    document = send(processor, {"basic": 150, "pro": 100, **hashed("one", {"enterprise": 250})})
    assert (document["state"], document["fault"]) == ("drift", "")


def test_texts_that_arrive_hashed_cannot_be_compared_with_a_reference_of_words(tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    Profile(
        model="shop", created="2026-01-01T00:00:00Z",
        streams={"input.city": StreamSketch(categories=CategoryCounts(counts=WORDS))},
    ).write_file(file)  # fmt: skip
    configuration = {"windows": {"pane": "10s"}, "models": {"shop": {"reference": {"file": str(file)}}}}
    with SimulatedProcessor(configuration) as processor:
        document = send(processor, hashed("one"))
        assert document["state"] == "error"
        assert document["fault"].startswith("texts arrive hashed, and the reference has them as they are")
        assert processor.alerts == []


@pytest.mark.parametrize("are_hashed", [False, True])
def test_a_reference_of_buckets_judges_buckets(tmp_path: Path, are_hashed: bool) -> None:
    file = tmp_path / "shop.json"
    counts = hashed("one") if are_hashed else WORDS
    Profile(
        model="shop", created="2026-01-01T00:00:00Z",
        streams={"input.city": StreamSketch(categories=CategoryCounts(counts={w: 10 * c for w, c in counts.items()}))},
    ).write_file(file)  # fmt: skip
    configuration = {"windows": {"pane": "10s"}, "models": {"shop": {"reference": {"file": str(file)}}}}
    with SimulatedProcessor(configuration) as processor:
        document = send(processor, counts)
        assert (document["state"], document["fault"]) == ("weak", "")
