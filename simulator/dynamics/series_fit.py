"""One W for a patient's whole series: all adjacent pairs of scans fitted jointly (DESIGN 3).

Each pair is predicted from its earlier observation, the residuals are stacked, V is block diagonal (given its
earlier scan, a pair is independent of the others) and births of all pairs are counted against one G_ref, the mean
over the pairs of the mean of their two observed counts below 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from simulator.dynamics import fit_space
from simulator.dynamics.determination import LEVEL, check_intervals, determine
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.fit import minimise, starting_points
from simulator.dynamics.fit_problem import FitProblem, check_leg, check_loss
from simulator.dynamics.pair_fit import check_stored, numbers, plain
from simulator.dynamics.parameters import TransitionParameters
from simulator.dynamics.uncertainty import score_covariance

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

SCHEMA = 1
_NOT_ONE = 0.01  # p value below which one W is said not to suffice


@dataclass
class SeriesFit:
    """W of a whole series.

    Attributes
    ----------
    parameters, standard_errors, correlations, covariance, loss, loss_value
        As in `PairFit`; the loss is summed over the pairs.
    intervals, interval_method, level, open_ends, at_bound, undetermined
        As in `PairFit`.
    transitions : list of int
        Of every pair.
    observed, fitted : float64, shape (pairs, 130)
        Later histograms, and the model's, each predicted from the earlier observation.
    goodness : list of dict
        One per pair, as in `PairFit`.
    one_w : dict of float
        rise (of the loss over separate fits of the pairs), expected_rise (if one W held), and p_value: how
        often one W would give such a rise.
    notes : list of str
        Problems first.
    """

    parameters: TransitionParameters
    standard_errors: dict[str, float]
    correlations: Matrix
    covariance: Matrix
    transitions: list[int]
    loss: str
    loss_value: float
    observed: Matrix
    fitted: Matrix
    goodness: list[dict[str, float]]
    one_w: dict[str, float]
    intervals: dict[str, list[float]]
    interval_method: str
    level: float
    open_ends: dict[str, list[str]] = field(default_factory=dict)
    at_bound: list[str] = field(default_factory=list)
    undetermined: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values; NaN becomes None, infinity the string "inf"."""
        result: dict[str, Any] = {"schema": SCHEMA, "parameters": self.parameters.to_json()}
        for item in fields(self):
            if item.name != "parameters":
                result[item.name] = plain(getattr(self, item.name))
        return result

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SeriesFit:
        """Inverse of `to_json`.

        Raises
        ------
        DynamicsError
            If the data are of another schema or incomplete.
        """
        check_stored(data, SCHEMA, [item.name for item in fields(cls)], "joint fit")
        values = {item.name: data[item.name] for item in fields(cls)}
        values["parameters"] = TransitionParameters.from_json(values["parameters"])
        for name in ("correlations", "covariance", "observed", "fitted"):
            values[name] = np.array(numbers(values[name]), dtype=np.float64)
        for name in ("standard_errors", "goodness", "one_w", "intervals"):
            values[name] = numbers(values[name])
        return cls(**values)


