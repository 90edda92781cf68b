"""Training slices: drawn from a cut scan, cut to a patch, and varied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segmentation.training.cut import CutScan
from segmentation.views import OFFSETS_MM, normal_axis, plane_axes, stacks


@dataclass(frozen=True)
class Example:
    """One training slice.

    Attributes
    ----------
    stack : float32 Tensor (slices, H, W)
    truth, counted : float32 Tensor (1, H, W)
        0 or 1: what is to be found, and where the loss counts.
    """

    stack: Tensor
    truth: Tensor
    counted: Tensor


@dataclass(frozen=True)
class Batch:
    """Examples stacked.

    Attributes
    ----------
    stack : float32 Tensor (B, slices, H, W)
    truth, counted : float32 Tensor (B, 1, H, W)
    """

    stack: Tensor
    truth: Tensor
    counted: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Batch:
        """Stack examples."""
        return cls(*(torch.stack([getattr(e, name) for e in examples]) for name in cls.__annotations__))


def draw_example(
    cut: CutScan,
    view: str,
    rng: np.random.Generator,
    *,
    patch: int,
    positive_share: float,
    offsets_mm: Sequence[float] = OFFSETS_MM,
    vary: bool = True,
) -> Example:
    """Draw one slice of a scan, cut it to a square patch, and vary it.

    With probability `positive_share` the central slice is one that meets the truth (where the scan has any) and
    the patch is placed over a voxel of it; else any slice that may be drawn, and the patch over a voxel that
    counts.

    Parameters
    ----------
    patch : int
        Side of the patch, voxels, a multiple of 16; what reaches beyond the cut scan is air and not counted.
    vary : bool
        Flip, rotate, scale and jitter; see `vary_example`.
    """
    positives = cut.positive_slices[view]
    positive = positives.size > 0 and rng.random() < positive_share
    candidates = positives if positive else cut.slices[view]
    index = int(candidates[rng.integers(candidates.size)])
    target = cut.truth.select(normal_axis(view), index)
    counted = cut.counted.select(normal_axis(view), index)
    windows = _place_patch(target if positive else counted, patch, rng)
    rows, columns = windows
    stack = stacks(
        cut.signal, view, [index], cut.spacing_mm, cut.air, offsets_mm=offsets_mm, rows=rows, columns=columns
    )[0].float()
    example = Example(
        _padded(stack, patch, cut.air),
        _padded(target[windows][None].float(), patch, 0.0),
        _padded(counted[windows][None].float(), patch, 0.0),
    )
    if not vary:
        return example
    row_axis, column_axis = plane_axes(view)
    return vary_example(example, rng, cut.air, cut.spacing_mm[row_axis], cut.spacing_mm[column_axis])


def vary_example(
    example: Example, rng: np.random.Generator, air: float, row_mm: float, column_mm: float
) -> Example:
    """Vary a slice: geometry and intensity.

    - Half of the slices are mirrored along the columns, half along the normal (the slices' order).
    - A third are rotated by up to 15 degrees and scaled by up to 10 %, in millimetres.
    - Signals are scaled by up to 10 %, shifted by up to 0.03, and half of the slices get white noise of up
      to 0.02 (all in units of signal).
    """
    stack, truth, counted = example.stack, example.truth, example.counted
    if rng.random() < 0.5:
        stack, truth, counted = (image.flip(-1) for image in (stack, truth, counted))
    if rng.random() < 0.5:
        stack = stack.flip(0)
    if rng.random() < 1 / 3:
        field = _rotation_field(stack.shape, rng, row_mm, column_mm)
        stack = _resampled(stack - air, field) + air
        truth, counted = ((_resampled(image, field) > 0.5).float() for image in (truth, counted))
    stack = stack * rng.uniform(0.9, 1.1) + rng.uniform(-0.03, 0.03)
    if rng.random() < 0.5:
        noise = rng.standard_normal(stack.shape, np.float32) * np.float32(rng.uniform(0.0, 0.02))
        stack = stack + torch.from_numpy(noise)
    return Example(stack, truth, counted)


def _rotation_field(
    shape: Sequence[int], rng: np.random.Generator, row_mm: float, column_mm: float
) -> Tensor:
    """Return a sampling field (1, H, W, 2) that rotates and scales about the middle, in millimetres."""
    angle, scale = math.radians(rng.uniform(-15.0, 15.0)), rng.uniform(0.9, 1.1)
    height_mm, width_mm = shape[-2] * row_mm, shape[-1] * column_mm
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    # Coordinates of the field run from -1 to 1 along each side, columns first.
    matrix = torch.tensor([[[cos, -sin * height_mm / width_mm, 0.0], [sin * width_mm / height_mm, cos, 0.0]]])
    return functional.affine_grid(matrix, [1, 1, shape[-2], shape[-1]], align_corners=False)


def _resampled(image: Tensor, field: Tensor) -> Tensor:
    return functional.grid_sample(image[None], field, padding_mode="zeros", align_corners=False)[0]


def _place_patch(wanted: Tensor, patch: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Return rows and columns of a patch that holds a random wanted pixel, inside the plane if it can be."""
    pixels = torch.nonzero(wanted)
    anchor = pixels[int(rng.integers(len(pixels)))].tolist()
    windows = []
    for centre, size in zip(anchor, wanted.shape, strict=True):
        lowest, highest = max(centre - patch + 1, 0), min(centre, max(size - patch, 0))
        start = int(rng.integers(min(lowest, highest), highest + 1))
        windows.append(slice(start, min(start + patch, size)))
    return windows[0], windows[1]


def _padded(image: Tensor, patch: int, value: float) -> Tensor:
    bottom, right = patch - image.shape[-2], patch - image.shape[-1]
    if bottom == 0 and right == 0:
        return image
    left, top = right // 2, bottom // 2
    return functional.pad(image, (left, right - left, top, bottom - top), value=value)
