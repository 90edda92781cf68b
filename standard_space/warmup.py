"""Compile every kernel of this package before worker processes start (numba#4807: they must not race to)."""

from __future__ import annotations

import numpy as np

from standard_space.embedding import embed
from standard_space.geometry import Geometry
from standard_space.grid import StandardGrid
from standard_space.image import CTImage


def warm_up() -> None:
    """Embed a crude chest, so that all kernels lie compiled in Numba's cache.

    One lung is lined by solid tissue inside a ring of bone, so that the search for solid lung runs, too.
    """
    spacing = 6.0
    shape = (52, 54, 64)
    z, y, x = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * spacing for n in shape), indexing="ij")
    hu = np.full(shape, -1000.0, np.float32)
    hu[(x / 170) ** 2 + (y / 130) ** 2 < 1] = 40.0
    for side in (-1, 1):
        hu[((x - side * 75) / 55) ** 2 + (y / 80) ** 2 + (z / 120) ** 2 < 1] = -850.0
    ring = (x / 150) ** 2 + (y / 105) ** 2
    hu[(ring > 0.85) & (ring < 1.0)] = 600.0
    size = (shape[2], shape[1], shape[0])
    where = Geometry(size, (spacing,) * 3, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    embed(CTImage(hu, where), StandardGrid(32), require_lungs=False)
