"""The inside of the rib cage on one side, from rays that run from the lung's axis to the first bone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from standard_space._jit import kernel
from standard_space.anatomy.morphology import Spacing

ANGLES = 120
REACH_MM = 200.0
ALONG_MM = 12.0
PLEURA_MIN_MM, PLEURA_SPREAD_MM = 1.0, 1.0
MIDLINE_MM = 8.0


@kernel
def _rays(wall, lung, centre, step_y, step_x, angles, reach_mm):  # type: ignore[no-untyped-def]
    """Distance along each ray of each slice to the wall, and to the outermost lung before it; NaN: none."""
    nz, ny, nx = wall.shape
    to_wall = np.full((nz, angles), np.nan)
    to_lung = np.full((nz, angles), np.nan)
    pitch = min(step_y, step_x) * 0.5
    for z in range(nz):
        if np.isnan(centre[z, 0]):
            continue
        for a in range(angles):
            c, s = np.cos(2 * np.pi * a / angles), np.sin(2 * np.pi * a / angles)
            r = 0.0
            while r < reach_mm:
                y = int(np.floor(centre[z, 0] + s * r / step_y + 0.5))
                x = int(np.floor(centre[z, 1] + c * r / step_x + 0.5))
                if y < 0 or y >= ny or x < 0 or x >= nx:
                    break
                if wall[z, y, x]:
                    to_wall[z, a] = r
                    break
                if lung[z, y, x]:
                    to_lung[z, a] = r
                r += pitch
    return to_wall, to_lung


def depth_inside(
    wall: NDArray[np.bool_], lung: NDArray[np.bool_], middle_x: float, left: bool, spacing_mm: Spacing
) -> NDArray[np.float32]:
    """How deep each voxel lies below the costal pleura of one side, along its ray.

    Parameters
    ----------
    wall : bool array, shape (z, y, x)
        Ribs, spine and sternum with the gaps between them closed.
    lung : bool array, shape (z, y, x)
        What is known of this side's lung; not empty.
    middle_x : float
        Column of the midline.
    left : bool
        Whether this is the patient's left side.
    spacing_mm : tuple of float
        Voxel spacing along (z, y, x), mm.

    Returns
    -------
    float32 array, shape (z, y, x), mm
        Negative outside and beyond the midline.
    """
    ny, nx = lung.shape[1:]
    centre = _axis(lung, spacing_mm)
    to_wall, to_lung = _rays(wall, lung, centre, spacing_mm[1], spacing_mm[2], ANGLES, REACH_MM)
    radius = _smooth_wall(to_wall, spacing_mm) - _pleura(to_wall, to_lung, spacing_mm)
    depth = np.full(lung.shape, -1.0, np.float32)
    y, x = np.arange(ny)[:, None], np.arange(nx)[None, :]
    for z in np.flatnonzero(~np.isnan(centre[:, 0])):
        dy, dx = (y - centre[z, 0]) * spacing_mm[1], (x - centre[z, 1]) * spacing_mm[2]
        angle = np.arctan2(dy, dx) * (ANGLES / (2 * np.pi))
        low = np.floor(angle).astype(np.int64)
        share = angle - low
        limit = (1 - share) * radius[z, low % ANGLES] + share * radius[z, (low + 1) % ANGLES]
        depth[z] = limit - np.hypot(dy, dx)
    beyond = np.arange(nx) <= middle_x + MIDLINE_MM / spacing_mm[2]
    if not left:
        beyond = np.arange(nx) >= middle_x - MIDLINE_MM / spacing_mm[2]
    depth[:, :, beyond] = -1.0
    return depth


def _axis(lung: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.float64]:
    """Where the rays of each slice start, (z, 2) as (y, x); NaN above the lung.

    Below its widest section the lung is a crescent around the diaphragm: there the axis goes straight on.
    """
    area = lung.sum(axis=(1, 2)).astype(np.float64)
    top = int(np.flatnonzero(area)[-1])
    widest = int(ndimage.gaussian_filter1d(area, ALONG_MM / spacing_mm[0]).argmax())
    reach = max(1, round(ALONG_MM / spacing_mm[0]))
    rows, columns = lung.sum(axis=2, dtype=np.float64), lung.sum(axis=1, dtype=np.float64)
    y, x = np.arange(lung.shape[1]), np.arange(lung.shape[2])
    centre = np.full((lung.shape[0], 2), np.nan)
    for z in range(top + 1):
        near = slice(max(0, max(z, widest) - reach), max(z, widest) + reach + 1)
        of_y, of_x = rows[near].sum(axis=0), columns[near].sum(axis=0)
        if of_y.sum() > 0:
            centre[z] = (of_y @ y) / of_y.sum(), (of_x @ x) / of_x.sum()
    return centre


def _smooth_wall(to_wall: NDArray[np.float64], spacing_mm: Spacing) -> NDArray[np.float64]:
    """Rays that slip out between ribs are held back by their neighbours, and missing ones filled."""
    known = ~np.isnan(to_wall)
    sigma = (ALONG_MM / spacing_mm[0], 3.0)
    modes = ("nearest", "wrap")
    wide = (2 * sigma[0], 10.0)
    far_weight = ndimage.gaussian_filter(known.astype(np.float64), wide, mode=modes)
    far = ndimage.gaussian_filter(np.where(known, to_wall, 0.0), wide, mode=modes) / np.maximum(
        far_weight, 1e-3
    )
    weight = ndimage.gaussian_filter(known.astype(np.float64), sigma, mode=modes)
    mean = ndimage.gaussian_filter(np.where(known, to_wall, 0.0), sigma, mode=modes) / np.maximum(
        weight, 1e-3
    )
    # The cartilage in front is no bone: there the wall is taken from farther off.
    mean = np.where(weight > 0.1, mean, np.where(far_weight > 0.02, far, 0.0))
    radius = np.where(known, np.minimum(to_wall, mean + 6.0), mean)
    length = 2 * max(1, round(ALONG_MM / spacing_mm[0])) + 1
    median = ndimage.median_filter(np.pad(radius, ((0, 0), (2, 2)), mode="wrap"), (length, 5))[:, 2:-2]
    return np.minimum(radius, median + 3.0)


def _pleura(
    to_wall: NDArray[np.float64], to_lung: NDArray[np.float64], spacing_mm: Spacing
) -> NDArray[np.float64]:
    """Thickness between bone and lung, mm: the usual one, for where lung is solid it cannot be measured."""
    gap = to_wall - to_lung
    seen = ~np.isnan(gap)
    if not seen.any():
        return np.full(to_wall.shape, PLEURA_MIN_MM)
    usual = float(np.percentile(gap[seen], 15))
    along, around = max(1, round(25.0 / spacing_mm[0])), ANGLES // 12
    padded = np.pad(np.where(seen, gap, REACH_MM), ((0, 0), (around, around)), mode="wrap")
    local = ndimage.percentile_filter(padded, 20, (2 * along + 1, 2 * around + 1))[:, around:-around]
    local = np.clip(local, PLEURA_MIN_MM, usual + PLEURA_SPREAD_MM)
    return ndimage.gaussian_filter(local, (3.0, 3.0), mode=("nearest", "wrap"))
