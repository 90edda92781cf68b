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
    """Propagate p and its derivative d (130, 8) with respect to W, both in place.

    Inside, one padded row per parameter lies along the bins, so that every inner loop is free of order and
    vectorises without changing any bit.
    """
    rise = np.empty(N_BINS)
    d_rise_kappa = np.empty(N_BINS)
    entry = np.empty(N_BELOW)
    d_entry = np.empty(N_BELOW)
    rise_probabilities(w, rise, d_rise_kappa)
    entry_distribution(w[2], entry, d_entry)
    fall = w[3]
    nu, phi = w[0], w[1]
    stay = np.empty(N_BINS)
    rise_padded = np.zeros(N_BINS + 1)
    kappa_padded = np.zeros(N_BINS + 1)
    for k in range(N_BINS):
        stay[k] = 1.0 - fall - rise[k]
        rise_padded[k + 1] = rise[k]
        kappa_padded[k + 1] = d_rise_kappa[k]
    old_p, new_p = np.zeros(N_BINS + 2), np.zeros(N_BINS + 2)
    old_d, new_d = np.zeros((8, N_BINS + 2)), np.zeros((8, N_BINS + 2))
    for k in range(N_BINS):
        old_p[k + 1] = p[k]
        for i in range(8):
            old_d[i, k + 1] = d[k, i]
    d_births = np.empty(8)
    for _ in range(steps):
        below = 0.0
        for k in range(N_BELOW):
            below += old_p[k + 1]
        source = (1.0 - phi) * g_ref + phi * below
        births = nu * source
        for i in range(8):
            total = 0.0
            for k in range(N_BELOW):
                total += old_d[i, k + 1]
            d_births[i] = nu * phi * total
        d_births[0] += source
        d_births[1] += nu * (below - g_ref)
        for i in range(8):
            old, new = old_d[i], new_d[i]
            for k in range(N_BINS):
                new[k + 1] = stay[k] * old[k + 1] + rise_padded[k] * old[k] + fall * old[k + 2]
            for k in range(N_BELOW):
                new[k + 1] += d_births[i] * entry[k]
        for k in range(N_BELOW):
            new_d[2, k + 1] += births * d_entry[k]
        # what a larger probability moves: `fall` down from every bin, a rate up from the bins that it governs
        for k in range(N_BINS):
            new_d[3, k + 1] += old_p[k + 2] - old_p[k + 1]
            new_d[7, k + 1] += kappa_padded[k] * old_p[k] - kappa_padded[k + 1] * old_p[k + 1]
        for rate, first, last in ((4, 0, N_BELOW - 1), (5, N_BELOW - 1, N_BELOW), (6, N_BELOW, N_BINS - 1)):
            moved = 0.0
            for k in range(first, last):
                leaves = rise[k] / w[rate] * old_p[k + 1]
                new_d[rate, k + 1] += moved - leaves
                moved = leaves
            new_d[rate, last + 1] += moved
        for k in range(N_BINS):
            new_p[k + 1] = stay[k] * old_p[k + 1] + rise_padded[k] * old_p[k] + fall * old_p[k + 2]
        for k in range(N_BELOW):
            new_p[k + 1] += births * entry[k]
        old_p, new_p = new_p, old_p
        old_d, new_d = new_d, old_d
    for k in range(N_BINS):
        p[k] = old_p[k + 1]
        for i in range(8):
            d[k, i] = old_d[i, k + 1]


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
