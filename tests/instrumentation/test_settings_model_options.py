from __future__ import annotations

from typing import Any

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


@pytest.mark.parametrize("name", ["labels", "features", "categorical"])
def test_a_string_is_no_list_of_names(name: str) -> None:
    arguments: dict[str, Any] = {name: "age"}
    with pytest.raises(ConfigurationError, match="must be lists of strings"):
        ModelOptions(**arguments)


@pytest.mark.parametrize(("value", "is_allowed"), [("never", True), ("sample", True), ("always", False), (True, False)])
def test_what_device_outputs_may_be(value: Any, is_allowed: bool) -> None:
    if is_allowed:
        assert ModelOptions(device_outputs=value).device_outputs == value
        return
    with pytest.raises(ConfigurationError, match=f"device_outputs must be never or sample, got {value!r}"):
        ModelOptions(device_outputs=value)
