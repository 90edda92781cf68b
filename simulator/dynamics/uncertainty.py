"""How well a fit is determined (DESIGN 3).

Both losses are estimating equations with weights, so what the data say about x is the Godambe information

    G = B M^-1 B,   B = J' K J,   M = J' K V K J x dispersion

with J the exact derivative of the fitted histograms, K the weights of the loss and V the chain's own covariance
of the counts given the earlier scan. Independent Poisson bins (V = diag F_hat) would overstate the errors:
voxels present in the first scan are not drawn anew. Where the distributions differ by more than V allows, the
dispersion is the reduced chi-square.

The covariance of the estimates is (G + R)^-1. R knows the range of the fit and nothing else: an estimate inside
a range of width r cannot be wrong by more than about r / sqrt(3) (a uniform truth, an estimate at either end),
so R = 3 / r^2 per coordinate. Without R an undetermined linked share, which lies between 0 and 1 whatever
happens, would carry an error of 8 and blow up the errors of everything that can make up for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from simulator.dynamics import fit_space
from simulator.dynamics.parameters import PARAMETER_NAMES

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_SINGULAR = 1e-9  # relative eigenvalue of the scaled information below which a direction is not determined
_ON_LOG_SCALE = np.array([True, False, False, True, False, False, False, True])
_NOTHING_LEARNT = 0.25  # share of the range's variance that leaves a rate open over orders of magnitude
_RANGE_INFORMATION = 3.0 / (fit_space.UPPER - fit_space.LOWER) ** 2

# Standard error beyond which a value says nothing: relative for scales, absolute for phi and epsilon (the
# spread of a uniform guess over their range).
_RELATIVE_LIMIT = 0.5
_ABSOLUTE_LIMITS = {"linked_share": 0.25, "entry_signal": 0.036}

ON_LINEAR_SCALE = ("linked_share", "entry_signal")
"""Parameters whose Wald interval is symmetric; the positive rates have theirs on the scale of the logarithm."""


def score_covariance(tangents_x: Matrix, weights: Vector, blocks: Sequence[Matrix]) -> Matrix:
    """J' K V K J with V given as diagonal blocks, one per pair."""
    weighted = weights[:, None] * tangents_x
    total = np.zeros((tangents_x.shape[1], tangents_x.shape[1]))
    start = 0
    for v in blocks:
        part = weighted[start : start + v.shape[0]]
        total += part.T @ v @ part
        start += v.shape[0]
    return total


def determined_basis(tangents_x: Matrix, weights: Vector) -> tuple[Vector, Matrix, NDArray[np.bool_]]:
    """The directions of x that move the fitted histograms.

    Returns
    -------
    norms : float64, shape (8,)
        Length of each derivative under K; 1 where it vanishes.
    basis : float64, shape (8, n)
        Eigenvectors of J' K J / (norms norms') with an eigenvalue above 1e-9 of the largest.
    silent : bool, shape (8,)
        Coordinates that move nothing.
    """
    norms = np.sqrt((weights[:, None] * tangents_x**2).sum(axis=0))
    alive = norms > 1e-12 * max(float(norms.max()), 1e-300)
    norms = np.where(alive, norms, 1.0)
    scaled = (tangents_x / norms)[:, alive]
    values, vectors = np.linalg.eigh(scaled.T @ (weights[:, None] * scaled))
    good = values > _SINGULAR * values[-1] if values.size else np.zeros(0, bool)
    basis = np.zeros((8, int(good.sum())))
    basis[alive] = vectors[:, good]
    return norms, basis, ~alive


