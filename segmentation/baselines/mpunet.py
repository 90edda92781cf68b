"""MPUNet: one 2D U-Net that sees slices in six directions, none of them along the axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from segmentation.baselines.mpunet_planes import PLANES, Lattice, Vector, plane_normals
from segmentation.baselines.unet2d import unet
from segmentation.device import slices_at_once
from segmentation.training.cut import CutScan
from segmentation.training.examples import Batch, Example
from segmentation.training.losses import Total, alone, loss_and_dice
from segmentation.training.options import TrainingOptions
from segmentation.training.recipe import Crop, Forward, Rival, Turn
from segmentation.unet import MULTIPLE
from segmentation.views import VIEWS, as_planes, normal_axis, plane_axes
from standard_space.grid import StandardGrid
from standard_space.progress import Progress, silent

PUBLISHED_WIDTH = 90
"""The whole part of 64 times the square root of 2: twice the operations of a U-Net of 64 channels."""

EXTENT_MM = 334.0
"""Side of a training image. The paper takes the 75th percentile of the scans' extents, 350 mm of a cut scan's
340 x 280 x 360 (lungs and 40 mm around them); its code takes 512 pixels at most, 334 mm on the 512 grid."""

NORMAL_NOISE = 0.1
"""Standard deviation of what is added to each component of a plane's normal in training [published code]."""

ELASTIC_SHARE = 1 / 3
"""Of the training images that are deformed."""

ALPHA, SIGMA, PIXEL_MM = (0.0, 450.0), (20.0, 30.0), 334.0 / 512.0
"""Of the published elastic deformation: its size and width in pixels, which are taken as those of the 512 grid."""


class MPUNet(Rival):
    """One 2D U-Net on slices along six planes, whose answers are fused [Perslev et al., MICCAI 2019].

    Six directions are drawn once, by the seed; see `plane_normals`. Slices are sampled at the same step in all
    directions, the 25th percentile of the spacing of the grid's axes, as the published code does: the spacing in
    plane. Training images are 334 mm wide, predicted ones as wide as the crop.

    The usual rule takes the mean of the six probabilities; a learned one (weighted, logistic) is the paper's
    learned fusion, with one weight for each plane, tuned on validation scans.

    Differences from the paper:

    - The network is MONAI's ``BasicUNet`` of the published channels: transposed convolutions instead of nearest
      neighbours and 2x2 convolutions, batch norm before each ReLU instead of after each pair.
    - Adam's rate follows the schedule of all methods, at most 1e-3, not 5e-5 over up to 500 epochs: the usual run
      is shorter. Elastically deformed images weigh as much as the others.
    - The signal is that of the common window, not scaled scan by scan; the cross-entropy counts the lungs and
      their rim only; the output's bias does not start at the share of the target.
    - Half of the planes are drawn through a voxel of the target, half through one of the lungs; published: at any
      depth, drawn anew until half of a batch shows the target.
    """

    name: ClassVar[str] = "mpunet"
    title: ClassVar[str] = "MPUNet"
    source: ClassVar[str] = "Perslev et al., MICCAI 2019, DOI 10.1007/978-3-030-32245-8_4"
    dimensions: ClassVar[str] = "2.5D"
    defaults: ClassVar[Mapping[str, Any]] = {
        "width": PUBLISHED_WIDTH,
        "batch_size": 16,
        "optimiser": "adam",
        "weight_decay": 0.0,
        "positive_share": 0.5,
        "positive_weight": 1.0,
    }
    rules: ClassVar[tuple[str, ...]] = ("mean", "weighted", "logistic")
    view_count: ClassVar[int] = PLANES
    stride: ClassVar[tuple[int, ...]] = (MULTIPLE, MULTIPLE)

    def example_shape(self, options: TrainingOptions, grid_size: int) -> tuple[int, ...]:
        """Return rows and columns of a training image."""
        side = _side(options, step_of(StandardGrid(grid_size).spacing_mm))
        return side, side

    def network(self, part: str, options: TrainingOptions) -> nn.Module:
        """Return the U-Net; `TrainingOptions.width` is the first level's channels, published 90."""
        first = 64.0 * math.sqrt(2.0) * options.width / PUBLISHED_WIDTH
        return unet(tuple(math.floor(first * 2**level) for level in range(5)))

    def example(self, cut: CutScan, part: str, rng: np.random.Generator, turn: Turn) -> Example:
        """Draw a slice along one of the planes: stack, truth and counted (1, H, W)."""
        normal = plane_normals(turn.options.seed)[rng.integers(PLANES)]
        anchor_mm = _anchor_mm(cut, rng, turn.options.positive_share)
        if turn.vary:
            normal = normal + rng.normal(0.0, NORMAL_NOISE, 3)
        step_mm = step_of(cut.spacing_mm)
        side = _side(turn.options, step_mm)
        image = _image_through(cut, normal, anchor_mm, step_mm, side, rng)
        moved = _deformation(side, step_mm, rng) if turn.vary and rng.random() < ELASTIC_SHARE else None
        spacing = cut.spacing_mm
        return Example(
            image.sample(cut.signal, spacing, cut.air, moved=moved),
            image.sample(cut.truth, spacing, 0.0, nearest=True, moved=moved),
            image.sample(cut.counted, spacing, 0.0, nearest=True, moved=moved),
        )

    def loss(
        self, output: Tensor, batch: Batch, options: TrainingOptions, total: Total = alone
    ) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy alone, as published, and the soft Dice; output (B, 1, H, W)."""
        weight = options.weight_of_positives
        both, dice = loss_and_dice(output, batch.truth, batch.counted, weight, total)
        return both - (1.0 - dice), dice

    def probabilities(
        self,
        networks: Mapping[str, Forward],
        crop: Crop,
        options: TrainingOptions,
        progress: Progress = silent,
    ) -> Tensor:
        """Return the probability by plane, float32 Tensor (6, z, y, x); see `Rival.probabilities`."""
        shape, spacing = crop.signal.shape, crop.spacing_mm
        normals = plane_normals(options.seed)
        lattices = [Lattice.around(shape, spacing, normal, step_of(spacing)) for normal in normals]
        total, done = sum(lattice.shape[0] for lattice in lattices), 0
        found = torch.empty((PLANES, *shape), device=crop.signal.device)
        for place, lattice in enumerate(lattices):
            planes = torch.zeros(lattice.shape, device=crop.signal.device)
            at_once = slices_at_once(crop.signal.device, lattice.shape[1] * lattice.shape[2], options.width)
            for start in range(0, lattice.shape[0], at_once):
                stop = min(start + at_once, lattice.shape[0])
                _fill(planes, lattice, start, stop, networks["network"], crop)
                done += stop - start
                progress(f"plane {place + 1}", done, total)
            found[place] = lattice.back(planes, shape, spacing)
        return found.clamp_(0.0, 1.0)


def step_of(spacing_mm: tuple[float, float, float]) -> float:
    """Return the step of slices and their pixels, mm: the 25th percentile of a grid's spacings (z, y, x)."""
    return float(np.percentile(spacing_mm, 25))


