"""H-DenseUNet: features of slices and of volumes, joined."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from segmentation.baselines.h_denseunet_network import PLANE_MULTIPLE, SLICE_MULTIPLE, HybridDenseUNet
from segmentation.baselines.patches import draw_patch, segment_by_patches, vary_patch
from segmentation.training.cut import CutScan
from segmentation.training.examples import Batch, Example
from segmentation.training.losses import Total, alone, loss_and_dice
from segmentation.training.options import TrainingOptions
from segmentation.training.recipe import Crop, Forward, Rival, Turn
from standard_space.errors import UsageError
from standard_space.grid import StandardGrid
from standard_space.progress import Progress, silent

LEAST_SIDE = 2 * PLANE_MULTIPLE

EXTENT_MM = (12.0, 224 * 334 / 512, 224 * 334 / 512)
"""Of a sub-volume (z, y, x): the published 12 slices of 224 x 224 voxels, at the spacing of the 512 grid."""

SLICE_LOSS_WEIGHT = 0.5
"""Of the 2D network's own loss."""

OVERLAP = 0.5
"""Of neighbouring sub-volumes in a prediction, as a share of their sides."""


class HDenseUNet(Rival):
    """A 2D DenseUNet on slices, a 3D DenseUNet on sub-volumes, fused [Li et al., IEEE TMI 2018].

    Differences from the paper, which segments livers and their tumours:

    - All is trained at once, from scratch: the loss of the fused output plus half that of the 2D network's, as in
      the paper's joint training. The paper first trains the 2D network, itself started from ImageNet, then the 3D
      network, then both together.
    - The loss is cross-entropy plus 1 - soft Dice over lungs and rim; published: weighted cross-entropy.
    - No coarse first network: the crop around the lungs takes its place.
    - Sub-volumes overlap by half in a prediction, and are at least 4 slices thick and 64 x 64 wide, however coarse
      the grid: batch norm needs several pixels at the deepest level.
    - A batch has two sub-volumes (published code: one).
    - AdamW with the schedule of the three-way method, at most 2e-3; published: SGD with momentum, from 1e-3 down
      by a polynomial.
    - The outermost slice of a sub-volume is its own neighbour for the 2D network, also where the scan goes on: the
      network sees the sub-volume alone. Overlapping sub-volumes make up for it in a prediction.
    """

    name: ClassVar[str] = "h-denseunet"
    title: ClassVar[str] = "H-DenseUNet"
    source: ClassVar[str] = "Li et al., IEEE TMI 2018, DOI 10.1109/TMI.2018.2845918"
    dimensions: ClassVar[str] = "2.5D"
    defaults: ClassVar[Mapping[str, Any]] = {
        "width": 96,
        "batch_size": 2,
        "validation_slices": None,
        "positive_weight": 1.0,
    }

    stride: ClassVar[tuple[int, ...]] = (SLICE_MULTIPLE, PLANE_MULTIPLE, PLANE_MULTIPLE)

    def example_shape(self, options: TrainingOptions, grid_size: int) -> tuple[int, ...]:
        """Return the shape of a sub-volume; see `sub_volume` for what is raised."""
        return sub_volume(StandardGrid(grid_size).spacing_mm, options.patch)

    def network(self, part: str, options: TrainingOptions) -> nn.Module:
        """Return the hybrid network; a width of 96 is the published one, see `h_denseunet_network`."""
        return HybridDenseUNet(options.width)

    def example(self, cut: CutScan, part: str, rng: np.random.Generator, turn: Turn) -> Example:
        """Draw a sub-volume: stack, truth and counted (1, z, y, x)."""
        shape = sub_volume(cut.spacing_mm, turn.options.patch)
        patch = draw_patch(cut, rng, shape, positive_share=turn.options.positive_share)
        if turn.vary:
            patch = vary_patch(patch, rng, cut.air)
        return Example(patch.signal[None], patch.truth[None], patch.counted[None])

    def loss(
        self, output: Tensor, batch: Batch, options: TrainingOptions, total: Total = alone
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of both outputs (B, 2, z, y, x), and the soft Dice of the fused one."""
        weight = options.weight_of_positives
        fused, dice = loss_and_dice(output[:, :1], batch.truth, batch.counted, weight, total)
        slices, _ = loss_and_dice(output[:, 1:], batch.truth, batch.counted, weight, total)
        return fused + SLICE_LOSS_WEIGHT * slices, dice

    def probability(self, output: Tensor) -> Tensor:
        """Return the fused output's probability (B, 1, z, y, x)."""
        return torch.sigmoid(output[:, :1])

    def probabilities(
        self,
        networks: Mapping[str, Forward],
        crop: Crop,
        options: TrainingOptions,
        progress: Progress = silent,
    ) -> Tensor:
        """Return the probability, float32 Tensor (1, z, y, x); see `Rival.probabilities`."""
        return segment_by_patches(
            crop,
            sub_volume(crop.spacing_mm, options.patch),
            networks["network"],
            overlap=OVERLAP,
            prepare=lambda signal: signal[None],
            probability=self.probability,
            progress=progress,
        )


def sub_volume(spacing_mm: tuple[float, float, float], side: int | None = None) -> tuple[int, int, int]:
    """Return the shape (z, y, x) of a sub-volume in voxels, the nearest to `EXTENT_MM` that the network takes.

    Parameters
    ----------
    spacing_mm : tuple of float
        (z, y, x).
    side : int, optional
        Rows and columns, instead.

    Raises
    ------
    UsageError
        The side is not a multiple of 32, or below 64.
    """
    if side is not None and (side % PLANE_MULTIPLE or side < LEAST_SIDE):
        raise UsageError("the patch of H-DenseUNet must be a multiple of 32, at least 64", got=side)
    least, multiples = (
        (SLICE_MULTIPLE, LEAST_SIDE, LEAST_SIDE),
        (SLICE_MULTIPLE, PLANE_MULTIPLE, PLANE_MULTIPLE),
    )
    slices, rows, columns = (
        max(lowest, math.floor(extent / (spacing * multiple) + 0.5) * multiple)
        for extent, spacing, multiple, lowest in zip(EXTENT_MM, spacing_mm, multiples, least, strict=True)
    )
    return (slices, rows, columns) if side is None else (slices, side, side)
