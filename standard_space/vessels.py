"""Vessels in the lungs: thin bright structures, told from consolidation by their width."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from standard_space.morphology import Spacing, padded_box

VESSEL_RADIUS_MM = 5.0
VESSEL_CONTRAST_HU = 180.0
VESSEL_ABOVE_HU = -650.0


def find_vessels(hu: NDArray[np.float32], lungs: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.bool_]:
    """What a grey opening of a few mm removes (a white top hat) and is dense enough.

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
    box = padded_box(lungs, 2 * VESSEL_RADIUS_MM, spacing_mm)
    if box is None:
        return vessels
    # Outside the lungs the wall would swallow what touches it: it is set to parenchyma first.
    parenchyma = float(np.median(hu[lungs]))
    inner = np.where(lungs[box], hu[box], np.float32(parenchyma))
    radius = [max(1, round(VESSEL_RADIUS_MM / s)) for s in reversed(spacing_mm)]
    hat = sitk.GetArrayFromImage(sitk.WhiteTopHat(sitk.GetImageFromArray(inner), radius, sitk.sitkBox))
    vessels[box] = lungs[box] & (hat > VESSEL_CONTRAST_HU) & (hu[box] > VESSEL_ABOVE_HU)
    return vessels
