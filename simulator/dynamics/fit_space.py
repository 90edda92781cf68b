"""The space in which W is fitted: eight numbers in a box, so that no constraint can be broken (DESIGN 3).

    x = (ln nu, phi, epsilon, ln a, g / (1 - a), p_c / (1 - a), c / (1 - a), ln kappa)

The shares keep a + g, a + p_c and a + c at most 1. The chain rule back to W is exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.parameters import PARAMETER_NAMES

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Bounds of x. Rates below 1e-4 per transition move a voxel less than once a hundred days.
LOWER = np.array([np.log(1e-8), 0.0, 0.0030, np.log(1e-4), 1e-4, 1e-4, 1e-4, np.log(0.005)])
UPPER = np.array([np.log(0.5), 1.0, 0.1470, np.log(0.6), 1.0, 1.0, 1.0, np.log(2.0)])

# Where starting points are drawn: the region in which lesions look like lesions.
START_LOWER = np.array([0.0, 0.1, 0.010, np.log(0.02), 0.1, 0.1, 0.1, np.log(0.03)])
START_UPPER = np.array([0.0, 0.9, 0.130, np.log(0.30), 0.95, 0.95, 0.95, np.log(0.20)])


def to_parameters(x: Vector) -> Vector:
    """W (8 values, order of PARAMETER_NAMES) from x."""
    fall = np.exp(x[3])
    return np.array(
        [
            np.exp(x[0]), x[1], x[2], fall,
            (1 - fall) * x[4], (1 - fall) * x[5], (1 - fall) * x[6], np.exp(x[7]),
        ]
    )  # fmt: skip


def from_parameters(w: Vector) -> Vector:
    """x from W; values outside the box are moved to its edge."""
    fall = w[3]
    x = np.array(
        [np.log(w[0]), w[1], w[2], np.log(fall), *(w[4:7] / (1 - fall)), np.log(w[7])], dtype=np.float64
    )
    return np.clip(x, LOWER, UPPER)


def jacobian(x: Vector) -> Matrix:
    """dW/dx, shape (8, 8): row is the parameter, column the coordinate."""
    fall = np.exp(x[3])
    result = np.zeros((8, 8))
    result[0, 0] = np.exp(x[0])
    result[1, 1] = 1.0
    result[2, 2] = 1.0
    result[3, 3] = fall
    for i in (4, 5, 6):
        result[i, i] = 1 - fall
        result[i, 3] = -fall * x[i]
    result[7, 7] = np.exp(x[7])
    return result


def at_bound(x: Vector, tolerance: float = 1e-3) -> tuple[list[str], NDArray[np.bool_]]:
    """Names of the parameters whose coordinate lies at its bound, and which coordinates are free."""
    margin = tolerance * (UPPER - LOWER)
    stuck = (x - LOWER < margin) | (UPPER - x < margin)
    return [name for name, flag in zip(PARAMETER_NAMES, stuck, strict=True) if flag], ~stuck


def bound_sentence(name: str, x: Vector) -> str:
    """Which bound a parameter has reached, in words."""
    i = PARAMETER_NAMES.index(name)
    upper = UPPER[i] - x[i] < x[i] - LOWER[i]
    if 4 <= i <= 6 and upper:
        return f"{name} is at its bound: absorption_rate + {name} = 1"
    edge = to_parameters(np.where(np.arange(8) == i, UPPER if upper else LOWER, x))[i]
    return f"{name} is at its {'upper' if upper else 'lower'} bound {edge:.3g}"
