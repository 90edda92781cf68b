"""Lungs, airways and vessels by classical operations, in millimetres: found coarsely, refined on the standard grid.

No weights are downloaded. The user's own lung mask, where there is one, wins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.airways import grow_airways
from standard_space.body import InnerAir, air_inside_body
from standard_space.lungs import aerated_lungs
from standard_space.morphology import Spacing, close, dilate, padded_box
from standard_space.sides import find_left_lung, midline_x
from standard_space.vessels import find_vessels

WORKING_SPACING_MM = 2.0
"""Masks are found at this spacing (or the native one where that is coarser)."""

AIRWAY_WALL_MM = 1.5
CLOSING_MM = 9.0
ONE_LUNG_SHARE = 0.12
"""A side with less than this share of the other's volume counts as missing."""


class Anatomy(NamedTuple):
    """Masks of one volume, bool (z, y, x).

    `lungs` excludes trachea and main bronchi and includes vessels; `left_lung` is the part of it that is the
    patient's left lung. `notes` tell a user what to look at.
    """

    lungs: NDArray[np.bool_]
    left_lung: NDArray[np.bool_]
    airways: NDArray[np.bool_]
    vessels: NDArray[np.bool_]
    notes: tuple[str, ...] = ()


def find_anatomy(
    hu: NDArray[np.float32], spacing_mm: Spacing, lungs: NDArray[np.bool_] | None = None
) -> Anatomy | None:
    """Find lungs, airways and vessels.

    Parameters
    ----------
    hu : float32 array, shape (z, y, x)
        CT oriented to LPS, HU.
    spacing_mm : tuple of float
        Voxel spacing along (z, y, x), mm.
    lungs : bool array, shape (z, y, x), optional
        The user's lung mask; it is kept, and only sides, airways and vessels are found.

    Returns
    -------
    Anatomy, or None when no lungs are found.
    """
    inner = air_inside_body(hu, spacing_mm)
    body = padded_box(inner.body, 0.0, spacing_mm)
    centre_x = hu.shape[2] / 2 if body is None else (body[2].start + body[2].stop) / 2
    airways = grow_airways(hu, inner.air, spacing_mm, centre_x)
    if lungs is None:
        aerated = aerated_lungs(hu, inner, airways, spacing_mm)
        if aerated is None:
            return None
        lungs = close(aerated, CLOSING_MM, spacing_mm) & (hu < 250.0)
        lungs = (np.asarray(ndimage.binary_fill_holes(lungs)) | aerated) & ~airways
    if not lungs.any():
        return None
    middle_x = midline_x(hu, lungs, inner.body, spacing_mm)
    left = find_left_lung(lungs, middle_x, spacing_mm)
    near_airways = dilate(airways, AIRWAY_WALL_MM, spacing_mm)
    vessels = find_vessels(hu, lungs & ~near_airways, spacing_mm)
    return Anatomy(lungs, left, near_airways, vessels, _notes(lungs, left, inner))


def _notes(lungs: NDArray[np.bool_], left: NDArray[np.bool_], inner: InnerAir) -> tuple[str, ...]:
    notes = []
    sides = {"left": int(left.sum()), "right": int(lungs.sum()) - int(left.sum())}
    small, big = sorted(sides, key=lambda name: sides[name])
    if sides[small] < ONE_LUNG_SHARE * sides[big]:
        notes.append(
            f"one lung was found: the {big} one; the {small} one is missing, solid or outside the image"
        )
    edges = (lungs[:, 0], lungs[:, -1], lungs[:, :, 0], lungs[:, :, -1])
    if any(edge.any() for edge in edges):
        notes.append("the lungs touch the image's side: the field of view is cropped")
    if lungs[0].any() or lungs[-1].any():
        notes.append("the lungs touch the image's first or last slice: the scan does not cover them")
    return tuple(notes)


def refine_anatomy(
    hu: NDArray[np.float32], spacing_mm: Spacing, coarse: Anatomy, user_lungs: NDArray[np.bool_] | None
) -> Anatomy:
    """TEMP."""
    return (
        coarse
        if user_lungs is None
        else coarse._replace(lungs=user_lungs, left_lung=coarse.left_lung & user_lungs)
    )
