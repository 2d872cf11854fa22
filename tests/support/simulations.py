"""Sizes of seeded simulations: small ones by default; those of the claims with SIMULATIONS=full, `make simulations`."""

from __future__ import annotations

import os
from typing import Final, TypeVar

T = TypeVar("T")

IS_FULL: Final = os.environ.get("SIMULATIONS") == "full"


def choose_size(small: T, full: T) -> T:
    """Returns the size of a simulation, or whatever else depends on it."""
    return full if IS_FULL else small
