"""Lungs, airways and vessels by classical operations, in millimetres, at a working resolution.

No weights are downloaded. Closings and growths are distance thresholds, so anisotropic voxels are handled as
they are. The user's own lung mask, where there is one, wins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

WORKING_SPACING_MM = 2.0
"""Masks are found at this spacing (or the native one where that is coarser)."""

AIR_BELOW_HU = -400.0
LUNG_MIN_ML = 150.0
LUNG_SECOND_SHARE = 0.15
GAS_BELOW_HU = -960.0
CLOSING_MM = 9.0
AIRWAY_MAX_ML = 110.0
AIRWAY_WALL_MM = 1.5
VESSEL_RADIUS_MM = 5.0
VESSEL_CONTRAST_HU = 180.0
VESSEL_ABOVE_HU = -650.0

Spacing = tuple[float, float, float]


class Anatomy(NamedTuple):
    """Masks of one volume, bool (z, y, x). `lungs` excludes trachea and main bronchi, includes vessels."""

    lungs: NDArray[np.bool_]
    airways: NDArray[np.bool_]
    vessels: NDArray[np.bool_]


def find_anatomy(
    hu: NDArray[np.float32], spacing_mm: Spacing, lungs: NDArray[np.bool_] | None = None
) -> Anatomy | None:
    """Find lungs, airways and vessels.

    Parameters
    ----------
    hu : float32 array, shape (z, y, x)
        CT oriented to LPS, HU.
    spacing_mm : tuple of float
        Voxel spacing along (z, y, x), mm.
    lungs : bool array, shape (z, y, x), optional
        The user's lung mask; it is kept, and only airways and vessels are found.

    Returns
    -------
    Anatomy, or None when no lungs are found.
    """
    inside = _air_inside_body(hu, spacing_mm)
    airways = _grow_airways(hu, inside, spacing_mm)
    if lungs is None:
        found = _lungs_from_air(hu, inside, airways, spacing_mm)
        if found is None:
            return None
        lungs = found
    if not lungs.any():
        return None
    near_airways = dilate(airways, AIRWAY_WALL_MM, spacing_mm)
    return Anatomy(lungs, near_airways, _vessels(hu, lungs & ~near_airways, spacing_mm))


def dilate(mask: NDArray[np.bool_], radius_mm: float, spacing_mm: Spacing) -> NDArray[np.bool_]:
    """All voxels whose centre lies within `radius_mm` of a voxel of the mask."""
    if not mask.any():
        return mask.copy()
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= radius_mm)


def close(mask: NDArray[np.bool_], radius_mm: float, spacing_mm: Spacing) -> NDArray[np.bool_]:
    """Morphological closing with a ball of `radius_mm`; what lies outside the volume counts as empty."""
    pad = [int(np.ceil(radius_mm / s)) + 1 for s in spacing_mm]
    padded = np.pad(mask, [(p, p) for p in pad])
    grown = dilate(padded, radius_mm, spacing_mm)
    closed = ndimage.distance_transform_edt(grown, sampling=spacing_mm) > radius_mm
    inner = tuple(slice(p, -p) for p in pad)
    return np.asarray(closed[inner] | mask)


def _air_inside_body(hu: NDArray[np.float32], spacing_mm: Spacing) -> NDArray[np.bool_]:
    """Air enclosed by the body in its axial slices (lungs, airways, bowel gas)."""
    smooth = ndimage.gaussian_filter(hu, [min(1.0, 1.0 / s) for s in spacing_mm])
    tissue = smooth > AIR_BELOW_HU
    body = _largest(ndimage.binary_opening(tissue, iterations=1))
    inside = np.zeros_like(body)
    for z in range(body.shape[0]):
        inside[z] = ndimage.binary_fill_holes(body[z])
    return np.asarray(inside & ~tissue)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == int(sizes.argmax()))


def _grow_airways(
    hu: NDArray[np.float32], inside: NDArray[np.bool_], spacing_mm: Spacing
) -> NDArray[np.bool_]:
    """Trachea and main bronchi: growth from a tracheal seed at the highest threshold that does not leak."""
    none = np.zeros(hu.shape, np.bool_)
    seed = _tracheal_seed(hu, inside, spacing_mm)
    if seed is None:
        return none
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    best = none
    for threshold in (-970.0, -950.0, -930.0, -910.0, -890.0, -870.0):
        labels, _ = ndimage.label(inside & (hu < threshold))
        label = labels[seed]
        if label == 0:
            continue
        grown = labels == label
        volume_ml = float(grown.sum()) * voxel_ml
        previous_ml = float(best.sum()) * voxel_ml
        leaked = volume_ml > AIRWAY_MAX_ML or (previous_ml > 10.0 and volume_ml > 1.8 * previous_ml)
        if leaked:
            break
        best = grown
    return best


def _tracheal_seed(
    hu: NDArray[np.float32], inside: NDArray[np.bool_], spacing_mm: Spacing
) -> tuple[int, int, int] | None:
    """A voxel in the trachea: a compact, very dark, roughly central air region in several upper slices."""
    voxel_mm2 = spacing_mm[1] * spacing_mm[2]
    dark = inside & (hu < -880.0)
    upper = [z for z in range(hu.shape[0] - 1, -1, -1) if dark[z].any()][: max(4, hu.shape[0] // 2)]
    centre_x = hu.shape[2] / 2
    best: tuple[float, tuple[int, int, int]] | None = None
    for z in upper:
        labels, count = ndimage.label(dark[z])
        for label, window in enumerate(ndimage.find_objects(labels), start=1):
            region = labels[window] == label
            area = float(region.sum()) * voxel_mm2
            extent = [float(n) * s for n, s in zip(region.shape, spacing_mm[1:], strict=True)]
            off_centre = abs((window[1].start + window[1].stop) / 2 - centre_x) * spacing_mm[2]
            if not 40.0 <= area <= 600.0 or max(extent) > 40.0 or off_centre > 50.0:
                continue
            roundness = area / (extent[0] * extent[1])
            depth = -float(hu[z][window][region].mean()) / 1000.0
            score = roundness + 2.0 * depth - off_centre / 50.0
            if best is None or score > best[0]:
                y, x = np.argwhere(region)[np.argmin(hu[z][window][region])]
                best = (score, (z, int(y) + window[0].start, int(x) + window[1].start))
        del count
    return None if best is None else best[1]


def _lungs_from_air(
    hu: NDArray[np.float32], inside: NDArray[np.bool_], airways: NDArray[np.bool_], spacing_mm: Spacing
) -> NDArray[np.bool_] | None:
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    without = inside & ~dilate(airways, 2.0, spacing_mm)
    labels, count = ndimage.label(without)
    if count == 0:
        return None
    sizes_ml = np.bincount(labels.ravel()).astype(np.float64) * voxel_ml
    sizes_ml[0] = 0.0
    order = np.argsort(sizes_ml)[::-1]
    means = ndimage.mean(hu, labels, order[:6])
    kept = [
        int(label)
        for label, mean in zip(order[:6], np.atleast_1d(means), strict=False)
        if sizes_ml[label] >= LUNG_MIN_ML and mean > GAS_BELOW_HU
    ]
    kept = [label for label in kept if sizes_ml[label] >= LUNG_SECOND_SHARE * sizes_ml[kept[0]]][:2]
    if not kept:
        return None
    lungs = np.isin(labels, kept)
    closed = close(lungs, CLOSING_MM, spacing_mm) & (hu < 250.0)
    closed = np.asarray(ndimage.binary_fill_holes(closed))
    return np.asarray((closed | lungs) & ~airways)


def _vessels(hu: NDArray[np.float32], lungs: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.bool_]:
    """Thin bright structures: what a grey opening of a few mm removes (a white top hat)."""
    vessels = np.zeros_like(lungs)
    boxes = ndimage.find_objects(lungs.astype(np.int8))
    if not boxes or boxes[0] is None:
        return vessels
    margin = [int(np.ceil(2 * VESSEL_RADIUS_MM / s)) for s in spacing_mm]
    box = tuple(
        slice(max(0, b.start - m), min(n, b.stop + m))
        for b, m, n in zip(boxes[0], margin, lungs.shape, strict=True)
    )
    # Outside the lungs the wall would swallow what touches it: it is set to parenchyma first.
    parenchyma = float(np.median(hu[lungs]))
    inner = np.where(lungs[box], hu[box], np.float32(parenchyma))
    radius = [max(1, round(VESSEL_RADIUS_MM / s)) for s in reversed(spacing_mm)]
    hat = sitk.GetArrayFromImage(sitk.WhiteTopHat(sitk.GetImageFromArray(inner), radius, sitk.sitkBox))
    vessels[box] = lungs[box] & (hat > VESSEL_CONTRAST_HU) & (hu[box] > VESSEL_ABOVE_HU)
    return vessels
