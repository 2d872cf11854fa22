from __future__ import annotations

import math

import numpy as np
import pytest

from otel_mlmon.errors import ProfileError
from otel_mlmon.reference.calibration import Calibration
from otel_mlmon.reference.profile import Profile

CONFIDENCES = np.array([0.0, 0.1, 0.1000001, 0.55, 0.95, 0.95, 1.0])
RIGHT = np.array([False, True, False, True, True, False, True])


def test_bins_hold_their_upper_edge_as_the_wire_has_it() -> None:
    calibration = Calibration.from_predictions(CONFIDENCES, RIGHT)
    assert calibration.right.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert calibration.total.tolist() == [2, 1, 0, 0, 0, 1, 0, 0, 0, 3]
    assert calibration.accuracy == pytest.approx(4 / 7)


def test_parts_add_up_to_the_whole_and_json_brings_them_back() -> None:
    combined = Calibration.from_predictions(CONFIDENCES, RIGHT)
    parts = Calibration.from_predictions(CONFIDENCES[:3], RIGHT[:3]).merge(
        Calibration.from_predictions(CONFIDENCES[3:], RIGHT[3:])
    )
    assert parts == combined
    assert Calibration.from_dict(combined.to_dict()) == combined
    assert combined != Calibration.from_predictions(CONFIDENCES, ~RIGHT)


def test_of_nothing_the_accuracy_is_unknown() -> None:
    assert math.isnan(Calibration.from_predictions(np.zeros(0), np.zeros(0, dtype=bool)).accuracy)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"right": [0] * 10}, "calibration: 'total' is missing"),
        ({"right": [0] * 10, "total": [0] * 9}, "calibration: there must be 10 bins"),
        ({"right": [1] + [0] * 9, "total": [0] * 10}, "calibration: more right predictions than predictions"),
        ({"right": [0.5] * 10, "total": [1] * 10}, "calibration: a count is not a whole number"),
        ({"right": [0] * 10, "total": [0] * 10, "bins": 10}, "calibration: unknown key 'bins'"),
        ([], "calibration: not an object"),
    ],
)
def test_a_profile_says_what_is_wrong_with_its_calibration(document: object, message: str) -> None:
    combined = Profile(model="m", created="2026-01-01T00:00:00Z").to_dict() | {"calibration": document}
    with pytest.raises(ProfileError) as caught:
        Profile.from_dict(combined)
    assert str(caught.value) == message


def test_profiles_merge_their_calibrations() -> None:
    bare = Profile(model="m", created="2026-01-01T00:00:00Z")
    calibrated = Profile(
        model="m", created="2026-01-01T00:00:00Z", calibration=Calibration.from_predictions(CONFIDENCES, RIGHT)
    )
    assert bare.merge(bare).calibration is None
    assert bare.merge(calibrated).calibration == calibrated.merge(bare).calibration == calibrated.calibration
    assert calibrated.merge(calibrated).calibration == Calibration.from_predictions(
        np.tile(CONFIDENCES, 2), np.tile(RIGHT, 2)
    )
