"""What a lesion remembers: where it was denser when it was annotated, it stays denser (DESIGN 3).

The persistent field of voxels infected later is random (`field`). That of annotated voxels is the rank, within
their lesion, of the signal around them, so that a progression keeps the cores and the ground glass that were
seen instead of growing others. Nothing but the order within a lesion depends on it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.bins import SIGNAL_MAX, SIGNAL_MIN
from simulator.dynamics.field import FIELD_LEVELS
from simulator.dynamics.neighbours import ANNOTATED

_MEANS = 1024  # steps in which local means are counted


@kernel
def _local_means(
    source: NDArray[np.float32],
    status: NDArray[np.uint8],
    voxels: NDArray[np.int32],
    born: NDArray[np.uint8],
    n: int,
    dims: NDArray[np.int64],
    reach: NDArray[np.int64],
    steps: NDArray[np.int16],
) -> None:
    scale = (_MEANS - 1) / (SIGNAL_MAX - SIGNAL_MIN)
    ny, nx = dims[1], dims[2]
    for i in range(n):
        if born[i] != 0:
            steps[i] = -1
            continue
        v = np.int64(voxels[i])
        z = v // (ny * nx)
        y = (v - z * ny * nx) // nx
        x = v - (z * ny + y) * nx
        total, number = 0.0, 0
        for qz in range(z - reach[0], z + reach[0] + 1, reach[0]):
            if qz < 0 or qz >= dims[0]:
                continue
            for qy in range(y - reach[1], y + reach[1] + 1, reach[1]):
                if qy < 0 or qy >= ny:
                    continue
                for qx in range(x - reach[2], x + reach[2] + 1, reach[2]):
                    if qx < 0 or qx >= nx:
                        continue
                    q = (qz * ny + qy) * nx + qx
                    if status[q] & ANNOTATED != 0:
                        total += min(max(np.float64(source[q]), SIGNAL_MIN), SIGNAL_MAX)
                        number += 1
        steps[i] = np.int16((total / number - SIGNAL_MIN) * scale)


@kernel
def _ranks(
    steps: NDArray[np.int16],
    region: NDArray[np.uint8],
    n: int,
    cumulative: NDArray[np.int64],
    field: NDArray[np.uint8],
) -> None:
    for i in range(n):
        if steps[i] >= 0:
            cumulative[region[i], steps[i] + 1] += 1
    for r in range(cumulative.shape[0]):
        for k in range(1, cumulative.shape[1]):
            cumulative[r, k] += cumulative[r, k - 1]
    for i in range(n):
        if steps[i] >= 0:
            r, k = region[i], steps[i]
            middle = cumulative[r, k] + cumulative[r, k + 1]  # twice the mean rank of this step
            field[i] = np.uint8(FIELD_LEVELS * middle // (2 * cumulative[r, _MEANS]))


def remember(
    source: NDArray[np.float32],
    status: NDArray[np.uint8],
    voxels: NDArray[np.int32],
    born: NDArray[np.uint8],
    region: NDArray[np.uint8],
    n: int,
    n_regions: int,
    dims: NDArray[np.int64],
    spacing_mm: tuple[float, float, float],
    correlation_mm: float,
    field: NDArray[np.uint8],
) -> None:
    """Fill the field of the slots 0..n-1 that were annotated; newborns are left as they are.

    Parameters
    ----------
    source, status : float32, uint8, flat
        Signal and status of every voxel of the scan.
    voxels, born, region
        The slots.
    dims : int64, shape (3,)
        Shape of the volume.
    spacing_mm : tuple of float
        (z, y, x).
    correlation_mm : float, > 0
        The mean is over 27 points of a cube of this edge, as far as they were annotated.
    field : uint8
        Filled: 0 where the lesion was least dense, 127 where it was densest.
    """
    reach = np.array([max(1, round(0.5 * correlation_mm / s)) for s in spacing_mm], np.int64)
    steps = np.empty(n, np.int16)
    _local_means(source, status, voxels, born, n, dims, reach, steps)
    _ranks(steps, region, n, np.zeros((n_regions, _MEANS + 1), np.int64), field)
