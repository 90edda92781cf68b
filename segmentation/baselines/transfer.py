"""A 3D U-Net whose encoder learned from videos, trained on stacks of slices that grow on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segmentation.baselines.losses import dice_ce
from segmentation.baselines.patches import (
    Shape,
    Triple,
    draw_patch,
    segment_by_patches,
    vary_patch,
    working_spacing,
)
from segmentation.baselines.transfer_network import ENCODER_WIDTH, TransferNetwork
from segmentation.signal import REFERENCE_WINDOW
from segmentation.training.cut import CutScan
from segmentation.training.examples import Batch, Example
from segmentation.training.losses import Total, alone
from segmentation.training.options import TrainingOptions
from segmentation.training.recipe import Crop, Forward, Rival, Row, Turn
from standard_space.grid import StandardGrid
from standard_space.progress import Progress, silent

CLIP_HU = (-2000.0, 500.0)
SLICE_MM = 5.0
SMALL, FINAL = (18, 112), (20, 256)
"""Slices of a stack and pixels along a side, in the first half of the steps and afterwards."""

SMALL_SHARE = 0.5
FROZEN_SHARE = 0.25
CYCLES = 4
LOWEST_SHARE = 0.1
OVERLAP = 0.5
MULTIPLE = 16


class TransferUNet(Rival):
    """The segmenter of Bressem et al. (arXiv 2101.09976), which was trained on RICORD.

    As published: a 3D U-Net on an 18-layer 3D ResNet that learned from videos (Kinetics-400); signals clipped
    to -2000..500 HU; stacks of 18 consecutive slices of 112 x 112 pixels at first, of 20 slices of 256 x 256
    afterwards; Dice loss plus cross-entropy; a cyclic learning rate.

    Where the paper leaves it open, or this differs:

    - Every slice covers the 334 x 334 mm of the standard grid, beyond the cut scan air: pixels of 2.98 and
      1.30 mm. Slices lie 5 mm apart. On a coarser grid pixels and slices are as large as the grid's own.
    - Signals are scaled to 0..1. The network copies them to the encoder's three channels, standardised as those
      of the videos were: the encoder's own convolutions run across slices already.
    - The stacks grow at half of the steps. The rate goes up and down four times, between a tenth of its peak and
      the peak, so that stacks grow and layers are released where it is lowest.
    - Weights that the user brings (`TrainingOptions.encoder_weights`) are frozen for the first quarter of the
      steps. Without them the whole network learns from the first step: random weights are nothing to keep.
    - `TrainingOptions.patch` replaces the pixels along a side; the size of a pixel stays.
    """

    name: ClassVar[str] = "transfer"
    title: ClassVar[str] = "Transfer-learning 3D U-Net (RICORD)"
    source: ClassVar[str] = "Bressem et al., arXiv 2101.09976 (2021), 10.48550/arXiv.2101.09976"
    dimensions: ClassVar[str] = "3D"
    freezes: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 2,
        "validation_slices": None,
        "optimiser": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "width": ENCODER_WIDTH,
    }

    ignores: ClassVar[tuple[str, ...]] = ("positive_weight",)
    stride: ClassVar[tuple[int, ...]] = (8, MULTIPLE, MULTIPLE)

    def check(self, options: TrainingOptions, grid_size: int, world: int = 1) -> None:
        """Refuse a file of encoder weights as well that is missing or does not fit; see `Recipe.check`."""
        super().check(options, grid_size, world)
        if options.encoder_weights is not None:
            TransferNetwork(options.width).load_encoder(options.encoder_weights)

    def example_shape(self, options: TrainingOptions, grid_size: int) -> tuple[int, ...]:
        """Return the shape of the stacks of the second half of the steps; see `stack_grid`."""
        return stack_grid(StandardGrid(grid_size).spacing_mm, False, options.patch)[0]

    def network(self, part: str, options: TrainingOptions) -> nn.Module:
        """Return the network: images 0 to 1 (B, 1, z, y, x) in, logits (B, 1, z, y, x) out."""
        return TransferNetwork(options.width)

    def start(self, network: nn.Module, options: TrainingOptions) -> str | None:
        """Put the user's weights into the encoder; see `TransferNetwork.load_encoder`."""
        if options.encoder_weights is None or not isinstance(network, TransferNetwork):
            return "the encoder's weights are random: no --encoder-weights were given"
        digest = network.load_encoder(options.encoder_weights)
        return f"the encoder's weights are those of a file with SHA-256 {digest}"

    def example(self, cut: CutScan, part: str, rng: np.random.Generator, turn: Turn) -> Example:
        """Draw a stack of slices, small in the first half of the steps; see `Recipe.example`."""
        options = turn.options
        small = turn.step < SMALL_SHARE * turn.steps
        shape, spacing_mm = stack_grid(StandardGrid(turn.grid_size).spacing_mm, small, options.patch)
        patch = draw_patch(cut, rng, shape, positive_share=options.positive_share, spacing_mm=spacing_mm)
        if turn.vary and options.vary:
            patch = vary_patch(patch, rng, cut.air)
        return Example(clipped(patch.signal)[None], patch.truth[None], patch.counted[None])

    def loss(
        self, output: Tensor, batch: Batch, options: TrainingOptions, total: Total = alone
    ) -> tuple[Tensor, Tensor]:
        """Return the mean of Dice loss and cross-entropy over the counted voxels, and the soft Dice."""
        return dice_ce(output, batch.truth, batch.counted, total=total)

    def learning_rate(self, step: int, steps: int, options: TrainingOptions, rows: Sequence[Row]) -> float:
        """Return a triangle four times over (Smith, WACV 2017, 10.1109/WACV.2017.58)."""
        phase = (step + 0.5) / steps * CYCLES % 1.0
        height = 1.0 - abs(2.0 * phase - 1.0)
        return options.peak_rate * (LOWEST_SHARE + (1.0 - LOWEST_SHARE) * height)

    def prepare(self, network: nn.Module, step: int, steps: int) -> None:
        """Freeze an encoder that brings its weights for the first quarter of the steps, then release it.

        Frozen, it has no gradients and its batch normalisation keeps the statistics it came with.
        """
        if not isinstance(network, TransferNetwork):
            return
        released = released_at(steps)
        frozen = bool(network.pretrained) and step < released
        network.encoder.requires_grad_(not frozen)
        if frozen:
            _set_batch_norm(network.encoder, training=False)
        elif step == released:
            # Only now: later the trainer itself fixes the statistics, and stays right whenever a run is resumed.
            _set_batch_norm(network.encoder, training=True)

    def probabilities(
        self,
        networks: Mapping[str, Forward],
        crop: Crop,
        options: TrainingOptions,
        progress: Progress = silent,
    ) -> Tensor:
        """Return the probability of half overlapping stacks of the final size; see `Rival.probabilities`."""
        shape, spacing_mm = stack_grid(crop.spacing_mm, False, options.patch)
        return segment_by_patches(
            crop,
            shape,
            networks[self.parts[0]],
            overlap=OVERLAP,
            prepare=lambda signal: clipped(signal)[None],
            probability=self.probability,
            spacing_mm=spacing_mm,
            progress=progress,
        )


