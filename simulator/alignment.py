"""How one scan of a patient lies on another: an affine map between their standard frames, and masks brought over.

Every scan has its own standard frame: positions in mm along (z, y, x) from the centre of standard voxel (0, 0, 0).
An `Alignment` leads from the first scan's frame to the other's. Two cost nothing: the frames themselves (both
are centred on the lungs) and the world (right when the user registered the scans beforehand).
`simulator.registration` finds better ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.errors import GeometryError
from standard_space.geometry import Placement, Triple
from standard_space.grid import StandardGrid

Kind = Literal["standard", "world", "registered"]

COMPARISON_STEP_MM = 3.0
"""Lungs are compared at this spacing."""


@dataclass(frozen=True)
class PlacedMask:
    """A mask, cut from its standard grid, that knows where it lies.

    Parameters
    ----------
    mask : bool array, shape (z, y, x)
    origin_mm : tuple of float
        Position of its voxel (0, 0, 0) in the scan's standard frame, (z, y, x), mm.
    spacing_mm : tuple of float
        (z, y, x), mm.
    """

    mask: NDArray[np.bool_]
    origin_mm: Triple
    spacing_mm: Triple


@dataclass(frozen=True)
class Alignment:
    """Affine map: position in the other scan's frame = matrix @ position in the first's + offset_mm.

    Parameters
    ----------
    kind : {"standard", "world", "registered"}
        Where it comes from.
    matrix : float64 array, shape (3, 3)
        Rows and columns along (z, y, x), no unit.
    offset_mm : float64 array, shape (3,)
        (z, y, x), mm.
    """

    kind: Kind
    matrix: NDArray[np.float64]
    offset_mm: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.kind, "matrix": self.matrix.tolist(), "offset_mm": self.offset_mm.tolist()}


def standard_alignment() -> Alignment:
    """Voxel on voxel: both standard grids are centred on the lungs."""
    return Alignment("standard", np.eye(3), np.zeros(3))


def world_alignment(first: Placement, other: Placement, grid: StandardGrid) -> Alignment:
    """The same place in the world (LPS mm of the files): right when the scans were registered beforehand."""
    here, there = first.standard_geometry(grid), other.standard_geometry(grid)
    points_mm = np.vstack([np.zeros(3), 100.0 * np.eye(3)])[:, ::-1]  # as (x, y, z)
    moved_mm = there.to_index(here.to_world(points_mm / np.asarray(here.spacing_mm))) * there.spacing_mm
    moved_mm = moved_mm[:, ::-1]
    return Alignment("world", ((moved_mm[1:] - moved_mm[0]) / 100.0).T, moved_mm[0])


def map_mask(other: PlacedMask, alignment: Alignment, onto: PlacedMask) -> NDArray[np.bool_]:
    """A mask of the other scan on the first scan's voxels: linear interpolation, cut at one half.

    Parameters
    ----------
    other : PlacedMask
        What is brought over.
    alignment : Alignment
        From the first scan's frame to the other's.
    onto : PlacedMask
        Whose voxels (not its content) the result lies on.
    """
    matrix, offset = _index_map(other, alignment, onto.origin_mm, onto.spacing_mm)
    shift = np.rint(offset)
    if np.allclose(matrix, np.eye(3), atol=1e-9) and np.allclose(offset, shift, atol=1e-6):
        result = np.zeros(onto.mask.shape, bool)
        here, there = _overlap(onto.mask.shape, other.mask.shape, shift.astype(int))
        result[here] = other.mask[there]
        return result
    return _interpolated(other, alignment, onto.origin_mm, onto.spacing_mm, onto.mask.shape)


def share_outside(other: PlacedMask, alignment: Alignment, onto: PlacedMask) -> float:
    """Share of a mask's voxels that `map_mask` cannot bring over, as they fall outside; 0 for an empty one."""
    index = np.argwhere(other.mask)
    if not index.size:
        return 0.0
    there_mm = index * np.asarray(other.spacing_mm) + np.asarray(other.origin_mm)
    here_mm = (there_mm - alignment.offset_mm) @ np.linalg.inv(alignment.matrix).T
    here = (here_mm - np.asarray(onto.origin_mm)) / np.asarray(onto.spacing_mm)
    inside = ((here > -0.5) & (here < np.asarray(onto.mask.shape) - 0.5)).all(axis=1)
    return float(1.0 - inside.mean())