def estimate_covariance(
    tangents_x: Matrix, weights: Vector, blocks: Sequence[Matrix], dispersion: float
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Covariance of x (8, 8), range included, and the coordinates about which the data say nothing at all.

    Parameters
    ----------
    tangents_x : float64, shape (130 legs, 8)
        Derivative of the fitted histograms with respect to x.
    weights : float64, shape (130 legs,)
        K of the loss.
    blocks : sequence of float64, each (130, 130)
        V of every pair.
    dispersion : float, >= 1
    """
    norms, basis, silent = determined_basis(tangents_x, weights)
    scaled = tangents_x / norms
    curvature = basis.T @ scaled.T @ (weights[:, None] * scaled) @ basis
    root = np.sqrt(np.diag(curvature))
    noise = basis.T @ score_covariance(scaled, weights, blocks) @ basis * dispersion / np.outer(root, root)
    noise += 1e-12 * max(float(np.trace(noise)), 1e-300) * np.eye(root.size)  # V = 0 along a direction
    inner = root[:, None] * np.linalg.solve(noise, np.diag(root))
    found = basis @ inner @ basis.T * np.outer(norms, norms)
    information = 0.5 * (found + found.T)
    width = 1.0 / np.sqrt(_RANGE_INFORMATION)
    inside = information * np.outer(width, width) + np.eye(8)
    relative = np.linalg.inv(inside)
    silent = silent | (_ON_LOG_SCALE & (np.diag(relative) > _NOTHING_LEARNT))
    return relative * np.outer(width, width), silent


def errors_and_correlations(
    covariance: Matrix, silent: NDArray[np.bool_], held: NDArray[np.bool_]
) -> tuple[dict[str, float], Matrix]:
    """Standard errors by name (NaN where held at a bound, infinite where undetermined) and correlations."""
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    errors[held] = np.nan
    errors[silent] = np.inf
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


def outer_limits(name: str, x: Vector) -> tuple[float, float]:
    """Lowest and highest value that the fit can give a parameter, at any value of the absorption rate."""
    i = PARAMETER_NAMES.index(name)
    if 4 <= i <= 6:
        most = 1.0 - 2.0 * float(np.exp(fit_space.LOWER[3]))
        return float(fit_space.LOWER[i] * (1.0 - np.exp(x[3]))), most
    low, high = (
        fit_space.to_parameters(np.where(np.arange(8) == i, edge, x))[i]
        for edge in (fit_space.LOWER, fit_space.UPPER)
    )
    return float(low), float(high)


def wald_intervals(
    x: Vector, covariance: Matrix, silent: NDArray[np.bool_], level: float
) -> dict[str, list[float]]:
    """Intervals of W from its covariance: on the scale of the logarithm for rates, cut at what the fit allows.

    A parameter that the data do not determine at all gets its whole range.
    """
    quantile = float(norm.ppf(0.5 + level / 2))
    w = fit_space.to_parameters(x)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    fall_low = float(w[3] * np.exp(-min(quantile * errors[3] / w[3], 50.0)))
    result = {}
    for i, name in enumerate(PARAMETER_NAMES):
        low, high = outer_limits(name, x)
        if 4 <= i <= 6:
            high = 1.0 - max(fall_low, float(np.exp(fit_space.LOWER[3])))
        if not silent[i]:
            width = quantile * float(errors[i])
            if name in ON_LINEAR_SCALE:
                low, high = max(low, w[i] - width), min(high, w[i] + width)
            else:
                factor = float(np.exp(min(width / w[i], 50.0)))
                low, high = max(low, w[i] / factor), min(high, w[i] * factor)
        result[name] = [float(low), float(high)]
    return result


def open_ends(intervals: dict[str, list[float]], x: Vector) -> dict[str, list[str]]:
    """Ends at which an interval runs to the limit of what the fit allows, so that the data did not close it.

    Returns
    -------
    dict of list of {"low", "high"}
        Only parameters with an open end. A natural limit (a share of 0 or 1, a + g = 1) counts too.
    """
    result = {}
    for i, name in enumerate(PARAMETER_NAMES):
        low, high = outer_limits(name, x)
        if 4 <= i <= 6:
            high = float(1.0 - np.exp(x[3]))
        slack = 1e-3 * (high - low) if name in ON_LINEAR_SCALE else 0.0
        at_low = intervals[name][0] <= low * (1.01 if slack == 0.0 else 1.0) + slack
        at_high = intervals[name][1] >= high * (0.999 if slack == 0.0 else 1.0) - slack
        ends = [end for end, flag in (("low", at_low), ("high", at_high)) if flag]
        if ends:
            result[name] = ends
    return result
