"""Lesion patches of real and synthetic scans, cut alike, for telling one from the other (docs/audit.md).

A patch is three parallel axial slices centred on an infected voxel. Both kinds come from the box around the same
lungs, at the precision that files store, so nothing but the lesions themselves differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.augmentation_plan import seed_of
from standard_space.grid import StandardGrid

PATCH_MM = 32.0
"""Width and height of a patch."""

SLICE_MM = 2.0
"""Distance of the outer slices from the central one; at least a voxel."""

SLICES = 3
SMALLEST_VOXELS = 5
MOST_PER_KIND = 2048
MOST_PER_VOLUME = 32


@dataclass(frozen=True)
class Patches:
    """As many real as synthetic patches of one volume and its source.

    Parameters
    ----------
    patient, volume : str
        Whose they are; `volume` is "patient/scan".
    real, synthetic : float16 array, shape (n, 3, y, x)
        Signal.
    """

    patient: str
    volume: str
    real: NDArray[np.float16]
    synthetic: NDArray[np.float16]


def share_out(volumes: int) -> list[int]:
    """Patches of each kind that every volume gives, as evenly as the total allows."""
    most = min(MOST_PER_KIND, MOST_PER_VOLUME * volumes)
    return [(number + 1) * most // volumes - number * most // volumes for number in range(volumes)]


def patch_voxels(grid: StandardGrid) -> tuple[int, int, int]:
    """Steps between slices and odd numbers of voxels along y and x that make a patch on a grid."""
    z, y, x = grid.spacing_mm
    rows, columns = (max(SMALLEST_VOXELS, 2 * round((PATCH_MM / mm - 1) / 2) + 1) for mm in (y, x))
    return max(1, round(SLICE_MM / z)), rows, columns


def draw_centres(infected: NDArray[np.int64], number: int, *names: object) -> NDArray[np.int64]:
    """Draw voxels without repetition; the same names, seed among them, draw the same."""
    rng = np.random.default_rng(seed_of("audit patches", *names))
    return rng.choice(infected, number, replace=False)


def cut_patches(
    signal: NDArray[np.float32], centres: NDArray[np.int64], grid: StandardGrid, air: float
) -> NDArray[np.float16]:
    """Cut patches out of a box; what lies beyond it is air.

    Parameters
    ----------
    signal : float32 array, shape (z, y, x)
    centres : int64 array, shape (n,)
        Flat indices in the box.
    grid : StandardGrid
        Gives the millimetres.
    air : float
        Signal of air.

    Returns
    -------
    float16 array, shape (n, 3, y, x)
    """
    step, rows, columns = patch_voxels(grid)
    offsets = (
        step * (np.arange(SLICES) - SLICES // 2),
        np.arange(rows) - rows // 2,
        np.arange(columns) - columns // 2,
    )
    corner = np.unravel_index(centres, signal.shape)
    places, inside = [], np.ones((centres.size, 1, 1, 1), np.bool_)
    for axis, (start, offset, size) in enumerate(zip(corner, offsets, signal.shape, strict=True)):
        shape = [centres.size, 1, 1, 1]
        shape[axis + 1] = offset.size
        place = (start[:, None] + offset).reshape(shape)
        inside = inside & (place >= 0) & (place < size)
        places.append(np.clip(place, 0, size - 1))
    return np.where(inside, signal[tuple(places)], np.float32(air)).astype(np.float16)
