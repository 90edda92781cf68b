"""Which lesion a voxel belongs to: lesions keep their own histograms whatever the texture (DESIGN 3).

The paper's first finding is regional conservation: lesions move alike, each by itself (section III-C, DOI
10.1109/TMI.2020.3001810). Voxels are ranked within a lesion only, so that no lesion takes the consolidation
of another. Lesions are the connected components of infected cells of about 4 mm, so the scattered voxels of
Y_t0 hold together; tissue infected later belongs to the lesion that it touches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulator.dynamics._jit import kernel

CELL_MM = 4.0
MAX_REGIONS = 64
"""The largest 63 lesions are kept apart; all smaller ones share the last region."""


def cell_voxels(spacing_mm: tuple[float, float, float]) -> NDArray[np.int64]:
    """Voxels per cell along (z, y, x), int64, at least one."""
    return np.array([max(1, round(CELL_MM / s)) for s in spacing_mm], np.int64)


@kernel
def cell_of(voxel: int, dims: NDArray[np.int64], cell: NDArray[np.int64], cells: NDArray[np.int64]) -> int:
    """Flat index of the cell in which a voxel lies."""
    ny, nx = dims[1], dims[2]
    z = voxel // (ny * nx)
    rest = voxel - z * ny * nx
    y = rest // nx
    x = rest - y * nx
    return ((z // cell[0]) * cells[1] + y // cell[1]) * cells[2] + x // cell[2]


@kernel
def _count_cells(
    voxels: NDArray[np.int32],
    n: int,
    dims: NDArray[np.int64],
    cell: NDArray[np.int64],
    cells: NDArray[np.int64],
    counts: NDArray[np.int32],
) -> None:
    for i in range(n):
        counts[cell_of(np.int64(voxels[i]), dims, cell, cells)] += 1


def label_cells(
    voxels: NDArray[np.int32], dims: NDArray[np.int64], cell: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Region of every cell at the start.

    Parameters
    ----------
    voxels : int32, shape (n,)
        Flat indices of the infected voxels.
    dims, cell : int64, shape (3,)
        Shape of the volume and of a cell, voxels (z, y, x).

    Returns
    -------
    labels : uint8, flat
        Region + 1 of every cell, 0 where no infection is. Region 0 is the largest lesion.
    cells : int64, shape (3,)
        Number of cells along each axis.
    n_regions : int
    """
    cells = -(-dims // cell)
    counts = np.zeros(int(cells.prod()), np.int32)
    _count_cells(voxels, voxels.size, dims, cell, cells, counts)
    parts, number = ndimage.label(counts.reshape(tuple(cells)) > 0, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), counts, number + 1)[1:]
    rank = np.empty(number + 1, np.int64)
    rank[0] = 0
    rank[1:][np.argsort(-sizes, kind="stable")] = np.minimum(np.arange(number), MAX_REGIONS - 1) + 1
    return rank[parts.ravel()].astype(np.uint8), cells, min(number, MAX_REGIONS)


@kernel
def assign_regions(
    voxels: NDArray[np.int32],
    first: int,
    last: int,
    dims: NDArray[np.int64],
    cell: NDArray[np.int64],
    cells: NDArray[np.int64],
    labels: NDArray[np.uint8],
    n_regions: int,
    region: NDArray[np.uint8],
) -> int:
    """Fill the region of slots first..last-1; return the number of regions.

    A cell without a region joins the lowest one among its 26 neighbours, else it starts a region of its own
    (the last one when there are 64).
    """
    for i in range(first, last):
        c = cell_of(np.int64(voxels[i]), dims, cell, cells)
        if labels[c] == 0:
            cz = c // (cells[1] * cells[2])
            cy = (c - cz * cells[1] * cells[2]) // cells[2]
            cx = c - (cz * cells[1] + cy) * cells[2]
            lowest = MAX_REGIONS + 1
            for z in range(max(cz - 1, 0), min(cz + 2, cells[0])):
                for y in range(max(cy - 1, 0), min(cy + 2, cells[1])):
                    for x in range(max(cx - 1, 0), min(cx + 2, cells[2])):
                        label = labels[(z * cells[1] + y) * cells[2] + x]
                        if 0 < label < lowest:
                            lowest = int(label)
            if lowest > MAX_REGIONS:
                n_regions = min(n_regions + 1, MAX_REGIONS)
                lowest = n_regions
            labels[c] = np.uint8(lowest)
        region[i] = labels[c] - np.uint8(1)
    return n_regions
