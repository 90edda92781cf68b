"""Where voxels lie in the world: native geometries and the placement of the standard grid in them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from standard_space.errors import GeometryError
from standard_space.grid import StandardGrid

Triple = tuple[float, float, float]

RELATIVE_TOLERANCE = 0.1
"""Two geometries are the same when no corner differs by more than this share of the smallest spacing."""


@dataclass(frozen=True)
class Geometry:
    """Size and placement of an image in LPS world millimetres, in SimpleITK's (x, y, z) axis order.

    Parameters
    ----------
    size : tuple of int
        Voxels along x, y, z of the stored array (its NumPy shape reversed).
    spacing_mm, origin_mm : tuple of float
        Voxel spacing and the world position of voxel (0, 0, 0), mm.
    direction : tuple of float
        Row-major 3 x 3 direction cosines; column j is the world direction of axis j.
    """

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """Geometry of a SimpleITK image."""
        x, y, z = image.GetSize()
        return cls((x, y, z), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def shape(self) -> tuple[int, int, int]:
        """NumPy shape, (z, y, x)."""
        return (self.size[2], self.size[1], self.size[0])

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel, ml."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    @property
    def orientation(self) -> str:
        """Three-letter orientation code of the axes, for example "LPS" or "RAS"."""
        return str(sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(self.direction))

    def apply(self, array: NDArray[Any]) -> sitk.Image:
        """A SimpleITK image of `array` (z, y, x) lying on this geometry.

        Raises
        ------
        GeometryError
            When the array's shape is not this geometry's.
        """
        if array.shape != self.shape:
            raise GeometryError("array and geometry disagree", got=array.shape, expected=self.shape)
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.direction)
        return image

    def to_world(self, index_xyz: NDArray[np.floating]) -> NDArray[np.float64]:
        """World positions (..., 3) in LPS mm of continuous voxel indices (..., 3) in (x, y, z) order."""
        scaled = np.asarray(index_xyz, np.float64) * np.asarray(self.spacing_mm)
        return np.asarray(self.origin_mm) + scaled @ np.asarray(self.direction).reshape(3, 3).T

    def to_index(self, world_mm: NDArray[np.floating]) -> NDArray[np.float64]:
        """Continuous voxel indices (..., 3) in (x, y, z) order of world positions (..., 3), LPS mm."""
        turned = (np.asarray(world_mm, np.float64) - np.asarray(self.origin_mm)) @ np.linalg.inv(
            np.asarray(self.direction).reshape(3, 3).T
        )
        return turned / np.asarray(self.spacing_mm)

    def corners(self) -> NDArray[np.float64]:
        """World positions (8, 3) of the corner voxels' centres, mm."""
        ends = np.array([(x, y, z) for z in (0, 1) for y in (0, 1) for x in (0, 1)], np.float64)
        return self.to_world(ends * (np.asarray(self.size) - 1))

    def distance_mm(self, other: Geometry) -> float:
        """Largest distance between corresponding corner voxels; infinite when the sizes differ."""
        if self.size != other.size:
            return float("inf")
        return float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())

    def same_as(self, other: Geometry) -> bool:
        """Whether the two lie on each other within `RELATIVE_TOLERANCE` of the smallest spacing."""
        return self.distance_mm(other) <= RELATIVE_TOLERANCE * min(self.spacing_mm)

    def summary(self) -> str:
        """Size and spacing in words."""
        x, y, z = self.spacing_mm
        i, j, k = self.size
        return f"{i}x{j}x{k} voxels of {x:.3g}x{y:.3g}x{z:.3g} mm at {np.round(self.origin_mm, 1).tolist()}"

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Geometry:
        """The inverse of `to_json`."""
        return cls(
            tuple(content["size"]),
            tuple(content["spacing_mm"]),
            tuple(content["origin_mm"]),
            tuple(content["direction"]),
        )


@dataclass(frozen=True)
class Placement:
    """How a standard grid lies in a scan: the way there and back.

    The standard axes run along the scan's own axes, reordered and flipped to the nearest LPS; the world matrix
    of the scan is kept, so a tilted acquisition stays on top of its original.

    Parameters
    ----------
    native : Geometry
        The image as stored in its file.
    oriented : Geometry
        The same voxels, axes reordered and flipped to the nearest LPS.
    offset_mm : tuple of float
        Position of standard voxel (0, 0, 0) from the oriented image's voxel (0, 0, 0), along (z, y, x), mm.
    """

    native: Geometry
    oriented: Geometry
    offset_mm: tuple[float, float, float]

    def standard_geometry(self, grid: StandardGrid) -> Geometry:
        """Geometry of the standard grid in the world: a standard volume written with it overlays the scan."""
        offset_index = np.asarray(self.offset_mm[::-1]) / np.asarray(self.oriented.spacing_mm)
        z, y, x = grid.spacing_mm
        ox, oy, oz = self.oriented.to_world(offset_index).tolist()
        size = (grid.size, grid.size, grid.size)
        return Geometry(size, (x, y, z), (ox, oy, oz), self.oriented.direction)

    def to_standard(self, grid: StandardGrid, spacing_mm: Triple | None = None) -> tuple[Triple, Triple]:
        """Start and step, (z, y, x), that sample the oriented scan on the standard grid.

        `spacing_mm` (z, y, x) is the source's where it is a coarser copy that shares the oriented image's voxel
        (0, 0, 0).
        """
        spacing = self.oriented.spacing_mm[::-1] if spacing_mm is None else spacing_mm
        start = [o / s for o, s in zip(self.offset_mm, spacing, strict=True)]
        step = [g / s for g, s in zip(grid.spacing_mm, spacing, strict=True)]
        return (start[0], start[1], start[2]), (step[0], step[1], step[2])

    def from_standard(self, grid: StandardGrid) -> tuple[Triple, Triple]:
        """Start and step, (z, y, x), that sample a standard volume on the oriented scan."""
        spacing = self.oriented.spacing_mm[::-1]
        start = [-o / g for o, g in zip(self.offset_mm, grid.spacing_mm, strict=True)]
        step = [s / g for s, g in zip(spacing, grid.spacing_mm, strict=True)]
        return (start[0], start[1], start[2]), (step[0], step[1], step[2])

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {
            "native": self.native.to_json(),
            "oriented": self.oriented.to_json(),
            "offset_mm": list(self.offset_mm),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Placement:
        """The inverse of `to_json`."""
        z, y, x = content["offset_mm"]
        return cls(Geometry.from_json(content["native"]), Geometry.from_json(content["oriented"]), (z, y, x))


def orient(image: sitk.Image, code: str = "LPS") -> sitk.Image:
    """Reorder and flip the axes of an image to the orientation `code`; no interpolation."""
    if Geometry.of(image).orientation == code:
        return image
    return sitk.DICOMOrient(image, code)


def orient_array(array: NDArray[Any], geometry: Geometry, code: str = "LPS") -> tuple[NDArray[Any], Geometry]:
    """`orient` for an array (z, y, x) that lies on `geometry`; an array already so oriented is not copied."""
    if geometry.orientation == code:
        return array, geometry
    plain = array.astype(np.uint8) if array.dtype == np.bool_ else array
    image = orient(geometry.apply(plain), code)
    turned = sitk.GetArrayFromImage(image)
    return (turned != 0 if array.dtype == np.bool_ else turned), Geometry.of(image)
