"""Which slices and crops a prediction computes: those that meet the region, with the margin the networks need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmentation.unet import MULTIPLE
from segmentation.views import normal_axis, plane_axes

CROP_MARGIN = 64
"""Voxels around what is kept in the plane, for the networks to look at; measured in docs/segmentation.md."""

SLICES_PER_RUN = 16
"""Slices that share a crop: fewer fit the region closer, more keep the number of shapes small."""

Box = tuple[slice, slice, slice]
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Run:
    """Neighbouring slices of a view that are computed with one crop.

    Attributes
    ----------
    start, stop : int
        Slices along the view's normal, voxels of the standard grid.
    rows, columns : slice
        The crop that the network sees; begins and ends at multiples of 16 or the grid's end.
    kept_rows, kept_columns : slice
        The part of it whose probabilities are kept.
    """

    start: int
    stop: int
    rows: slice
    columns: slice
    kept_rows: slice
    kept_columns: slice


@dataclass(frozen=True)
class Projections:
    """Where a region is, seen along each axis; all that planning needs to know of it.

    Attributes
    ----------
    pairs : dict of (int, int) to bool array
        For two axes, first < second (0 = z, 1 = y, 2 = x): whether the region is met anywhere along the third.
    shape : tuple of int
        Of the region, (z, y, x).
    """

    pairs: dict[tuple[int, int], NDArray[np.bool_]]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, region: NDArray[np.bool_]) -> Projections:
        """The projections of a region, bool (z, y, x)."""
        z, y, x = region.shape
        pairs = {(0, 1): _any(region, 2), (0, 2): _any(region, 1), (1, 2): _any(region, 0)}
        return cls(pairs, (z, y, x))

    def along(self, first: int, second: int) -> NDArray[np.bool_]:
        """A projection with the given axes as rows and columns."""
        return self.pairs[first, second] if first < second else self.pairs[second, first].T

    def bounding_box(self, reach: Triple) -> Box:
        """The region's bounding box and `reach` voxels (z, y, x) more, cut to the grid; empty without a region."""
        if not self.pairs[0, 1].any():
            return slice(0, 0), slice(0, 0), slice(0, 0)
        z = _extent(_any(self.along(0, 1), 1), reach[0])
        y = _extent(_any(self.along(1, 0), 1), reach[1])
        return z, y, _extent(_any(self.along(2, 0), 1), reach[2])


def plan_runs(
    where: Projections,
    view: str,
    reach: Triple,
    *,
    margin: int = CROP_MARGIN,
    slices_per_run: int = SLICES_PER_RUN,
) -> list[Run]:
    """Divide a view into runs of slices that meet a region.

    Parameters
    ----------
    where : Projections
        Of the region where probabilities are wanted.
    view : str
        One of ``VIEWS``.
    reach : tuple of int
        How far around the region they are wanted as well, voxels (z, y, x): what the way back to the native grid
        takes them from.
    margin : int
        Voxels around what is kept that the network sees.
    slices_per_run : int

    Returns
    -------
    list of Run
        In order, without overlap; every voxel within `reach` of the region is kept by one of them.
    """
    axis, (row_axis, column_axis) = normal_axis(view), plane_axes(view)
    rows, columns = where.along(axis, row_axis), where.along(axis, column_axis)
    size = where.shape[axis]
    met = _dilated(_any(rows, 1), reach[axis])
    runs = []
    start = 0
    while start < size:
        if not met[start]:
            start += 1
            continue
        stop = start
        while stop < min(start + slices_per_run, size) and met[stop]:
            stop += 1
        near = slice(max(start - reach[axis], 0), stop + reach[axis])
        kept_rows = _extent(_any(rows[near], 0), reach[row_axis])
        kept_columns = _extent(_any(columns[near], 0), reach[column_axis])
        runs.append(
            Run(
                start,
                stop,
                _crop(kept_rows, where.shape[row_axis], margin),
                _crop(kept_columns, where.shape[column_axis], margin),
                kept_rows,
                kept_columns,
            )
        )
        start = stop
    return runs


def _dilated(met: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    found = np.zeros_like(met)
    for index in np.flatnonzero(met):
        found[max(index - reach, 0) : index + reach + 1] = True
    return found


def _extent(met: NDArray[np.bool_], reach: int) -> slice:
    places = np.flatnonzero(met)
    return slice(max(int(places[0]) - reach, 0), min(int(places[-1]) + 1 + reach, met.size))


def _crop(kept: slice, size: int, margin: int) -> slice:
    """Return a side with its margin, begun and ended at multiples of 16.

    Pooling then falls on the same voxels as in the whole slice, and probabilities stay the same.
    """
    start = max(kept.start - margin, 0) // MULTIPLE * MULTIPLE
    stop = -(-min(kept.stop + margin, size) // MULTIPLE) * MULTIPLE
    return slice(start, min(stop, size))


def _any(array: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    return np.asarray(array.any(axis=axis), np.bool_)
