from __future__ import annotations

from typing import Any

import pytest

from otel_mlmon.processor.serve.references import REASONS, References, find_reference
from tests.support.standing import Standing

PROFILE = {"format": "profile"}
KNOWN: References = {
    "calm": {"1": Standing(PROFILE)},
    "new": {"": Standing(learning={"prediction.label": (300, 5000), "input.age": (0, 5000)})},
    "half": {"1": Standing(PROFILE, {"input.age": (12, 100)})},
    "late": {"1": Standing(PROFILE, {"input.age": (100, 100)})},
    "silent": {"1": Standing()},
    "rolling": {"1": Standing(None, {"input.age": (1, 5)}, ["prediction.label"])},
    "two": {"1": Standing(PROFILE), "": Standing()},
    "wide": {"1": Standing(learning={f"input.f{number}": (0, 5) for number in range(7)})},
}


@pytest.mark.parametrize(
    ("name", "version", "is_partial"),
    [("calm", None, False), ("calm", "1", True), ("two", "1", False), ("half", "1", True)],
)
def test_the_profile_is_the_find_reference(name: str, version: str | None, is_partial: bool) -> None:
    assert find_reference(KNOWN, name, version, is_partial=is_partial) == (200, PROFILE)


@pytest.mark.parametrize(
    ("name", "version", "is_partial", "status", "reason", "words"),
    [
        ("x", None, False, 404, "unknown_model",
         "There is no model 'x'. Known models: calm, half, late, new, rolling and 3 more."),
        ("calm", "2", False, 404, "unknown_version", "Model 'calm' has no version '2'. Known versions: 1."),
        ("two", None, True, 409, "several_versions",
         "Model 'two' has 2 versions: (no version), 1. Choose one with the parameter version."),
        ("new", None, True, 409, "learning",
         "Model 'new' is still learning its reference: "
         "input.age has 0 of 5000 values, prediction.label has 300 of 5000 values."),
        ("half", None, False, 409, "learning",
         "Model 'half' is still learning its reference: input.age has 12 of 100 values."),
        ("late", None, False, 409, "learning",
         "Model 'late' is still learning its reference: "
         "input.age has 100 values, but its burstiness or steadiness is not estimated yet."),
        ("silent", None, False, 409, "learning",
         "Model 'silent' is still learning its reference: no predictions yet."),
        ("rolling", None, True, 409, "moving",
         "The reference of model 'rolling' moves with time (prediction.label) and cannot be exported."),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_said_with_why(
    name: str, version: str | None, is_partial: bool, status: int, reason: str, words: str
) -> None:
    code, document = find_reference(KNOWN, name, version, is_partial=is_partial)
    versions: dict[str, Any] = {"versions": ["", "1"]} if reason == "several_versions" else {}
    assert (code, document) == (status, {"error": words, "reason": reason, **versions})
    assert reason in REASONS


def test_before_the_first_point_there_is_no_model() -> None:
    assert (
        find_reference({}, "x", None, is_partial=False)[1]["error"]
        == "There is no model 'x'. No telemetry has arrived yet."
    )


def test_of_many_streams_some_are_named() -> None:
    words = find_reference(KNOWN, "wide", None, is_partial=False)[1]["error"]
    assert words.endswith("input.f4 has 0 of 5 values and 2 more.")
