from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_mlmon.processor.detect.score import Score, Statistics
from otel_mlmon.processor.serve.documents import overview
from otel_mlmon.processor.window.window import StreamKey
from tests.support.observations import MODEL, Bench, durations, label, point


def test_a_model_is_described_by_what_it_did_and_what_was_said_of_it() -> None:
    bench = Bench()
    bench.add(label(60, at_s=10, label="a"))
    bench.add(label(40, at_s=10, label="b"))
    bench.add(point("ml.inference.duration", durations(*[0.001] * 99, 0.5), at_s=10))
    bench.flush()
    score = Score(
        status="drift",
        log10_evidence=9.0,
        log10_alarm_line=7.0,
        statistics=Statistics.from_rows({"psi": (0.3, None, None)}),
        contributions=(0.5, -0.5),
    )
    scores = {StreamKey(MODEL, "prediction.label"): score}
    document = overview([bench.panes.summary(MODEL)], scores, [], [])
    model = document["models"]["digits"]
    assert {key: model[key] for key in ("name", "version", "versions", "status", "predictions", "error_ratio")} == {
        "name": "digits", "version": "1", "versions": ["1"], "status": "drift", "predictions": 100, "error_ratio": 0.0,
    }  # fmt: skip
    assert model["latency"]["over_ratio"] == pytest.approx(0.01)
    assert model["latency"]["p50_s"] == pytest.approx(0.001, rel=0.6)
    named = {stream["stream"]: stream for stream in model["streams"]}
    assert sorted(named) == ["errors", "latency", "prediction.label"]
    assert named["prediction.label"]["status"] == "drift"
    assert named["prediction.label"]["statistics"] == {"psi": {"value": 0.3, "p_value": None, "noise": None}}
    assert named["latency"]["status"] == "learning"


def test_the_documents_have_just_the_keys_that_are_documented() -> None:
    bench = Bench()
    bench.add(label(60, at_s=10, label="a"))
    bench.flush()
    (model,) = overview([bench.panes.summary(MODEL)], {}, [], [])["models"].values()
    page = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
    of_model, of_stream = page.partition("## A model's document")[2].split("## A stream")
    named = [set(re.findall(r"`(\w+)`", row.split("|")[1])) for row in of_model.splitlines() if row.startswith("| `")]
    assert set().union(*named) == set(model)
    named = [set(re.findall(r"`(\w+)`", row.split("|")[1])) for row in of_stream.splitlines() if row.startswith("| `")]
    assert set().union(*named) == set(model["streams"][0])
