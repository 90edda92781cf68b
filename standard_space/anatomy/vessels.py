"""Vessels in the lungs: thin bright structures, told from consolidation by their width."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numba import prange
from numpy.typing import NDArray

from standard_space._jit import parallel_kernel
from standard_space.anatomy.morphology import Spacing, box_dilate, box_erode, padded_box, reach_of

VESSEL_RADIUS_MM = 5.0
VESSEL_CONTRAST_HU = 180.0
VESSEL_ABOVE_HU = -650.0
BACKGROUND_MM = 2.0
SOLID_ABOVE_HU = -300.0
SOLID_RADIUS_MM = 3.5
SOLID_MARGIN_MM = 7.0
RIM_MM = 1.0


def find_vessels(hu: NDArray[np.float32], lungs: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.bool_]:
    """What stands out from a grey opening of a few mm (a white top hat), is dense, and no part of a solid mass.

    Opening and masses are smooth: they are taken at `BACKGROUND_MM`, whatever the resolution.

    Parameters
    ----------
    hu : float32 array, shape (z, y, x)
        HU.
    lungs : bool array, shape (z, y, x)
        Where to look.
    spacing_mm : tuple of float
        Voxel spacing along (z, y, x), mm.

    Returns
    -------
    bool array, shape (z, y, x)
    """
    vessels = np.zeros(lungs.shape, np.bool_)
    box = padded_box(lungs, 2 * RIM_MM, spacing_mm)
    if box is None:
        return vessels
    inner, within = hu[box], lungs[box]
    factors = np.array([max(1, round(BACKGROUND_MM / s)) for s in spacing_mm])
    spacing = tuple(float(s * f) for s, f in zip(spacing_mm, factors, strict=True))
    z, y, x = (slice(None, None, int(f)) for f in factors)
    # Outside the lungs the wall would swallow what touches it: it is set to parenchyma first.
    parenchyma = (
        np.float32(np.median(inner[z, y, x][within[z, y, x]]))
        if within[z, y, x].any()
        else np.float32(-850.0)
    )
    blocks = tuple(-(-n // int(f)) for n, f in zip(inner.shape, factors, strict=True))
    means = np.empty(blocks, np.float32)
    _block_means(inner, within, parenchyma, factors, means)
    level = _opened(means, parenchyma, (spacing[0], spacing[1], spacing[2])) + np.float32(VESSEL_CONTRAST_HU)
    level[_masses(means, (spacing[0], spacing[1], spacing[2]))] = np.inf
    _above(inner, within, np.maximum(level, np.float32(VESSEL_ABOVE_HU)), factors, vessels[box])
    # The pleura's partial volume is as dense as a small vessel.
    vessels[box] &= box_erode(within, reach_of(RIM_MM, spacing_mm, least=1))
    return vessels


@parallel_kernel
def _block_means(hu, lungs, parenchyma, factors, means):  # type: ignore[no-untyped-def]
    nz, ny, nx = hu.shape
    for k in prange(means.shape[0]):
        total = np.zeros(means.shape[1:], np.float32)
        count = np.zeros(means.shape[1:], np.float32)
        for z in range(k * factors[0], min(nz, (k + 1) * factors[0])):
            for y in range(ny):
                j = y // factors[1]
                for x in range(nx):
                    i = x // factors[2]
                    total[j, i] += hu[z, y, x] if lungs[z, y, x] else parenchyma
                    count[j, i] += np.float32(1.0)
        for j in range(means.shape[1]):
            for i in range(means.shape[2]):
                means[k, j, i] = total[j, i] / count[j, i]


@parallel_kernel
def _above(hu, lungs, level, factors, result):  # type: ignore[no-untyped-def]
    nz, ny, nx = hu.shape
    for z in prange(nz):
        k = z // factors[0]
        for y in range(ny):
            j = y // factors[1]
            for x in range(nx):
                result[z, y, x] = lungs[z, y, x] and hu[z, y, x] > level[k, j, x // factors[2]]


def _opened(means: NDArray[np.float32], outside: np.float32, spacing_mm: Spacing) -> NDArray[np.float32]:
    radius = [max(1, round(VESSEL_RADIUS_MM / s)) for s in spacing_mm]
    padded = np.pad(means, [(2 * r, 2 * r) for r in radius], constant_values=outside)
    image = sitk.GetImageFromArray(padded)
    opened = sitk.GetArrayFromImage(sitk.GrayscaleMorphologicalOpening(image, radius[::-1], sitk.sitkBox))
    z, y, x = (slice(2 * r, 2 * r + n) for r, n in zip(radius, means.shape, strict=True))
    return np.asarray(opened[z, y, x])


def _masses(means: NDArray[np.float32], spacing_mm: Spacing) -> NDArray[np.bool_]:
    """Solid regions wider than a vessel, and their rim."""
    core = box_erode(means > SOLID_ABOVE_HU, reach_of(SOLID_RADIUS_MM, spacing_mm, least=1))
    return box_dilate(core, reach_of(SOLID_MARGIN_MM, spacing_mm, least=1))
