"""What a fit minimises: the model's histograms against the observed ones, over one pair or several (DESIGN 3).

    L2       L(W) = integral (F_hat - F)^2 dx in absolute counts [paper, section III-C]
    poisson  the deviance of independent Poisson bins

Both are sums of squares of residuals with exact derivatives. All pairs share one W and one G_ref.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.dynamics import fit_space
from simulator.dynamics.bins import N_BELOW, N_BINS, check_counts
from simulator.dynamics.chain import covariance_kernel, tangents_kernel
from simulator.dynamics.errors import DynamicsError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

LOSSES = ("l2", "poisson")
FLOOR = 0.05  # voxels per bin added to the model in the Poisson likelihood, so that stray voxels stay finite
_MOST_VOXELS = 1e15


@dataclass(frozen=True)
class Leg:
    """One pair: histogram before, histogram after, transitions between them."""

    before: Vector
    after: Vector
    steps: int


def check_leg(before: ArrayLike, after: ArrayLike, n_transitions: int) -> Leg:
    """A pair that can be fitted.

    Raises
    ------
    DynamicsError
        Empty, negative, NaN or wrongly shaped histograms, fewer than one transition.
    """
    first, second = check_counts(before, "before"), check_counts(after, "after")
    for name, counts in (("before", first), ("after", second)):
        if counts.sum() <= 0:
            raise DynamicsError(
                f"the histogram '{name}' is empty", expected="at least one infected voxel",
                remedy="leave this pair out, or check the annotation",
            )  # fmt: skip
    if not np.isfinite(n_transitions) or int(n_transitions) != n_transitions or n_transitions < 1:
        raise DynamicsError(
            "the scans must be at least one transition (1/100 day) apart", got=n_transitions,
            expected="a whole number, 1 or more", remedy="check the days of the scans",
        )  # fmt: skip
    return Leg(first, second, int(n_transitions))


def check_loss(loss: str) -> str:
    """A known loss, or a DynamicsError."""
    if loss not in LOSSES:
        raise DynamicsError("the loss is unknown", got=repr(loss), expected="'l2' or 'poisson'")
    return loss


def reference_of(legs: Sequence[Leg]) -> float:
    """G_ref: mean over the pairs of the mean of their two observed counts below 0, voxels."""
    return float(np.mean([0.5 * (leg.before[:N_BELOW].sum() + leg.after[:N_BELOW].sum()) for leg in legs]))


class FitProblem:
    """Residuals and Jacobian in the space of the fit; remembers the last point, as optimisers ask for both.

    The cost is half the sum of squared residuals. `unit` turns twice the cost into squared voxels (L2) or
    the deviance (Poisson).
    """

    def __init__(self, legs: Sequence[Leg], loss: str, g_ref: float | None = None) -> None:
        self.legs, self.loss = list(legs), check_loss(loss)
        self.g_ref = reference_of(legs) if g_ref is None else g_ref
        self.after = np.concatenate([leg.after for leg in self.legs])
        self.scale = float(np.linalg.norm(self.after)) if loss == "l2" else 1.0
        self.unit = self.scale**2
        self._at: Vector | None = None
        self._residuals = np.zeros(self.after.size)
        self._jacobian = np.zeros((self.after.size, 8))

    def model(self, x: Vector) -> tuple[Vector, Matrix]:
        """Fitted histograms, shape (130 legs,), and their derivative with respect to x, (130 legs, 8).

        Runaway births (nu phi > a over many transitions) are cut at 1e15 voxels, so that an optimiser that
        tries them gets a finite answer and turns back.
        """
        w = fit_space.to_parameters(x)
        fitted = np.empty(self.after.size)
        tangents = np.empty((self.after.size, 8))
        for number, leg in enumerate(self.legs):
            p, d = leg.before.copy(), np.zeros((N_BINS, 8))
            tangents_kernel(p, d, w, self.g_ref, leg.steps)
            fitted[number * N_BINS : (number + 1) * N_BINS] = p
            tangents[number * N_BINS : (number + 1) * N_BINS] = d
        if not (np.isfinite(tangents).all() and fitted.max() < _MOST_VOXELS):
            fitted = np.minimum(np.nan_to_num(fitted, nan=_MOST_VOXELS), _MOST_VOXELS)
            tangents = np.clip(np.nan_to_num(tangents), -_MOST_VOXELS, _MOST_VOXELS)
        return fitted, tangents @ fit_space.jacobian(x)

    def weights(self, fitted: Vector) -> Vector:
        """K: expected second derivative of the cost with respect to the fitted counts."""
        if self.loss == "l2":
            return np.full(fitted.size, 1.0 / self.unit)
        return np.asarray(1.0 / (fitted + FLOOR))

    def covariances(self, x: Vector) -> list[Matrix]:
        """V of every pair, each (130, 130)."""
        w = fit_space.to_parameters(x)
        result = []
        for leg in self.legs:
            v = np.zeros((N_BINS, N_BINS))
            covariance_kernel(leg.before.copy(), v, w, self.g_ref, leg.steps)
            result.append(v)
        return result

    def _evaluate(self, x: Vector) -> None:
        if self._at is not None and np.array_equal(x, self._at):
            return
        fitted, tangents = self.model(x)
        if self.loss == "l2":
            self._residuals = (fitted - self.after) / self.scale
            self._jacobian = tangents / self.scale
        else:
            self._residuals, slope = deviance_residuals(self.after, fitted)
            self._jacobian = slope[:, None] * tangents
        self._at = x.copy()

    def residuals(self, x: Vector) -> Vector:
        """Residuals at x, shape (130 legs,)."""
        self._evaluate(x)
        return self._residuals

    def jacobian(self, x: Vector) -> Matrix:
        """Derivative of the residuals with respect to x, shape (130 legs, 8)."""
        self._evaluate(x)
        return self._jacobian

    def cost(self, x: Vector) -> float:
        """Half the sum of squared residuals."""
        residuals = self.residuals(x)
        return 0.5 * float(residuals @ residuals)


def deviance_residuals(observed: Vector, fitted: Vector) -> tuple[Vector, Vector]:
    """Signed roots of the Poisson deviance per bin, and their derivative with respect to the fitted count."""
    mean = fitted + FLOOR
    seen = observed + FLOOR
    ratio = (mean - seen) / seen
    # n log(n/mu) cancels against mu - n near equality: log1p keeps the digits, a series takes over below
    exact = 2.0 * seen * (ratio - np.log1p(ratio))
    series = seen * ratio**2 * (1.0 - 2.0 / 3.0 * ratio + 0.5 * ratio**2)
    near = np.abs(ratio) < 1e-4
    root = np.sign(ratio) * np.sqrt(np.where(near, series, np.maximum(exact, 0.0)))
    slope = np.where(near, 1.0 / np.sqrt(mean), (1.0 - seen / mean) / np.where(root == 0.0, 1.0, root))
    return root, slope
