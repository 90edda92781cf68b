"""Trachea and main bronchi: growth from a seed in the trachea at the highest threshold that does not leak."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.anatomy.morphology import Spacing, padded_box

AIRWAY_MAX_ML = 110.0
LEAK_FACTOR = 1.8
TRUNK_ML = 10.0
"""From this volume on, a threshold that multiplies the tree by `LEAK_FACTOR` has leaked into the lung."""
THRESHOLDS_HU = (-970.0, -950.0, -930.0, -910.0, -890.0, -870.0)


def grow_airways(
    hu: NDArray[np.float32], air: NDArray[np.bool_], spacing_mm: Spacing, centre_x: float
) -> NDArray[np.bool_]:
    """Find trachea and main bronchi; empty where no trachea is seen.

    Parameters
    ----------
    hu : float32 array, shape (z, y, x)
        CT oriented to LPS, HU.
    air : bool array, shape (z, y, x)
        Air inside the body.
    spacing_mm : tuple of float
        Voxel spacing along (z, y, x), mm.
    centre_x : float
        Column of the body's middle.
    """
    result = np.zeros(hu.shape, np.bool_)
    box = padded_box(air, 0.0, spacing_mm)
    seed = _tracheal_seed(hu, air, spacing_mm, centre_x)
    if box is None or seed is None:
        return result
    inner, inner_air = hu[box], air[box]
    start = tuple(s - b.start for s, b in zip(seed, box, strict=True))
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    best = np.zeros(inner.shape, np.bool_)
    best_ml = 0.0
    for threshold in THRESHOLDS_HU:
        labels, _ = ndimage.label(inner_air & (inner < threshold))
        label = labels[start]
        if label == 0:
            continue
        grown = labels == label
        volume_ml = float(grown.sum()) * voxel_ml
        if volume_ml > AIRWAY_MAX_ML or (best_ml > TRUNK_ML and volume_ml > LEAK_FACTOR * best_ml):
            break
        best, best_ml = grown, volume_ml
    result[box] = best
    return result


def _tracheal_seed(
    hu: NDArray[np.float32], air: NDArray[np.bool_], spacing_mm: Spacing, centre_x: float
) -> tuple[int, int, int] | None:
    """A voxel in the trachea: a compact, very dark, roughly central air region in several upper slices."""
    voxel_mm2 = spacing_mm[1] * spacing_mm[2]
    dark = air & (hu < -880.0)
    upper = [z for z in range(hu.shape[0] - 1, -1, -1) if dark[z].any()][: max(4, hu.shape[0] // 2)]
    best: tuple[float, tuple[int, int, int]] | None = None
    for z in upper:
        labels, _ = ndimage.label(dark[z])
        areas = np.bincount(labels.ravel()) * voxel_mm2
        for label, window in enumerate(ndimage.find_objects(labels), start=1):
            if not 40.0 <= areas[label] <= 600.0:
                continue
            extent = [(w.stop - w.start) * s for w, s in zip(window, spacing_mm[1:], strict=True)]
            off_centre = abs((window[1].start + window[1].stop) / 2 - centre_x) * spacing_mm[2]
            if max(extent) > 40.0 or off_centre > 50.0:
                continue
            region = labels[window] == label
            roundness = areas[label] / (extent[0] * extent[1])
            depth = -float(hu[z][window][region].mean()) / 1000.0
            score = roundness + 2.0 * depth - off_centre / 50.0
            if best is None or score > best[0]:
                y, x = np.argwhere(region)[np.argmin(hu[z][window][region])]
                best = (score, (z, int(y) + window[0].start, int(x) + window[1].start))
    return None if best is None else best[1]
