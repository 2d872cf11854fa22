from __future__ import annotations

import base64
import zlib
from datetime import datetime, timezone

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_mlmon.errors import ProfileError
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.reference.embedding import (
    MAX_BYTES,
    decode_profile,
    embed_profile,
    encode_profile,
    find_embedded_profile,
    read_model_metadata,
)
from otel_mlmon.reference.profile import Profile
from tests.support.models import classifier, softmax

RNG = np.random.default_rng(3)


def profile(features: int = 1, *, day: int = 1) -> Profile:
    return Profile.from_data(
        model="tiny",
        version="7",
        labels=["ant"] * 90 + ["bee"] * 10,
        features={f"f{index}": RNG.normal(size=1000) for index in range(features)},
        calibration=Calibration.from_predictions(np.array([0.95, 0.55]), np.array([True, False])),
        now=lambda: datetime(2026, 1, day, tzinfo=timezone.utc),
    )


def test_the_runtime_reads_what_was_embedded_and_the_model_runs_as_before() -> None:
    model, rows = classifier(metadata={"author": "me"}), RNG.normal(size=(5, 10)).astype(np.float32)
    carried = embed_profile(model, profile())
    session = onnxruntime.InferenceSession(carried, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert find_embedded_profile(metadata) == profile_of(carried)
    assert metadata["author"] == "me"
    before = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"input": rows})[0], before.run(None, {"input": rows})[0])


def profile_of(model: bytes) -> Profile | None:
    return find_embedded_profile(read_model_metadata(model))


def test_the_bytes_of_the_model_stay_as_they_are_and_onnx_accepts_the_whole() -> None:
    model = softmax(metadata={"a": "1"}, version=3)
    carried = embed_profile(model, profile())
    assert carried.startswith(model)
    loaded = onnx.load_model_from_string(carried)
    onnx.checker.check_model(loaded)
    assert loaded.model_version == 3


def test_embedding_again_replaces() -> None:
    first, second = profile(day=1), profile(day=2)
    twice = embed_profile(embed_profile(softmax(metadata={"z": "1"}), first), second)
    assert twice == embed_profile(softmax(metadata={"z": "1"}), second)
    onnx.checker.check_model(onnx.load_model_from_string(twice))
    assert profile_of(twice) == second


def test_a_long_profile_is_compressed_and_is_the_same_profile() -> None:
    short, long = profile(0), profile(40)
    assert encode_profile(short).startswith('{"format"')
    text = encode_profile(long)
    assert text.startswith("zlib:")
    assert text.isascii()
    assert len(text) < len(str(long.to_dict())) / 3
    assert (decode_profile(encode_profile(short)), decode_profile(text)) == (short, long)


def test_a_model_without_a_profile_has_none() -> None:
    assert find_embedded_profile({}) is None
    assert find_embedded_profile({"otel_mlmon.reference": ""}) is None
    assert profile_of(softmax()) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a reference profile"),
        ("\ud800", "not JSON"),
        ("zlib:%%%", "cannot be unpacked"),
        ("zlib:AAAA", "cannot be unpacked"),
        ("zlib:" + base64.b64encode(zlib.compress(b"{}" * 1000)[:10]).decode(), "cut short"),
        ("zlib:" + base64.b64encode(zlib.compress(b" " * (MAX_BYTES + 1))).decode(), "larger than"),
    ],
)
def test_a_text_that_is_no_profile_is_refused(text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        decode_profile(text)


@pytest.mark.parametrize("content", [b"not a model at all", b"\x00", b"\x72\xff", b"\xff" * 20, b"\x0b"])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(ProfileError, match="not an ONNX model"):
        embed_profile(content, profile())


@given(
    st.dictionaries(st.text(min_size=1).filter(lambda key: key != "otel_mlmon.reference"), st.text(), max_size=4),
    st.integers(0, 2**62),
)
@settings(deadline=None, max_examples=40)
def test_any_metadata_survives_as_onnx_itself_reads_it(metadata: dict[str, str], version: int) -> None:
    model = onnx.ModelProto(ir_version=8, model_version=version)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    carried = onnx.ModelProto.FromString(embed_profile(model.SerializeToString(), profile(0)))
    entries = {entry.key: entry.value for entry in carried.metadata_props}
    assert decode_profile(entries.pop("otel_mlmon.reference")) == profile(0)
    assert (entries, carried.model_version) == (metadata, version)
    assert read_model_metadata(model.SerializeToString()) == metadata
