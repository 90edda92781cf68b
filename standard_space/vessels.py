"""Vessels in the lungs: thin bright structures, told from consolidation by their width."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from standard_space.morphology import Spacing, box_dilate, box_erode, padded_box, reach_of

VESSEL_RADIUS_MM = 5.0
VESSEL_CONTRAST_HU = 180.0
VESSEL_ABOVE_HU = -650.0
BACKGROUND_MM = 2.0
SOLID_ABOVE_HU = -300.0
SOLID_RADIUS_MM = 4.0


def find_vessels(
    hu: NDArray[np.float32], lungs: NDArray[np.bool_], spacing_mm: Spacing
) -> NDArray[np.bool_]:
    """What stands out from a grey opening of a few mm (a white top hat), is dense, and no part of a solid mass.

    The opening is a smooth background: it is taken at `BACKGROUND_MM`, whatever the resolution.

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
    box = padded_box(lungs, 0.0, spacing_mm)
    if box is None:
        return vessels
    within, inner = lungs[box], hu[box]
    background = _background(inner, within, spacing_mm)
    bright = within & (inner > np.maximum(VESSEL_ABOVE_HU, background + VESSEL_CONTRAST_HU))
    del background
    reach = reach_of(SOLID_RADIUS_MM, spacing_mm, least=1)
    masses = box_erode(within & (inner > SOLID_ABOVE_HU), reach)
    if masses.any():
        margin = (reach[0] + max(1, reach[0] // 2), reach[1] + max(1, reach[1] // 2), reach[2] + max(1, reach[2] // 2))
        bright &= ~box_dilate(masses, margin)
    vessels[box] = bright
    return vessels


def _background(
    hu: NDArray[np.float32], lungs: NDArray[np.bool_], spacing_mm: Spacing
) -> NDArray[np.float32]:
    factors = [max(1, round(BACKGROUND_MM / s)) for s in spacing_mm]
    # Outside the lungs the wall would swallow what touches it: it is set to parenchyma first.
    sample = hu[:: factors[0], :: factors[1], :: factors[2]]
    parenchyma = np.float32(np.median(sample[lungs[:: factors[0], :: factors[1], :: factors[2]]]))
    means = np.where(lungs, hu, parenchyma)
    for axis, factor in enumerate(factors):
        if factor > 1:
            edges = np.arange(0, means.shape[axis], factor)
            counts = np.diff(np.append(edges, means.shape[axis])).astype(np.float32)
            shape = [1, 1, 1]
            shape[axis] = -1
            means = np.add.reduceat(means, edges, axis=axis) / counts.reshape(shape)
    margin = [int(np.ceil(2 * VESSEL_RADIUS_MM / (s * f))) for s, f in zip(spacing_mm, factors, strict=True)]
    padded = np.pad(means, [(m, m) for m in margin], constant_values=parenchyma)
    radius = [max(1, round(VESSEL_RADIUS_MM / (s * f))) for s, f in zip(spacing_mm, factors, strict=True)]
    opened = sitk.GetArrayFromImage(
        sitk.GrayscaleMorphologicalOpening(sitk.GetImageFromArray(padded), radius[::-1], sitk.sitkBox)
    )[tuple(slice(m, m + n) for m, n in zip(margin, means.shape, strict=True))]
    for axis, factor in enumerate(factors):
        if factor > 1:
            opened = np.repeat(opened, factor, axis=axis)
    return np.asarray(opened[: hu.shape[0], : hu.shape[1], : hu.shape[2]])
