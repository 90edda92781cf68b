"""Slow, obvious twins of the kernels, and small lesions to run them on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from simulator.dynamics.hashing import as_seed
from simulator.dynamics.numbers import draw_numbers
from simulator.dynamics.parameters import TransitionParameters
from simulator.dynamics.rates import entry_distribution, rise_probabilities
from simulator.dynamics.state import LesionState, start_state
from simulator.dynamics.transitions import births_in_jump, transition_rows

WIDTH, BINS, BELOW = 0.005, 130, 30
CENTRES = -0.15 + WIDTH * (np.arange(BINS) + 0.5)
MASK64 = (1 << 64) - 1


def entry(epsilon: float) -> NDArray[np.float64]:
    """Truncated geometric with the wanted mean height, by root finding."""
    k = np.arange(BELOW)

    def distribution(theta: float) -> NDArray[np.float64]:
        weights = np.exp(theta * k - max(theta * k[-1], 0.0))
        return weights / weights.sum()

    theta = brentq(lambda t: WIDTH * (distribution(t) @ (k + 0.5)) - epsilon, -30, 30, xtol=1e-14)
    return distribution(theta)


def matrix(w: TransitionParameters) -> NDArray[np.float64]:
    """Dense T, column j is where bin j goes."""
    t = np.zeros((BINS, BINS))
    for j, s in enumerate(CENTRES):
        if j == BINS - 1:
            up = 0.0
        elif j == BELOW - 1:
            up = w.conversion_probability
        elif j < BELOW:
            up = w.ggo_growth_rate * np.exp(-(s + 0.15) / w.stiffness)
        else:
            up = w.consolidation_growth_rate * np.exp(-s / w.stiffness)
        t[j, j] = 1 - w.absorption_rate - up
        if j > 0:
            t[j - 1, j] = w.absorption_rate
        if j + 1 < BINS:
            t[j + 1, j] = up
    return t


def chain(
    counts: NDArray[np.float64], w: TransitionParameters, steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance, straight from DESIGN 3."""
    t = matrix(w)
    e = np.zeros(BINS)
    e[:BELOW] = entry(w.entry_signal)
    below = (np.arange(BINS) < BELOW).astype(float)
    a = t + w.birth_rate * w.linked_share * np.outer(e, below)
    p, v = counts.astype(float).copy(), np.zeros((BINS, BINS))
    for _ in range(steps):
        births = w.birth_rate * ((1 - w.linked_share) * w.reference_ggo_voxels + w.linked_share * (below @ p))
        noise = sum(p[j] * (np.diag(t[:, j]) - np.outer(t[:, j], t[:, j])) for j in range(BINS))
        v = a @ v @ a.T + noise + births * np.diag(e)
        p = t @ p + births * e
    return p, v


def births(counts: NDArray[np.int64], w: TransitionParameters, steps: int) -> NDArray[np.float64]:
    """The kernel's expected births of a jump, shape (131,)."""
    rise, entry_bins, scratch, result = np.empty(BINS), np.empty(BELOW), np.empty((2, BINS)), np.empty(131)
    rise_probabilities(w.as_array(), rise, np.empty(BINS))
    entry_distribution(w.entry_signal, entry_bins, np.empty(BELOW))
    births_in_jump(counts, w.as_array(), w.reference_ggo_voxels, rise, entry_bins, steps, scratch, result)
    return result


@dataclass
class Numbers:
    """What `draw_numbers` fills."""

    moves: NDArray[np.int64]
    region_moves: NDArray[np.int64]
    births: NDArray[np.int64]


def numbers(
    counts: NDArray[np.int64],
    w: TransitionParameters,
    part: int,
    parts: int,
    seed: int,
    rows_kept: bool = True,
    most_births: float = 1e9,
) -> Numbers:
    """The numbers of one jump, drawn by the kernel."""
    regions = counts.shape[0]
    rise, entry_bins = np.empty(BINS), np.empty(BELOW)
    rise_probabilities(w.as_array(), rise, np.empty(BINS))
    entry_distribution(w.entry_signal, entry_bins, np.empty(BELOW))
    moves = np.ones((130 * regions if rows_kept else 1, 131), np.int64)
    result = Numbers(moves, np.ones((regions, 131), np.int64), np.ones(131, np.int64))
    draw_numbers(
        counts, regions, w.as_array(), w.reference_ggo_voxels, rise, entry_bins,
        transition_rows(w.as_array(), part), part, parts, most_births, as_seed(seed), 0, moves,
        result.region_moves,
        result.births, np.empty((regions, 130), np.int64), np.empty((2, 130), np.int64), np.empty(131, np.int64),
        np.empty((2, 130)),
        np.empty(131), np.empty(132), np.zeros((32, 3), np.int64),
    )  # fmt: skip
    return result


def mix64(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


def draw64(key: int, counter: int) -> int:
    return mix64((key + (counter + 1) * 0x9E3779B97F4A7C15) & MASK64)


GROWING = TransitionParameters(0.012, 0.5, 0.050, 0.10, 0.60, 0.50, 0.50, 0.070, 900)
SHRINKING = TransitionParameters(0.001, 0.7, 0.030, 0.35, 0.25, 0.30, 0.30, 0.060, 900)
STATIONARY = TransitionParameters(0.0025, 0.2, 0.060, 0.12, 0.45, 0.40, 0.40, 0.060, 900)


def lesion(size: int = 32, *, seed: int = 0, recovery_limit: bool = False) -> LesionState:
    """Two blobs, about 1200 voxels, in a ball of tissue with an airway through it."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((size, size, size)) - size / 2 + 0.5
    tissue = z**2 + y**2 + x**2 < (0.48 * size) ** 2
    tissue[:, size // 2 : size // 2 + 2, size // 2 : size // 2 + 2] = False
    infected = z**2 + (y + 6) ** 2 + (x + 6) ** 2 < 5.5**2
    infected |= (z - 5) ** 2 + (y - 6) ** 2 + (x - 5) ** 2 < 4.5**2
    infected &= tissue
    signal = rng.normal(-0.2, 0.03, tissue.shape).astype(np.float32)
    signal[infected] = np.clip(rng.normal(-0.02, 0.07, int(infected.sum())), -0.14, 0.45)
    return start_state(signal, infected, tissue, (1.0, 0.7, 0.7), recovery_limit=recovery_limit)
