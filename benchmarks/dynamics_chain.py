"""The chain's and the fit's part of `benchmarks/dynamics.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from benchmarks.dynamics_engine import one_core
from benchmarks.dynamics_peers import numpy_chain, numpy_matrix_power
from benchmarks.dynamics_scan import SPACING_MM, growing, make_chest
from simulator.dynamics import fit_space
from simulator.dynamics.chain import propagate, propagate_covariance, propagate_tangents
from simulator.dynamics.engine import advance, start_state
from simulator.dynamics.fit import fit_pair
from simulator.dynamics.parameters import TransitionParameters

SHORT, LONG = 300, 30_000

Vector = NDArray[np.float64]


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one that does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds))


def pair_of_histograms() -> tuple[Vector, Vector, TransitionParameters]:
    """A lesion's histogram, the one 200 transitions later by the voxel engine (26 ml to 45 ml), and the true W."""
    chest = make_chest(160, 60_000, 5, seed=3)
    w = growing(chest, 105_000, 200)
    state = start_state(chest.signal, chest.infection, chest.susceptible, SPACING_MM)
    before = state.counts()
    return before, advance(state, w, 200, jump=1, seed=4).counts(), w


def time_chain(before: Vector, w: TransitionParameters) -> list[dict[str, Any]]:
    """Milliseconds of the chain and of NumPy's, one core."""
    steady = growing_slowly(before, w)
    rows: list[dict[str, Any]] = []
    with one_core():

        def add(what: str, steps: int, who: str, work: Callable[[], object], repeats: int) -> None:
            seconds = median_seconds(work, repeats)
            rows.append({"what": what, "transitions": steps, "who": who, "milliseconds": seconds * 1000})

        add("chain", SHORT, "lungcast", lambda: propagate(before, w, SHORT), 300)
        for banded in (True, False):
            name = "NumPy, three shifted products" if banded else "NumPy, T @ p"
            add("chain", SHORT, name, lambda banded=banded: numpy_chain(before, w, SHORT, banded=banded), 20)
        add("with exact tangents", SHORT, "lungcast", lambda: propagate_tangents(before, w, SHORT), 100)
        add(
            "with exact tangents", SHORT, "NumPy, T @ p, forward differences",
            lambda: _difference_tangents(before, w, SHORT), 5,
        )  # fmt: skip
        add("with covariance", SHORT, "lungcast", lambda: propagate_covariance(before, w, SHORT), 20)
        add("chain", LONG, "lungcast", lambda: propagate(before, steady, LONG), 20)
        add("chain", LONG, "NumPy, T @ p", lambda: numpy_chain(before, steady, LONG, banded=False), 2)
        add("chain", LONG, "NumPy, matrix_power", lambda: numpy_matrix_power(before, steady, LONG), 10)
    return rows


def growing_slowly(before: Vector, w: TransitionParameters) -> TransitionParameters:
    """The same rates with constant births, which 300 days do not blow up."""
    return TransitionParameters.from_array(
        w.as_array() * np.array([1, 0, 1, 1, 1, 1, 1, 1]), w.reference_ggo_voxels
    )


def _difference_tangents(before: Vector, w: TransitionParameters, steps: int) -> Vector:
    """Nine chains: what a fit without derivatives pays."""
    values = w.as_array()
    base = numpy_chain(before, w, steps, banded=False)
    columns = []
    for i in range(8):
        shift = np.zeros(8)
        shift[i] = 1e-6 * values[i]
        moved = TransitionParameters.from_array(values + shift, w.reference_ggo_voxels)
        columns.append((numpy_chain(before, moved, steps, banded=False) - base) / shift[i])
    return np.stack(columns, axis=1)


def time_fit(before: Vector, after: Vector) -> list[dict[str, Any]]:
    """Seconds of a fit (all starts, errors, goodness of fit) and of SciPy's with finite differences."""
    g_ref = 0.5 * float(before[:30].sum() + after[:30].sum())
    # The middle of the region in which `fit_pair` draws its starts.
    first = fit_space.from_parameters(np.array([0.005, 0.5, 0.07, 0.1, 0.45, 0.45, 0.45, 0.08]))
    scale = float(np.linalg.norm(after))

    def loss_l2(fitted: Vector) -> float:
        return float(np.linalg.norm(fitted - after) / scale)

    rows: list[dict[str, Any]] = []
    with one_core():
        for loss in ("l2", "poisson"):
            seconds = median_seconds(lambda loss=loss: fit_pair(before, after, 200, loss=loss), 5)
            fit = fit_pair(before, after, 200, loss=loss)
            name = {"l2": "L2", "poisson": "Poisson"}[loss]
            rows.append(
                {
                    "who": f"lungcast, {name}",
                    "seconds": seconds,
                    "relative_l2": loss_l2(fit.fitted),
                    "starts": "all",
                }
            )
        for chain_name, chain in (("lungcast's chain", propagate), ("NumPy T @ p", _dense)):

            def residuals(x: Vector, chain: Callable[..., Vector] = chain) -> Vector:
                w = TransitionParameters.from_array(fit_space.to_parameters(x), g_ref)
                return (chain(before, w, 200) - after) / scale

            def solve(residuals: Callable[[Vector], Vector] = residuals) -> Any:
                return least_squares(
                    residuals, first, jac="2-point", bounds=(fit_space.LOWER, fit_space.UPPER)
                )

            seconds = median_seconds(solve, 3 if chain is propagate else 1)
            rows.append(
                {
                    "who": f"SciPy least_squares, 2-point differences, {chain_name}",
                    "seconds": seconds,
                    "relative_l2": float(np.sqrt(2 * solve().cost)),
                    "starts": "1",
                }
            )
    return rows


def _dense(before: Vector, w: TransitionParameters, steps: int) -> Vector:
    return numpy_chain(before, w, steps, banded=False)
