"""The inner loops of a jump: insert newborns, give bins, move voxels, close the holes.

All of them work on the slots of a state (`LesionState`); none allocates more than a table of bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.bins import N_BELOW
from simulator.dynamics.hashing import (
    draw_below,
    draw_fraction,
)
from simulator.dynamics.neighbours import FREE, IN_FRONTIER, INFECTED, add_to_neighbours
from simulator.dynamics.ranking import destination_of

_ZERO = np.uint64(0)


@kernel
def split_births(
    births: NDArray[np.int64],
    region: NDArray[np.uint8],
    first: int,
    last: int,
    n_regions: int,
    key: np.uint64,
    left: NDArray[np.int64],
    region_births: NDArray[np.int64],
    region_counts: NDArray[np.int64],
) -> None:
    """Split births (131,) among the regions of the newborns in slots first..last-1.

    Every newborn draws one of the destinations left; `region_births` (regions, 131) and `region_counts`
    (regions,) are filled, `left` (131,) is scratch.
    """
    region_counts[:n_regions] = 0
    region_births[:n_regions] = 0
    for d in range(births.shape[0]):
        left[d] = births[d]
    for i in range(first, last):
        place = draw_below(key, np.uint64(i - first), last - i)
        d = 1
        while place >= left[d]:
            place -= left[d]
            d += 1
        left[d] -= 1
        region_births[region[i], d] += 1
        region_counts[region[i]] += 1


@kernel
def insert_newborns(
    chosen: NDArray[np.int32],
    number: int,
    n: int,
    voxels: NDArray[np.int32],
    bins: NDArray[np.uint8],
    offsets: NDArray[np.float32],
    born: NDArray[np.uint8],
    key: np.uint64,
) -> None:
    """Append the chosen voxels, for now in bin 0: newborns enter below 0, so they count as GGO."""
    for i in range(number):
        v = chosen[i]
        voxels[n + i] = v
        bins[n + i] = 0
        offsets[n + i] = draw_fraction(key, np.uint64(v))
        born[n + i] = 1


@kernel
def drop_unplaced(births: NDArray[np.int64], unplaced: int, key: np.uint64) -> None:
    """Take births that found no voxel out of the numbers per bin, each birth with the same chance."""
    total = np.int64(0)
    for d in range(1, births.shape[0]):
        total += births[d]
    for i in range(unplaced):
        place = draw_below(key, np.uint64(i), total)
        d = 1
        while place >= births[d]:
            place -= births[d]
            d += 1
        births[d] -= 1
        total -= 1


@kernel
def give_bins(
    first: int,
    last: int,
    voxels: NDArray[np.int32],
    bins: NDArray[np.uint8],
    region: NDArray[np.uint8],
    scores: NDArray[np.uint16],
    plan: NDArray[np.int32],
    shared_destination: NDArray[np.int16],
    shared_left: NDArray[np.int32],
    key: np.uint64,
    dims: NDArray[np.int64],
    steps: NDArray[np.int64],
    weights: NDArray[np.int64],
    status: NDArray[np.uint8],
    near: NDArray[np.uint16],
    frontier: NDArray[np.int32],
    n_frontier: int,
) -> int:
    """Give newborns their bins at the end of the jump, by rank; return the frontier's length."""
    for i in range(first, last):
        v = np.int64(voxels[i])
        d = destination_of(np.int64(plan[region[i], scores[i]]), v, key, shared_destination, shared_left)
        bins[i] = d - 1
        if d - 1 >= N_BELOW:
            n_frontier = add_to_neighbours(v, -1, 1, dims, steps, weights, status, near, frontier, n_frontier)
    return n_frontier


@kernel
def apply_moves(
    n_old: int,
    n: int,
    voxels: NDArray[np.int32],
    bins: NDArray[np.uint8],
    offsets: NDArray[np.float32],
    field: NDArray[np.uint8],
    born: NDArray[np.uint8],
    region: NDArray[np.uint8],
    rows_per_region: int,
    scores: NDArray[np.uint16],
    plan: NDArray[np.int32],
    shared_destination: NDArray[np.int16],
    shared_left: NDArray[np.int32],
    key: np.uint64,
    dims: NDArray[np.int64],
    steps: NDArray[np.int64],
    weights: NDArray[np.int64],
    status: NDArray[np.uint8],
    near: NDArray[np.uint16],
    frontier: NDArray[np.int32],
    n_frontier: int,
    gone_voxel: NDArray[np.int32],
    gone_offset: NDArray[np.float32],
    gone_born: NDArray[np.uint8],
    n_gone: int,
) -> tuple[int, int, int]:
    """Move slots 0..n_old-1 by plan; return (n, frontier length, length of the record of recovered)."""
    first_gone = n_gone
    for i in range(n_old):
        old = np.int64(bins[i])
        v = np.int64(voxels[i])
        row = np.int64(region[i]) * rows_per_region + (old if rows_per_region > 1 else 0)
        d = destination_of(np.int64(plan[row, scores[i]]), v, key, shared_destination, shared_left)
        new = d - 1
        if new == old:
            continue
        if new < 0:
            status[v] = np.uint8((status[v] & np.uint8(255 - INFECTED)) | np.uint8(FREE))
            n_frontier = add_to_neighbours(
                v, -1 if old < N_BELOW else 0, 0 if old < N_BELOW else -1, dims, steps, weights,
                status, near, frontier, n_frontier,
            )  # fmt: skip
            if near[v] > 0 and status[v] & IN_FRONTIER == 0:
                status[v] |= np.uint8(IN_FRONTIER)
                frontier[n_frontier] = v
                n_frontier += 1
            gone_voxel[n_gone] = i  # the slot for now; replaced by the voxel below
            n_gone += 1
            continue
        bins[i] = new
        if old < N_BELOW and new >= N_BELOW:
            n_frontier = add_to_neighbours(v, -1, 1, dims, steps, weights, status, near, frontier, n_frontier)
        elif old >= N_BELOW and new < N_BELOW:
            n_frontier = add_to_neighbours(v, 1, -1, dims, steps, weights, status, near, frontier, n_frontier)
    # Fill the holes from the end, highest hole first: every slot moved down is a live one.
    for g in range(n_gone - 1, first_gone - 1, -1):
        slot = np.int64(gone_voxel[g])
        gone_voxel[g] = voxels[slot]
        gone_offset[g] = offsets[slot]
        gone_born[g] = born[slot]
        n -= 1
        voxels[slot] = voxels[n]
        bins[slot] = bins[n]
        offsets[slot] = offsets[n]
        field[slot] = field[n]
        born[slot] = born[n]
        region[slot] = region[n]
    return n, n_frontier, n_gone
