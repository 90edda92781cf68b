"""Mean and spread of W over patients, from which the dynamics of new patients are drawn (DESIGN 3).

Everything happens in y: logarithms of birth_rate, absorption_rate and stiffness; logits of linked_share, of
entry_signal within its range and of g, p_c and c as shares of 1 - a. Every y is a valid W, so a draw cannot break
a constraint.

An estimate y_k of patient k scatters by the spread between patients T plus its own error S_k. T comes from
weighted moments (the multivariate form of DerSimonian and Laird, Controlled Clinical Trials 1986): with
u_ki = 1 / (T_ii + S_k,ii),

    mu_i = sum_k u_ki y_ki / sum_k u_ki
    T_ij = sum_k r_k [(y_ki - mu_i)(y_kj - mu_j) f - S_k,ij] / sum_k r_k,   r_k = sqrt(u_ki u_kj)

iterated, f the correction for the estimated mean, and negative eigenvalues set to zero. A coordinate whose errors
swallow the scatter gets no spread, and the population says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics import fit_space
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.parameters import PARAMETER_NAMES, TransitionParameters

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_LOGARITHMS = np.array([True, False, False, True, False, False, False, True])
_INNERMOST = 0.02  # a bound stands this share of the range inside it, where the logit is finite
_QUANTILE = 1.96
_FEW_PATIENTS = 10
_ROUNDS = 200
_POORLY_KNOWN = 1.0  # standard error of the mean of y (e-fold, or a logit) beyond which it says nothing
_STREAM = 0x909


@dataclass(frozen=True)
class Population:
    """Distribution of W over patients: Gaussian in y.

    Attributes
    ----------
    mean : float64, shape (8,)
        Of y, order of `PARAMETER_NAMES`.
    spread : float64, shape (8, 8)
        Covariance of y between patients, estimation error removed.
    mean_error : float64, shape (8,)
        Standard error of `mean`.
    typical_error : float64, shape (8,)
        Median over the patients of the standard error of their y.
    patients : int
    notes : list of str
        Problems first.
    """

    mean: Vector
    spread: Matrix
    mean_error: Vector
    typical_error: Vector
    patients: int
    notes: list[str] = field(default_factory=list)

    def typical(self, reference_ggo_voxels: float = 1.0) -> TransitionParameters:
        """W at the mean of y."""
        return _to_parameters(self.mean, reference_ggo_voxels)

    def draw(self, seed: int, reference_ggo_voxels: float = 1.0) -> TransitionParameters:
        """W of a new patient; the same seed gives the same W.

        Parameters
        ----------
        seed : int, >= 0
        reference_ggo_voxels : float, >= 0
            G_ref of the new patient, voxels.
        """
        if int(seed) != seed or seed < 0:
            raise DynamicsError("the seed must be a whole number", got=seed, expected="0 or more")
        values, vectors = np.linalg.eigh(self.spread)
        vectors = vectors * np.where(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(8)] < 0, -1.0, 1.0)
        normal = np.random.default_rng([int(seed), _STREAM]).standard_normal(8)
        y = self.mean + vectors @ (np.sqrt(np.maximum(values, 0.0)) * normal)
        # linear algebra differs in its last bits between processors; the seed is to give the same W on all
        drawn = _to_parameters(y.round(9), reference_ggo_voxels)
        digits = [float(f"{value:.11e}") for value in drawn.as_array()]
        return TransitionParameters.from_array(digits, reference_ggo_voxels)

    def quantiles(self) -> dict[str, tuple[float, float, float]]:
        """Of every parameter over patients: at mean - 1.96 s.d., mean, mean + 1.96 s.d. of its y."""
        spread = _QUANTILE * np.sqrt(np.diag(self.spread))
        low, middle, high = (
            _to_parameters(self.mean + sign * spread, 1.0).as_array() for sign in (-1.0, 0.0, 1.0)
        )
        return {
            name: (float(low[i]), float(middle[i]), float(high[i])) for i, name in enumerate(PARAMETER_NAMES)
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "parameters": list(PARAMETER_NAMES),
            "mean": self.mean.tolist(),
            "spread": self.spread.tolist(),
            "mean_error": self.mean_error.tolist(),
            "typical_error": self.typical_error.tolist(),
            "patients": self.patients,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Population:
        """Inverse of `to_json`.

        Raises
        ------
        DynamicsError
            When a value is missing, not finite, of the wrong shape, or the spread is no covariance.
        """
        try:
            arrays = {
                name: np.array(data[name], dtype=np.float64)
                for name in ("mean", "spread", "mean_error", "typical_error")
            }
            patients, notes = int(data["patients"]), [str(line) for line in data["notes"]]
            names = list(data["parameters"])
        except (KeyError, TypeError, ValueError) as error:
            raise DynamicsError(f"the stored population is incomplete or damaged ({error})") from None
        shapes = {"mean": (8,), "spread": (8, 8), "mean_error": (8,), "typical_error": (8,)}
        for name, array in arrays.items():
            if array.shape != shapes[name] or not np.isfinite(array).all():
                raise DynamicsError(f"the stored population's {name} is damaged")
        spread = arrays["spread"]
        if names != list(PARAMETER_NAMES):
            raise DynamicsError("the stored population is of other parameters", got=names)
        tolerance = 1e-9 * max(float(np.trace(spread)), 1.0)
        if not np.allclose(spread, spread.T) or float(np.linalg.eigvalsh(spread)[0]) < -tolerance:
            raise DynamicsError("the stored population's spread is no covariance")
        return cls(**arrays, patients=patients, notes=notes)


def _to_y(x: Vector) -> Vector:
    """y of an x; ends of a range stand a little inside it."""
    width = fit_space.UPPER - fit_space.LOWER
    share = np.clip((x - fit_space.LOWER) / width, _INNERMOST, 1.0 - _INNERMOST)
    return np.where(_LOGARITHMS, x, np.log(share / (1.0 - share)))


def _estimate(parameters: TransitionParameters, covariance: Matrix) -> tuple[Vector, Matrix]:
    """y of a fit and its covariance.

    The logits take the middle and the width of the 95 % interval, not the slope at the estimate: at a bound the
    slope is infinite, and patients whose estimate lies near one would be left out for their value's sake.
    """
    x = fit_space.from_parameters(parameters.as_array())
    back = np.linalg.inv(fit_space.jacobian(x))
    covariance_x = back @ covariance @ back.T
    errors = np.sqrt(np.maximum(np.diag(covariance_x), 1e-16))
    low, high = _to_y(x - _QUANTILE * errors), _to_y(x + _QUANTILE * errors)
    own = (high - low) / (2.0 * _QUANTILE)
    return 0.5 * (low + high), covariance_x * np.outer(own / errors, own / errors)


def _to_parameters(y: Vector, reference: float) -> TransitionParameters:
    width = fit_space.UPPER - fit_space.LOWER
    bounded = fit_space.LOWER + width / (1.0 + np.exp(-np.clip(y, -500.0, 500.0)))
    x = np.where(_LOGARITHMS, np.clip(y, fit_space.LOWER, fit_space.UPPER), bounded)
    return TransitionParameters.from_array(fit_space.to_parameters(x), reference)


def summarise(estimates: Sequence[tuple[TransitionParameters, Matrix]]) -> Population:
    """Population of patients from one estimate of each.

    Parameters
    ----------
    estimates : sequence of (TransitionParameters, float64 (8, 8))
        W of every patient and its covariance (`PairFit.covariance` or `SeriesFit.covariance`).

    Raises
    ------
    DynamicsError
        Fewer than three patients.
    """
    if len(estimates) < 3:
        raise DynamicsError(
            "too few patients for a spread between them", got=len(estimates), expected="at least 3"
        )
    points, errors = np.empty((len(estimates), 8)), np.empty((len(estimates), 8, 8))
    for k, (parameters, covariance) in enumerate(estimates):
        points[k], errors[k] = _estimate(parameters, covariance)
    own = np.maximum(np.einsum("kii->ki", errors), 1e-12)
    spread = np.diag(np.var(points, axis=0, ddof=1))
    for _ in range(_ROUNDS):
        weights = 1.0 / (np.diag(spread) + own)
        mean = (weights * points).sum(axis=0) / weights.sum(axis=0)
        spread_before, spread = spread, _spread(points - mean, errors, weights)
        if np.allclose(spread, spread_before, rtol=1e-6, atol=1e-9):
            break
    weights = 1.0 / (np.diag(spread) + own)
    mean = (weights * points).sum(axis=0) / weights.sum(axis=0)
    mean_error = 1.0 / np.sqrt(weights.sum(axis=0))
    return Population(
        mean, spread, mean_error, np.sqrt(np.median(own, axis=0)), len(estimates),
        _notes(len(estimates), spread, mean_error, np.sqrt(np.median(own, axis=0))),
    )  # fmt: skip


def _spread(away: Matrix, errors: NDArray[np.float64], weights: Matrix) -> Matrix:
    """One round of the moments, made positive semidefinite."""
    root = np.sqrt(weights)
    result = np.empty((8, 8))
    for i in range(8):
        for j in range(8):
            r = root[:, i] * root[:, j]
            effective = r.sum() ** 2 / (r**2).sum()
            correction = effective / max(effective - 1.0, 0.5)
            result[i, j] = (r * (away[:, i] * away[:, j] * correction - errors[:, i, j])).sum() / r.sum()
    spread = np.diag(np.maximum(np.diag(result), 0.0))
    alive = np.diag(spread) > 0
    part = result[np.ix_(alive, alive)]
    values, vectors = np.linalg.eigh(0.5 * (part + part.T))
    spread[np.ix_(alive, alive)] = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return spread


def _notes(patients: int, spread: Matrix, mean_error: Vector, typical_error: Vector) -> list[str]:
    notes = []
    if patients < _FEW_PATIENTS:
        notes.append(f"only {patients} patients: the spread between them is a rough guess")
    unknown = [name for name, e in zip(PARAMETER_NAMES, mean_error, strict=True) if e > _POORLY_KNOWN]
    if unknown:
        notes.append(
            f"not determined by this cohort: {', '.join(unknown)}; draws stay near what the fits happened to give"
        )
    weak = [
        name
        for name, e, s in zip(PARAMETER_NAMES, typical_error, np.diag(spread), strict=True)
        if e > _POORLY_KNOWN and e**2 > s and name not in unknown
    ]
    if weak:
        notes.append(
            f"hardly determined in a single patient, so with a spread that is a guess: {', '.join(weak)}"
        )
    flat = [
        name
        for name, s in zip(PARAMETER_NAMES, np.diag(spread), strict=True)
        if s <= 1e-8 and name not in unknown + weak
    ]
    if flat:
        notes.append(f"no spread between patients beyond the errors of the fits: {', '.join(flat)}")
    return notes