def fit_series(
    histograms: Sequence[ArrayLike],
    transitions: Sequence[int],
    *,
    loss: str = "l2",
    intervals: str = "wald",
    starts: int = 4,
    seed: int = 0,
) -> SeriesFit:
    """Fit one W to a patient's whole series.

    Parameters
    ----------
    histograms : sequence of array_like, each (130,)
        Infected voxels per bin of every scan in the order of time, in the same voxel size; at least three.
    transitions : sequence of int
        Transitions between neighbours, one fewer than histograms.
    loss, intervals, starts, seed
        As for `fit_pair`; starting points are taken in turn from the pairs.

    Returns
    -------
    SeriesFit

    Raises
    ------
    DynamicsError
        Fewer than two pairs, lengths that do not fit, and whatever `fit_pair` refuses.
    """
    if len(histograms) < 3 or len(transitions) != len(histograms) - 1:
        raise DynamicsError(
            "a series needs three histograms or more and one interval between each two",
            got=f"{len(histograms)} histograms, {len(transitions)} intervals",
            remedy="use fit_pair for two scans",
        )
    check_loss(loss)
    check_intervals(intervals)
    if not 1 <= starts <= 64:
        raise DynamicsError("the number of starts is out of range", got=starts, expected="1 to 64")
    legs = [
        check_leg(before, after, steps)
        for before, after, steps in zip(histograms[:-1], histograms[1:], transitions, strict=True)
    ]
    problem = FitProblem(legs, loss)
    each = -(-starts // len(legs))
    begin = [x for leg in legs for x in starting_points(leg, problem.g_ref, each, seed)]
    x, converged, costs = minimise(problem, begin)
    found = determine(problem, x, intervals)
    result = SeriesFit(
        parameters=found.parameters,
        standard_errors=found.standard_errors,
        correlations=found.correlations,
        covariance=found.covariance,
        transitions=[leg.steps for leg in legs],
        loss=loss,
        loss_value=2.0 * problem.unit * min(costs),
        observed=np.array([leg.after for leg in legs]),
        fitted=np.array(found.fitted),
        goodness=found.goodness,
        one_w=_one_w(problem, x, seed),
        intervals=found.intervals,
        interval_method=intervals,
        level=LEVEL,
        open_ends=found.open_ends,
        at_bound=found.at_bound,
        undetermined=found.undetermined,
    )
    result.notes = _notes(result, x, converged)
    return result


def _one_w(problem: FitProblem, x: Vector, seed: int) -> dict[str, float]:
    """Whether one W suffices: the rise of the loss over separate fits, against what chance would make of it.

    To first order the rise is a quadratic form in the scores s_k = J_k' K (observed - F_hat) of the pairs, whose
    covariances are known; its distribution is approximated by a scaled chi-square with the same mean and
    variance (Satterthwaite, Biometrics Bulletin 1946). Coordinates at a bound of the joint fit are left out.
    """
    _, free = fit_space.at_bound(x)
    separate, dispersions, curvatures, noises = 0.0, [], [], []
    for leg in problem.legs:
        alone = FitProblem([leg], problem.loss, problem.g_ref)
        best, _, costs = minimise(alone, [x, *starting_points(leg, problem.g_ref, 2, seed)])
        separate += 2.0 * alone.unit * min(costs)
        dispersions.append(determine(alone, best, "wald").dispersion)
        fitted, tangents = alone.model(x)
        weights = alone.weights(fitted) * alone.unit
        j = tangents[:, free]
        curvatures.append(j.T @ (weights[:, None] * j))
        noises.append(score_covariance(j, weights, alone.covariances(x)))
    rise = 2.0 * problem.unit * problem.cost(x) - separate
    scale = np.sqrt(np.maximum(np.diag(sum(curvatures)), 1e-300))
    n, pairs = scale.size, len(curvatures)
    form, noise = np.zeros((n * pairs, n * pairs)), np.zeros((n * pairs, n * pairs))
    for k, (b, m) in enumerate(zip(curvatures, noises, strict=True)):
        block = slice(k * n, (k + 1) * n)
        form[block, block] = _inverse(b / np.outer(scale, scale))
        noise[block, block] = m / np.outer(scale, scale)
    form -= np.tile(_inverse(sum(curvatures) / np.outer(scale, scale)), (pairs, pairs))
    product = form @ noise * max(1.0, float(np.mean(dispersions)))
    mean, variance = float(np.trace(product)), 2.0 * float(np.trace(product @ product))
    if mean <= 0.0 or variance <= 0.0:
        return {"rise": rise, "expected_rise": 0.0, "p_value": 1.0}
    p_value = float(chi2.sf(max(rise, 0.0) * 2.0 * mean / variance, 2.0 * mean**2 / variance))
    return {"rise": rise, "expected_rise": mean, "p_value": p_value}


def _inverse(matrix: Matrix) -> Matrix:
    """Pseudo-inverse of a symmetric matrix with a unit scale, over the directions that count."""
    values, vectors = np.linalg.eigh(matrix)
    good = values > 1e-9 * max(float(values[-1]), 1e-300)
    return np.asarray((vectors[:, good] / values[good]) @ vectors[:, good].T)


def _notes(fit: SeriesFit, x: Vector, converged: bool) -> list[str]:
    """Sentences for a reader, problems first."""
    notes = []
    if not converged:
        notes.append("the optimiser stopped before it converged: treat the values with care")
    p_value = fit.one_w["p_value"]
    if p_value < _NOT_ONE:
        ratio = fit.one_w["rise"] / fit.one_w["expected_rise"]
        notes.append(
            f"one W does not suffice for the {len(fit.transitions)} pairs: the loss rises {ratio:.3g} times more "
            f"than chance would explain (p = {p_value:.1g}); the dynamics changed, or the lesions are not the same"
        )
    poor = [
        str(number + 1)
        for number, good in enumerate(fit.goodness)
        if good["overlap"] < 0.9 and good["reduced_chi_square"] > 2.0
    ]
    if poor:
        notes.append(f"poor fit of pair {', '.join(poor)}")
    notes.extend(fit_space.bound_sentence(name, x) for name in fit.at_bound)
    if fit.undetermined:
        notes.append("not determined by these data: " + ", ".join(fit.undetermined))
    if p_value >= _NOT_ONE:
        notes.append(f"one W suffices for the {len(fit.transitions)} pairs (p = {p_value:.2g})")
    return notes
