"""What methods that work on 3D patches share: how patches are drawn, varied, and put together to a volume.

Grids are aligned at the volume's corner, so that the centre of voxel i lies at (i + 1/2) x spacing whatever the
spacing, and nothing shifts when a volume is resampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from monai.data.utils import dense_patch_slices
from monai.inferers import sliding_window_inference
from torch import Tensor
from torch.nn import functional

from segmentation.training.cut import CutScan
from segmentation.training.recipe import Crop, Forward
from standard_space.progress import Progress, silent

Triple = tuple[float, float, float]
"""Of each axis, (z, y, x)."""

Shape = tuple[int, int, int]
"""Voxels of each axis, (z, y, x)."""

CPU_VOXELS_AT_ONCE, GPU_VOXELS_AT_ONCE = 64**3, 128**3
"""Small patches are predicted together, up to so many voxels. A processor is faster with what stays near its
caches: measured on one core with narrow networks, 64^3 voxels at once take 7 to 36 % less time than 128^3."""


@dataclass(frozen=True)
class Patch:
    """A box of a scan.

    Attributes
    ----------
    signal : float32 Tensor (z, y, x)
    truth, counted : float32 Tensor (z, y, x)
        0 or 1: what is to be found, and where the loss counts.
    lungs : uint8 Tensor (z, y, x) or None
        0 outside, 1 right, 2 left lung; only where the scan has them.
    """

    signal: Tensor
    truth: Tensor
    counted: Tensor
    lungs: Tensor | None


def working_spacing(published_mm: Triple, spacing_mm: Triple) -> Triple:
    """Return the spacing a method works at: the published one, but never finer than the scan's own."""
    z, y, x = (max(pair) for pair in zip(published_mm, spacing_mm, strict=True))
    return z, y, x


def patch_shape(extent_mm: Triple, spacing_mm: Triple, multiple: int = 16) -> Shape:
    """Return the patch nearest to an extent whose sides are multiples of a number of voxels, at least one."""
    z, y, x = (
        max(1, math.floor(extent / (spacing * multiple) + 0.5)) * multiple
        for extent, spacing in zip(extent_mm, spacing_mm, strict=True)
    )
    return z, y, x


def draw_patch(
    cut: CutScan,
    rng: np.random.Generator,
    shape: Shape,
    *,
    positive_share: float,
    spacing_mm: Triple | None = None,
) -> Patch:
    """Draw a patch of a scan, at the scan's spacing or another one.

    With probability `positive_share` (where the scan has any truth) it holds a true voxel, else a voxel that
    counts: a random one of a random axial slice that has any. The voxel lies anywhere in the patch, and the patch
    lies inside the cut scan if it can; what reaches beyond is air, has no truth and is not counted. Along an axis
    where the patch is longer than the cut scan, the cut scan lies in its middle.

    Parameters
    ----------
    shape : tuple of int
        Of the patch, at `spacing_mm`.
    positive_share : float
        0 to 1.
    spacing_mm : tuple of float, optional
        (z, y, x); the scan's own when absent. Signals are interpolated linearly, averaged where the new grid is
        coarser; masks as well, and hold where that is above one half; the lungs are those of the nearest voxel.
    """
    positives = cut.positive_slices["xy"]
    positive = positives.size > 0 and rng.random() < positive_share
    slices = positives if positive else cut.slices["xy"]
    index = int(slices[rng.integers(slices.size)])
    pixels = torch.nonzero((cut.truth if positive else cut.counted)[index])
    row, column = pixels[int(rng.integers(len(pixels)))].tolist()
    working_mm = cut.spacing_mm if spacing_mm is None else spacing_mm
    sizes = _grid_size(cut.signal.shape, cut.spacing_mm, working_mm)
    first = tuple(
        _first(math.floor((anchor + 0.5) * own / new), side, size, rng)
        for anchor, own, new, side, size in zip(
            (index, row, column), cut.spacing_mm, working_mm, shape, sizes, strict=True
        )
    )

    def window(volume: Tensor, outside: float) -> Tensor:
        return _resampled(volume, cut.spacing_mm, working_mm, first, shape, outside)

    masks = (window(cut.truth, 0.0), window(cut.counted, 0.0))
    if working_mm != cut.spacing_mm:
        masks = ((masks[0] > 0.5).float(), (masks[1] > 0.5).float())
    lungs = None if cut.lungs is None else _nearest(cut.lungs, cut.spacing_mm, working_mm, first, shape)
    return Patch(window(cut.signal, cut.air), *masks, lungs)


