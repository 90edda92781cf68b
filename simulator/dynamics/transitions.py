"""What a jump of n transitions does on average: the rows of T^n, and births with their ages (DESIGN 3).

Computed with correctly rounded operations in a fixed order (no BLAS, no libm), because the voxel engine
draws from these numbers and must draw the same on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.bins import N_BELOW, N_BINS
from simulator.dynamics.chain import advance_counts
from simulator.dynamics.rates import rise_probabilities

N_DESTINATIONS = N_BINS + 1  # 0 is recovery, d is bin d - 1
LONGEST_STEPPED = 64  # transitions; beyond it squaring a matrix is faster (benchmarks/dynamics.py)


@kernel
def _square(rows: NDArray[np.float64], result: NDArray[np.float64]) -> None:
    """Fill result with the rows of twice as many transitions; column 0, recovery, is left by nobody."""
    for k in range(N_BINS):
        for d in range(N_DESTINATIONS):
            result[k, d] = 0.0
        result[k, 0] = rows[k, 0]
        for middle in range(N_BINS):
            weight = rows[k, middle + 1]
            if weight != 0.0:
                for d in range(N_DESTINATIONS):
                    result[k, d] += weight * rows[middle, d]


@kernel
def transition_rows(w: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Probability of every destination after `steps` transitions.

    Short jumps step T along each row; long ones square T^(n/2), T^(n/4) ..., which costs a logarithm of n.

    Returns
    -------
    float64, shape (130, 131)
        Row k belongs to bin k; column 0 is recovery, column d is bin d - 1. Rows sum to 1.
    """
    rise = np.empty(N_BINS)
    scratch = np.empty(N_BINS)
    rise_probabilities(w, rise, scratch)
    doublings = 0
    while steps >> doublings > LONGEST_STEPPED:
        doublings += 1
    rows = np.zeros((N_BINS, N_DESTINATIONS))
    other = np.zeros((N_BINS, N_DESTINATIONS))
    p = np.empty(N_BINS)
    for k in range(N_BINS):
        p[:] = 0.0
        p[k] = 1.0
        rows[k, 0] = advance_counts(p, rise, w[3], steps >> doublings)
        for d in range(N_BINS):
            rows[k, d + 1] = p[d]
    for level in range(doublings - 1, -1, -1):
        _square(rows, other)
        rows, other = other, rows
        if (steps >> level) & 1:
            for k in range(N_BINS):
                rows[k, 0] += advance_counts(rows[k, 1:], rise, w[3], 1)
    return rows


@kernel
def births_in_jump(
    counts: NDArray[np.int64],
    w: NDArray[np.float64],
    g_ref: float,
    rise: NDArray[np.float64],
    entry: NDArray[np.float64],
    steps: int,
    scratch: NDArray[np.float64],
    result: NDArray[np.float64],
) -> None:
    """Expected births during a jump, by where they are at its end, given the counts at its start.

    The chain runs on the present voxels and on the newborns side by side; newborns count towards G(t) and
    move from the transition after the one in which they entered.

    Parameters
    ----------
    counts : int64, shape (130,)
        Voxels per bin now.
    w, g_ref, rise, entry
        W, G_ref, and the rates that follow from W (`rates`).
    steps : int
    scratch : float64, shape (2, 130)
    result : float64, shape (131,)
        Filled. Column 0: born and recovered within the jump; column d: in bin d - 1 at the end.
    """
    present, born = scratch[0], scratch[1]
    for k in range(N_BINS):
        present[k] = counts[k]
        born[k] = 0.0
    recovered = 0.0
    for step in range(steps):
        below = 0.0
        for k in range(N_BELOW):
            below += present[k] + born[k]
        births = w[0] * ((1.0 - w[1]) * g_ref + w[1] * below)
        if step > 0:
            recovered += advance_counts(born, rise, w[3], 1)
        if step + 1 < steps:
            advance_counts(present, rise, w[3], 1)
        for k in range(N_BELOW):
            born[k] += births * entry[k]
    result[0] = recovered
    for k in range(N_BINS):
        result[k + 1] = born[k]
