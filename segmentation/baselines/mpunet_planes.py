"""Planes through a volume in any direction: where they lie, how they are sampled, and the way back.

All is in millimetres from the centre of the volume's first voxel, (z, y, x), whatever the spacing of the volume. A
lattice is a stack of parallel planes, sampled at one step in all three directions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from segmentation.segmenter import seed_for

PLANES = 6
"""How many directions there are."""

POINTS_AT_ONCE = 2**21

Vector = NDArray[np.float64]
"""Three numbers (z, y, x), or several such rows."""

_GOLDEN = (1.0 + math.sqrt(5.0)) / 2.0
_DIAGONALS = np.array(
    [
        (0.0, 1.0, _GOLDEN),
        (0.0, -1.0, _GOLDEN),
        (1.0, _GOLDEN, 0.0),
        (-1.0, _GOLDEN, 0.0),
        (_GOLDEN, 0.0, 1.0),
        (_GOLDEN, 0.0, -1.0),
    ]
)
_EDGES = tuple(
    (start, start | bit) for start, bit in itertools.product(range(8), (1, 2, 4)) if not start & bit
)


def plane_normals(seed: int) -> Vector:
    """Return the planes' normals, float64 (6, 3), (z, y, x), unit length, by the user's seed.

    The paper draws six unit vectors at least 60 degrees apart. Counted between planes, where a normal and its
    opposite are the same, no six can be further apart than 63.4 degrees, as the diagonals of an icosahedron are;
    so these are taken, rotated at random.
    """
    rng = np.random.default_rng(seed_for(seed, "mpunet planes"))
    rotated: Vector = Rotation.from_quat(rng.standard_normal(4)).apply(_DIAGONALS)
    return rotated / np.linalg.norm(rotated, axis=1, keepdims=True)


def directions_of(normal: Vector) -> Vector:
    """Return normal, rows' and columns' direction of a plane: the rows of an orthonormal float64 (3, 3).

    Columns follow x as well as they can, or y where the plane is nearest to a sagittal one; rows the remaining
    axis. So a plane along the axes looks as `segmentation.views` has it.
    """
    unit = normal / np.linalg.norm(normal)
    columns = np.zeros(3)
    columns[1 if np.argmax(np.abs(unit)) == 2 else 2] = 1.0
    columns -= (columns @ unit) * unit
    columns /= np.linalg.norm(columns)
    rows = np.cross(unit, columns)
    if rows[np.argmax(np.abs(rows))] < 0.0:
        rows = -rows
    return np.stack([unit, rows, columns])


@dataclass(frozen=True)
class Lattice:
    """Parallel planes of square pixels.

    Attributes
    ----------
    directions : float64 (3, 3)
        See `directions_of`.
    origin_mm : float64 (3,)
        Of the first pixel of the first plane.
    step_mm : float
        Between pixels and between planes.
    shape : tuple of int
        Planes, rows, columns.
    """

    directions: Vector
    origin_mm: Vector
    step_mm: float
    shape: tuple[int, int, int]

    @classmethod
    def around(
        cls, shape: Sequence[int], spacing_mm: Sequence[float], normal: Vector, step_mm: float
    ) -> Lattice:
        """Return the smallest lattice that all centres of a volume's voxels lie in."""
        directions = directions_of(normal)
        corners = _corners(shape, spacing_mm) @ directions.T
        lowest, highest = corners.min(0), corners.max(0)
        counts = np.ceil((highest - lowest) / step_mm - 1e-9).astype(int) + 1
        first = (lowest + highest - (counts - 1) * step_mm) / 2.0
        return cls(directions, first @ directions, step_mm, (int(counts[0]), int(counts[1]), int(counts[2])))

    def part(self, first: Sequence[int], shape: tuple[int, int, int]) -> Lattice:
        """Return the part, or the continuation, that starts at a pixel (plane, row, column)."""
        moved = self.origin_mm + np.asarray(first) * self.step_mm @ self.directions
        return Lattice(self.directions, moved, self.step_mm, shape)

    def window(
        self, start: int, stop: int, shape: Sequence[int], spacing_mm: Sequence[float]
    ) -> tuple[slice, slice]:
        """Return the rows and columns of planes that are needed to interpolate a volume's voxels near them.

        Near is what lies between the plane before `start` and the one at `stop`.
        """
        corners = ((_corners(shape, spacing_mm) - self.origin_mm) @ self.directions.T) / self.step_mm
        ends = []
        for one, other in _EDGES:
            start_point, along = corners[one], corners[other] - corners[one]
            places = np.array([0.0, 1.0])
            if along[0] != 0.0:
                crossed = np.sort((np.array([start - 1, stop]) - start_point[0]) / along[0])
                places = np.array([max(crossed[0], 0.0), min(crossed[1], 1.0)])
            elif not start - 1 <= start_point[0] <= stop:
                continue
            if places[0] <= places[1]:
                ends.append(start_point + places[:, None] * along)
        if not ends:
            return slice(0, 0), slice(0, 0)
        points = np.concatenate(ends)[:, 1:]
        lowest, highest = np.floor(points.min(0) + 1e-6), np.ceil(points.max(0) - 1e-6)
        rows, columns = (
            slice(max(int(low), 0), min(int(high) + 1, size))
            for low, high, size in zip(lowest, highest, self.shape[1:], strict=True)
        )
        return rows, columns

    def sample(
        self,
        volume: Tensor,
        spacing_mm: Sequence[float],
        outside: float,
        *,
        nearest: bool = False,
        moved: Tensor | None = None,
    ) -> Tensor:
        """Sample a volume (z, y, x) of any dtype; return float32 (planes, rows, columns).

        Between voxels it is interpolated linearly; beyond the volume it is `outside`, and across the edge blends
        into it. With `nearest` a point takes the value of the nearest voxel.

        Parameters
        ----------
        moved : Tensor (2, rows, columns), optional
            Points are displaced in plane by so many pixels along rows and columns.
        """
        matrix = (self.directions * self.step_mm / np.asarray(spacing_mm)).T
        places = _places(matrix, self.origin_mm / np.asarray(spacing_mm), self.shape, volume.device)
        if moved is not None:
            places = places + moved.movedim(0, -1) @ torch.from_numpy(matrix[:, 1:].T.copy()).float()
        return _nearest(volume, places, outside) if nearest else _linear(volume, places, outside)

    def back(self, planes: Tensor, shape: Sequence[int], spacing_mm: Sequence[float]) -> Tensor:
        """Interpolate values on the planes linearly at a volume's voxels, 0 beyond; return float32 (z, y, x)."""
        matrix = self.directions * np.asarray(spacing_mm) / self.step_mm
        offset = -self.directions @ self.origin_mm / self.step_mm
        found = torch.empty(tuple(shape), device=planes.device)
        at_once = max(1, POINTS_AT_ONCE // math.prod(shape[1:]))
        for start in range(0, shape[0], at_once):
            part = (min(at_once, shape[0] - start), *shape[1:])
            places = _places(matrix, offset + matrix[:, 0] * start, part, planes.device)
            found[start : start + at_once] = _linear(planes, places, 0.0)
        return found


def _corners(shape: Sequence[int], spacing_mm: Sequence[float]) -> Vector:
    """Return the centres of a volume's corner voxels, mm (8, 3); corners that differ in one bit share an edge."""
    far = (np.asarray(shape) - 1) * np.asarray(spacing_mm)
    return np.array([[far[axis] * (corner >> axis & 1) for axis in range(3)] for corner in range(8)])


def _places(matrix: Vector, offset: Vector, shape: Sequence[int], device: torch.device) -> Tensor:
    """Return ``matrix @ index + offset`` for all indices of a shape, float32 (*shape, 3)."""
    result = torch.from_numpy(offset).float().to(device)
    for axis, size in enumerate(shape):
        along = torch.from_numpy(np.arange(size)[:, None] * matrix[:, axis]).float().to(device)
        result = result + along.view(size, *(1,) * (2 - axis), 3)
    return result


def _linear(volume: Tensor, places: Tensor, outside: float) -> Tensor:
    """Interpolate a volume at places (z, y, x) in voxels, float32 (..., 3); beyond it is `outside`."""
    # Only what the places need becomes float32: a scan of the full grid has 50 million voxels and more.
    box, first = [], []
    for axis, size in enumerate(volume.shape):
        lowest, highest = places[..., axis].aminmax()
        start = min(max(math.floor(lowest), 0), size - 1)
        first.append(start)
        box.append(slice(start, max(min(math.ceil(highest) + 1, size), start + 1)))
    part = volume[tuple(box)].float()
    if outside:
        part = part - outside
    sizes = torch.tensor(part.shape, device=places.device)
    starts = torch.tensor(first, device=places.device)
    # Coordinates of the field run from -1 to 1 along each side, x first.
    field = ((2.0 * (places - starts) + 1.0) / sizes - 1.0).flip(-1)
    return functional.grid_sample(part[None, None], field[None], align_corners=False)[0, 0] + outside


def _nearest(volume: Tensor, places: Tensor, outside: float) -> Tensor:
    """Return a volume's values at the voxels nearest to places (z, y, x) in voxels, float32 (..., 3)."""
    sizes = torch.tensor(volume.shape, device=places.device)
    index = torch.floor(places + 0.5).long()
    inside = ((index >= 0) & (index < sizes)).all(-1)
    z, y, x = index.clamp(min=0).minimum(sizes - 1).unbind(-1)
    return torch.where(inside, volume[z, y, x].float(), outside)
