"""How many voxels go where in a jump: drawn on the histograms, before any voxel is looked at (DESIGN 3).

A jump is drawn in parts, each with the rows of T^part. Births of a part come from the voxels that the draw says
are there by then, newborns of the jump included; within a part their feedback is so small that its expectation
serves. So a jump scatters as single transitions do, and not only its mean is the chain's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.bins import N_BINS
from simulator.dynamics.hashing import (
    PURPOSE_BIRTH_MOVE,
    PURPOSE_BIRTH_NUMBER,
    PURPOSE_MULTINOMIAL,
    stream_key,
)
from simulator.dynamics.multinomial import draw_multinomial, draw_poisson
from simulator.dynamics.transitions import N_DESTINATIONS, births_in_jump

LARGEST_FEEDBACK = 0.02
"""Births by a voxel below 0 within a part, at most: about the share of the births' scatter that is lost."""

_ZERO = np.uint64(0)


def part_length(steps: int, birth_rate: float, linked_share: float) -> int:
    """Transitions in a part of a jump: the largest divisor of `steps` with little feedback of births."""
    feedback = birth_rate * linked_share
    most = steps if feedback * steps <= LARGEST_FEEDBACK else max(1, int(LARGEST_FEEDBACK / feedback))
    return max(part for part in range(1, min(most, steps) + 1) if steps % part == 0)


@kernel
def _limit_births(means: NDArray[np.float64], most: float) -> None:
    """Cut the means to a total of `most`: births far beyond the free places would be lost anyway."""
    total = 0.0
    for d in range(means.shape[0]):
        total += means[d]
    if total > most:
        scale = most / total if most > 0.0 else 0.0
        for d in range(means.shape[0]):
            means[d] *= scale


@kernel
def _reach(k: int, part: int) -> tuple[int, int]:
    """First and one past the last destination of bin k after `part` transitions; destination d is bin d - 1."""
    return max(0, k + 1 - part), min(N_DESTINATIONS, k + 2 + part)


@kernel
def draw_numbers(
    counts: NDArray[np.int64],
    n_regions: int,
    w: NDArray[np.float64],
    g_ref: float,
    rise: NDArray[np.float64],
    entry: NDArray[np.float64],
    rows: NDArray[np.float64],
    part: int,
    parts: int,
    most_births: float,
    seed: np.uint64,
    transition: int,
    moves: NDArray[np.int64],
    region_moves: NDArray[np.int64],
    births: NDArray[np.int64],
    here: NDArray[np.int64],
    newborn: NDArray[np.int64],
    born_moves: NDArray[np.int64],
    chain_scratch: NDArray[np.float64],
    means: NDArray[np.float64],
    cumulative: NDArray[np.float64],
    stack: NDArray[np.int64],
) -> None:
    """Draw a jump of `parts` times `part` transitions.

    Parameters
    ----------
    counts : int64, shape (regions, 130)
        Voxels per bin of every lesion now.
    w, g_ref, rise, entry
        W, G_ref and the rates that follow from W.
    rows : float64, shape (130, 131)
        T^part, by destination.
    most_births : float
        Births of the jump beyond which no more are drawn.
    moves : int64, shape (regions * 130, 131) or (1, 131)
        Filled with the numbers per bin and destination, for jumps of one part; a single row is scratch.
    region_moves : int64, shape (regions, 131)
        Filled: where the voxels of each lesion are at the end; column 0 has recovered.
    births : int64, shape (131,)
        Filled: where the newborns are at the end; column 0 was born and has recovered.
    here, newborn, born_moves, chain_scratch, means, cumulative, stack
        Scratch: (regions, 130), (2, 130), (131,), (2, 130), (131,), (132,), (32, 3).
    """
    births[:] = 0
    newborn[:] = 0
    for region in range(n_regions):
        region_moves[region] = 0
        for k in range(N_BINS):
            here[region, k] = counts[region, k]
    for number in range(parts):
        when = transition + number * part
        totals = newborn[1]
        born = float(births[0])
        for k in range(N_BINS):
            totals[k] = newborn[0, k]
            born += newborn[0, k]
            for region in range(n_regions):
                totals[k] += here[region, k]
        births_in_jump(totals, w, g_ref, rise, entry, part, chain_scratch, means)
        _limit_births(means, most_births - born)
        for region in range(n_regions):
            for k in range(N_BINS):
                first, last = _reach(k, part)
                row = moves[0, first:last]
                if moves.shape[0] > 1:
                    moves[region * N_BINS + k] = 0
                    row = moves[region * N_BINS + k, first:last]
                if here[region, k] > 0:
                    key = stream_key(seed, PURPOSE_MULTINOMIAL * 1000 + 100_000 * region + k, when)
                    draw_multinomial(here[region, k], rows[k, first:last], row, key, cumulative, stack)
                    for d in range(first, last):
                        region_moves[region, d] += row[d - first]
            for k in range(N_BINS):
                here[region, k] = region_moves[region, k + 1]
                if number + 1 < parts:
                    region_moves[region, k + 1] = 0
        for k in range(N_BINS):
            totals[k] = 0
        for k in range(N_BINS):
            if newborn[0, k] > 0:
                first, last = _reach(k, part)
                row = born_moves[first:last]
                key = stream_key(seed, PURPOSE_BIRTH_MOVE * 1000 + k, when)
                draw_multinomial(newborn[0, k], rows[k, first:last], row, key, cumulative, stack)
                for d in range(first, last):
                    if d == 0:
                        births[0] += row[0]
                    else:
                        totals[d - 1] += row[d - first]
        for d in range(N_DESTINATIONS):
            key = stream_key(seed, PURPOSE_BIRTH_NUMBER * 1000 + d, when)
            entered, _ = draw_poisson(means[d], key, _ZERO)
            if d == 0:
                births[0] += entered
            else:
                newborn[0, d - 1] = totals[d - 1] + entered
    for k in range(N_BINS):
        births[k + 1] = newborn[0, k]
