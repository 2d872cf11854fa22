"""The estimate itself is tested where the blocks come from: tests/processor/window/test_learning_values.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from otel_mlmon.errors import ProfileError
from otel_mlmon.reference.design_effect import DesignEffect, estimate_design_effect
from otel_mlmon.reference.profile import Profile


def test_it_says_from_how_many_differences_it_is_known() -> None:
    blocks = np.array([[60, 40], [40, 60]] * 10)
    effect = estimate_design_effect(blocks)
    assert effect is not None
    assert effect.differences == 19
    assert effect.estimate > 10.0
    assert estimate_design_effect(blocks[:8]) is None
    assert estimate_design_effect(np.array([[100, 0]] * 20)) == DesignEffect(1.0, 0)


def test_a_profile_keeps_it() -> None:
    profile = Profile(model="m", created="2026-01-01T00:00:00Z", design_effects={"input.x": DesignEffect(3.5, 40)})
    assert Profile.from_dict(profile.to_dict()) == profile
    other = Profile(
        model="m", created="2026-01-01T00:00:00Z",
        design_effects={"input.x": DesignEffect(2.0, 60), "input.y": DesignEffect(1.0, 60)},
    )  # fmt: skip
    assert profile.merge(other).design_effects == {"input.x": DesignEffect(3.5, 40), "input.y": DesignEffect(1.0, 60)}
    plain = Profile(model="m", created="2026-01-01T00:00:00Z")
    assert "design_effects" not in plain.to_dict()


@pytest.mark.parametrize(
    "part", [{}, {"estimate": 0.5, "differences": 9}, {"estimate": 2.0, "differences": -1}, {"estimate": "x"}, 7]
)
def test_a_damaged_one_is_refused(part: Any) -> None:
    document = Profile(model="m", created="2026-01-01T00:00:00Z").to_dict() | {"design_effects": {"input.x": part}}
    with pytest.raises(ProfileError, match="design_effects"):
        Profile.from_dict(document)
