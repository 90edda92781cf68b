"""Profile intervals: how far a parameter can be moved, all others refitted, before the data say no (DESIGN 3).

A fit solves the eight equations J' K (F(x) - observed) = 0: eight weighted sums of the histogram, which ones being
the loss's choice. Given W those sums are Gaussian with the covariance M = J' K V K J x dispersion, so

    Q(x) = m' M^-1 m,   m(x) = J' K (F(x) - observed)    (J, K, V at the estimate, F the exact chain)

is minus twice their log-likelihood; it vanishes at an estimate inside the bounds. For a value v of one parameter Q
is minimised over the other seven, within their ranges; the interval holds every v at which Q rises by less than
the chi-square quantile with one degree of freedom. Locally this is the Wald interval with the sandwich errors;
away from the estimate it follows the chain and stops at the bounds.

Why not the rise of the loss itself, rescaled by one factor per parameter (Kent, Biometrika 1982)? Neither loss is
the likelihood of the counts, and the factor differs many times between directions of W. A linked share held by
its range then looks like information about everything else, and such intervals miss the absorption rate far too
often (docs/fitting.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import norm

from simulator.dynamics import fit_space
from simulator.dynamics.fit_problem import FitProblem
from simulator.dynamics.parameters import PARAMETER_NAMES
from simulator.dynamics.uncertainty import ON_LINEAR_SCALE, determined_basis, outer_limits, score_covariance

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_CLOSE = 0.01  # relative accuracy of the root of the rise of Q at which an end is good
_MOST_POINTS = 14  # per end
_DEEPER = 0.02  # fall of Q below its minimum that makes the profile begin again from there
_MOST_RESTARTS = 4


class _DeeperMinimum(Exception):
    """Internal: the profile walked below the minimum it started from."""

    def __init__(self, x: Vector) -> None:
        super().__init__()
        self.x = x


class _Sums:
    """m(x) in units of its own scatter, so that Q is its squared length less one.

    The last component is a constant 1: optimisers stop at a relative gain, and near Q = 0 none is small enough.
    """

    def __init__(self, problem: FitProblem, best: Vector, blocks: list[Matrix], dispersion: float) -> None:
        fitted, tangents = problem.model(best)
        weights = problem.weights(fitted)
        norms, basis, _ = determined_basis(tangents, weights)
        scaled = tangents / norms
        noise = basis.T @ score_covariance(scaled, weights, blocks) @ basis * dispersion
        values, vectors = np.linalg.eigh(noise)
        values = np.maximum(values, 1e-12 * values[-1])
        self.problem = problem
        self._rows = ((scaled * weights[:, None]) @ basis @ (vectors / np.sqrt(values))).T
        self._at: Vector | None = None
        self._value, self._slope = np.zeros(0), np.zeros((0, 8))

    def _evaluate(self, x: Vector) -> None:
        if self._at is None or not np.array_equal(x, self._at):
            fitted, tangents = self.problem.model(x)
            self._value = np.append(self._rows @ (fitted - self.problem.after), 1.0)
            self._slope = np.vstack([self._rows @ tangents, np.zeros(8)])
            self._at = x.copy()

    def value(self, x: Vector) -> Vector:
        """Standardised m."""
        self._evaluate(x)
        return self._value

    def slope(self, x: Vector) -> Matrix:
        """Its derivative with respect to x."""
        self._evaluate(x)
        return self._slope

    def minimum(self, start: Vector) -> Vector:
        """x in the box where Q is lowest, from a start."""
        found = least_squares(
            self.value, start, jac=self.slope, bounds=(fit_space.LOWER, fit_space.UPPER), method="dogbox",
            x_scale="jac", ftol=1e-8, xtol=1e-8, gtol=1e-9, max_nfev=100,
        )  # fmt: skip
        return np.asarray(found.x)


class _Slice:
    """Q over seven coordinates with one parameter of W held at a value."""

    def __init__(self, sums: _Sums, index: int, lowest: float) -> None:
        self.sums, self.index, self.lowest = sums, index, lowest
        self.others = np.array([i for i in range(8) if i != index])
        self.is_share = 4 <= index <= 6

    def embed(self, y: Vector, value: float) -> Vector:
        """x with the parameter at `value` and the others at y."""
        x = np.empty(8)
        x[self.others] = y
        if self.is_share:
            x[self.index] = min(value / (1.0 - np.exp(x[3])), 1.0)
        else:
            x[self.index] = np.log(value) if self.index in (0, 3, 7) else value
        return x

    def _jacobian(self, y: Vector, value: float) -> Matrix:
        x = self.embed(y, value)
        full = self.sums.slope(x)
        result = full[:, self.others]
        if self.is_share:  # held in W, so the share follows the absorption rate
            fall = np.exp(x[3])
            result[:, 3] += full[:, self.index] * x[self.index] * fall / (1.0 - fall)
        return result

    def minimise(self, value: float, start: Vector) -> tuple[Vector, float]:
        """x where Q is lowest with the parameter at `value`, and the root of the rise of Q.

        Raises
        ------
        _DeeperMinimum
            When Q falls.
        """
        low, high = fit_space.LOWER[self.others], fit_space.UPPER[self.others].copy()
        if self.is_share:
            high[3] = min(high[3], np.log1p(-value))
        found = least_squares(
            lambda y: self.sums.value(self.embed(y, value)), np.clip(start[self.others], low, high),
            jac=lambda y: self._jacobian(y, value),
            bounds=(low, high), method="trf", x_scale="jac", ftol=1e-5, xtol=1e-6, gtol=1e-8, max_nfev=40,
        )  # fmt: skip
        x = self.embed(found.x, value)
        rise = 2.0 * float(found.cost) - self.lowest
        if rise < -_DEEPER:
            raise _DeeperMinimum(x)
        return x, float(np.sqrt(max(rise, 0.0)))


def profile_intervals(
    problem: FitProblem,
    best: Vector,
    blocks: list[Matrix],
    covariance_x: Matrix,
    dispersion: float,
    level: float,
) -> dict[str, list[float]]:
    """Intervals [low, high] of the eight parameters at a minimum, by name.

    Parameters
    ----------
    problem : FitProblem
    best : float64, shape (8,)
        The minimum, in the space of the fit.
    blocks : list of float64, each (130, 130)
        V of every pair at the minimum.
    covariance_x : float64, shape (8, 8)
        Covariance of x; gives the first steps.
    dispersion : float, >= 1
        Reduced chi-square, where the data vary more than V.
    level : float, in (0, 1)
    """
    sums = _Sums(problem, best, blocks, dispersion)
    target = float(norm.ppf(0.5 + level / 2))
    x = sums.minimum(best)  # `best` itself unless it lies at a bound
    for _ in range(_MOST_RESTARTS):
        try:
            found = _around(sums, x, covariance_x, target)
            break
        except _DeeperMinimum as deeper:
            x = sums.minimum(deeper.x)
    else:
        found = {name: list(outer_limits(name, best)) for name in PARAMETER_NAMES}
    w = fit_space.to_parameters(best)
    return {
        name: [min(ends[0], float(value)), max(ends[1], float(value))]
        for (name, ends), value in zip(found.items(), w, strict=True)
    }


def _around(sums: _Sums, x: Vector, covariance_x: Matrix, target: float) -> dict[str, list[float]]:
    """Both ends of every parameter around the minimum x of Q."""
    lowest = float(sums.value(x) @ sums.value(x))
    w, dw_dx = fit_space.to_parameters(x), fit_space.jacobian(x)
    errors = np.sqrt(np.diag(dw_dx @ covariance_x @ dw_dx.T))
    intervals = {}
    for index, name in enumerate(PARAMETER_NAMES):
        part = _Slice(sums, index, lowest)
        linear = name in ON_LINEAR_SCALE
        low, high = outer_limits(name, x)
        value, error = float(w[index]), float(errors[index] if linear else errors[index] / w[index])
        intervals[name] = [
            _end(part, x, value, -error, low, linear, target),
            _end(part, x, value, error, high, linear, target),
        ]
    return intervals


def _end(
    part: _Slice, best: Vector, value: float, error: float, limit: float, linear: bool, target: float
) -> float:
    """Where the root of the rise of Q reaches `target`, towards one side, or `limit` where it never does."""
    place = (lambda v: v) if linear else np.log
    back = (lambda t: t) if linear else np.exp
    room = float(place(limit) - place(value))
    if room * np.sign(error) <= 1e-6:
        return limit
    origin = float(place(value))
    side = float(np.sign(error))
    inner, inner_distance = 0.0, 0.0
    outer, outer_distance = abs(room), np.inf
    step = min(target * max(abs(error), 1e-9), 0.98 * abs(room))
    x, previous = best, best
    reached = 0.0
    for _ in range(_MOST_POINTS):
        at = float(back(origin + side * step))
        guess = x + (x - previous) * ((step - inner) / reached if reached > 0 else 0.0)
        found, distance = part.minimise(at, np.clip(guess, fit_space.LOWER, fit_space.UPPER))
        if abs(distance - target) < _CLOSE * target:
            return float(back(origin + side * step * (target / distance if step < abs(room) else 1.0)))
        if distance < target:
            if step >= abs(room) * (1 - 1e-9):
                return limit
            if step > inner:
                previous, x, reached = x, found, step - inner
                inner, inner_distance = step, distance
        else:
            outer, outer_distance = step, distance
        step = _next_step(inner, inner_distance, outer, outer_distance, target, abs(room))
        if np.isfinite(outer_distance) and outer - inner < 1e-3 * outer:
            break
    return float(back(origin + side * (outer if np.isfinite(outer_distance) else abs(room))))


def _next_step(
    inner: float, inner_distance: float, outer: float, outer_distance: float, target: float, room: float
) -> float:
    """Interpolated between two sides of the root, else outwards in growing steps."""
    if np.isfinite(outer_distance):
        share = (target - inner_distance) / (outer_distance - inner_distance)
        return inner + min(max(share, 0.1), 0.9) * (outer - inner)
    growth = min(target / inner_distance, 3.0) if inner_distance > 0 else 3.0
    wanted = inner * max(growth, 1.05)
    return room if wanted > 0.9 * room else wanted
