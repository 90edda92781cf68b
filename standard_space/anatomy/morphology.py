"""Morphology in millimetres: balls by distance thresholds, boxes by running counts, labels and their sizes.

A ball costs a distance transform of the whole array and is exact on anisotropic voxels; a box costs three
passes whatever its size and serves where the shape of the structuring element does not matter.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray
from scipy import ndimage

from standard_space._jit import parallel_kernel

_ROWS = 16

Spacing = tuple[float, float, float]


def dilate(mask: NDArray[np.bool_], radius_mm: float, spacing_mm: Spacing) -> NDArray[np.bool_]:
    """All voxels whose centre lies within `radius_mm` of a voxel of the mask."""
    result = mask.copy()
    box = padded_box(mask, radius_mm, spacing_mm)
    if box is not None:
        result[box] = ndimage.distance_transform_edt(~mask[box], sampling=spacing_mm) <= radius_mm
    return result


def close(mask: NDArray[np.bool_], radius_mm: float, spacing_mm: Spacing) -> NDArray[np.bool_]:
    """Morphological closing with a ball of `radius_mm`; what lies outside the volume counts as empty."""
    result = mask.copy()
    box = padded_box(mask, 0.0, spacing_mm)
    if box is None:
        return result
    pad = [int(np.ceil(radius_mm / s)) + 1 for s in spacing_mm]
    padded = np.pad(mask[box], [(p, p) for p in pad])
    grown = ndimage.distance_transform_edt(~padded, sampling=spacing_mm) <= radius_mm
    closed = ndimage.distance_transform_edt(grown, sampling=spacing_mm) > radius_mm
    inner = tuple(slice(p, -p) for p in pad)
    result[box] |= closed[inner]
    return result


def padded_box(
    mask: NDArray[np.bool_], margin_mm: float, spacing_mm: Spacing
) -> tuple[slice, slice, slice] | None:
    """The mask's bounding box with a margin, cut to the volume; None when the mask is empty."""
    bounds = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(filled):
            return None
        margin = int(np.ceil(margin_mm / spacing_mm[axis]))
        low, high = int(filled[0]) - margin, int(filled[-1]) + 1 + margin
        bounds.append(slice(max(0, low), min(mask.shape[axis], high)))
    return (bounds[0], bounds[1], bounds[2])


@parallel_kernel
def _count_z(source, reach, target):  # type: ignore[no-untyped-def]
    # A running sum per column, for some rows at a time: that much of every slice is read in one go.
    nz, ny, nx = source.shape
    for job in prange((ny + _ROWS - 1) // _ROWS):
        y0, y1 = job * _ROWS, min(ny, job * _ROWS + _ROWS)
        total = np.zeros((_ROWS, nx), np.int32)
        for z in range(-reach, nz):
            enter, leave = z + reach, z - reach - 1
            for y in range(y0, y1):
                if enter < nz:
                    for x in range(nx):
                        total[y - y0, x] += source[enter, y, x]
                if leave >= 0:
                    for x in range(nx):
                        total[y - y0, x] -= source[leave, y, x]
                if z >= 0:
                    for x in range(nx):
                        target[z, y, x] = total[y - y0, x]


@parallel_kernel
def _count_y(source, reach, target):  # type: ignore[no-untyped-def]
    nz, ny, nx = source.shape
    for z in prange(nz):
        total = np.zeros(nx, np.int32)
        for y in range(min(reach, ny)):
            for x in range(nx):
                total[x] += source[z, y, x]
        for y in range(ny):
            enter, leave = y + reach, y - reach - 1
            if enter < ny:
                for x in range(nx):
                    total[x] += source[z, enter, x]
            if leave >= 0:
                for x in range(nx):
                    total[x] -= source[z, leave, x]
            for x in range(nx):
                target[z, y, x] = total[x]


@parallel_kernel
def _count_x(source, reach, target):  # type: ignore[no-untyped-def]
    nz, ny, nx = source.shape
    for z in prange(nz):
        for y in range(ny):
            total = np.int32(0)
            for x in range(min(reach, nx)):
                total += source[z, y, x]
            for x in range(nx):
                enter, leave = x + reach, x - reach - 1
                if enter < nx:
                    total += source[z, y, enter]
                if leave >= 0:
                    total -= source[z, y, leave]
                target[z, y, x] = total


def box_count(mask: NDArray[np.bool_], reach: tuple[int, int, int]) -> NDArray[np.uint16]:
    """Voxels of the mask in the box of `2 * reach + 1` voxels around each voxel; nothing lies outside.

    Raises
    ------
    ValueError
        When the box holds more than 65535 voxels.
    """
    if np.prod([2 * r + 1 for r in reach]) > 65535:
        raise ValueError(f"a box of reach {reach} holds more voxels than 16 bits count")
    current, spare = np.empty(mask.shape, np.uint16), np.empty(mask.shape, np.uint16)
    _count_x(np.ascontiguousarray(mask).view(np.uint8), reach[2], current)
    for count, r in ((_count_y, reach[1]), (_count_z, reach[0])):
        if r > 0:
            count(current, r, spare)
            current, spare = spare, current
    return current


def reach_of(radius_mm: float, spacing_mm: Spacing, least: int = 0) -> tuple[int, int, int]:
    """Whole voxels along each axis that make `radius_mm`, at least `least`."""
    z, y, x = (max(least, round(radius_mm / s)) for s in spacing_mm)
    return (z, y, x)


def box_dilate(mask: NDArray[np.bool_], reach: tuple[int, int, int]) -> NDArray[np.bool_]:
    """All voxels that have one of the mask in their box."""
    return np.asarray(box_count(mask, reach) > 0)


def box_erode(mask: NDArray[np.bool_], reach: tuple[int, int, int]) -> NDArray[np.bool_]:
    """All voxels whose box lies in the mask; beyond the volume counts as in it."""
    return np.asarray(box_count(~mask, reach) == 0)


def largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's largest connected part."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == int(sizes.argmax()))


def enclosed(mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """What a mask (z, y, x) surrounds, slice by slice.

    Returns
    -------
    planes : uint8 array
        In how many of the three planes a voxel outside the mask is surrounded by it, 0..3.
    axial : bool array
        Whether it is in the axial one.
    """
    planes = np.zeros(mask.shape, np.uint8)
    axial = np.zeros(mask.shape, np.bool_)
    for axis in range(3):
        # Neighbours within a slice only, so that one labelling does all slices.
        structure = ndimage.generate_binary_structure(3, 1)
        structure[(slice(None),) * axis + ([0, 2],)] = False
        labels, count = ndimage.label(~mask, structure)
        outside = np.zeros(count + 1, np.bool_)
        outside[0] = True
        for other in range(3):
            if other != axis:
                for end in (0, -1):
                    outside[np.unique(labels[(slice(None),) * other + (end,)])] = True
        inside = ~outside[labels]
        planes += inside
        if axis == 0:
            axial = inside
    return planes, axial