def clipped(signal: Tensor) -> Tensor:
    """Return signal clipped to -2000..500 HU and scaled to 0..1.

    Parameters
    ----------
    signal : float32 Tensor
        At the reference window, (HU + 600) / 1600.
    """
    low, high = CLIP_HU
    hu = signal * REFERENCE_WINDOW.width_hu + REFERENCE_WINDOW.level_hu
    return (hu.clamp(low, high) - low) / (high - low)


def stack_grid(own_mm: Triple, small: bool, patch: int | None) -> tuple[Shape, Triple]:
    """Return the voxels of a stack and their spacing, each (z, y, x).

    Parameters
    ----------
    own_mm : tuple of float
        Spacing of the scan's grid (z, y, x).
    small : bool
        Of the first half of the training.
    patch : int, optional
        Pixels along a side, instead of those that cover the standard grid.
    """
    slices, pixels = SMALL if small else FINAL
    extent_mm = StandardGrid.EXTENT_MM
    spacing_mm = working_spacing((SLICE_MM, extent_mm[1] / pixels, extent_mm[2] / pixels), own_mm)
    if patch is not None:
        return (slices, patch, patch), spacing_mm
    rows, columns = (
        # A rounding error needs no pixel of its own.
        math.ceil(extent_mm[axis] / (spacing_mm[axis] * MULTIPLE) - 1e-6) * MULTIPLE
        for axis in (1, 2)
    )
    return (slices, rows, columns), spacing_mm


def released_at(steps: int) -> int:
    """Return the step from which a run of so many steps trains an encoder that came with weights."""
    return round(FROZEN_SHARE * steps)


def _set_batch_norm(network: nn.Module, *, training: bool) -> None:
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train(training)
