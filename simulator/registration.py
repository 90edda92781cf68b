"""Registering a later scan to an earlier one of the same patient: rigid, then affine, on the lungs.

SimpleITK lays the signed distances to the two lungs' surfaces on each other. What moves inside the lungs (vessels,
lesions) follows only as far as an affine map takes it. One thread and no sampling: the same input gives the
same result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from simulator.alignment import (
    Alignment,
    PlacedMask,
    centroid,
    corners,
    lungs_dice,
    sample,
    standard_alignment,
    world_alignment,
)
from standard_space.errors import DataError
from standard_space.geometry import Placement, Triple
from standard_space.grid import StandardGrid

REGISTRATION_STEP_MM = 5.0
BAND_MM = 10.0
"""Only places nearer than this to the first lungs' surface steer the registration."""
DISTANCE_LIMIT_MM = 24.0
"""Distances to a surface are cut here; farther ones say nothing of how the surfaces lie."""
MARGIN_MM = 30.0
VOLUME_LIMITS = (0.5, 2.0)
"""A registration that changes volumes more than breathing can is refused."""


@dataclass(frozen=True)
class AlignmentReport:
    """The alignment in use, and how well the lungs overlap by it.

    Parameters
    ----------
    alignment : Alignment
    lungs_dice_standard, lungs_dice_world : float
        Dice of the two lungs by the two placements, on a grid of 3 mm.
    lungs_dice_registered : float or None
        The same after registration; None when none was asked for, or it failed.
    notes : list of str
        What a reader should know; a refused registration is the first.
    """

    alignment: Alignment
    lungs_dice_standard: float
    lungs_dice_world: float
    lungs_dice_registered: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def lungs_dice(self) -> float:
        """Dice of the lungs by the alignment in use."""
        values = {
            "standard": self.lungs_dice_standard,
            "world": self.lungs_dice_world,
            "registered": self.lungs_dice_registered,
        }
        return float(values[self.alignment.kind] or 0.0)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self.alignment.to_json(),
            "lungs_dice": self.lungs_dice,
            "lungs_dice_standard": self.lungs_dice_standard,
            "lungs_dice_world": self.lungs_dice_world,
            "lungs_dice_registered": self.lungs_dice_registered,
            "notes": self.notes,
        }


def align(
    first: PlacedMask,
    other: PlacedMask,
    placements: tuple[Placement, Placement],
    grid: StandardGrid,
    *,
    register_lungs: bool = False,
) -> AlignmentReport:
    """Choose how the other scan lies on the first: of the two placements the one by which the lungs overlap more,
    or a registration that starts from it.

    A registration that makes the lungs overlap less, changes their volume by more than a factor of 2, or fails
    is refused: the placement is kept and the first note says so.

    Parameters
    ----------
    first, other : PlacedMask
        The lungs of the two scans.
    placements : tuple of Placement
        Of the first scan and of the other.
    grid : StandardGrid
        The standard grid of both.
    register_lungs : bool
        Register rigidly, then affinely.

    Raises
    ------
    DataError
        When a scan has no lungs to align.
    """
    for lungs, name in ((first, "first"), (other, "later")):
        if not lungs.mask.any():
            raise DataError(f"the {name} scan has no lungs to lay on the other's")
    standard, world = standard_alignment(), world_alignment(*placements, grid)
    by_standard, by_world = lungs_dice(first, other, standard), lungs_dice(first, other, world)
    start, before = (world, by_world) if by_world > by_standard else (standard, by_standard)
    if not register_lungs:
        return AlignmentReport(start, by_standard, by_world)
    try:
        found = register(first, other, start)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        return AlignmentReport(
            start, by_standard, by_world, None, [f"registration failed and was left out: {reason}"]
        )
    after = lungs_dice(first, other, found)
    change = abs(float(np.linalg.det(found.matrix)))
    if after < before or not VOLUME_LIMITS[0] <= change <= VOLUME_LIMITS[1]:
        note = (
            f"registration refused: the lungs' Dice went from {before:.3f} to {after:.3f}, "
            f"their volume by a factor of {change:.2f}; the scans lie as placed"
        )
        return AlignmentReport(start, by_standard, by_world, after, [note])
    return AlignmentReport(found, by_standard, by_world, after)


def register(first: PlacedMask, other: PlacedMask, start: Alignment) -> Alignment:
    """Rigid, then affine registration of the signed distances to two lungs' surfaces; one thread, no sampling,
    so the same input gives the same result.

    Raises
    ------
    RuntimeError
        When SimpleITK cannot register the two.
    """
    fixed, moving = _distance_image(first), _distance_image(other)
    band = sitk.Cast(sitk.Abs(fixed) < BAND_MM, sitk.sitkUInt8)
    placed = sitk.AffineTransform(3)
    placed.SetMatrix(start.matrix[::-1, ::-1].ravel().tolist())
    placed.SetTranslation(start.offset_mm[::-1].tolist())
    centre_mm = centroid(first)
    there_mm = centroid(other)
    back_mm = np.linalg.inv(start.matrix) @ (there_mm - start.offset_mm)
    rigid = sitk.Euler3DTransform()
    rigid.SetCenter(centre_mm[::-1].tolist())
    rigid.SetTranslation((back_mm - centre_mm)[::-1].tolist())
    _optimise(fixed, moving, band, rigid, placed)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(rigid.GetCenter())
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    _optimise(fixed, moving, band, affine, placed)
    points_mm = np.vstack([np.zeros(3), 100.0 * np.eye(3)])
    moved_mm = np.array(
        [placed.TransformPoint(affine.TransformPoint(point[::-1].tolist()))[::-1] for point in points_mm]
    )
    return Alignment("registered", ((moved_mm[1:] - moved_mm[0]) / 100.0).T, moved_mm[0])


def _optimise(
    fixed: sitk.Image, moving: sitk.Image, band: sitk.Image, transform: sitk.Transform, placed: sitk.Transform
) -> None:
    """Move `transform` (then `placed`) in place until the distances near the fixed lungs' surface agree."""
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMeanSquares()
    method.SetMetricFixedMask(band)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=0.01, numberOfIterations=150, relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )  # fmt: skip
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([3.0, 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetMovingInitialTransform(placed)
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)


def _distance_image(lungs: PlacedMask) -> sitk.Image:
    """Signed distance to the surface, mm (negative inside), with a margin."""
    step = REGISTRATION_STEP_MM
    low, high = corners(lungs).min(0) - MARGIN_MM, corners(lungs).max(0) + MARGIN_MM
    shape = tuple(int(n) for n in np.ceil((high - low) / step) + 1)
    origin: Triple = (float(low[0]), float(low[1]), float(low[2]))
    mask = sample(lungs, standard_alignment(), origin, step, shape)
    inside = ndimage.distance_transform_edt(mask, sampling=step)
    outside = ndimage.distance_transform_edt(~mask, sampling=step)
    distance = np.clip(outside - inside, -DISTANCE_LIMIT_MM, DISTANCE_LIMIT_MM)
    image = sitk.GetImageFromArray(distance.astype(np.float32))
    image.SetSpacing((step, step, step))
    image.SetOrigin(low[::-1].tolist())
    return image
