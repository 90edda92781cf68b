"""The standard grid: one extent in millimetres, any number of voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from standard_space.errors import UsageError


@dataclass(frozen=True)
class StandardGrid:
    """The standard embedding grid (paper III-B): 334 x 334 x 512 mm (x, y, z), `size` voxels a side.

    Parameters
    ----------
    size : int
        Voxels along each axis, 16 to 1024; the paper's is 512. Smaller grids are the same extent, coarser.

    Raises
    ------
    UsageError
        When `size` is not an integer in 16..1024.
    """

    size: int = 512

    EXTENT_MM: ClassVar[tuple[float, float, float]] = (512.0, 334.0, 334.0)
    """Extent along (z, y, x), mm."""

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or not 16 <= self.size <= 1024:
            raise UsageError("the standard grid's size is out of range", got=self.size, expected="16 to 1024")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a volume, (z, y, x)."""
        return (self.size, self.size, self.size)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along (z, y, x), mm."""
        z, y, x = self.EXTENT_MM
        return (z / self.size, y / self.size, x / self.size)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, cubic mm."""
        z, y, x = self.spacing_mm
        return z * y * x

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel, ml."""
        return self.voxel_volume_mm3 / 1000.0