def lungs_dice(first: PlacedMask, other: PlacedMask, alignment: Alignment) -> float:
    """Dice of two lungs on a common grid of 3 mm that covers the first and where the other falls."""
    step = COMPARISON_STEP_MM
    corners_mm = corners(other)
    back_mm = (corners_mm - alignment.offset_mm) @ np.linalg.inv(alignment.matrix).T
    both_mm = np.vstack([corners(first), back_mm])
    low, high = both_mm.min(0), both_mm.max(0)
    shape = tuple(int(n) for n in np.ceil((high - low) / step) + 1)
    origin: Triple = (float(low[0]), float(low[1]), float(low[2]))
    here = sample(first, standard_alignment(), origin, step, shape)
    there = sample(other, alignment, origin, step, shape)
    total = int(here.sum()) + int(there.sum())
    return 2.0 * int((here & there).sum()) / total if total else 0.0


def sample(
    other: PlacedMask, alignment: Alignment, origin_mm: Triple, step_mm: float, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """A mask on an isotropic grid in the first scan's frame: linear interpolation, cut at one half."""
    spacing: Triple = (step_mm, step_mm, step_mm)
    return _interpolated(other, alignment, origin_mm, spacing, shape)


def _interpolated(
    other: PlacedMask, alignment: Alignment, origin_mm: Triple, spacing_mm: Triple, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    matrix, offset = _index_map(other, alignment, origin_mm, spacing_mm)
    sampled = ndimage.affine_transform(
        other.mask.view(np.uint8),
        matrix,
        offset,
        output_shape=shape,
        output=np.float32,
        order=1,
        mode="constant",
    )
    return np.asarray(sampled >= 0.5)


def _index_map(
    other: PlacedMask, alignment: Alignment, origin_mm: Triple, spacing_mm: Triple
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and offset from voxel indices on the first scan's side to voxel indices of `other`."""
    if min(other.mask.shape) == 0:
        raise GeometryError("an empty volume cannot be aligned", got=other.mask.shape)
    to = 1.0 / np.asarray(other.spacing_mm)
    matrix = to[:, None] * alignment.matrix * np.asarray(spacing_mm)
    offset = to * (
        alignment.matrix @ np.asarray(origin_mm) + alignment.offset_mm - np.asarray(other.origin_mm)
    )
    return matrix, offset


def _overlap(
    here: tuple[int, ...], there: tuple[int, ...], shift: NDArray[np.int_]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of two boxes where index + shift of the first lies in the second."""
    first, second = [], []
    for size, other, step in zip(here, there, shift.tolist(), strict=True):
        low, high = max(0, -step), max(max(0, -step), min(size, other - step))
        first.append(slice(low, high))
        second.append(slice(low + step, high + step))
    return tuple(first), tuple(second)


def corners(placed: PlacedMask) -> NDArray[np.float64]:
    ends = np.array([(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)], np.float64)
    extent = (np.array(placed.mask.shape) - 1) * np.asarray(placed.spacing_mm)
    return ends * extent + np.asarray(placed.origin_mm)


def centroid(placed: PlacedMask) -> NDArray[np.float64]:
    """Centre of mass in the scan's frame, mm."""
    centre = np.array(
        [
            float(
                np.average(np.arange(size), weights=placed.mask.sum(tuple(a for a in range(3) if a != axis)))
            )
            for axis, size in enumerate(placed.mask.shape)
        ]
    )
    return np.asarray(centre * np.asarray(placed.spacing_mm) + np.asarray(placed.origin_mm))
