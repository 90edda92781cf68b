"""Fitting W to a pair of scans: L(W) = integral (F_hat - F)^2 dx, or a Poisson likelihood (DESIGN 3).

Bounded least squares on the chain with exact derivatives, from several starting points that are screened
among many; deterministic. Paper section III-C (DOI 10.1109/TMI.2020.3001810).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.stats import qmc

from simulator.dynamics import fit_space
from simulator.dynamics._jit import kernel
from simulator.dynamics.bins import N_BELOW, N_BINS, check_counts
from simulator.dynamics.chain import covariance_kernel, propagate_kernel, tangents_kernel
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.pair_fit import PairFit
from simulator.dynamics.parameters import TransitionParameters
from simulator.dynamics.uncertainty import (
    errors_and_correlations,
    estimate_covariance,
    goodness_of_fit,
    undetermined_names,
)

__all__ = ["PairFit", "fit_pair"]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

N_SCREENED = 256
_FLOOR = 0.05  # voxels per bin added to the model in the Poisson likelihood, so that stray voxels stay finite
_FEW_VOXELS = 200


class _Problem:
    """Residuals and Jacobian of one pair; remembers the last point, as the optimiser asks for both."""

    def __init__(self, before: Vector, after: Vector, steps: int, loss: str) -> None:
        self.before, self.after, self.steps, self.loss = before, after, steps, loss
        self.g_ref = 0.5 * float(before[:N_BELOW].sum() + after[:N_BELOW].sum())
        self.scale = float(np.linalg.norm(after))
        self._at: Vector | None = None
        self._residuals = np.zeros(N_BINS)
        self._jacobian = np.zeros((N_BINS, 8))

    def model(self, x: Vector) -> tuple[Vector, Matrix]:
        """Fitted histogram and its derivative with respect to x."""
        p = self.before.copy()
        d = np.zeros((N_BINS, 8))
        tangents_kernel(p, d, fit_space.to_parameters(x), self.g_ref, self.steps)
        return p, d @ fit_space.jacobian(x)

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
        self._evaluate(x)
        return self._residuals

    def jacobian(self, x: Vector) -> Matrix:
        self._evaluate(x)
        return self._jacobian


def deviance_residuals(observed: Vector, fitted: Vector) -> tuple[Vector, Vector]:
    """Signed roots of the Poisson deviance per bin, and their derivative with respect to the fitted count."""
    mean = fitted + _FLOOR
    seen = observed + _FLOOR
    ratio = (mean - seen) / seen
    # n log(n/mu) cancels against mu - n near equality: log1p keeps the digits, a series takes over below
    exact = 2.0 * seen * (ratio - np.log1p(ratio))
    series = seen * ratio**2 * (1.0 - 2.0 / 3.0 * ratio + 0.5 * ratio**2)
    near = np.abs(ratio) < 1e-4
    root = np.sign(ratio) * np.sqrt(np.where(near, series, np.maximum(exact, 0.0)))
    slope = np.where(near, 1.0 / np.sqrt(mean), (1.0 - seen / mean) / np.where(root == 0.0, 1.0, root))
    return root, slope


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


def starting_points(problem: _Problem, starts: int, seed: int) -> list[Vector]:
    """The best of many low-discrepancy candidates, none too close to a better one."""
    sampler = qmc.Halton(d=7, rng=np.random.default_rng(seed))
    unit = sampler.random(N_SCREENED)
    x = fit_space.START_LOWER + np.column_stack([np.zeros(N_SCREENED), unit]) * (
        fit_space.START_UPPER - fit_space.START_LOWER
    )
    candidates = np.array([fit_space.to_parameters(row) for row in x])
    costs = np.empty(N_SCREENED)
    _screen(candidates, problem.before, problem.after, problem.g_ref, problem.steps, costs)
    chosen: list[int] = []
    for i in np.argsort(costs, kind="stable"):
        if all(np.linalg.norm(unit[i] - unit[j]) > 0.35 for j in chosen):
            chosen.append(int(i))
        if len(chosen) == starts:
            break
    return [fit_space.from_parameters(candidates[i]) for i in chosen]


def fit_pair(
    before: ArrayLike,
    after: ArrayLike,
    n_transitions: int,
    *,
    loss: str = "l2",
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
    starts : int, 1..64
        Starting points, chosen among 256 screened ones.
    seed : int
        Of the starting points; the same seed gives the same fit.

    Returns
    -------
    PairFit

    Raises
    ------
    DynamicsError
        Empty, negative, NaN or wrongly shaped histograms, fewer than one transition, an unknown loss.

    Notes
    -----
    DESIGN 3, "The fit". G_ref is the mean of the two observed counts below 0 and is stored with W.
    """
    first, second = check_counts(before, "before"), check_counts(after, "after")
    for name, counts in (("before", first), ("after", second)):
        if counts.sum() <= 0:
            raise DynamicsError(
                f"the histogram '{name}' is empty", expected="at least one infected voxel",
                remedy="leave this pair out, or check the annotation",
            )  # fmt: skip
    if int(n_transitions) != n_transitions or n_transitions < 1:
        raise DynamicsError(
            "the scans must be at least one transition (1/100 day) apart", got=n_transitions,
            expected="a whole number, 1 or more", remedy="check the days of the scans",
        )  # fmt: skip
    if loss not in ("l2", "poisson"):
        raise DynamicsError("the loss is unknown", got=repr(loss), expected="'l2' or 'poisson'")
    if not 1 <= starts <= 64:
        raise DynamicsError("the number of starts is out of range", got=starts, expected="1 to 64")

    problem = _Problem(first, second, int(n_transitions), loss)
    results = [
        least_squares(
            problem.residuals, start, jac=problem.jacobian, bounds=(fit_space.LOWER, fit_space.UPPER),
            method="trf", x_scale="jac", ftol=1e-9, xtol=1e-9, gtol=1e-10, max_nfev=150,
        )
        for start in starting_points(problem, starts, seed)
    ]  # fmt: skip
    best = min(results, key=lambda result: float(result.cost))
    return _report(problem, best.x, best.status > 0, [float(result.cost) for result in results])


