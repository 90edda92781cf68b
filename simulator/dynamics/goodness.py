"""How good a fit is, measured against the chain's own covariance V (DESIGN 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.bins import N_BELOW

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

GROUP_VARIANCE = 5.0  # bins are merged until a group's variance reaches this


def grouped_chi_square(observed: Vector, fitted: Vector, v: Matrix) -> tuple[float, int]:
    """Sum of squared standardised differences over merged bins, and the number of groups.

    Neighbouring bins are merged until V gives the group a variance of 5 or more, so that a few voxels in
    bins the model hardly reaches cannot dominate.
    """
    total, groups = 0.0, 0
    start = 0
    for stop in range(1, observed.size + 1):
        variance = float(v[start:stop, start:stop].sum())
        if variance >= GROUP_VARIANCE:
            difference = float(observed[start:stop].sum() - fitted[start:stop].sum())
            total += difference**2 / variance
            groups += 1
            start = stop
    if start < observed.size:
        difference = float(observed[start:].sum() - fitted[start:].sum())
        variance = max(float(v[start:, start:].sum()), GROUP_VARIANCE)
        total += difference**2 / variance
        groups += 1
    return total, groups


def goodness_of_fit(observed: Vector, fitted: Vector, v: Matrix, n_free: float) -> dict[str, float]:
    """Reduced chi-square against V, relative L2, overlap, and totals below and above 0 with z scores."""
    chi_square, groups = grouped_chi_square(observed, fitted, v)
    result = {
        "reduced_chi_square": chi_square / max(groups - n_free, 1),
        "groups": float(groups),
        "relative_l2": float(np.linalg.norm(fitted - observed) / np.linalg.norm(observed)),
        "overlap": float(np.minimum(observed, fitted).sum() / max(observed.sum(), fitted.sum())),
    }
    for name, part in (("below", slice(0, N_BELOW)), ("above", slice(N_BELOW, None))):
        seen, model = float(observed[part].sum()), float(fitted[part].sum())
        result[f"observed_{name}"] = seen
        result[f"fitted_{name}"] = model
        result[f"z_{name}"] = (seen - model) / float(np.sqrt(max(v[part, part].sum(), 1.0)))
    return result
