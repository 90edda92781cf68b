"""Lungs, airways and vessels by classical operations, in millimetres: found coarsely, then refined.

No weights are downloaded. The user's own lung mask, where there is one, wins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.anatomy.airways import grow_airways
from standard_space.anatomy.body import air_inside_body
from standard_space.anatomy.consolidation import Surroundings, add_solid_lung
from standard_space.anatomy.lungs import aerated_lungs
from standard_space.anatomy.morphology import (
    Spacing,
    box_count,
    close,
    dilate,
    enclosed,
    padded_box,
    reach_of,
)
from standard_space.anatomy.refine import refine_airways, refine_left, refine_lungs
from standard_space.anatomy.sides import find_left_lung, midline_x
from standard_space.anatomy.vessels import find_vessels

WORKING_SPACING_MM = 2.0
"""Masks are found at this spacing (or the native one where that is coarser)."""

AIRWAY_WALL_MM = 1.5
CLOSING_MM = 9.0
SOLID_NOTED = 0.02
CUT_MM2 = 300.0
"""A smaller section at the image's border is the trachea or noise."""
DEEP_MM, DEEP_SHARE = 12.0, 0.6
SMOOTHING_MM = 3.0
LIGHT_BELOW_HU = 20.0
"""Less dense than any organ without contrast."""
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
    notes: list[str] = []
    inner = air_inside_body(hu, spacing_mm)
    body = padded_box(inner.body, 0.0, spacing_mm)
    centre_x = hu.shape[2] / 2 if body is None else (body[2].start + body[2].stop) / 2
    airways = grow_airways(hu, inner.air, spacing_mm, centre_x)
    if lungs is None:
        aerated = aerated_lungs(hu, inner, airways, spacing_mm)
        if aerated is None:
            return None
        closed = close(aerated, CLOSING_MM, spacing_mm) & (hu < 250.0)
        closed = np.asarray(ndimage.binary_fill_holes(closed)) | aerated
        closed = _with_enclosed(hu, closed, inner.body, airways, spacing_mm)
        lungs = closed & ~airways
        if not (inner.cut & aerated).any():
            # Where the image cuts the chest, its wall is not there to tell lung from abdomen.
            middle_x = midline_x(hu, closed, inner.body, spacing_mm)
            left = lungs & (np.arange(hu.shape[2]) > middle_x)
            known = Surroundings(aerated, closed, left, airways, inner.body, middle_x)
            lungs = add_solid_lung(hu, known, spacing_mm) & ~airways
        added = 1.0 - float((closed & ~airways).sum()) / max(1.0, float(lungs.sum()))
        if added > SOLID_NOTED:
            notes.append(
                f"{added:.0%} of the lungs is solid up to the pleura: their border there is an estimate"
            )
        lungs |= airways & _deep(lungs, spacing_mm)
    if not lungs.any():
        return None
    middle_x = midline_x(hu, lungs, inner.body, spacing_mm)
    left = find_left_lung(lungs, middle_x, spacing_mm)
    near_airways = dilate(airways, AIRWAY_WALL_MM, spacing_mm)
    vessels = find_vessels(hu, lungs & ~near_airways, spacing_mm)
    return Anatomy(lungs, left, near_airways, vessels, (*notes, *_notes(lungs, left, spacing_mm)))


def _with_enclosed(
    hu: NDArray[np.float32],
    lungs: NDArray[np.bool_],
    body: NDArray[np.bool_],
    airways: NDArray[np.bool_],
    spacing_mm: Spacing,
) -> NDArray[np.bool_]:
    """Lungs with what each of them surrounds; both together would surround the heart.

    A consolidation is surrounded in two planes, or in axial slices and less dense than organs: the dome of the
    diaphragm is surrounded in axial slices, too.
    """
    box = padded_box(lungs, 2.0, spacing_mm)
    if box is None:
        return lungs
    right = np.arange(lungs.shape[2])[box[2]] <= midline_x(hu, lungs, body, spacing_mm)
    result = lungs.copy()
    part = result[box]
    sigma = [SMOOTHING_MM / s for s in spacing_mm]
    weight = ndimage.gaussian_filter((~part).astype(np.float32), sigma, truncate=2.5)
    total = ndimage.gaussian_filter(np.where(part, 0.0, hu[box]).astype(np.float32), sigma, truncate=2.5)
    light = total < LIGHT_BELOW_HU * np.maximum(weight, 0.05)
    for side in (right, ~right):
        one = part & side
        for _ in range(2):
            planes, axial = enclosed(one)
            one |= ((planes >= 2) | (axial & light)) & side & ~airways[box]
        part |= one
    return result


def _deep(lungs: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.bool_]:
    """Where lung lies all around: bronchi there belong to the lungs, main bronchi do not."""
    reach = reach_of(DEEP_MM, spacing_mm, least=1)
    return np.asarray(box_count(lungs, reach) > DEEP_SHARE * float(np.prod([2 * r + 1 for r in reach])))


def _notes(lungs: NDArray[np.bool_], left: NDArray[np.bool_], spacing_mm: Spacing) -> tuple[str, ...]:
    notes = []
    sides = {"left": int(left.sum()), "right": int(lungs.sum()) - int(left.sum())}
    small, big = sorted(sides, key=lambda name: sides[name])
    if sides[small] < ONE_LUNG_SHARE * sides[big]:
        notes.append(
            f"one lung was found: the {big} one; the {small} one is missing, solid or outside the image"
        )
    z, y, x = spacing_mm
    ends = max(int(lungs[0].sum()), int(lungs[-1].sum())) * y * x
    sides_mm2 = max(
        max(int(lungs[:, 0].sum()), int(lungs[:, -1].sum())) * z * x,
        max(int(lungs[:, :, 0].sum()), int(lungs[:, :, -1].sum())) * z * y,
    )
    if sides_mm2 > CUT_MM2:
        notes.append("the lungs touch the image's side: the field of view cuts them")
    if ends > CUT_MM2:
        notes.append("the lungs touch the image's first or last slice: the scan does not cover them")
    return tuple(notes)


def refine_anatomy(
    hu: NDArray[np.float32],
    spacing_mm: Spacing,
    coarse: Anatomy,
    user_lungs: NDArray[np.bool_] | None,
) -> Anatomy:
    """Bring masks that were found coarsely to the resolution of the image.

    Parameters
    ----------
    hu : float32 array, shape (z, y, x)
        CT oriented to LPS, HU.
    spacing_mm : tuple of float
        Voxel spacing along (z, y, x), mm.
    coarse : Anatomy
        Masks found on a coarser grid, sampled on this one.
    user_lungs : bool array, shape (z, y, x), or None
        The user's lung mask; it is kept as it is.

    Returns
    -------
    Anatomy
    """
    airways = refine_airways(hu, coarse.airways, spacing_mm)
    lungs = user_lungs
    if lungs is None:
        lungs = refine_lungs(hu, coarse.lungs, airways, spacing_mm)
    left = refine_left(lungs, coarse.lungs, coarse.left_lung, spacing_mm, far_off=user_lungs is not None)
    vessels = find_vessels(hu, lungs & ~airways, spacing_mm)
    return Anatomy(lungs, left, airways, vessels, coarse.notes)