def _report(problem: _Problem, x: Vector, converged: bool, costs: list[float]) -> PairFit:
    fitted, tangents = problem.model(x)
    w = fit_space.to_parameters(x)
    parameters = TransitionParameters.from_array(w, problem.g_ref)
    v = np.zeros((N_BINS, N_BINS))
    covariance_kernel(problem.before.copy(), v, w, problem.g_ref, problem.steps)
    stuck, free = fit_space.at_bound(x)
    goodness = goodness_of_fit(problem.after, fitted, v, int(free.sum()))
    weights = np.ones(N_BINS) if problem.loss == "l2" else 1.0 / (fitted + _FLOOR)
    free[1] = free[2] = True  # phi and epsilon have natural ranges: their doubt counts at the edge too
    covariance, silent = estimate_covariance(
        tangents, weights, v, free, fit_space.jacobian(x), max(1.0, goodness["reduced_chi_square"])
    )
    errors, correlations = errors_and_correlations(covariance, silent, free)
    unit = 2.0 if problem.loss == "poisson" else 2.0 * problem.scale**2
    result = PairFit(
        parameters=parameters,
        standard_errors=errors,
        correlations=correlations,
        covariance=covariance,
        n_transitions=problem.steps,
        loss=problem.loss,
        loss_value=unit * min(costs),
        before=problem.before,
        observed=problem.after,
        fitted=fitted,
        goodness=goodness,
        derived={
            "births_per_transition": parameters.birth_rate * problem.g_ref,
            "births_per_transition_se": errors["birth_rate"] * problem.g_ref,
            "ggo_equilibrium": -0.15
            + parameters.stiffness * float(np.log(parameters.ggo_growth_rate / parameters.absorption_rate)),
            "consolidation_equilibrium": parameters.stiffness
            * float(np.log(parameters.consolidation_growth_rate / parameters.absorption_rate)),
        },
        at_bound=stuck,
        undetermined=undetermined_names(w, errors),
        costs=[unit * cost for cost in costs],
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
    births, error = fit.derived["births_per_transition"], fit.derived["births_per_transition_se"]
    if births > 0 and np.isfinite(error):
        notes.append(f"births {births:.4g} voxels per transition, +- {100 * error / births:.2g} %")
    return notes
