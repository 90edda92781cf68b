"""A scan without the paper's normalisation: what the ablation takes away (Table VII)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from standard_space.geometry import Geometry, Placement, orient_array
from standard_space.lanczos import resample
from standard_space.masks import resample_mask
from standard_space.restore import restore_mask, restore_volume
from standard_space.scan import Scan
from standard_space.window import AIR_HU, Window


def unnormalised(scan: Scan) -> Scan:
    """Return a scan whose image was put into the grid without knowing its millimetres, HU or lungs.

    The scan's own image (brought back from the standard grid) is stretched along each axis until it fills the
    grid, whatever its voxels' size and field of view, and its signal runs from -0.5 at its darkest to 0.5 at its
    brightest voxel. Only the order and direction of the axes are kept. Masks go the same way, and so does the way
    back: a prediction returns to the same native voxels as that of the scan itself.

    Parameters
    ----------
    scan : Scan
        Embedded as usual.

    Returns
    -------
    Scan
        On the same grid; its geometry's millimetres are those of the grid, not of the patient.
    """
    grid, true = scan.grid, scan.placement
    hu = restore_volume(scan.window.to_hu(scan.signal), true, fill=AIR_HU)
    placement = _stretched(true, grid.size, grid.spacing_mm)
    oriented, _ = orient_array(hu, true.native)
    start, step = placement.to_standard(grid)
    low, high = float(hu.min()), float(hu.max())
    # The kernel overshoots at edges.
    stretched = resample(np.ascontiguousarray(oriented), grid.shape, start, step, fill=AIR_HU).clip(low, high)
    window = Window((low + high) / 2.0, max(high - low, 1.0), "image")

    native_lungs = restore_mask(scan.lungs, true) if scan.native_lungs is None else scan.native_lungs
    native_infection = scan.native_infection
    if native_infection is None and scan.infection is not None:
        native_infection = restore_mask(scan.infection, true)

    def moved(mask: np.ndarray) -> np.ndarray:
        turned, _ = orient_array(mask, true.native)
        return resample_mask(np.ascontiguousarray(turned), grid.shape, start, step)

    nothing = np.zeros(grid.shape, np.bool_)
    return replace(
        scan,
        signal=((stretched - window.level_hu) / window.width_hu).astype(np.float32),
        lungs=moved(native_lungs),
        airways=nothing,
        vessels=nothing,
        infection=None if native_infection is None else moved(native_infection),
        window=window,
        placement=placement,
        native_infection=native_infection,
        native_lungs=native_lungs,
        left_lung=None,
        lobes=None,
    )


def _stretched(true: Placement, size: int, spacing_mm: tuple[float, float, float]) -> Placement:
    """Return the placement of an image that fills the grid: its voxels' millimetres are made up."""
    native, oriented = (
        _filling(geometry, true, size, spacing_mm) for geometry in (true.native, true.oriented)
    )
    made_up = oriented.spacing_mm[::-1]
    z, y, x = ((grid - own) / 2.0 for grid, own in zip(spacing_mm, made_up, strict=True))
    return Placement(native, oriented, (z, y, x))


def _filling(
    geometry: Geometry, true: Placement, size: int, spacing_mm: tuple[float, float, float]
) -> Geometry:
    """Return a geometry with the spacing, (x, y, z) of its own axes, that makes it fill the standard extent."""
    world = np.abs(np.asarray(geometry.direction).reshape(3, 3))
    lps = np.abs(np.asarray(true.oriented.direction).reshape(3, 3))
    # Which oriented axis each stored axis runs along.
    axes = (lps.T @ world).argmax(axis=0)
    extents_mm = [size * side for side in spacing_mm[::-1]]
    x, y, z = (extents_mm[axis] / count for axis, count in zip(axes, geometry.size, strict=True))
    return replace(geometry, spacing_mm=(x, y, z))
