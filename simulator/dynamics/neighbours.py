"""Who is next to whom: neighbour weights kept up to date as voxels become or cease to be GGO (DESIGN 3).

One dense volume is updated incrementally: in its low 11 bits the summed distance weight of the 26 neighbours
below 0 (at most 26 x 64), in its high 5 bits the number of neighbours above 0. The frontier is the list of
normal susceptible voxels beside an infected one. Neighbours below 0 count in full; those above 0 count half of a
nearest one, else tissue that consolidation has enclosed would never be infected and leave pinholes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel

# Bits of the status volume.
FREE = 1  # susceptible and normal
INFECTED = 2
IN_FRONTIER = 4  # listed, perhaps no longer valid
ANNOTATED = 8  # infected at the start

NEAREST_WEIGHT = 64
ABOVE_WEIGHT = 32
WEIGHT_BITS = 11
WEIGHT_MASK = np.uint16((1 << WEIGHT_BITS) - 1)


def neighbour_table(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets and integer weights of the 26 neighbours.

    Returns
    -------
    steps : int64, shape (26, 4)
        dz, dy, dx and the flat offset.
    weights : int64, shape (26,)
        64 x (shortest distance) / (distance), rounded: distances in mm.
    """
    steps, distances = [], []
    for dz in (-1, 0, 1):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if dz or dy or dx:
                    steps.append((dz, dy, dx, (dz * shape[1] + dy) * shape[2] + dx))
                    distances.append(
                        float(
                            np.sqrt(sum((d * s) ** 2 for d, s in zip((dz, dy, dx), spacing_mm, strict=True)))
                        )
                    )
    nearest = min(distances)
    weights = [max(1, int(np.floor(NEAREST_WEIGHT * nearest / d + 0.5))) for d in distances]
    return np.array(steps, np.int64), np.array(weights, np.int64)


@kernel
def birth_weight(near: np.uint16) -> np.int64:
    """Weight of a normal voxel from its packed neighbours; 0 when none is infected."""
    return np.int64(near & WEIGHT_MASK) + ABOVE_WEIGHT * np.int64(near >> WEIGHT_BITS)


def largest_weight(weights: NDArray[np.int64]) -> int:
    """Weight of a voxel when every neighbour counts as much as it can."""
    return int(np.maximum(weights, ABOVE_WEIGHT).sum())


@kernel
def add_to_neighbours(
    voxel: int,
    ggo: int,
    above: int,
    dims: NDArray[np.int64],
    steps: NDArray[np.int64],
    weights: NDArray[np.int64],
    status: NDArray[np.uint8],
    near: NDArray[np.uint16],
    frontier: NDArray[np.int32],
    n_frontier: int,
) -> int:
    """A voxel became (+1) or ceased to be (-1) GGO and above 0; return the frontier's length.

    A newly infected voxel (one of them +1, the other 0) puts its normal neighbours on the list; the caller has
    made sure that there is room for 26 more.
    """
    ny, nx = dims[1], dims[2]
    z = voxel // (ny * nx)
    rest = voxel - z * ny * nx
    y = rest // nx
    x = rest - y * nx
    inside = 0 < z < dims[0] - 1 and 0 < y < ny - 1 and 0 < x < nx - 1
    for i in range(steps.shape[0]):
        if not inside:
            qz, qy, qx = z + steps[i, 0], y + steps[i, 1], x + steps[i, 2]
            if qz < 0 or qz >= dims[0] or qy < 0 or qy >= ny or qx < 0 or qx >= nx:
                continue
        q = voxel + steps[i, 3]
        near[q] = np.uint16(np.int64(near[q]) + ggo * weights[i] + (above << WEIGHT_BITS))
        if ggo + above > 0 and status[q] & (FREE | IN_FRONTIER) == FREE:
            status[q] |= np.uint8(IN_FRONTIER)
            frontier[n_frontier] = q
            n_frontier += 1
    return n_frontier


@kernel
def enter_neighbourhoods(
    voxels: NDArray[np.int32],
    bins: NDArray[np.uint8],
    first: int,
    last: int,
    n_below: int,
    dims: NDArray[np.int64],
    steps: NDArray[np.int64],
    weights: NDArray[np.int64],
    status: NDArray[np.uint8],
    near: NDArray[np.uint16],
    frontier: NDArray[np.int32],
    n_frontier: int,
) -> int:
    """Announce the voxels in slots first..last-1 to their neighbours; return the frontier's length."""
    for i in range(first, last):
        below = bins[i] < n_below
        n_frontier = add_to_neighbours(
            np.int64(voxels[i]), 1 if below else 0, 0 if below else 1, dims, steps, weights,
            status, near, frontier, n_frontier,
        )  # fmt: skip
    return n_frontier
