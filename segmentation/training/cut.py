"""A scan cut to what training needs of it: half-precision signal, truth, and where the loss counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor

from segmentation.signal import REFERENCE_WINDOW, input_air, input_signal
from segmentation.training.sides import labelled_sides, left_lung_in
from segmentation.views import VIEWS, plane_axes
from simulator.synthetic_crop import SyntheticCrop
from standard_space.errors import DataError
from standard_space.scan import Scan
from standard_space.window import Window

MARGIN_MM = 40.0
"""Kept around the lungs when a scan is cut for the infection."""

LUNG_RIM_MM = 6.0
"""The loss counts the lungs and this rim around them: nothing further out is ever used."""

BYTES_PER_VOXEL = 4
"""Of a cut scan; one more where right and left lung are kept."""

TYPICAL_SHARE = {"infection": 0.6, "lungs": 1.0}
"""Share of the standard extent that a cut scan takes: lungs of 260 x 200 x 280 mm and the margin."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class CutScan:
    """What training needs of a scan: for the infection the lungs' bounding box and `MARGIN_MM`, else all of it.

    Attributes
    ----------
    signal : float16 Tensor (z, y, x)
    truth, counted : bool Tensor (z, y, x)
        What is to be found, and where the loss counts.
    spacing_mm : tuple of float
        (z, y, x).
    air : float
        Signal of air.
    slices, positive_slices : dict of str to int array
        Slices of each view that may be drawn, and those of them that meet the truth.
    lungs : uint8 Tensor (z, y, x) or None
        1 right lung, 2 left lung, 0 elsewhere; only where it was asked for.
    """

    signal: Tensor
    truth: Tensor
    counted: Tensor
    spacing_mm: tuple[float, float, float]
    air: float
    slices: dict[str, NDArray[np.intp]]
    positive_slices: dict[str, NDArray[np.intp]]
    lungs: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the volumes."""
        return self.signal.numel() * bytes_per_voxel(self.lungs is not None)


def bytes_per_voxel(sides: bool) -> int:
    """Return the memory of a cut scan's voxel, with right and left lung or without."""
    return BYTES_PER_VOXEL + (1 if sides else 0)


def cut_scan(
    scan: Scan,
    target: str = "infection",
    input_window: Window | None = REFERENCE_WINDOW,
    *,
    sides: bool = False,
) -> CutScan:
    """Cut a scan to what training for a target needs.

    Parameters
    ----------
    sides : bool
        Keep right and left lung; where the scan does not tell them apart, see `left_lung_in`.

    Raises
    ------
    DataError
        The scan has no lungs, or no annotation where infection is the target.
    """
    if not scan.lungs.any():
        raise DataError("it has no lungs", where=scan.name)
    signal, air = input_signal(scan, input_window), input_air(scan, input_window)
    if target == "lungs":
        everywhere = np.ones(scan.grid.shape, np.bool_)
        return _cut(signal, scan.lungs, everywhere, everywhere, scan.grid.spacing_mm, air)
    if scan.infection is None:
        raise DataError("it has no infection annotation", where=scan.name)
    spacing = scan.grid.spacing_mm
    box = _box(scan.lungs | scan.infection, spacing)
    cut = _cut_infection(signal[box], scan.lungs[box], scan.infection[box], spacing, air)
    if not sides:
        return cut
    left = scan.left_lung
    if left is None:
        left = left_lung_in(scan.lungs, _hu(scan.signal, scan.window), spacing)
    return replace(cut, lungs=labelled_sides(scan.lungs[box], left[box]))


def cut_crop(
    crop: SyntheticCrop,
    own: Window,
    input_window: Window | None = REFERENCE_WINDOW,
    *,
    sides: bool = False,
) -> CutScan:
    """Cut a volume of a `ProgressionSampler`, made with a margin of `MARGIN_MM`, for the infection.

    Parameters
    ----------
    own : Window
        Of the crop's source.
    sides : bool
        Keep right and left lung.
    """
    seen = own if input_window is None else input_window
    scale = np.float32(own.width_hu / seen.width_hu)
    shift = np.float32((own.level_hu - seen.level_hu) / seen.width_hu)
    signal = crop.signal * scale + shift
    cut = _cut_infection(signal, crop.lungs, crop.infection, crop.spacing_mm, seen.air_signal)
    if not sides:
        return cut
    left = crop.left_lung
    if left is None:
        left = left_lung_in(crop.lungs, _hu(crop.signal, own), crop.spacing_mm)
    return replace(cut, lungs=labelled_sides(crop.lungs, left))


def _hu(signal: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    return signal * np.float32(window.width_hu) + np.float32(window.level_hu)


def _cut_infection(
    signal: NDArray[np.float32],
    lungs: Flags,
    infection: Flags,
    spacing_mm: tuple[float, float, float],
    air: float,
) -> CutScan:
    region = lungs | infection
    return _cut(signal, infection, region, _with_rim(region, spacing_mm), spacing_mm, air)


def _cut(
    signal: NDArray[np.float32],
    truth: Flags,
    region: Flags,
    counted: Flags,
    spacing_mm: tuple[float, float, float],
    air: float,
) -> CutScan:
    return CutScan(
        signal=torch.from_numpy(signal.astype(np.float16)),
        truth=torch.from_numpy(truth.copy()),
        counted=torch.from_numpy(counted),
        spacing_mm=spacing_mm,
        air=air,
        slices={view: _slices_meeting(region, view) for view in VIEWS},
        positive_slices={view: _slices_meeting(truth, view) for view in VIEWS},
    )


def _box(region: Flags, spacing_mm: Sequence[float]) -> tuple[slice, slice, slice]:
    sides = []
    for axis in range(3):
        met = np.flatnonzero(region.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = math.ceil(MARGIN_MM / spacing_mm[axis])
        sides.append(slice(max(int(met[0]) - margin, 0), int(met[-1]) + 1 + margin))
    return sides[0], sides[1], sides[2]


def _slices_meeting(mask: Flags, view: str) -> NDArray[np.intp]:
    return np.flatnonzero(mask.any(axis=plane_axes(view)))


def _with_rim(region: Flags, spacing_mm: Sequence[float]) -> Flags:
    image = sitk.GetImageFromArray(region.view(np.uint8))
    image.SetSpacing([float(spacing) for spacing in spacing_mm[::-1]])
    squared = sitk.SignedMaurerDistanceMap(
        image, insideIsPositive=False, squaredDistance=True, useImageSpacing=True
    )
    rim: Flags = sitk.GetArrayViewFromImage(squared) <= LUNG_RIM_MM**2
    return rim