def _side(options: TrainingOptions, step_mm: float) -> int:
    """Return the side of a training image, pixels."""
    return options.patch or max(1, math.floor(EXTENT_MM / step_mm / MULTIPLE + 0.5)) * MULTIPLE


def _fill(planes: Tensor, lattice: Lattice, start: int, stop: int, forward: Forward, crop: Crop) -> None:
    """Write the probabilities of some planes, where voxels of the crop are near."""
    rows, columns = lattice.window(start, stop, crop.signal.shape, crop.spacing_mm)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    padded = (stop - start, height + -height % MULTIPLE, width + -width % MULTIPLE)
    part = lattice.part((start, rows.start, columns.start), padded)
    logits = forward(part.sample(crop.signal, crop.spacing_mm, crop.air)[:, None])
    planes[start:stop, rows, columns] = torch.sigmoid(logits)[:, 0, :height, :width]


def _anchor_mm(cut: CutScan, rng: np.random.Generator, positive_share: float) -> Vector:
    """Return the place of a voxel that is true, or of one that counts, from a random slice of a random axis."""
    view = VIEWS[rng.integers(len(VIEWS))]
    positives = cut.positive_slices[view]
    positive = positives.size > 0 and rng.random() < positive_share
    candidates = positives if positive else cut.slices[view]
    index = int(candidates[rng.integers(candidates.size)])
    pixels = torch.nonzero(as_planes(cut.truth if positive else cut.counted, view)[index])
    voxel = np.empty(3)
    voxel[normal_axis(view)] = index
    voxel[list(plane_axes(view))] = pixels[int(rng.integers(len(pixels)))].numpy()
    return voxel * cut.spacing_mm


def _image_through(
    cut: CutScan, normal: Vector, anchor_mm: Vector, step_mm: float, side: int, rng: np.random.Generator
) -> Lattice:
    """Return a square image through a place, inside the cut scan if it can be, else around its middle."""
    whole = Lattice.around(cut.signal.shape, cut.spacing_mm, normal, step_mm)
    place = whole.directions @ anchor_mm
    lowest = whole.directions @ whole.origin_mm
    highest = lowest + (np.asarray(whole.shape) - 1) * step_mm
    middle, half = (lowest + highest) / 2.0, (side - 1) * step_mm / 2.0
    centre = rng.uniform(
        np.maximum(place - half, np.minimum(lowest + half, middle)),
        np.minimum(place + half, np.maximum(highest - half, middle)),
    )
    first = np.array([place[0], centre[1] - half, centre[2] - half])
    return Lattice(whole.directions, first @ whole.directions, step_mm, (1, side, side))


def _deformation(side: int, step_mm: float, rng: np.random.Generator) -> Tensor:
    """Draw smooth random displacements, float32 Tensor (2, side, side), in pixels.

    Published: noise uniform in -1..1, smoothed by a Gaussian of 20 to 30 pixels and multiplied by up to 450. Here
    it is brought to the same width and size in millimetres, whatever the step.
    """
    alpha, sigma = rng.uniform(*ALPHA), rng.uniform(*SIGMA)
    # A Gaussian of that width divides the standard deviation of white noise by 2 sqrt(pi) sigma.
    size_mm = alpha / math.sqrt(3.0) / (2.0 * math.sqrt(math.pi) * sigma) * PIXEL_MM
    sigma = sigma * PIXEL_MM / step_mm
    noise = rng.standard_normal((2, side, side), np.float32)
    smooth = gaussian_filter(noise, (0.0, sigma, sigma), mode="constant")
    return torch.from_numpy(smooth * np.float32(2.0 * math.sqrt(math.pi) * sigma * size_mm / step_mm))
