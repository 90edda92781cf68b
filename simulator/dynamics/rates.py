"""From W to probabilities: chance to rise from each bin, and where a newly infected voxel enters (DESIGN 3).

The signal s in the formulas is the signal at the bin CENTRE. Everything here uses `exactmath`, because the
voxel engine decides with these numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.bins import BIN_WIDTH, N_BELOW, N_BINS
from simulator.dynamics.exactmath import exact_exp

_STEEPEST = 40.0  # |ln ratio| beyond which the entry distribution is one bin to 17 digits

Vector = NDArray[np.float64]


@kernel
def rise_probabilities(w: Vector, rise: Vector, d_stiffness: Vector) -> None:
    """Fill rise[k], the chance to rise one bin, and its derivative with respect to kappa.

    Below 0: g exp(-(s + 0.15) / kappa); last bin below 0: p_c; above: c exp(-s / kappa); top bin: 0.
    """
    growth, conversion, consolidation, kappa = w[4], w[5], w[6], w[7]
    for k in range(N_BINS):
        if k < N_BELOW:
            height = (k + 0.5) * BIN_WIDTH
            rise[k] = growth * exact_exp(-height / kappa)
        else:
            height = (k - N_BELOW + 0.5) * BIN_WIDTH
            rise[k] = consolidation * exact_exp(-height / kappa)
        d_stiffness[k] = rise[k] * height / (kappa * kappa)
    rise[N_BELOW - 1] = conversion
    d_stiffness[N_BELOW - 1] = 0.0
    rise[N_BINS - 1] = 0.0
    d_stiffness[N_BINS - 1] = 0.0


@kernel
def _geometric(log_ratio: float, entry: Vector) -> tuple[float, float]:
    """Fill entry with the normalised geometric of that ratio; return its mean and variance in bins."""
    decay = exact_exp(-abs(log_ratio))
    weight = 1.0
    total = 0.0
    for i in range(N_BELOW):
        k = N_BELOW - 1 - i if log_ratio > 0.0 else i
        entry[k] = weight
        total += weight
        weight *= decay
    mean = 0.0
    for k in range(N_BELOW):
        entry[k] /= total
        mean += k * entry[k]
    variance = 0.0
    for k in range(N_BELOW):
        variance += (k - mean) * (k - mean) * entry[k]
    return mean, variance


@kernel
def entry_distribution(entry_signal: float, entry: Vector, d_entry: Vector) -> None:
    """Fill the distribution of a newborn over the 30 bins below 0, and its derivative.

    A geometric distribution truncated to the 30 bins and renormalised, its ratio solved so that the mean
    height of the bin centres above -0.15 is `entry_signal`. The ratio exceeds 1 when that is more than the
    uniform mean 0.075. The derivative is exact: with theta = ln(ratio), de_k/dtheta = e_k (k - mean) and
    dmean/dtheta = variance.
    """
    wanted = entry_signal / BIN_WIDTH - 0.5
    low, high = -_STEEPEST, _STEEPEST
    theta = 0.0
    mean, variance = _geometric(theta, entry)
    for _ in range(200):
        if mean < wanted:
            low = theta
        else:
            high = theta
        proposal = 0.5 * (low + high)
        if variance > 0.0:
            step = (wanted - mean) / variance
            if abs(step) < 1e-14 * (1.0 + abs(theta)):
                break
            if low < theta + step < high:
                proposal = theta + step
        if high - low < 1e-14:
            break
        theta = proposal
        mean, variance = _geometric(theta, entry)
    for k in range(N_BELOW):
        d_entry[k] = entry[k] * (k - mean) / (variance * BIN_WIDTH) if variance > 0.0 else 0.0
