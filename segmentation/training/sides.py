"""Right and left lung of a scan whose file does not tell them apart."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from standard_space.anatomy.sides import find_left_lung, midline_x

RIGHT, LEFT = 1, 2

BODY_HU = -400.0
LARGE_SHARE = 0.1
"""A connected part of at least this share of the lungs is a lung, or both of them."""

ONE_LUNG_MM = 180.0
"""Both lungs of an adult, grown together, are wider than this; one lung is not."""

Flags = NDArray[np.bool_]


def labelled_sides(lungs: Flags, left: Flags) -> Tensor:
    """Return uint8 (z, y, x): 0 outside, 1 right lung, 2 left lung."""
    return torch.from_numpy(lungs.astype(np.uint8) * RIGHT + (lungs & left).astype(np.uint8))


def left_lung_in(
    lungs: Flags, hu: NDArray[np.float32], spacing_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """Find the left lung: the part of the lungs to the left of the spine, see `find_left_lung`.

    A single lung stays whole.

    Parameters
    ----------
    lungs : bool (z, y, x)
        With at least one voxel.
    hu : float32 (z, y, x)
        Of the same box.
    spacing_mm : tuple of float
        (z, y, x).
    """
    middle_x = midline_x(hu, lungs, hu > BODY_HU, spacing_mm)
    labels, _ = ndimage.label(lungs)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    large = np.flatnonzero(sizes >= LARGE_SHARE * sizes.sum())
    columns = np.flatnonzero((labels == large[0]).any(axis=(0, 1)))
    if large.size == 1 and columns.size * spacing_mm[2] < ONE_LUNG_MM:
        return lungs if np.nonzero(lungs)[2].mean() > middle_x else np.zeros_like(lungs)
    return find_left_lung(lungs, middle_x, spacing_mm)
