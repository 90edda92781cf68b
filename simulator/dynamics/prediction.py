"""Forecast histograms and volumes with intervals: the chain's V plus what the fit does not know (DESIGN 3).

    covariance = V(W) + J Cov(W) J'

V is the chance of the voxels given W, J the exact derivative of the forecast with respect to W. Cov(W) counts
every parameter as free, those that stopped at a bound included: their doubt is one-sided, so this errs on the
wide side. A parameter about which the pair says nothing has no Cov(W); it is moved over its whole range instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from simulator.dynamics import fit_space
from simulator.dynamics.bins import N_BELOW, check_counts
from simulator.dynamics.chain import propagate, propagate_covariance, propagate_tangents
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.pair_fit import PairFit
from simulator.dynamics.parameters import PARAMETER_NAMES, TransitionParameters

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Part = Literal["below", "above", "total"]

_PARTS: dict[str, slice] = {
    "below": slice(0, N_BELOW), "above": slice(N_BELOW, None), "total": slice(None),
}  # fmt: skip
_RANGE_POINTS = 9  # values over which a parameter that the data leave open is moved
_MOST_VOXELS = 1e12  # more than any scan holds: runaway births over a whole range stop here


@dataclass(frozen=True)
class Prediction:
    """A forecast histogram and how sure it is.

    Attributes
    ----------
    mean : float64, shape (130,)
        Expected voxels per bin.
    covariance : float64, shape (130, 130)
        Of the counts that will be observed about `mean`: chance of the voxels and doubt about W together.
    n_transitions : int
    level : float
        Of the intervals, 0..1.
    notes : list of str
        What the intervals do not know, problems first.
    """

    mean: Vector
    covariance: Matrix
    n_transitions: int
    level: float
    notes: list[str] = field(default_factory=list)

    def volume(self, part: Part) -> float:
        """Expected number of voxels below 0, above 0, or in all."""
        return float(self.mean[_slice(part)].sum())

    def standard_deviation(self, part: Part) -> float:
        """Standard deviation of that number."""
        chosen = _slice(part)
        return float(np.sqrt(max(float(self.covariance[chosen, chosen].sum()), 0.0)))

    def interval(self, part: Part) -> tuple[float, float]:
        """Interval of that number at `level`, voxels.

        Log-normal, so that it never reaches below zero and agrees with the normal one where that is narrow.
        """
        value, spread = self.volume(part), self.standard_deviation(part)
        if value <= 0.0:
            return 0.0, float(norm.ppf(0.5 + self.level / 2)) * spread
        width = float(norm.ppf(0.5 + self.level / 2)) * spread / value
        return value * float(np.exp(-width)), value * float(np.exp(min(width, 700.0)))


def _slice(part: str) -> slice:
    if part not in _PARTS:
        raise DynamicsError("no such part of a histogram", got=repr(part), expected=", ".join(_PARTS))
    return _PARTS[part]


def predict(counts: ArrayLike, fit: PairFit, n_transitions: int, *, level: float = 0.95) -> Prediction:
    """Forecast a histogram `n_transitions` ahead by fitted dynamics, with its covariance.

    Parameters
    ----------
    counts : array_like, shape (130,)
        The histogram to start from, known exactly.
    fit : PairFit
        Dynamics and what is known of them.
    n_transitions : int, >= 0
        Transitions of 1/100 day.
    level : float, in (0, 1)
        Of the intervals.

    Returns
    -------
    Prediction

    Raises
    ------
    DynamicsError
        Bad counts, number of transitions or level.

    Notes
    -----
    DESIGN 3: "forecast intervals need V". Births keep the fit's G_ref.
    """
    if not 0.0 < level < 1.0:
        raise DynamicsError("the level of an interval is a share", got=level, expected="between 0 and 1")
    first = check_counts(counts, "counts")
    mean, v = propagate_covariance(first, fit.parameters, n_transitions)
    _, tangents = propagate_tangents(first, fit.parameters, n_transitions)
    open_names = [name for name in PARAMETER_NAMES if np.isposinf(fit.standard_errors[name])]
    known = np.array([name not in open_names for name in PARAMETER_NAMES])
    j = tangents * known
    covariance = v + j @ fit.covariance @ j.T
    notes = []
    if open_names:
        notes.append(
            "moved over their whole range, as the pair does not determine them: " + ", ".join(open_names)
        )
        for name in open_names:
            covariance = covariance + _spread_over_range(first, fit.parameters, name, n_transitions, mean)
    if fit.at_bound:
        notes.append("at a bound in the fit, so the forecast leans on it: " + ", ".join(fit.at_bound))
    doubtful = [name for name in fit.undetermined if name not in open_names]
    if doubtful:
        notes.append("weakly determined: " + ", ".join(doubtful))
    if n_transitions > fit.n_transitions:
        notes.append(
            f"{n_transitions} transitions ahead by dynamics seen over {fit.n_transitions}: the intervals assume "
            "that W stays as it was"
        )
    return Prediction(mean, 0.5 * (covariance + covariance.T), int(n_transitions), float(level), notes)


def _spread_over_range(
    first: Vector, parameters: TransitionParameters, name: str, n_transitions: int, mean: Vector
) -> Matrix:
    """Mean outer product of the changes that one parameter makes over its range, the others held."""
    x = fit_space.from_parameters(parameters.as_array())
    i = PARAMETER_NAMES.index(name)
    shares = (np.arange(_RANGE_POINTS) + 0.5) / _RANGE_POINTS
    total = np.zeros((mean.size, mean.size))
    for value in fit_space.LOWER[i] + shares * (fit_space.UPPER[i] - fit_space.LOWER[i]):
        moved = np.where(np.arange(x.size) == i, value, x)
        other = TransitionParameters.from_array(
            fit_space.to_parameters(moved), parameters.reference_ggo_voxels
        )
        with np.errstate(over="ignore", invalid="ignore"):
            reached = np.nan_to_num(propagate(first, other, n_transitions), nan=_MOST_VOXELS)
        change = np.minimum(reached, _MOST_VOXELS) - mean
        total += np.outer(change, change)
    return total / _RANGE_POINTS
