"""Fits of the rules that are learned: how much each view counts, from voxels of validation scans [paper S1]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from segmentation.aggregation import LEARNED_RULES, LOG_ODDS_EPSILON
from standard_space.errors import DataError, UsageError

RIDGE = 1e-3
"""Half of this times the squared weights is added to the mean loss of the logistic and svm rules."""

Floats = NDArray[np.float64]
Loss = Callable[[Floats], tuple[Floats, Floats]]
"""Of the margins: the loss of every voxel and its slope."""


def fit_rule(
    rule: str, probabilities: Floats, infected: NDArray[np.bool_], importance: Floats
) -> tuple[tuple[float, ...], float]:
    """Fit the weights of a learned rule.

    Every rule minimises a mean over voxels, weighed by their importance, of a convex loss of the score that
    `Aggregation.combine` computes: ``weighted`` the Brier score, its weights not negative and of sum 1;
    ``logistic`` the log loss; ``svm`` the squared hinge loss. The last two add a ridge on the weights, not on the
    bias.

    Parameters
    ----------
    rule : str
        One of `LEARNED_RULES`.
    probabilities : float64 (voxels, views)
        Of two views or more, 0 to 1.
    infected : bool (voxels,)
    importance : float64 (voxels,)
        Not negative.

    Returns
    -------
    weights : tuple of float
        One for each view.
    bias : float
        0 for the weighted rule.

    Raises
    ------
    UsageError
        The rule is not learned.
    DataError
        All voxels are infected or none is, or the fit did not converge.
    """
    if rule not in LEARNED_RULES:
        raise UsageError("the rule has no weights to learn", got=rule, expected=", ".join(LEARNED_RULES))
    if infected.all() or not infected.any():
        raise DataError("a rule is learned from infected and healthy voxels; there is only one kind")
    importance = importance / importance.sum()
    if rule == "weighted":
        return _fit_weighted(probabilities, infected, importance), 0.0
    signs = np.where(infected, 1.0, -1.0)
    if rule == "logistic":
        features = special.logit(np.clip(probabilities, LOG_ODDS_EPSILON, 1.0 - LOG_ODDS_EPSILON))
        return _fit_linear(features, signs, importance, _log_loss)
    return _fit_linear(probabilities, signs, importance, _squared_hinge)


def _fit_weighted(
    probabilities: Floats, infected: NDArray[np.bool_], importance: Floats
) -> tuple[float, ...]:
    views = probabilities.shape[1]
    weighed = probabilities * importance[:, None]
    products, hits = weighed.T @ probabilities, weighed.T @ infected.astype(np.float64)
    scale = max(float(np.trace(products)), np.finfo(np.float64).tiny)
    found = optimize.minimize(
        lambda w: (w @ products @ w - 2.0 * hits @ w) / scale,
        np.full(views, 1.0 / views),
        jac=lambda w: 2.0 * (products @ w - hits) / scale,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * views,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones(views)},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    _check(found)
    weights = np.clip(found.x, 0.0, None)
    return tuple((weights / weights.sum()).tolist())


def _fit_linear(
    features: Floats, signs: Floats, importance: Floats, loss: Loss
) -> tuple[tuple[float, ...], float]:
    views = features.shape[1]

    def objective(numbers: Floats) -> tuple[float, Floats]:
        weights = numbers[:views]
        values, slopes = loss(signs * (features @ weights + numbers[views]))
        slopes = slopes * signs * importance
        gradient = np.append(features.T @ slopes + RIDGE * weights, slopes.sum())
        return float(importance @ values + 0.5 * RIDGE * weights @ weights), gradient

    found = optimize.minimize(
        objective,
        np.zeros(views + 1),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000, "maxcor": 20},
    )
    _check(found)
    *weights, bias = found.x.tolist()
    return tuple(weights), bias


def _log_loss(margin: Floats) -> tuple[Floats, Floats]:
    return np.logaddexp(0.0, -margin), -special.expit(-margin)


def _squared_hinge(margin: Floats) -> tuple[Floats, Floats]:
    short = np.maximum(1.0 - margin, 0.0)
    return short**2, -2.0 * short


def _check(found: optimize.OptimizeResult) -> None:
    if not (found.success and np.isfinite(found.x).all()):
        raise DataError(f"the rule could not be learned ({found.message})")
