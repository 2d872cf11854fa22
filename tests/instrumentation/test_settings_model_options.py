from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from otel_mlmon import ModelOptions
from otel_mlmon.errors import ConfigurationError
from otel_mlmon.types import OUTPUT_KINDS


@pytest.mark.parametrize("kind", [None, *OUTPUT_KINDS, {"y": "labels", "z": "none"}, lambda outputs: (None, None)])
def test_what_output_kind_may_be(kind: Any) -> None:
    assert ModelOptions(output_kind=kind).output_kind is kind


@pytest.mark.parametrize("kind", ["score", {"y": "sigmoids"}, 5])
def test_what_output_kind_may_not_be(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="output_kind must be one of probabilities, logits, sigmoid"):
        ModelOptions(output_kind=kind)


NAMES = ["labels", "features", "categorical"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value",
    ["age", b"age", 5, 0.5, {"age": 1}, {"age"}, [1, 2], ["age", None], ["age", ""], ["age", " \t"], object()],
    ids=lambda value: type(value).__name__,
)
def test_which_values_are_no_list_of_names(name: str, value: Any) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=f"^{name} must be a list of strings"):
        ModelOptions(**arguments)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [list, tuple, iter, np.array])
def test_any_list_of_names_is_read_once(name: str, make: Any) -> None:
    arguments: dict[str, Any] = {name: make(["b", "a"])}
    names = getattr(ModelOptions(**arguments), name)
    assert (names, set(map(type, names))) == (("b", "a"), {str})


@pytest.mark.parametrize("name", ["features", "categorical"])
def test_two_columns_have_two_names(name: str) -> None:
    arguments: dict[str, Any] = {name: ["a", "b", "a"]}
    with pytest.raises(ConfigurationError, match=f"^{name} must be different strings, got 'a' twice"):
        ModelOptions(**arguments)
    assert ModelOptions(labels=["other", "a", "other"]).labels == ("other", "a", "other")


@pytest.mark.parametrize("name", ["latency_threshold_s", "confidence_floor"])
@pytest.mark.parametrize("value", ["0.5", "", True, math.nan, -1.0, [0.5], np.array([0.5]), 1j])
def test_which_thresholds_are_refused(name: str, value: Any) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=f"^{name} must be "):
        ModelOptions(**arguments)


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.int64(1), 1])
def test_numbers_of_numpy_are_numbers(value: Any) -> None:
    options = ModelOptions(latency_threshold_s=value, confidence_floor=value)
    assert (options.latency_threshold_s, type(options.confidence_floor)) == (float(value), float)


@pytest.mark.parametrize("version", [7, None, 1.5, b"1"])
def test_a_version_is_a_string(version: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^version must be of type str, got"):
        ModelOptions(version=version)


def test_every_fault_of_a_model_is_said_at_once() -> None:
    arguments: dict[str, Any] = {"version": 1, "output_kind": {"": "labels", "y": "x"}, "labels": 5}
    with pytest.raises(ConfigurationError) as error:
        ModelOptions(**arguments)
    assert [fault.split(" must")[0] for fault in error.value.faults] == [
        "version",
        "output_kind",
        "output_kind",
        "labels",
    ]


@pytest.mark.parametrize(("value", "is_allowed"), [("never", True), ("sample", True), ("always", False), (True, False)])
def test_what_device_outputs_may_be(value: Any, is_allowed: bool) -> None:
    if is_allowed:
        assert ModelOptions(device_outputs=value).device_outputs == value
        return
    with pytest.raises(ConfigurationError, match=f"device_outputs must be never or sample, got {value!r}"):
        ModelOptions(device_outputs=value)
