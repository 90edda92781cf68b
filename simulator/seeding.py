"""Starting an infection where there is none: small seeds in susceptible tissue, near the pleura by default."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.errors import DataError, UsageError
from standard_space.scan import Scan

Where = Literal["subpleural", "anywhere"]
SUBPLEURAL_MM = 15.0
"""How far from the pleura a subpleural seed may be centred, mm."""

RADIUS_SPREAD = 0.4
"""Standard deviation of the log of the seeds' radii: volumes spread over more than a factor of ten, as those of
real components do (50 annotated CTs: median component 0.7 ml, the largest more than half of the lesion)."""

BALLS = 12
BALL_RADII = (0.25, 0.7)
PATCH_WIDTH = 1.6
"""A seed is a patch of balls: their radii, and the standard deviation of their places, in units of the seed's
radius. One ball would grow into a round nodule; neighbours flow together into a patch with an uneven outline."""

_LATTICE_MM = 2.0
"""Subpleural depth is measured on a lattice about this fine: every eighteenth voxel of 512^3."""


def seed_infection(
    scan: Scan, seeds: int, *, where: Where = "subpleural", radius_mm: float = 4.0, seed: int = 0
) -> NDArray[np.bool_]:
    """Draw seeds of a new infection: patches of unequal size around random places.

    Every seed is a patch of `BALLS` small balls, cut to susceptible tissue; the radius of the ball that would hold
    as much is lognormal (`RADIUS_SPREAD`) around `radius_mm`. A centre is always infected, so no seed is empty.

    Parameters
    ----------
    scan : Scan
        Any embedded scan; its own annotation is left out of the draw.
    seeds : int
        Number of seeds, 1 or more. Seeds may touch.
    where : {"subpleural", "anywhere"}
        Centred within 15 mm of the pleura in the lower two thirds of the lungs, the surfaces that face the space
        between the lungs left out; or anywhere in susceptible tissue.
    radius_mm : float
        Median radius of the seeds, mm, as if they were balls. Twelve seeds of 4 mm hold about 5 ml.
    seed : int
        Seed of the draw.

    Returns
    -------
    bool array, shape (z, y, x)
        Susceptible voxels within the seeds.

    Raises
    ------
    UsageError
        When the number of seeds or the radius is not positive, or `where` is unknown.
    DataError
        When the scan has no room for the seeds.

    Notes
    -----
    Early COVID-19 opacities are bilateral, peripheral and basal (Radiology 2020;295:202-207); `subpleural` puts
    seeds there.
    """
    if seeds < 1:
        raise UsageError("the number of seeds is too small", got=seeds, expected="1 or more")
    if not (np.isfinite(radius_mm) and radius_mm > 0):
        raise UsageError("the seeds' radius is not positive", got=radius_mm, expected="millimetres above 0")
    if where not in get_args(Where):
        raise UsageError("unknown place of seeds", got=where, expected=" or ".join(get_args(Where)))
    allowed = scan.lungs & ~scan.airways & ~scan.vessels
    if scan.infection is not None:
        allowed &= ~scan.infection
    places = _subpleural(scan, allowed) if where == "subpleural" else np.flatnonzero(allowed)
    if places.size < seeds:
        raise DataError(
            "the lungs have no room for the seeds",
            where=scan.name,
            got=f"{places.size} places",
            expected=seeds,
            remedy=None if where == "anywhere" else "try `--where anywhere`, or look at the lung mask",
        )
    rng = np.random.default_rng([seed, 0x5EED])
    centres = np.sort(rng.choice(places, seeds, replace=False))
    result = np.zeros(allowed.shape, np.bool_)
    for voxel in centres:
        middle_mm = np.array(np.unravel_index(voxel, allowed.shape)) * scan.grid.spacing_mm
        size_mm = radius_mm * np.exp(RADIUS_SPREAD * rng.standard_normal())
        shifts_mm = PATCH_WIDTH * size_mm * rng.standard_normal((BALLS, 3))
        radii_mm = size_mm * rng.uniform(*BALL_RADII, BALLS)
        for shift_mm, ball_mm in zip(shifts_mm, radii_mm, strict=True):
            _draw_ball(result, middle_mm + shift_mm, ball_mm, scan.grid.spacing_mm)
    result.ravel()[centres] = True
    return result & allowed


def _draw_ball(
    mask: NDArray[np.bool_],
    middle_mm: NDArray[np.float64],
    radius_mm: float,
    spacing_mm: tuple[float, float, float],
) -> None:
    """Set the voxels whose centre lies within a ball."""
    box, parts = [], []
    for at, step, size in zip(middle_mm, spacing_mm, mask.shape, strict=True):
        first = min(max(int(np.ceil((at - radius_mm) / step)), 0), size)
        last = min(max(int(np.floor((at + radius_mm) / step)) + 1, first), size)
        box.append(slice(first, last))
        parts.append((np.arange(first, last) * step - at) ** 2)
    inside = parts[0][:, None, None] + parts[1][None, :, None] + parts[2][None, None, :] <= radius_mm**2
    mask[tuple(box)] |= inside


def _subpleural(scan: Scan, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Flat indices of the places where a subpleural seed may be centred (on the lattice)."""
    levels = np.flatnonzero(scan.lungs.any(axis=(1, 2)))
    if levels.size == 0:
        return np.zeros(0, np.int64)
    top = levels[0] + int(np.ceil(2 / 3 * (levels[-1] - levels[0])))
    strides = [max(1, round(_LATTICE_MM / s)) for s in scan.grid.spacing_mm]
    sampling_mm = [stride * s for stride, s in zip(strides, scan.grid.spacing_mm, strict=True)]
    lattice = tuple(slice(None, None, stride) for stride in strides)
    lungs = np.pad(scan.lungs[lattice], 1)  # lung at the border of the volume counts as pleura
    depth_mm, nearest = ndimage.distance_transform_edt(lungs, sampling=sampling_mm, return_indices=True)
    # Outside, with lung on either side of it: mediastinum, hilum, vertebral bodies, dome of the diaphragm.
    between = (
        np.maximum.accumulate(lungs, axis=2) & np.maximum.accumulate(lungs[:, :, ::-1], axis=2)[:, :, ::-1]
    )
    costal = ~(between & ~lungs)[tuple(nearest)]
    inner = (slice(1, -1),) * 3
    good = (depth_mm <= SUBPLEURAL_MM)[inner] & costal[inner] & allowed[lattice]
    found = np.argwhere(good) * strides
    found = found[found[:, 0] <= top]
    return np.asarray(np.ravel_multi_index(tuple(found.T), allowed.shape), np.int64)
