"""Starting an infection where there is none: small seeds in susceptible tissue, near the pleura by default."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.errors import DataError, UsageError
from standard_space.scan import Scan

Where = Literal["subpleural", "anywhere"]
SUBPLEURAL_MM = 15.0


def seed_infection(
    scan: Scan, seeds: int, *, where: Where = "subpleural", radius_mm: float = 6.0, seed: int = 0
) -> NDArray[np.bool_]:
    """Draw seeds of a new infection.

    Parameters
    ----------
    scan : Scan
        Any embedded scan; its own annotation is left out of the draw.
    seeds : int
        Number of seeds, 1 or more.
    where : {"subpleural", "anywhere"}
        Within 15 mm of the pleura in the lower two thirds of the lungs, or anywhere in susceptible tissue.
    radius_mm : float
        Radius of a seed, mm.
    seed : int
        Seed of the draw.

    Returns
    -------
    bool array, shape (z, y, x)
        Susceptible voxels within the seeds.

    Raises
    ------
    UsageError
        When the number of seeds or the radius is not positive.
    DataError
        When the scan has no room for a seed.
    """
    if seeds < 1:
        raise UsageError("the number of seeds is too small", got=seeds, expected="1 or more")
    if not radius_mm > 0:
        raise UsageError("the seeds' radius is not positive", got=radius_mm, expected="millimetres above 0")
    allowed = scan.lungs & ~scan.airways & ~scan.vessels
    if scan.infection is not None:
        allowed &= ~scan.infection
    candidates = allowed
    if where == "subpleural" and scan.lungs.any():
        depth_mm = ndimage.distance_transform_edt(scan.lungs, sampling=scan.grid.spacing_mm)
        levels = np.flatnonzero(scan.lungs.any(axis=(1, 2)))
        top = levels[0] + int(np.ceil(2 / 3 * (levels[-1] - levels[0])))
        candidates = allowed & (depth_mm <= SUBPLEURAL_MM)
        candidates[top + 1 :] = False
    index = np.flatnonzero(candidates)
    if index.size < seeds:
        raise DataError(
            "the lungs have no room for the seeds",
            where=scan.name,
            got=f"{index.size} places",
            expected=seeds,
        )
    chosen = np.random.default_rng([seed, 0x5EED]).choice(index, seeds, replace=False)
    centres = np.zeros(allowed.shape, np.bool_)
    centres.ravel()[chosen] = True
    distance_mm = ndimage.distance_transform_edt(~centres, sampling=scan.grid.spacing_mm)
    return np.asarray(allowed & (distance_mm <= radius_mm))
