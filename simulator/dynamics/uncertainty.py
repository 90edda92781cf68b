"""How well a fit is determined, and how good it is (DESIGN 3).

Both losses are estimating equations with weights, so their covariance is the sandwich (Godambe information)

    B^-1 (J' K V K J) B^-1,   B = J' K J,   K = 1 for L2, 1 / F_hat for the Poisson likelihood

with J the exact derivative of the fitted histogram and V the chain's own covariance of the counts given the
first scan. Independent Poisson bins (V = diag F_hat) would overstate the errors: voxels present in the first
scan are not drawn anew. Where the distributions differ by more than V allows, errors grow by the square root
of the reduced chi-square.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.bins import N_BELOW
from simulator.dynamics.parameters import PARAMETER_NAMES

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

GROUP_VARIANCE = 5.0  # bins are merged until a group's variance reaches this
_SINGULAR = 1e-9  # relative eigenvalue of the scaled information below which a direction is not determined
_LOADING = 0.1  # share of such a direction that makes a parameter undetermined

# Standard error beyond which a value says nothing: relative for scales, absolute for phi and epsilon (the
# spread of a uniform guess over their range).
_RELATIVE_LIMIT = 0.5
_ABSOLUTE_LIMITS = {"linked_share": 0.25, "entry_signal": 0.036}


def estimate_covariance(
    tangents_x: Matrix, weights: Vector, v: Matrix, free: NDArray[np.bool_], dw_dx: Matrix, dispersion: float
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Covariance of W (8, 8), and which coordinates of x the data do not determine.

    Parameters
    ----------
    tangents_x : float64, shape (130, 8)
        Derivative of the fitted histogram with respect to x.
    weights : float64, shape (130,)
        K of the loss.
    v : float64, shape (130, 130)
    free : bool, shape (8,)
        Coordinates not at a bound; the others are held fixed.
    dw_dx : float64, shape (8, 8)
    dispersion : float, >= 1
    """
    silent = np.zeros(8, bool)
    covariance_x = np.zeros((8, 8))
    columns = np.flatnonzero(free)
    if columns.size:
        j = tangents_x[:, columns]
        norms = np.sqrt((weights[:, None] * j * j).sum(axis=0))
        alive = norms > 1e-12 * max(float(norms.max()), 1e-300)
        silent[columns[~alive]] = True
        columns, j, norms = columns[alive], j[:, alive], norms[alive]
    if columns.size:
        scaled = j / norms
        weighted = weights[:, None] * scaled
        values, vectors = np.linalg.eigh(scaled.T @ weighted)
        good = values > _SINGULAR * values[-1]
        for direction in vectors[:, ~good].T:
            silent[columns[direction**2 > _LOADING]] = True
        inverse = (vectors[:, good] / values[good]) @ vectors[:, good].T
        inner = inverse @ (weighted.T @ v @ weighted) @ inverse * dispersion
        covariance_x[np.ix_(columns, columns)] = inner / np.outer(norms, norms)
    return dw_dx @ covariance_x @ dw_dx.T, silent


def errors_and_correlations(
    covariance: Matrix, silent: NDArray[np.bool_], free: NDArray[np.bool_]
) -> tuple[dict[str, float], Matrix]:
    """Standard errors by name (NaN where held at a bound, infinite where undetermined) and correlations."""
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    for i in range(errors.size):
        if silent[i]:
            errors[i] = np.inf
        elif not free[i]:
            errors[i] = np.nan
    usable = np.isfinite(errors) & (errors > 0)
    correlations = np.full((8, 8), np.nan)
    scale = np.where(usable, errors, 1.0)
    part = covariance / np.outer(scale, scale)
    correlations[np.ix_(usable, usable)] = np.clip(part[np.ix_(usable, usable)], -1.0, 1.0)
    return {name: float(e) for name, e in zip(PARAMETER_NAMES, errors, strict=True)}, correlations


def undetermined_names(values: Vector, errors: dict[str, float]) -> list[str]:
    """Parameters about which the data say little; those held at a bound (no error) are not among them."""
    names = []
    for name, value in zip(PARAMETER_NAMES, values, strict=True):
        if np.isnan(errors[name]):
            continue
        limit = _ABSOLUTE_LIMITS.get(name, _RELATIVE_LIMIT * abs(value))
        if not errors[name] < limit:
            names.append(name)
    return names


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


def goodness_of_fit(observed: Vector, fitted: Vector, v: Matrix, n_free: int) -> dict[str, float]:
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
