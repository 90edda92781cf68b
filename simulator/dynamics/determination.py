"""What a minimum says about W: values, errors, intervals, and what the data leave open (DESIGN 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics import fit_space
from simulator.dynamics.bins import N_BINS
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.fit_problem import FitProblem
from simulator.dynamics.goodness import goodness_of_fit
from simulator.dynamics.parameters import PARAMETER_NAMES, TransitionParameters
from simulator.dynamics.profile import profile_intervals
from simulator.dynamics.uncertainty import (
    errors_and_correlations,
    estimate_covariance,
    open_ends,
    undetermined_names,
    wald_intervals,
)

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

LEVEL = 0.95
"""Of every interval."""

INTERVALS = ("wald", "profile")


@dataclass(frozen=True)
class Determination:
    """See `pair_fit.PairFit` for the meaning of the fields; `fitted` and `goodness` are one per pair."""

    parameters: TransitionParameters
    standard_errors: dict[str, float]
    correlations: Matrix
    covariance: Matrix
    covariance_x: Matrix
    intervals: dict[str, list[float]]
    open_ends: dict[str, list[str]]
    at_bound: list[str]
    undetermined: list[str]
    fitted: list[Vector]
    goodness: list[dict[str, float]]
    dispersion: float


def check_intervals(intervals: str) -> str:
    """A known kind of interval, or a DynamicsError."""
    if intervals not in INTERVALS:
        raise DynamicsError(
            "the kind of interval is unknown", got=repr(intervals), expected="'wald' or 'profile'"
        )
    return intervals


def determine(problem: FitProblem, x: Vector, intervals: str) -> Determination:
    """Judge the minimum x of a problem.

    Parameters
    ----------
    problem : FitProblem
    x : float64, shape (8,)
    intervals : {"wald", "profile"}
    """
    fitted, tangents = problem.model(x)
    blocks = problem.covariances(x)
    stuck, free = fit_space.at_bound(x)
    parts = [fitted[k * N_BINS : (k + 1) * N_BINS] for k in range(len(problem.legs))]
    share = int(free.sum()) / len(parts)  # a joint fit spends its parameters once over all pairs
    goodness = [
        goodness_of_fit(leg.after, part, v, share)
        for leg, part, v in zip(problem.legs, parts, blocks, strict=True)
    ]
    dispersion = max(1.0, float(np.mean([good["reduced_chi_square"] for good in goodness])))
    covariance_x, silent = estimate_covariance(tangents, problem.weights(fitted), blocks, dispersion)
    dw_dx = fit_space.jacobian(x)
    covariance = dw_dx @ covariance_x @ dw_dx.T
    held = ~free
    held[1] = held[2] = False  # phi and epsilon have natural ranges: their doubt counts at the edge too
    errors, correlations = errors_and_correlations(covariance, silent, held)
    if check_intervals(intervals) == "profile":
        ends = profile_intervals(problem, x, blocks, covariance_x, dispersion, LEVEL)
    else:
        ends = wald_intervals(x, covariance, silent, LEVEL)
    opened = open_ends(ends, x)
    w = fit_space.to_parameters(x)
    weak = undetermined_names(w, errors)
    return Determination(
        parameters=TransitionParameters.from_array(w, problem.g_ref),
        standard_errors=errors,
        correlations=correlations,
        covariance=covariance,
        covariance_x=covariance_x,
        intervals=ends,
        open_ends=opened,
        at_bound=stuck,
        undetermined=[name for name in PARAMETER_NAMES if name in weak or len(opened.get(name, [])) == 2],
        fitted=parts,
        goodness=goodness,
        dispersion=dispersion,
    )