def vary_patch(patch: Patch, rng: np.random.Generator, air: float) -> Patch:
    """Vary a patch as `segmentation.training.examples.vary_example` does a slice.

    - Half of the patches are mirrored along x, half along z. The lungs of a patch mirrored along x change names,
      so that a name tells the side in the picture.
    - A third are rotated in plane by up to 15 degrees and scaled there by up to 10 %; voxels are taken as square
      in plane, as they are on the standard grid.
    - Signals are scaled by up to 10 %, shifted by up to 0.03, and half of the patches get white noise of up to
      0.02 (all in units of signal).
    """
    signal, truth, counted, lungs = patch.signal, patch.truth, patch.counted, patch.lungs
    if rng.random() < 0.5:
        signal, truth, counted = (volume.flip(-1) for volume in (signal, truth, counted))
        if lungs is not None:
            lungs = lungs.flip(-1)
            lungs = torch.where(lungs > 0, 3 - lungs, lungs)
    if rng.random() < 0.5:
        signal, truth, counted = (volume.flip(0) for volume in (signal, truth, counted))
        lungs = None if lungs is None else lungs.flip(0)
    if rng.random() < 1 / 3:
        field = _rotation_field(signal.shape[-2:], rng)
        signal = _warped(signal - air, field, "bilinear") + air
        truth, counted = ((_warped(mask, field, "bilinear") > 0.5).float() for mask in (truth, counted))
        lungs = None if lungs is None else _warped(lungs.float(), field, "nearest").to(torch.uint8)
    signal = signal * rng.uniform(0.9, 1.1) + rng.uniform(-0.03, 0.03)
    if rng.random() < 0.5:
        noise = rng.standard_normal(signal.shape, np.float32) * np.float32(rng.uniform(0.0, 0.02))
        signal = signal + torch.from_numpy(noise)
    return Patch(signal.contiguous(), truth.contiguous(), counted.contiguous(), lungs)


