"""Five-slice views of a volume: stacks of parallel slices at fixed millimetre offsets.

Orientation of the planes (volume axes are z, y, x):

====  ==========  ============  =============
view  normal      rows (H)      columns (W)
====  ==========  ============  =============
xy    z (axis 0)  y             x
yz    x (axis 2)  z             y
xz    y (axis 1)  z             x
====  ==========  ============  =============
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from standard_space.errors import UsageError

OFFSETS_MM: tuple[float, ...] = (-5.0, -2.0, 0.0, 2.0, 5.0)
"""Distances of the five slices from the central one, in mm [paper III-D]."""

VIEWS: tuple[str, ...] = ("xy", "yz", "xz")

_NORMAL_AXIS = {"xy": 0, "yz": 2, "xz": 1}
_PLANE_AXES = {"xy": (1, 2), "yz": (0, 1), "xz": (0, 2)}


def normal_axis(view: str) -> int:
    """Return the volume axis (0 = z, 1 = y, 2 = x) that a view's slices are stacked along.

    Raises
    ------
    UsageError
        The view is not one of ``VIEWS``.
    """
    if view not in _NORMAL_AXIS:
        raise UsageError("unknown view", got=view, expected=", ".join(VIEWS))
    return _NORMAL_AXIS[view]


def plane_axes(view: str) -> tuple[int, int]:
    """Return the volume axes of a view's rows and columns.

    Raises
    ------
    UsageError
        The view is not one of ``VIEWS``.
    """
    normal_axis(view)
    return _PLANE_AXES[view]


def as_planes(volume: Tensor, view: str) -> Tensor:
    """Return a (z, y, x) volume as (slices, H, W) of one view, without copying.

    Writing to the result writes to the volume. See the table of this module for the orientation.
    """
    return volume.permute(normal_axis(view), *plane_axes(view))


def stacks(
    volume: Tensor,
    view: str,
    indices: Iterable[int],
    spacing_mm: Sequence[float],
    air: float,
    *,
    offsets_mm: Sequence[float] = OFFSETS_MM,
    rows: slice = slice(None),
    columns: slice = slice(None),
) -> Tensor:
    """Gather stacks of parallel slices around central slices [paper III-D].

    Slices are interpolated linearly along the view's normal, so that every grid, however coarse, gives
    slices that differ. Slices beyond the volume are air, and interpolation across the edge blends into it.

    Parameters
    ----------
    volume : Tensor
        (z, y, x), floating point, signal; on any device.
    view : str
        One of ``VIEWS``.
    indices : iterable of int
        The B central slices, 0 <= index < number of slices along the view's normal.
    spacing_mm : sequence of float
        The grid's spacing in mm, (z, y, x).
    air : float
        Signal of air (``Scan.air_signal``).
    offsets_mm : sequence of float
        Distances of the slices from the central one, in mm.
    rows, columns : slice
        Part of the plane to gather, in voxels.

    Returns
    -------
    Tensor
        (B, len(offsets_mm), H, W), dtype and device of ``volume``.

    Raises
    ------
    UsageError
        Unknown view, a volume that is not 3-D, or an index outside the volume.
    """
    if volume.ndim != 3:
        raise UsageError("a view needs a 3-D volume", got=tuple(volume.shape))
    axis = normal_axis(view)
    planes = as_planes(volume, view)[:, rows, columns]
    count = planes.shape[0]
    wanted = [int(index) for index in indices]
    if any(not 0 <= index < count for index in wanted):
        raise UsageError("slice index outside the volume", got=wanted, expected=f"0 to {count - 1}")
    centre = torch.tensor(wanted, dtype=torch.long, device=volume.device)
    out = volume.new_empty((centre.numel(), len(offsets_mm), *planes.shape[1:]))
    for channel, offset_mm in enumerate(offsets_mm):
        shift = offset_mm / spacing_mm[axis]
        lower = math.floor(shift)
        weight = shift - lower
        slices = _planes_or_air(planes, centre + lower, air)
        if weight > 0.0:
            slices = torch.lerp(slices, _planes_or_air(planes, centre + (lower + 1), air), weight)
        out[:, channel] = slices
    return out


def slab_of(planes: Tensor, start: int, stop: int, furthest: int, air: float) -> Tensor:
    """Copy neighbouring slices and those that their stacks need; air where the volume ends.

    Parameters
    ----------
    planes : Tensor (slices, H, W)
        See `as_planes`.
    start, stop : int
        The central slices.
    furthest : int
        Slices kept at either side of them.
    air : float
        Signal of air.

    Returns
    -------
    Tensor (stop - start + 2 * furthest, H, W)
        Contiguous; slice `start` of the volume is slice `furthest` of it.
    """
    first, last = max(start - furthest, 0), min(stop + furthest, planes.shape[0])
    slab = planes.new_empty((stop - start + 2 * furthest, *planes.shape[1:]))
    before = first - (start - furthest)
    slab[:before] = air
    slab[before : before + last - first] = planes[first:last]
    slab[before + last - first :] = air
    return slab


def stacks_of_slab(
    slab: Tensor,
    start: int,
    stop: int,
    spacing_mm: float,
    *,
    offsets_mm: Sequence[float] = OFFSETS_MM,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Stack the slices around neighbouring central ones; the same stacks as those of `stacks`, without gathering.

    Parameters
    ----------
    slab : Tensor (slices, H, W)
        With at least ceil(largest offset / spacing) slices beyond `start` and `stop`; see `slab_of`.
    start, stop : int
        The central slices, in the slab.
    spacing_mm : float
        Along the slab.
    offsets_mm : sequence of float
        Distances of the slices from the central one, in mm.
    dtype : torch.dtype
        Of the result; interpolation is done in that of the slab.

    Returns
    -------
    Tensor (stop - start, len(offsets_mm), H, W)
        Channels-last.
    """
    shape = (stop - start, len(offsets_mm), *slab.shape[1:])
    out = torch.empty(shape, dtype=dtype, device=slab.device, memory_format=torch.channels_last)
    for channel, offset_mm in enumerate(offsets_mm):
        shift = offset_mm / spacing_mm
        lower = math.floor(shift)
        weight = shift - lower
        slices = slab[start + lower : stop + lower]
        if weight > 0.0:
            slices = torch.lerp(slices, slab[start + lower + 1 : stop + lower + 1], weight)
        out[:, channel] = slices
    return out


def _planes_or_air(planes: Tensor, indices: Tensor, air: float) -> Tensor:
    """Return copies of the planes at the indices; those outside the volume are filled with air."""
    count = planes.shape[0]
    chosen = planes[indices.clamp(0, count - 1)]
    outside = (indices < 0) | (indices >= count)
    return chosen.masked_fill_(outside[:, None, None], air)
