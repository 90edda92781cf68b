"""Masks and labels between grids that share their axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from standard_space.lanczos import LOBES, resample

Triple = tuple[float, float, float]
_SLAB = 64


def resample_mask(
    mask: NDArray[np.bool_], shape: tuple[int, int, int], start: Triple, step: Triple
) -> NDArray[np.bool_]:
    """Sample a mask on another grid: Lanczos (anti-aliased when shrinking), cut at one half.

    A linear kernel would shrink small lesions by some per cent. Only the surroundings of the mask are worked on,
    in slabs along z, so that a full-size mask costs little time and memory.

    Parameters
    ----------
    mask : bool array, shape (z, y, x)
    shape : tuple of int
        Output shape (z, y, x).
    start, step : tuple of float
        Input voxel coordinate of output voxel 0, and input voxels per output voxel, along (z, y, x).

    Returns
    -------
    bool array of `shape`.
    """
    result = np.zeros(shape, np.bool_)
    box = bounding_box(mask)
    if box is None:
        return result
    # A kernel around an output voxel reaches this far; twice that keeps its border weights those of the whole.
    reach = [math.ceil(LOBES * max(1.0, s)) + 1 for s in step]
    first, last, crop = [], [], []
    for axis, bounds in enumerate(box):
        low, high = bounds.start - reach[axis], bounds.stop - 1 + reach[axis]
        first.append(max(0, math.ceil((low - start[axis]) / step[axis])))
        last.append(min(shape[axis], math.floor((high - start[axis]) / step[axis]) + 1))
        n = mask.shape[axis]
        crop.append(
            slice(max(0, bounds.start - 2 * reach[axis]), min(n, bounds.stop + 2 * reach[axis])),
        )
    if any(a >= b for a, b in zip(first, last, strict=True)):
        return result
    inner = mask[tuple(crop)]
    begin = [start[a] + first[a] * step[a] - crop[a].start for a in range(3)]
    for z in range(first[0], last[0], _SLAB):
        rows = min(_SLAB, last[0] - z)
        low = begin[0] + (z - first[0]) * step[0]
        z0 = max(0, math.floor(low) - reach[0])
        z1 = min(inner.shape[0], math.ceil(low + rows * step[0]) + reach[0] + 1)
        soft = resample(
            inner[z0:z1].astype(np.float32),
            (rows, last[1] - first[1], last[2] - first[2]),
            (low - z0, begin[1], begin[2]),
            step,
            fill=0.0,
        )
        result[z : z + rows, first[1] : last[1], first[2] : last[2]] = soft >= 0.5
    return result


def resample_labels(
    labels: NDArray[np.integer[Any]], shape: tuple[int, int, int], start: Triple, step: Triple
) -> NDArray[np.uint8]:
    """Sample labels on another grid by nearest neighbour; 0 outside.

    Parameters are those of `resample_mask`; `labels` holds 0..255.
    """
    taken: list[NDArray[np.int64]] = []
    inside: list[NDArray[np.bool_]] = []
    for axis in range(3):
        index = np.floor(start[axis] + step[axis] * np.arange(shape[axis]) + 0.5).astype(np.int64)
        inside.append((index >= 0) & (index < labels.shape[axis]))
        taken.append(np.clip(index, 0, labels.shape[axis] - 1))
    result = np.ascontiguousarray(labels[np.ix_(*taken)], dtype=np.uint8)
    for axis in range(3):
        result[(slice(None),) * axis + (~inside[axis],)] = 0
    return result


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """The smallest box (z, y, x) that holds a mask; None when it is empty."""
    z = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(z):
        return None
    part = np.asarray(mask[z[0] : z[-1] + 1].any(axis=0))
    y, x = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    return (
        slice(int(z[0]), int(z[-1]) + 1),
        slice(int(y[0]), int(y[-1]) + 1),
        slice(int(x[0]), int(x[-1]) + 1),
    )
