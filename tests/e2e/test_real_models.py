"""Models that others trained and published, instrumented without a word on what they are."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from otel_mlmon import semconv
from otel_mlmon.testing import Captured, capture

pytestmark = pytest.mark.e2e

TIMED_ONLY = "unknown kind, timed only (set ModelOptions.output_kind)"
COMMAND = "make models"


def package(name: str) -> Path:
    """Where a package is, without importing it: its own imports are not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        missing = f"{name} is not installed: {COMMAND}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return Path(next(iter(spec.submodule_search_locations)))


def session_of(folder: Path, pattern: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    (path,) = sorted(folder.glob(pattern))[:1]
    return ort.InferenceSession(path, options)


def points(captured: Captured, name: str, key: str = "") -> dict[str, Any]:
    """Data points by one attribute; the value of a counter, the point itself of a histogram."""
    metric = captured.metrics().get(name)
    found = metric.data.data_points if metric else []
    return {str((point.attributes or {}).get(key, "")): getattr(point, "value", point) for point in found}


def run(session: ort.InferenceSession, feeds: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    return [session.run(None, dict(feed)) for feed in feeds]


def findings(captured: Captured) -> dict[str, str]:
    status = captured.handle.status()
    assert (status.failures, status.dropped_calls) == ({}, {})
    (found,) = status.findings.values()
    return found


RANDOM = np.random.default_rng(11)


def pictures(count: int, *shape: int) -> list[dict[str, np.ndarray]]:
    return [{"x": RANDOM.uniform(-1, 1, size=shape).astype(np.float32)} for _ in range(count)]


def test_a_classifier_of_text_lines() -> None:
    session = session_of(package("rapidocr"), "models/*cls*.onnx")
    with capture() as captured:
        answers = run(session, pictures(4, 6, 3, 48, 192))
        captured.flush()
        output = session.get_outputs()[0].name
        assert findings(captured) == {f"output {output}": "probabilities"}
        rows = np.concatenate([answer[0] for answer in answers])
        assert points(captured, "ml.predictions", "ml.prediction.label") == Counter(map(str, rows.argmax(axis=1)))
        confidence = points(captured, "ml.prediction.confidence")[""]
        assert (confidence.count, confidence.sum) == (24, pytest.approx(rows.max(axis=1).sum(), rel=1e-5))
        features = points(captured, "ml.input.feature", "ml.feature.name")
        assert set(features) == {*semconv.IMAGE_FEATURES, *semconv.CHANNEL_FEATURES}
        sizes = [features[name].sum / features[name].count for name in ("image.width", "image.height")]
        assert sizes == pytest.approx([192.0, 48.0], rel=4e-4)
        assert points(captured, "ml.inference.batch.size")[""].sum == 24


@pytest.mark.parametrize(
    ("pattern", "shape"), [("models/*det*.onnx", (1, 3, 160, 160)), ("models/*rec*.onnx", (2, 3, 48, 160))]
)
def test_a_detector_and_a_recogniser_are_timed_and_their_pictures_profiled(
    pattern: str, shape: tuple[int, ...]
) -> None:
    session = session_of(package("rapidocr"), pattern)
    with capture() as captured:
        run(session, pictures(2, *shape))
        captured.flush()
        assert set(findings(captured).values()) == {TIMED_ONLY}
        assert points(captured, "ml.inference.duration")[""].count == 2
        assert points(captured, "ml.inference.batch.size")[""].sum == 2 * shape[0]
        assert set(points(captured, "ml.input.feature", "ml.feature.name")) == {
            *semconv.IMAGE_FEATURES,
            *semconv.CHANNEL_FEATURES,
        }
        assert (points(captured, "ml.predictions"), points(captured, "ml.prediction.value")) == ({}, {})


def test_a_detector_of_speech_with_its_state_fed_back() -> None:
    session = session_of(package("silero_vad"), "data/silero_vad.onnx")
    state = np.zeros((2, 1, 128), np.float32)
    speech: list[float] = []
    with capture() as captured:
        for _ in range(30):
            sound = RANDOM.uniform(-1, 1, size=(1, 512)).astype(np.float32)
            probability, state = session.run(None, {"input": sound, "state": state, "sr": np.array(16_000)})
            speech.append(float(probability[0, 0]))
        captured.flush()
        assert findings(captured) == {"output output": "sigmoid", "output stateN": TIMED_ONLY}
        labels = Counter("1" if p >= 0.5 else "0" for p in speech)
        assert points(captured, "ml.predictions", "ml.prediction.label") == labels
        confidence = points(captured, "ml.prediction.confidence")[""]
        expected = sum(max(p, 1 - p) for p in speech)
        assert (confidence.count, confidence.sum) == (30, pytest.approx(expected, rel=1e-5))
        # The sound is summarised, and the state is no feature.
        assert set(points(captured, "ml.input.feature", "ml.feature.name")) == {"input.mean", "input.spread"}
        assert points(captured, "ml.input.category") == {}


@pytest.mark.parametrize("with_zipmap", [True, False])
@pytest.mark.parametrize("with_names", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_classifier_of_scikit_learn(*, with_zipmap: bool, with_names: bool) -> None:
    package("skl2onnx")
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    data = load_iris()
    rows = data.data.astype(np.float32)
    classes = data.target_names[data.target] if with_names else data.target
    model = LogisticRegression(max_iter=500).fit(rows, classes)
    session = ort.InferenceSession(to_onnx(model, rows[:1], options={"zipmap": with_zipmap}).SerializeToString())
    with capture() as captured:
        answers = run(session, [{"X": rows[start : start + 30]} for start in range(0, 150, 30)])
        captured.flush()
        labels = Counter(str(label) for answer in answers for label in answer[0])
        assert points(captured, "ml.predictions", "ml.prediction.label") == labels
        confidence = points(captured, "ml.prediction.confidence")[""]
        shares = [max(row.values() if with_zipmap else row) for answer in answers for row in answer[1]]
        assert (confidence.count, confidence.sum) == (150, pytest.approx(sum(map(float, shares)), rel=1e-5))
        features = points(captured, "ml.input.feature", "ml.feature.name")
        assert {name: (point.count, point.sum) for name, point in features.items()} == {
            f"f{at}": (150, pytest.approx(float(rows[:, at].sum()), rel=1e-2)) for at in range(4)
        }
        assert set(findings(captured).values()) <= {"labels", "probabilities"}
