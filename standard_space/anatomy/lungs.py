"""Aerated lungs among the air inside the body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.anatomy.body import InnerAir
from standard_space.anatomy.morphology import Spacing, box_erode, dilate

LUNG_MIN_ML = 150.0
LUNG_SECOND_SHARE = 0.15
FRAGMENT_MIN_ML = 1.0
FRAGMENT_NEAR_MM = 20.0
ABDOMEN_SHARE = 0.35
"""The lower part of the lungs' height that bowel and stomach may share."""
GAS_ABOVE_ROOM_HU = 40.0
GAS_UNIFORM_HU = -880.0
AIRWAY_WALL_MM = 2.0
AIRWAY_BELOW_HU = -930.0
"""Loose pieces this dark are trachea or bronchi, not islands of lung in consolidation."""


def aerated_lungs(
    hu: NDArray[np.float32], inner: InnerAir, airways: NDArray[np.bool_], spacing_mm: Spacing
) -> NDArray[np.bool_] | None:
    """Choose the parts of the inner air that are lung.

    Gas in stomach and bowel is uniform and as dark as the room. Consolidation leaves islands of aerated lung:
    they are kept where no bowel can be, above the diaphragm or close to the rest.

    Parameters
    ----------
    hu : float32 array, shape (z, y, x)
        CT oriented to LPS, HU.
    inner : InnerAir
        Air inside the body.
    airways : bool array, shape (z, y, x)
        Trachea and main bronchi.
    spacing_mm : tuple of float
        Voxel spacing along (z, y, x), mm.

    Returns
    -------
    bool array, shape (z, y, x), or None when there is no lung.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    labels, count = ndimage.label(inner.air & ~dilate(airways, AIRWAY_WALL_MM, spacing_mm))
    if count == 0:
        return None
    sizes_ml = np.bincount(labels.ravel(), minlength=count + 1) * voxel_ml
    sizes_ml[0] = 0.0
    windows = ndimage.find_objects(labels)
    candidates = [int(n) for n in np.argsort(sizes_ml)[::-1] if sizes_ml[n] >= FRAGMENT_MIN_ML]
    candidates = [
        n for n in candidates if not _is_gas(hu[windows[n - 1]], labels[windows[n - 1]] == n, inner.room_hu)
    ]
    large = [n for n in candidates if sizes_ml[n] >= LUNG_MIN_ML]
    large = [n for n in large if sizes_ml[n] >= LUNG_SECOND_SHARE * sizes_ml[large[0]]]
    if not large:
        return None
    lungs = np.isin(labels, large)
    bottom = min(windows[n - 1][0].start for n in large)
    top = max(windows[n - 1][0].stop for n in large)
    near = dilate(lungs, FRAGMENT_NEAR_MM, spacing_mm)
    kept = list(large)
    for n in candidates:
        if n in large:
            continue
        window = windows[n - 1]
        part = labels[window] == n
        if float(np.median(hu[window][part])) < AIRWAY_BELOW_HU:
            continue
        height = window[0].start + float(np.nonzero(part)[0].mean())
        above_diaphragm = bottom + ABDOMEN_SHARE * (top - bottom) < height < top
        if above_diaphragm or (near[window][part].mean() > 0.5 and height >= bottom):
            kept.append(n)
    return np.isin(labels, kept)


def _is_gas(hu: NDArray[np.float32], part: NDArray[np.bool_], room_hu: float) -> bool:
    core = box_erode(part, (1, 1, 1)) & part
    values = hu[core] if core.sum() > 30 else hu[part]
    median, high = np.percentile(values, [50, 90])
    return bool(median < room_hu + GAS_ABOVE_ROOM_HU and high < GAS_UNIFORM_HU)
