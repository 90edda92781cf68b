"""The recipe of the three-way method [paper III-D]: one 2D U-Net per plane, five parallel slices in."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from segmentation.aggregation import RULES
from segmentation.methods import THREE_WAY
from segmentation.segmenter import TARGETS
from segmentation.training.cut import CutScan
from segmentation.training.examples import Batch, Example, draw_example
from segmentation.training.losses import Total, alone, loss_and_dice
from segmentation.training.options import TrainingOptions
from segmentation.training.recipe import Recipe, Turn
from segmentation.unet import MULTIPLE, UNet, channels_last
from segmentation.views import OFFSETS_MM, VIEWS


class ThreeWay(Recipe):
    """Three independent 2D U-Nets and their aggregation."""

    name = THREE_WAY
    title = "Three-way"
    source = "Zhou et al., IEEE TMI 2020, 10.1109/TMI.2020.3001810"
    dimensions = "2.5D"
    parts = VIEWS
    rules = RULES
    pixel_cut = 2 / 3
    targets = TARGETS
    view_count = len(VIEWS)
    stride = (MULTIPLE, MULTIPLE)

    def example_shape(self, options: TrainingOptions, grid_size: int) -> tuple[int, ...]:
        """Rows and columns of a patch."""
        side = options.patch_for(grid_size)
        return side, side

    def network(self, part: str, options: TrainingOptions) -> nn.Module:
        """A view's U-Net."""
        return channels_last(UNet(len(offsets_of(options)), options.width))

    def example(self, cut: CutScan, part: str, rng: np.random.Generator, turn: Turn) -> Example:
        """A slice and its neighbours, cut to a patch; see `draw_example`."""
        options = turn.options
        return draw_example(
            cut,
            part,
            rng,
            patch=options.patch_for(turn.grid_size),
            positive_share=options.positive_share,
            offsets_mm=offsets_of(options),
            vary=turn.vary,
        )

    def loss(
        self, output: Tensor, batch: Batch, options: TrainingOptions, total: Total = alone
    ) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropy and soft Dice; see `loss_and_dice`."""
        return loss_and_dice(output, batch.truth, batch.counted, options.weight_of_positives, total)


def offsets_of(options: TrainingOptions) -> tuple[float, ...]:
    """Return the distances of a stack's slices from the central one, mm; the paper's by default."""
    return OFFSETS_MM if options.slice_offsets_mm is None else options.slice_offsets_mm
