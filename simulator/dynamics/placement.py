"""Births: which normal voxels become infected (DESIGN 3).

Voxels are drawn without replacement with integer weights: the table entry of their neighbours' weight.
Weights are frozen within a round (choose all, then apply); a round takes a limited share of the frontier,
so that a large number of births still grows layer by layer. A share of births may be seeded anywhere away
from lesions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.exactmath import exact_power
from simulator.dynamics.hashing import draw_below
from simulator.dynamics.neighbours import FREE, IN_FRONTIER, INFECTED, birth_weight

ROUND_DIVISOR = 8  # a round takes at most 1/8 of the frontier, but at least ROUND_LEAST voxels
ROUND_LEAST = 8
_TABLE_SCALE = 1048576.0
_TRIES = 4096

_ONE = np.uint64(1)


@kernel
def weight_table(total_weight: int, gamma: float) -> NDArray[np.int64]:
    """Integer birth weight of every neighbour weight 0..total: 2**20 (w / total) ** gamma, at least 1; 0 for 0.

    gamma 0 gives every frontier voxel the same chance (more ragged, widespread), large gamma fills pockets.
    """
    table = np.zeros(total_weight + 1, np.int64)
    for w in range(1, total_weight + 1):
        value = np.int64(_TABLE_SCALE * exact_power(w / total_weight, gamma) + 0.5)
        table[w] = value if value > 1 else 1
    return table


@kernel
def gather_frontier(
    frontier: NDArray[np.int32],
    n_frontier: int,
    status: NDArray[np.uint8],
    near: NDArray[np.uint16],
    table: NDArray[np.int64],
    cumulative: NDArray[np.int64],
) -> int:
    """Drop voxels that are no longer frontier, keep the order, fill cumulative weights; return the length."""
    kept = 0
    total = 0
    for i in range(n_frontier):
        v = frontier[i]
        weight = birth_weight(near[v])
        if status[v] & FREE != 0 and weight > 0:
            total += table[weight]
            frontier[kept] = v
            cumulative[kept] = total
            kept += 1
        else:
            status[v] &= np.uint8(255 - IN_FRONTIER)
    return kept


@kernel
def choose_from_frontier(
    frontier: NDArray[np.int32],
    n_frontier: int,
    cumulative: NDArray[np.int64],
    wanted: int,
    status: NDArray[np.uint8],
    chosen: NDArray[np.int32],
    key: np.uint64,
    counter: np.uint64,
) -> tuple[int, np.uint64]:
    """Choose up to `wanted` distinct voxels; return how many, and the stream's next counter.

    Sequential draws in proportion to weight, repeats rejected, which is weighted sampling without
    replacement. A round ends early when repeats become frequent; the caller starts another with new sums.
    """
    total = cumulative[n_frontier - 1]
    found = 0
    tries = 4 * wanted + 64
    while found < wanted and tries > 0:
        tries -= 1
        r = draw_below(key, counter, total)
        counter += _ONE
        low, high = 0, n_frontier - 1
        while low < high:
            middle = (low + high) // 2
            if cumulative[middle] > r:
                high = middle
            else:
                low = middle + 1
        v = frontier[low]
        if status[v] & FREE != 0:
            status[v] = np.uint8((status[v] & ~np.uint8(FREE)) | np.uint8(INFECTED))
            chosen[found] = v
            found += 1
    return found, counter


@kernel
def _is_seedable(v: int, away: bool, status: NDArray[np.uint8], near: NDArray[np.uint16]) -> bool:
    return status[v] & FREE != 0 and (not away or near[v] == 0)


@kernel
def choose_seeds(
    wanted: int,
    away: bool,
    status: NDArray[np.uint8],
    near: NDArray[np.uint16],
    chosen: NDArray[np.int32],
    first: int,
    key: np.uint64,
    counter: np.uint64,
) -> tuple[int, np.uint64]:
    """Choose up to `wanted` normal voxels uniformly; with `away`, only those without infected neighbours.

    Uniform draws over the volume, others rejected; only when places are rare is the volume scanned.
    """
    size = status.shape[0]
    found = 0
    while found < wanted:
        picked = -1
        for _ in range(_TRIES):
            v = draw_below(key, counter, size)
            counter += _ONE
            if _is_seedable(v, away, status, near):
                picked = v
                break
        if picked < 0:
            eligible = 0
            for v in range(size):
                if _is_seedable(v, away, status, near):
                    eligible += 1
            if eligible == 0:
                return found, counter
            rank = draw_below(key, counter, eligible)
            counter += _ONE
            for v in range(size):
                if _is_seedable(v, away, status, near):
                    if rank == 0:
                        picked = v
                        break
                    rank -= 1
        status[picked] = np.uint8((status[picked] & ~np.uint8(FREE)) | np.uint8(INFECTED))
        chosen[first + found] = picked
        found += 1
    return found, counter
