"""Fitting W to a pair of scans (DESIGN 3; paper section III-C, DOI 10.1109/TMI.2020.3001810).

Bounded least squares on the chain with exact derivatives, from several starting points that are screened
among many; deterministic.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.stats import qmc

from simulator.dynamics import fit_space
from simulator.dynamics._jit import kernel
from simulator.dynamics.bins import N_BELOW
from simulator.dynamics.chain import propagate_kernel
from simulator.dynamics.derived import derived_quantities
from simulator.dynamics.determination import LEVEL, check_intervals, determine
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.fit_problem import FitProblem, Leg, check_leg, check_loss
from simulator.dynamics.pair_fit import PairFit

__all__ = ["PairFit", "fit_pair"]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

N_SCREENED = 256
_SCREENED_TRANSITIONS = 400_000  # long intervals are screened at fewer points, at least 48
_FEW_VOXELS = 200


@kernel
def _screen(
    candidates: Matrix, before: Vector, after: Vector, g_ref: float, steps: int, costs: Vector
) -> None:
    """Squared difference of every candidate W after giving it the births that the totals ask for."""
    p = np.empty(before.shape[0])
    for i in range(candidates.shape[0]):
        w = candidates[i]
        w[0] = 1e-8
        p[:] = before
        propagate_kernel(p, w, g_ref, steps)
        missing = max(after.sum() - p.sum(), 0.01 * after.sum())
        w[0] = min(max(missing / (steps * max(g_ref, 1.0)), 1e-7), 0.4)
        p[:] = before
        propagate_kernel(p, w, g_ref, steps)
        cost = 0.0
        for k in range(p.shape[0]):
            cost += (p[k] - after[k]) ** 2
        costs[i] = cost


def starting_points(leg: Leg, g_ref: float, starts: int, seed: int) -> list[Vector]:
    """The best of many low-discrepancy candidates, none too close to a better one."""
    sampler = qmc.Halton(d=7, rng=np.random.default_rng(seed))
    screened = min(N_SCREENED, max(48, _SCREENED_TRANSITIONS // leg.steps))
    unit = sampler.random(screened)
    x = fit_space.START_LOWER + np.column_stack([np.zeros(screened), unit]) * (
        fit_space.START_UPPER - fit_space.START_LOWER
    )
    candidates = np.array([fit_space.to_parameters(row) for row in x])
    costs = np.empty(screened)
    _screen(candidates, leg.before, leg.after, g_ref, leg.steps, costs)
    chosen: list[int] = []
    for i in np.argsort(costs, kind="stable"):
        if all(np.linalg.norm(unit[i] - unit[j]) > 0.35 for j in chosen):
            chosen.append(int(i))
        if len(chosen) == starts:
            break
    return [fit_space.from_parameters(candidates[i]) for i in chosen]


def minimise(problem: FitProblem, starts: list[Vector]) -> tuple[Vector, bool, list[float]]:
    """The best minimum from several starts, whether it converged, and the cost of every start."""
    results = [
        least_squares(
            problem.residuals, start, jac=problem.jacobian, bounds=(fit_space.LOWER, fit_space.UPPER),
            method="trf", x_scale="jac", ftol=1e-9, xtol=1e-9, gtol=1e-10, max_nfev=150,
        )
        for start in starts
    ]  # fmt: skip
    best = min(results, key=lambda result: float(result.cost))
    return best.x, bool(best.status > 0), [float(result.cost) for result in results]


def fit_pair(
    before: ArrayLike,
    after: ArrayLike,
    n_transitions: int,
    *,
    loss: str = "l2",
    intervals: str = "wald",
    starts: int = 4,
    seed: int = 0,
) -> PairFit:
    """Fit the eight parameters that turn one histogram into another.

    Parameters
    ----------
    before, after : array_like, shape (130,)
        Infected voxels per bin in the first and second scan (`bins.histogram`), in the same voxel size.
    n_transitions : int, >= 1
        Transitions between them: days x 100.
    loss : {"l2", "poisson"}
        Squared difference of the distributions in absolute counts (the paper's), or a Poisson likelihood.
    intervals : {"wald", "profile"}
        95 % intervals from the standard errors, or from the profile of the loss (slower, better near bounds).
    starts : int, 1..64
        Starting points, chosen among up to 256 screened ones.
    seed : int
        Of the starting points; the same seed gives the same fit.

    Returns
    -------
    PairFit

    Raises
    ------
    DynamicsError
        Empty, negative, NaN or wrongly shaped histograms, fewer than one transition, an unknown loss or method.

    Notes
    -----
    DESIGN 3, "The fit". G_ref is the mean of the two observed counts below 0 and is stored with W.
    """
    leg = check_leg(before, after, n_transitions)
    check_loss(loss)
    check_intervals(intervals)
    if not 1 <= starts <= 64:
        raise DynamicsError("the number of starts is out of range", got=starts, expected="1 to 64")
    problem = FitProblem([leg], loss)
    x, converged, costs = minimise(problem, starting_points(leg, problem.g_ref, starts, seed))
    return report(problem, x, converged, costs, intervals)


def report(problem: FitProblem, x: Vector, converged: bool, costs: list[float], intervals: str) -> PairFit:
    """Everything there is to say about the minimum of a problem of one pair."""
    leg = problem.legs[0]
    found = determine(problem, x, intervals)
    result = PairFit(
        parameters=found.parameters,
        standard_errors=found.standard_errors,
        correlations=found.correlations,
        covariance=found.covariance,
        n_transitions=leg.steps,
        loss=problem.loss,
        loss_value=2.0 * problem.unit * min(costs),
        before=leg.before,
        observed=leg.after,
        fitted=found.fitted[0],
        goodness=found.goodness[0],
        derived=derived_quantities(leg, found.parameters, found.covariance_x, LEVEL),
        intervals=found.intervals,
        interval_method=intervals,
        level=LEVEL,
        open_ends=found.open_ends,
        at_bound=found.at_bound,
        undetermined=found.undetermined,
        costs=[2.0 * problem.unit * cost for cost in costs],
    )
    result.notes = _notes(result, x, converged)
    return result


def _notes(fit: PairFit, x: Vector, converged: bool) -> list[str]:
    """Sentences for a reader: problems first, then what to know."""
    notes = []
    good = fit.goodness
    if not converged:
        notes.append("the optimiser stopped before it converged: treat the values with care")
    if good["overlap"] < 0.9 and good["reduced_chi_square"] > 2.0:
        notes.append(
            f"poor fit: fitted and observed distributions overlap by {100 * good['overlap']:.0f} %, "
            f"reduced chi-square {good['reduced_chi_square']:.3g}"
        )
    notes.extend(fit_space.bound_sentence(name, x) for name in fit.at_bound)
    if fit.undetermined:
        notes.append("not determined by these data: " + ", ".join(fit.undetermined))
    for name, counts in (("first", fit.before), ("second", fit.observed)):
        if counts.sum() < _FEW_VOXELS:
            notes.append(f"the {name} scan has only {counts.sum():.0f} infected voxels")
        if counts[:N_BELOW].sum() == 0:
            notes.append(f"the {name} scan has no voxel below 0")
        if counts[N_BELOW:].sum() == 0 and not (name == "first" and counts[1:].sum() == 0):  # Y_t0 has none
            notes.append(f"the {name} scan has no voxel above 0")
    if good["overlap"] >= 0.9 and good["reduced_chi_square"] > 2.0:
        notes.append(
            f"reduced chi-square {good['reduced_chi_square']:.3g} against independent voxels: real lesions vary "
            "more than the model, and the errors are enlarged accordingly"
        )
    births = fit.derived["births_per_transition"]
    error = fit.derived["births_per_transition_se"]
    if births > 0 and error < births:  # else birth_rate is among the undetermined
        notes.append(f"births {births:.4g} voxels per transition, +- {100 * error / births:.2g} %")
    return notes