def segment_by_patches(
    crop: Crop,
    shape: Shape,
    forward: Forward,
    *,
    overlap: float,
    prepare: Callable[[Tensor], Tensor],
    probability: Callable[[Tensor], Tensor],
    spacing_mm: Triple | None = None,
    progress: Progress = silent,
) -> Tensor:
    """Segment a crop patch by patch; where patches overlap their probabilities are averaged.

    Parameters
    ----------
    shape : tuple of int
        Of the patches, at `spacing_mm`. A crop that is shorter is padded with air on both sides.
    overlap : float
        Of neighbouring patches, as a share of their side, 0 to below 1.
    prepare : callable
        Signal (z, y, x) at the working spacing, padded -> the network's input (C, z, y, x).
    probability : callable
        The network's output (B, K, z, y, x) -> (B, 1, z, y, x).
    spacing_mm : tuple of float, optional
        Working spacing (z, y, x), none finer than the crop's; the crop's own when absent. Resampled as by
        `draw_patch`; the probability is interpolated linearly back.
    progress : Progress
        Called after each pass of the network.

    Returns
    -------
    float32 Tensor (1, z, y, x)
        On the crop's grid and device.
    """
    signal, working_mm = crop.signal, crop.spacing_mm if spacing_mm is None else spacing_mm
    sizes = _grid_size(signal.shape, crop.spacing_mm, working_mm)
    before = [max(side - size, 0) // 2 for side, size in zip(shape, sizes, strict=True)]
    padded = [max(pair) for pair in zip(shape, sizes, strict=True)]
    work = _resampled(signal, crop.spacing_mm, working_mm, [-start for start in before], padded, crop.air)
    total, done = _patch_count(padded, shape, overlap), 0

    def predict(stack: Tensor) -> Tensor:
        nonlocal done
        found = probability(forward(stack))
        done += len(stack)
        progress("patches", done, total)
        return found

    most = CPU_VOXELS_AT_ONCE if work.device.type == "cpu" else GPU_VOXELS_AT_ONCE
    at_once = max(1, most // math.prod(shape))
    answer = sliding_window_inference(prepare(work)[None], shape, at_once, predict, overlap)
    # Typed for predictors with several outputs as well.
    result = cast(Tensor, answer)[0, 0]
    for axis in range(3):
        result = result.narrow(axis, before[axis], sizes[axis])
    back = _resampled(result, working_mm, crop.spacing_mm, (0, 0, 0), signal.shape, None)
    return back.clamp(0.0, 1.0)[None]


def _grid_size(shape: Sequence[int], own_mm: Triple, new_mm: Triple) -> list[int]:
    """Return the voxels that cover a volume at another spacing; a rounding error needs no voxel of its own."""
    return [
        max(1, math.ceil(size * own / new - 1e-6))
        for size, own, new in zip(shape, own_mm, new_mm, strict=True)
    ]


def _first(anchor: int, side: int, size: int, rng: np.random.Generator) -> int:
    """Return the first voxel of a patch that holds an anchor, inside the axis if it can be."""
    if side >= size:
        return -((side - size) // 2)
    anchor = min(anchor, size - 1)
    return int(rng.integers(max(anchor - side + 1, 0), min(anchor, size - side) + 1))


def _resampled(
    volume: Tensor,
    own_mm: Triple,
    new_mm: Triple,
    first: Sequence[int],
    shape: Sequence[int],
    outside: float | None,
) -> Tensor:
    """Return a float32 window (z, y, x) of a volume at another spacing.

    Each axis is interpolated with a triangle as wide as the coarser of both spacings: linear interpolation to a
    finer grid, a weighted average to a coarser one.

    Parameters
    ----------
    first, shape : sequence of int
        Of the window, voxels at `new_mm`; it may reach beyond the volume.
    outside : float or None
        Value beyond the volume; None continues its outermost voxels.
    """
    matrices: list[Tensor | None] = []
    pads = [0] * 6
    for axis in range(3):
        start, size, ratio = first[axis], volume.shape[axis], new_mm[axis] / own_mm[axis]
        if ratio == 1.0:
            low, high = max(start, 0), min(start + shape[axis], size)
            # Of the last axis first, as torch pads.
            pads[4 - 2 * axis : 6 - 2 * axis] = [low - start, start + shape[axis] - high]
            matrices.append(None)
        else:
            indices, weights = _taps(start, shape[axis], ratio)
            low, high = max(int(indices.min()), 0), min(int(indices.max()) + 1, size)
            if outside is not None:
                weights = weights.masked_fill((indices < 0) | (indices >= size), 0.0)
            matrix = torch.zeros((shape[axis], high - low), dtype=torch.float64)
            matrices.append(matrix.scatter_add_(1, indices.clamp(low, high - 1) - low, weights))
        # Only what the window needs is read: it is small, and a scan is large and of half precision.
        volume = volume.narrow(axis, low, high - low)
    volume = volume.float()
    if any(pads):
        volume = functional.pad(volume, pads, value=outside or 0.0)
    for axis, weighted in enumerate(matrices):
        if weighted is None:
            continue
        volume = _product(weighted.float().to(volume.device), volume, axis)
        if outside is not None:
            beyond = ((1.0 - weighted.sum(1)) * outside).float().to(volume.device)
            volume += beyond.view([-1 if other == axis else 1 for other in range(3)])
    return volume.contiguous()


def _product(matrix: Tensor, volume: Tensor, axis: int) -> Tensor:
    """Return the volume with a matrix applied along an axis."""
    if axis == 0:
        return torch.tensordot(matrix, volume, 1)
    return matrix @ volume if axis == 1 else volume @ matrix.T


def _taps(first: int, count: int, ratio: float) -> tuple[Tensor, Tensor]:
    """Return the voxels that make up each voxel of another grid, and their weights: (count, taps) each.

    Parameters
    ----------
    first, count : int
        Of the other grid's voxels.
    ratio : float
        Its spacing over the volume's.
    """
    places = torch.arange(first, first + count, dtype=torch.float64)
    centres, reach = (places + 0.5) * ratio - 0.5, max(ratio, 1.0)
    indices = torch.ceil(centres - reach).long()[:, None] + torch.arange(math.floor(2.0 * reach) + 1)
    weights = (1.0 - (indices - centres[:, None]).abs() / reach).clamp(min=0.0)
    return indices, weights / weights.sum(1, keepdim=True)


def _nearest(
    labels: Tensor, own_mm: Triple, new_mm: Triple, first: Sequence[int], shape: Sequence[int]
) -> Tensor:
    """Return a window of a volume of labels at another spacing, 0 beyond it; see `_resampled`."""
    insides = []
    for axis in range(3):
        size = labels.shape[axis]
        centres = torch.arange(first[axis], first[axis] + shape[axis], dtype=torch.float64) + 0.5
        indices = torch.floor(centres * (new_mm[axis] / own_mm[axis])).long()
        insides.append(((indices >= 0) & (indices < size)).to(labels.dtype))
        labels = labels.index_select(axis, indices.clamp(0, size - 1))
    return labels * torch.einsum("z,y,x->zyx", *insides)


def _rotation_field(plane: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Return a sampling field (1, H, W, 2) that rotates and scales a plane of square pixels about its middle."""
    angle, scale = math.radians(rng.uniform(-15.0, 15.0)), rng.uniform(0.9, 1.1)
    height, width = plane
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    # Coordinates of the field run from -1 to 1 along each side, columns first.
    matrix = torch.tensor([[[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]]])
    return functional.affine_grid(matrix, [1, 1, height, width], align_corners=False)


def _warped(volume: Tensor, field: Tensor, mode: str) -> Tensor:
    """Return every axial slice sampled at a field, zero beyond."""
    return functional.grid_sample(volume[None], field, mode, "zeros", align_corners=False)[0]


def _patch_count(sizes: Sequence[int], shape: Shape, overlap: float) -> int:
    """Return how many patches MONAI's inferer will look at."""
    steps = [
        side if side == size else max(1, int(side * (1.0 - overlap)))
        for side, size in zip(shape, sizes, strict=True)
    ]
    return len(dense_patch_slices(list(sizes), shape, steps))
