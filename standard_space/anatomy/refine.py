"""Lung borders, sides and airways on a finer grid than they were found on.

Where air meets tissue the border follows the HU edge; where the lung is solid up to its border the coarse border
stays. Work is done within the lungs' bounding box, and boxes stand in for balls: at full resolution a distance
transform of the lungs takes longer than everything here.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from standard_space._jit import parallel_kernel
from standard_space.anatomy.morphology import Spacing, box_count, box_dilate, box_erode, padded_box, reach_of

AIR_BELOW_HU = -400.0
SICK_BELOW_HU = -250.0
"""Half-aerated: lesion rather than wall where the coarse lungs hold it."""
LUMEN_BELOW_HU = -880.0
BAND_MM = 3.0
AROUND_MM = 4.0
SOLID_BELOW_SHARE = 0.1
"""A soft voxel near the border is wall where more than this share of its surroundings is air."""
VESSEL_GAP_MM = 1.4
WALL_MM = 1.5
NARROW_MM = 8.0


@parallel_kernel
def _decide(hu, coarse, core, near, around, lumen, limit, air_below, sick_below, result):  # type: ignore[no-untyped-def]
    nz, ny, nx = hu.shape
    for z in prange(nz):
        for y in range(ny):
            for x in range(nx):
                if lumen[z, y, x]:
                    keep = False
                elif hu[z, y, x] < air_below:
                    keep = near[z, y, x]
                elif core[z, y, x]:
                    keep = True
                else:
                    keep = coarse[z, y, x] and (around[z, y, x] <= limit or hu[z, y, x] < sick_below)
                result[z, y, x] = keep


def refine_lungs(
    hu: NDArray[np.float32],
    coarse: NDArray[np.bool_],
    airways: NDArray[np.bool_],
    spacing_mm: Spacing,
) -> NDArray[np.bool_]:
    """Lungs whose border follows the image.

    Parameters
    ----------
    hu : float32 array, shape (z, y, x)
        HU.
    coarse : bool array, shape (z, y, x)
        Lungs found on a coarser grid, sampled on this one.
    airways : bool array, shape (z, y, x)
        Trachea and main bronchi with their walls, which stay outside.
    spacing_mm : tuple of float
        Voxel spacing along (z, y, x), mm.
    """
    result = np.zeros(coarse.shape, np.bool_)
    box = padded_box(coarse, 2 * BAND_MM, spacing_mm)
    if box is None:
        return result
    inner, lungs = hu[box], np.ascontiguousarray(coarse[box])
    band = reach_of(BAND_MM, spacing_mm, least=1)
    near = box_dilate(lungs, band)
    air = inner < AIR_BELOW_HU
    reach = reach_of(AROUND_MM, spacing_mm, least=1)
    around = box_count(air & near, reach)
    limit = round(SOLID_BELOW_SHARE * float(np.prod([2 * r + 1 for r in reach])))
    refined = np.empty(lungs.shape, np.bool_)
    # A bronchus that the coarse lungs hold is deep in them.
    lumen = airways[box] & air & ~lungs
    _decide(
        inner, lungs, box_erode(lungs, band), near, around, lumen, limit, AIR_BELOW_HU, SICK_BELOW_HU, refined
    )
    del around, near, air
    gap = reach_of(VESSEL_GAP_MM, spacing_mm)
    refined |= box_erode(box_dilate(refined, gap), gap) & lungs & ~lumen
    result[box] = refined
    return result


def refine_airways(
    hu: NDArray[np.float32], coarse: NDArray[np.bool_], spacing_mm: Spacing
) -> NDArray[np.bool_]:
    """Trachea and main bronchi with their walls: the lumen within the coarse mask, and what lies around it."""
    result = np.zeros(coarse.shape, np.bool_)
    box = padded_box(coarse, WALL_MM, spacing_mm)
    if box is not None:
        within = np.ascontiguousarray(coarse[box])
        lumen = within & (hu[box] < LUMEN_BELOW_HU)
        # A bronchus narrower than a voxel keeps the coarse mask: its lumen never gets so dark.
        seen = box_dilate(lumen, reach_of(NARROW_MM, spacing_mm, least=1))
        result[box] = (box_dilate(lumen, reach_of(WALL_MM, spacing_mm)) & within) | (within & ~seen)
    return result


def refine_left(
    lungs: NDArray[np.bool_],
    coarse: NDArray[np.bool_],
    coarse_left: NDArray[np.bool_],
    spacing_mm: Spacing,
    far_off: bool = False,
) -> NDArray[np.bool_]:
    """Left lung on the finer grid: as on the coarse one, and what was added goes to the side around it.

    Parameters
    ----------
    lungs : bool array, shape (z, y, x)
        Lungs on this grid.
    coarse, coarse_left : bool array, shape (z, y, x)
        Lungs and left lung found on a coarser grid, sampled on this one.
    spacing_mm : tuple of float
        Voxel spacing along (z, y, x), mm.
    far_off : bool
        Whether lungs may lie far from the coarse ones: thin parts of a user's mask vanish on a coarse grid.
    """
    left = lungs & coarse_left
    added = lungs & ~coarse
    box = padded_box(added, 2 * BAND_MM, spacing_mm)
    right = coarse & ~coarse_left
    if box is None or not coarse_left.any():
        return left
    if not right.any():
        return lungs.copy()
    reach = reach_of(1.5 * BAND_MM, spacing_mm, least=2)
    new = added[box]
    near = box_dilate(coarse_left[box], reach)
    left[box] |= new & near
    lone = new & ~near
    if far_off and lone.any():
        lone &= ~box_dilate(right[box], reach)
        columns = np.arange(lungs.shape[2])
        middle_x = 0.5 * sum(float((m.sum(axis=(0, 1)) @ columns) / m.sum()) for m in (coarse_left, right))
        left[box] |= lone & (columns[box[2]] > middle_x)
    return left
