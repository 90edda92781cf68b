"""The Markov chain: the exact mean of the voxel engine, without any volume (DESIGN 3).

    p(t+1) = T(W) p(t) + births(t) e
    births(t) = nu G_ref [(1 - phi) + phi G(t) / G_ref],   G(t) = sum of p(t) below 0, before the moves

T is tridiagonal: a voxel falls one bin with probability a (from bin 0 it recovers and leaves), rises one bin
with the probability of its bin, else stays; the top bin reflects. Newborns do not move in the transition in
which they enter. This is the L(W) of the paper (section III-C) as a distribution.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.bins import N_BELOW, N_BINS, check_counts
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.parameters import PARAMETER_NAMES, TransitionParameters
from simulator.dynamics.rates import entry_distribution, rise_probabilities

N_PARAMETERS = len(PARAMETER_NAMES)

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@kernel
def advance_counts(p: Vector, rise: Vector, fall: float, steps: int) -> float:
    """Apply T `steps` times to p in place; return how much recovered."""
    recovered = 0.0
    for _ in range(steps):
        recovered += fall * p[0]
        below = 0.0  # what rises out of the bin below, before it was overwritten
        for k in range(N_BINS):
            here = p[k]
            above = p[k + 1] if k + 1 < N_BINS else 0.0
            p[k] = here * (1.0 - fall - rise[k]) + below + fall * above
            below = rise[k] * here
    return recovered


@kernel
def propagate_kernel(p: Vector, w: Vector, g_ref: float, steps: int) -> tuple[float, float]:
    """Propagate p in place; return (births, recovered) summed over the steps."""
    rise = np.empty(N_BINS)
    scratch = np.empty(N_BINS)
    entry = np.empty(N_BELOW)
    d_entry = np.empty(N_BELOW)
    rise_probabilities(w, rise, scratch)
    entry_distribution(w[2], entry, d_entry)
    fall = w[3]
    total_births = 0.0
    recovered = 0.0
    # Two padded buffers, so that the inner loop has no order and vectorises without changing any bit.
    old = np.zeros(N_BINS + 2)
    new = np.zeros(N_BINS + 2)
    stay = np.zeros(N_BINS)
    rise_padded = np.zeros(N_BINS + 1)
    for k in range(N_BINS):
        old[k + 1] = p[k]
        stay[k] = 1.0 - fall - rise[k]
        rise_padded[k + 1] = rise[k]
    for _ in range(steps):
        below = 0.0
        for k in range(N_BELOW):
            below += old[k + 1]
        births = w[0] * ((1.0 - w[1]) * g_ref + w[1] * below)
        total_births += births
        recovered += fall * old[1]
        for k in range(N_BINS):
            new[k + 1] = stay[k] * old[k + 1] + rise_padded[k] * old[k] + fall * old[k + 2]
        for k in range(N_BELOW):
            new[k + 1] += births * entry[k]
        old, new = new, old
    for k in range(N_BINS):
        p[k] = old[k + 1]
    return total_births, recovered


@kernel
def tangents_kernel(p: Vector, d: Matrix, w: Vector, g_ref: float, steps: int) -> None:
    """Propagate p and its derivative d (130, 8) with respect to W, both in place."""
    rise = np.empty(N_BINS)
    d_rise_kappa = np.empty(N_BINS)
    entry = np.empty(N_BELOW)
    d_entry = np.empty(N_BELOW)
    rise_probabilities(w, rise, d_rise_kappa)
    entry_distribution(w[2], entry, d_entry)
    fall = w[3]
    nu, phi = w[0], w[1]
    # derivative of rise[k] with respect to its own rate (g, p_c or c), and which rate that is
    d_rise_rate = np.zeros(N_BINS)
    which = np.empty(N_BINS, np.int64)
    for k in range(N_BINS):
        which[k] = 4 if k < N_BELOW - 1 else (5 if k == N_BELOW - 1 else 6)
        d_rise_rate[k] = rise[k] / w[which[k]]
    d_births = np.empty(8)
    new_d = np.empty((N_BINS, 8))
    new_p = np.empty(N_BINS)
    for _ in range(steps):
        below = 0.0
        d_births[:] = 0.0
        for k in range(N_BELOW):
            below += p[k]
            for i in range(8):
                d_births[i] += d[k, i]
        births = nu * ((1.0 - phi) * g_ref + phi * below)
        for i in range(8):
            d_births[i] *= nu * phi
        d_births[0] += (1.0 - phi) * g_ref + phi * below
        d_births[1] += nu * (below - g_ref)
        for k in range(N_BINS):
            stay = 1.0 - fall - rise[k]
            new_p[k] = stay * p[k]
            for i in range(8):
                new_d[k, i] = stay * d[k, i]
            new_d[k, 3] -= p[k]
            new_d[k, which[k]] -= d_rise_rate[k] * p[k]
            new_d[k, 7] -= d_rise_kappa[k] * p[k]
            if k > 0:
                up = rise[k - 1]
                new_p[k] += up * p[k - 1]
                for i in range(8):
                    new_d[k, i] += up * d[k - 1, i]
                new_d[k, which[k - 1]] += d_rise_rate[k - 1] * p[k - 1]
                new_d[k, 7] += d_rise_kappa[k - 1] * p[k - 1]
            if k + 1 < N_BINS:
                new_p[k] += fall * p[k + 1]
                for i in range(8):
                    new_d[k, i] += fall * d[k + 1, i]
                new_d[k, 3] += p[k + 1]
            if k < N_BELOW:
                new_p[k] += births * entry[k]
                for i in range(8):
                    new_d[k, i] += entry[k] * d_births[i]
                new_d[k, 2] += births * d_entry[k]
        for k in range(N_BINS):
            p[k] = new_p[k]
            for i in range(8):
                d[k, i] = new_d[k, i]


@kernel
def covariance_kernel(p: Vector, v: Matrix, w: Vector, g_ref: float, steps: int) -> None:
    """Propagate p and its covariance v (130, 130), both in place.

    V' = A V A' + sum_j p_j (diag T_j - T_j T_j') + births diag(e), A = T + nu phi e 1_G'.
    """
    rise = np.empty(N_BINS)
    scratch = np.empty(N_BINS)
    entry = np.empty(N_BELOW)
    d_entry = np.empty(N_BELOW)
    rise_probabilities(w, rise, scratch)
    entry_distribution(w[2], entry, d_entry)
    fall = w[3]
    feedback = w[0] * w[1]
    half = np.empty((N_BINS, N_BINS))
    rows_below = np.empty(N_BINS)
    columns_below = np.empty(N_BINS)
    for _ in range(steps):
        below = 0.0
        for k in range(N_BELOW):
            below += p[k]
        births = w[0] * ((1.0 - w[1]) * g_ref + w[1] * below)
        # half = A V
        rows_below[:] = 0.0
        for k in range(N_BELOW):
            for j in range(N_BINS):
                rows_below[j] += v[k, j]
        for k in range(N_BINS):
            stay = 1.0 - fall - rise[k]
            for j in range(N_BINS):
                half[k, j] = stay * v[k, j]
            if k > 0:
                for j in range(N_BINS):
                    half[k, j] += rise[k - 1] * v[k - 1, j]
            if k + 1 < N_BINS:
                for j in range(N_BINS):
                    half[k, j] += fall * v[k + 1, j]
            if k < N_BELOW:
                for j in range(N_BINS):
                    half[k, j] += feedback * entry[k] * rows_below[j]
        # v = half A'
        columns_below[:] = 0.0
        for k in range(N_BINS):
            for j in range(N_BELOW):
                columns_below[k] += half[k, j]
        for k in range(N_BINS):
            for j in range(N_BINS):
                value = (1.0 - fall - rise[j]) * half[k, j]
                if j > 0:
                    value += rise[j - 1] * half[k, j - 1]
                if j + 1 < N_BINS:
                    value += fall * half[k, j + 1]
                if j < N_BELOW:
                    value += feedback * entry[j] * columns_below[k]
                v[k, j] = value
        # noise of the moves and of the births
        for j in range(N_BINS):
            down = fall if j > 0 else 0.0
            up = rise[j]
            stay = 1.0 - fall - up
            v[j, j] += p[j] * stay * (1.0 - stay)
            if j > 0:
                v[j - 1, j - 1] += p[j] * down * (1.0 - down)
                v[j - 1, j] -= p[j] * down * stay
                v[j, j - 1] -= p[j] * down * stay
            if j + 1 < N_BINS:
                v[j + 1, j + 1] += p[j] * up * (1.0 - up)
                v[j + 1, j] -= p[j] * up * stay
                v[j, j + 1] -= p[j] * up * stay
            if j > 0 and j + 1 < N_BINS:
                v[j - 1, j + 1] -= p[j] * down * up
                v[j + 1, j - 1] -= p[j] * down * up
            if j < N_BELOW:
                v[j, j] += births * entry[j]
        advance_counts(p, rise, fall, 1)
        for k in range(N_BELOW):
            p[k] += births * entry[k]


def _check_steps(n_transitions: int) -> int:
    steps = int(n_transitions)
    if steps != n_transitions or steps < 0:
        raise DynamicsError(
            "the number of transitions must be a whole number", got=n_transitions, expected="0 or more"
        )
    return steps


def propagate(counts: ArrayLike, parameters: TransitionParameters, n_transitions: int) -> Vector:
    """Expected histogram after `n_transitions` transitions.

    Parameters
    ----------
    counts : array_like, shape (130,)
        Voxels per bin now, 0 or more.
    parameters : TransitionParameters
        W, per transition of 1/100 day.
    n_transitions : int, >= 0

    Returns
    -------
    float64, shape (130,)

    Raises
    ------
    DynamicsError
        Wrong shape, NaN or negative counts, or a bad number of transitions.

    Notes
    -----
    DESIGN 3, "The chain"; paper section III-C (DOI 10.1109/TMI.2020.3001810).
    """
    p = check_counts(counts, "counts").copy()
    propagate_kernel(p, parameters.as_array(), parameters.reference_ggo_voxels, _check_steps(n_transitions))
    return p


def propagate_tangents(
    counts: ArrayLike, parameters: TransitionParameters, n_transitions: int
) -> tuple[Vector, Matrix]:
    """Expected histogram and its exact derivative with respect to the eight parameters.

    Returns
    -------
    counts : float64, shape (130,)
    tangents : float64, shape (130, 8)
        Column i is the derivative with respect to `PARAMETER_NAMES[i]`; G_ref is held fixed.

    Raises
    ------
    DynamicsError
        As `propagate`.
    """
    p = check_counts(counts, "counts").copy()
    d = np.zeros((N_BINS, N_PARAMETERS))
    tangents_kernel(p, d, parameters.as_array(), parameters.reference_ggo_voxels, _check_steps(n_transitions))
    return p, d


def propagate_covariance(
    counts: ArrayLike, parameters: TransitionParameters, n_transitions: int
) -> tuple[Vector, Matrix]:
    """Expected histogram and its covariance, starting from a known histogram.

    Returns
    -------
    counts : float64, shape (130,)
    covariance : float64, shape (130, 130)
        Of the voxel counts about their expectation: independent voxels, Poisson births (DESIGN 3).

    Raises
    ------
    DynamicsError
        As `propagate`.
    """
    p = check_counts(counts, "counts").copy()
    v = np.zeros((N_BINS, N_BINS))
    covariance_kernel(
        p, v, parameters.as_array(), parameters.reference_ggo_voxels, _check_steps(n_transitions)
    )
    return p, v
