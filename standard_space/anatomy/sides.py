"""Left and right lung: told apart by connection first, split where the lungs touch."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.anatomy.morphology import Spacing, padded_box

BONE_ABOVE_HU = 200.0
SPINE_MM = 24.0
ONE_SIDED = 0.9
CORE_SHARE = 0.08
CORE_RADII_MM = (2.0, 4.0, 6.0, 9.0, 12.0, 16.0, 20.0, 25.0)


def midline_x(
    hu: NDArray[np.float32], lungs: NDArray[np.bool_], body: NDArray[np.bool_], spacing_mm: Spacing
) -> float:
    """Column of the spine; of the body's middle where no bone is seen.

    The spine is the place in the posterior half, as seen from above, that is bone in most slices.
    """
    box = padded_box(lungs, 0.0, spacing_mm)
    if box is None:
        raise ValueError("no lungs, no midline")
    body_box = padded_box(body, 0.0, spacing_mm)
    columns = slice(0, hu.shape[2]) if body_box is None else body_box[2]
    middle_y = (box[1].start + box[1].stop) // 2
    last_y = min(hu.shape[1], box[1].stop + round(60.0 / spacing_mm[1]))
    bone = hu[box[0], middle_y:last_y, columns] > BONE_ABOVE_HU
    seen = bone.mean(axis=0, dtype=np.float32)
    size = [max(1, round(SPINE_MM / s)) for s in spacing_mm[1:]]
    density = ndimage.uniform_filter(seen, size, mode="constant")
    if not density.size or density.max() < 0.1:
        return (columns.start + columns.stop - 1) / 2
    near = density > 0.9 * density.max()
    return float(columns.start + np.nonzero(near)[1].mean())


def find_left_lung(lungs: NDArray[np.bool_], middle_x: float, spacing_mm: Spacing) -> NDArray[np.bool_]:
    """The part of the lungs that is the patient's left lung (in LPS: towards growing x).

    A connected part that lies on one side of the midline but for its edges belongs to that side as a whole: an
    anterior tongue may cross. One that lies on both sides is split at its neck.

    Parameters
    ----------
    lungs : bool array, shape (z, y, x)
        Both lungs, or one.
    middle_x : float
        Column of the midline.
    spacing_mm : tuple of float
        Voxel spacing along (z, y, x), mm.

    Returns
    -------
    bool array, shape (z, y, x)
    """
    left = np.zeros(lungs.shape, np.bool_)
    labels, count = ndimage.label(lungs)
    if count == 0:
        return left
    on_left = np.arange(lungs.shape[2]) > middle_x
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes_left = np.bincount(labels[:, :, on_left].ravel(), minlength=count + 1)
    share = sizes_left / np.maximum(sizes, 1)
    whole = share > 0.5
    whole[0] = False
    left = whole[labels]
    total = int(sizes[1:].sum())
    for label, window in enumerate(ndimage.find_objects(labels), start=1):
        if 1 - ONE_SIDED < share[label] < ONE_SIDED and sizes[label] > 0.02 * total:
            part = labels[window] == label
            split = _split(part, middle_x - window[2].start, spacing_mm)
            left[window][part] = split[part]
    return left


def _split(part: NDArray[np.bool_], middle_x: float, spacing_mm: Spacing) -> NDArray[np.bool_]:
    """Cut one connected part in two at its neck: cores that erosion separates, then a watershed between them."""
    depth = ndimage.distance_transform_edt(np.pad(part, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    columns = np.arange(part.shape[2], dtype=np.float64)
    for radius_mm in CORE_RADII_MM:
        labels, count = ndimage.label(depth > radius_mm)
        if count < 2:
            continue
        sizes = np.bincount(labels.ravel(), minlength=count + 1).astype(np.float64)
        sizes[0] = 0.0
        share = sizes / sizes.sum()
        per_column = np.stack(
            [np.bincount(labels[:, :, x].ravel(), minlength=count + 1) for x in range(part.shape[2])]
        )
        centre = (per_column * columns[:, None]).sum(axis=0) / np.maximum(sizes, 1.0)
        big = share > CORE_SHARE
        big[0] = False
        if (big & (centre > middle_x)).any() and (big & (centre <= middle_x)).any():
            side = np.where(centre > middle_x, 2, 1).astype(np.uint8)
            side[0] = 0
            return _watershed(part, depth, side[labels])
    return np.broadcast_to(columns > middle_x, part.shape)


def _watershed(
    part: NDArray[np.bool_], depth: NDArray[np.float64], markers: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    level = np.where(part, -depth, 1.0).astype(np.float32)
    basins = sitk.MorphologicalWatershedFromMarkers(
        sitk.GetImageFromArray(level), sitk.GetImageFromArray(markers), markWatershedLine=False
    )
    return np.asarray(sitk.GetArrayFromImage(basins) == 2)
