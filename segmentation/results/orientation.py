"""Arrays of any orientation seen in LPS order, without a copy."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from standard_space.geometry import Geometry, orient

Value = TypeVar("Value", bound=np.generic)


def lps_view(array: NDArray[Value], geometry: Geometry) -> NDArray[Value]:
    """View an array (z, y, x) that lies on `geometry` in the axis order and sense nearest to LPS.

    The voxels are those of `standard_space.geometry.orient_array`; what is written into the view is written into
    the array.
    """
    order, flipped = _axes(geometry)
    return array.transpose(order)[tuple(slice(None, None, -1 if flip else None) for flip in flipped)]


def lps_spacing_mm(geometry: Geometry) -> tuple[float, float, float]:
    """Voxel spacing along the axes (z, y, x) of `lps_view`, mm."""
    z, y, x = (geometry.spacing_mm[2 - axis] for axis in _axes(geometry)[0])
    return z, y, x


def _axes(geometry: Geometry) -> tuple[list[int], list[bool]]:
    """Which axis of the array each axis (z, y, x) of the view is, and whether it runs backwards."""
    one = Geometry((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), geometry.direction)
    turned = Geometry.of(orient(one.apply(np.zeros((1, 1, 1), np.uint8))))
    native, lps = (np.reshape(g.direction, (3, 3)) for g in (geometry, turned))
    # Cosines between the axes, both in (z, y, x) order.
    cosines = (lps.T @ native)[::-1, ::-1]
    order = np.abs(cosines).argmax(axis=1)
    return order.tolist(), [bool(cosines[axis, order[axis]] < 0) for axis in range(3)]
