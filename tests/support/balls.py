"""Computes by linear programming the largest mean over all distributions within a total variation of another."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from otel_mlmon.types import Floats


def largest_mean_in_ball(ratios: Floats, reference: Floats, radius: float) -> float:
    """max E_p[L] over TV(p, r) <= d: p = r + u - v with u, v >= 0, v <= r, Σu = Σv <= d; a linear programme."""
    bins = reference.size
    ones, zeros = np.ones(bins), np.zeros(bins)
    solution = linprog(
        -np.concatenate([ratios, -ratios]),
        A_ub=np.concatenate([ones, zeros])[None],
        b_ub=[radius],
        A_eq=np.concatenate([ones, -ones])[None],
        b_eq=[0.0],
        bounds=[(0.0, None)] * bins + [(0.0, share) for share in reference],
    )
    return float(ratios @ reference - solution.fun)
