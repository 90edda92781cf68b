"""Measures of a lesion's shape, in millimetres: pieces, surface, distance, how consolidation hangs together."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.errors import DataError, UsageError

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

_TOUCHING = np.ones((3, 3, 3), np.int8)  # 26-connectivity


def count_components(mask: Mask, spacing_mm: Spacing, least_ml: float = 0.0) -> int:
    """Number of pieces of a mask, voxels hanging together by faces, edges or corners (26-connectivity).

    Parameters
    ----------
    mask : bool array, shape (z, y, x)
    spacing_mm : tuple of float
        (z, y, x).
    least_ml : float, >= 0
        Pieces smaller than this are not counted, ml.

    Returns
    -------
    int
        0 for an empty mask.

    Raises
    ------
    DataError
        When the mask is no three-dimensional array.
    UsageError
        When the spacing or the least volume makes no sense.
    """
    _check(mask, spacing_mm)
    if not (math.isfinite(least_ml) and least_ml >= 0):
        raise UsageError(
            "the least volume of a component is no volume", got=least_ml, expected="0 ml or more"
        )
    box = _box(mask)
    if box is None:
        return 0
    labels, number = ndimage.label(mask[box], structure=_TOUCHING)
    volumes_ml = np.bincount(labels.ravel())[1:] * (math.prod(spacing_mm) / 1000.0)
    return int((volumes_ml >= least_ml).sum()) if least_ml > 0 else int(number)


def surface_to_volume_per_mm(mask: Mask, spacing_mm: Spacing) -> float:
    """Surface over volume of a mask, 1/mm.

    The surface is SimpleITK's Crofton estimate (`LabelShapeStatisticsImageFilter.GetPerimeter`: intersections
    with lines in 13 directions, Lehmann and Legland, Insight Journal 2012), which does not carry the 50 % that
    counting voxel faces adds to a smooth surface. The border of the volume counts as outside.

    Returns
    -------
    float
        NaN for an empty mask.

    Raises
    ------
    DataError, UsageError
        As `count_components`.
    """
    _check(mask, spacing_mm)
    box = _box(mask)
    if box is None:
        return float("nan")
    inside = np.pad(mask[box], 1).astype(np.uint8)
    image = sitk.GetImageFromArray(inside)
    image.SetSpacing([float(s) for s in reversed(spacing_mm)])
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.SetComputePerimeter(True)
    shape.Execute(image)
    return float(shape.GetPerimeter(1) / shape.GetPhysicalSize(1))


def nearest_distance_mm(
    new: Mask, old: Mask, spacing_mm: Spacing, *, by_component: bool = False
) -> NDArray[np.float64]:
    """Distance of every voxel of one mask from the nearest voxel of another, between voxel centres, mm.

    Parameters
    ----------
    new, old : bool array, shape (z, y, x)
        For example the voxels infected since, and the original lesions. Voxels in both are at 0.
    spacing_mm : tuple of float
        (z, y, x).
    by_component : bool
        One value a piece of `new` (26-connectivity) instead, that of its nearest voxel.

    Returns
    -------
    float64, shape (n,)
        In C order of the voxels, or of the pieces' labels; empty when `new` is.

    Raises
    ------
    DataError
        When the masks differ in shape or `old` is empty.
    UsageError
        When the spacing makes no sense.
    """
    _check(new, spacing_mm)
    if new.shape != old.shape:
        raise DataError("the two masks differ in shape", got=old.shape, expected=new.shape)
    if not old.any():
        raise DataError(
            "there is no lesion to measure the distance from", expected="a mask that is not empty"
        )
    box = _box(new)
    if box is None:
        return np.zeros(0)
    both = _box(new | old)
    new, old = new[both], old[both]
    distance_mm = ndimage.distance_transform_edt(~old, sampling=spacing_mm)
    if not by_component:
        return np.asarray(distance_mm[new], np.float64)
    labels, number = ndimage.label(new, structure=_TOUCHING)
    return np.asarray(ndimage.minimum(distance_mm, labels, np.arange(1, number + 1)), np.float64)


def join_share(consolidation: Mask, lesion: Mask) -> float:
    """How consolidation hangs together: of the edges at it, the share that joins two consolidated voxels.

    Edges join two lesion voxels that share a face within an axial slice; counted are those with at least one
    consolidated end, over all slices. Voxels consolidated at random with probability p give p / (2 - p).

    Parameters
    ----------
    consolidation, lesion : bool array, shape (z, y, x)
        Consolidation is part of the lesion.

    Returns
    -------
    float
        0 to 1; NaN when no edge has a consolidated end.

    Raises
    ------
    DataError
        When the masks differ in shape, are not three-dimensional, or consolidation reaches outside the lesion.

    Notes
    -----
    Radiologists' labels of 98 slices: median 0.96 a slice; 0.22 if the same voxels were placed at random.
    """
    _check(consolidation, (1.0, 1.0, 1.0))
    if consolidation.shape != lesion.shape:
        raise DataError("the two masks differ in shape", got=consolidation.shape, expected=lesion.shape)
    if (consolidation & ~lesion).any():
        raise DataError(
            "consolidation reaches outside the lesion",
            got=f"{int((consolidation & ~lesion).sum())} voxels",
            expected="none",
        )
    box = _box(consolidation)
    if box is None:
        return float("nan")
    # One voxel more, so that edges to lesion voxels around consolidation are there.
    grown = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
    dense, whole = consolidation[grown], lesion[grown]
    joined = touched = 0
    for first, second in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:, :, :-1], np.s_[:, :, 1:]),
    ):
        both = whole[first] & whole[second]
        joined += int((both & dense[first] & dense[second]).sum())
        touched += int((both & (dense[first] | dense[second])).sum())
    return joined / touched if touched else float("nan")


def _check(mask: Mask, spacing_mm: Spacing) -> None:
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise DataError(
            "this is no mask", got=f"{mask.dtype}, shape {mask.shape}", expected="a bool array (z, y, x)"
        )
    if len(spacing_mm) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing_mm):
        raise UsageError(
            "the voxel spacing is no spacing", got=spacing_mm, expected="three lengths above 0, mm"
        )


def _box(mask: Mask) -> tuple[slice, slice, slice] | None:
    """Bounding box of a mask; None when it is empty."""
    if not mask.any():
        return None
    ranges = []
    for axis in range(3):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        ranges.append(slice(int(found[0]), int(found[-1]) + 1))
    return ranges[0], ranges[1], ranges[2]
