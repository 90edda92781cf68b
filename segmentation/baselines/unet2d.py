"""The 2D U-Net: axial slices by themselves, nothing of their neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from monai.networks.nets.basic_unet import BasicUNet
from torch import Tensor, nn

from segmentation.device import slices_at_once
from segmentation.training.cut import CutScan
from segmentation.training.examples import Batch, Example, draw_example
from segmentation.training.losses import Total, alone, loss_and_dice
from segmentation.training.options import TrainingOptions
from segmentation.training.recipe import Crop, Forward, Rival, Turn
from segmentation.unet import MULTIPLE, pad_to_multiple
from standard_space.progress import Progress, silent


class UNet2D(Rival):
    """U-Net on single axial slices [Ronneberger et al., MICCAI 2015].

    The network is MONAI's ``BasicUNet``, which is nearer to the published one than its ``UNet`` of strided
    convolutions: five levels of two 3x3 convolutions and ReLU, max pooling, transposed convolutions and
    concatenated skips, of 64 to 1024 channels. It differs in this: convolutions are padded, so that the output is
    as large as the input; batch norm follows each of them, and there is no drop-out; the last transposed
    convolution keeps its channels instead of halving them. Patches, their variation and the schedule are those of
    the three-way method, and the loss, but for the weight of the target's pixels, which is 1.
    """

    name: ClassVar[str] = "unet2d"
    title: ClassVar[str] = "2D U-Net"
    source: ClassVar[str] = "Ronneberger et al., MICCAI 2015, DOI 10.1007/978-3-319-24574-4_28"
    dimensions: ClassVar[str] = "2D"
    defaults: ClassVar[Mapping[str, Any]] = {"width": 64, "positive_weight": 1.0}

    stride: ClassVar[tuple[int, ...]] = (MULTIPLE, MULTIPLE)

    def example_shape(self, options: TrainingOptions, grid_size: int) -> tuple[int, ...]:
        """Return rows and columns of a patch."""
        side = options.patch_for(grid_size)
        return side, side

    def network(self, part: str, options: TrainingOptions) -> nn.Module:
        """Return the U-Net; `TrainingOptions.width` is the first level's channels, published 64."""
        return unet(tuple(options.width * 2**level for level in range(5)))

    def example(self, cut: CutScan, part: str, rng: np.random.Generator, turn: Turn) -> Example:
        """Draw an axial slice as the three-way method does: stack, truth and counted (1, H, W)."""
        return draw_example(
            cut,
            "xy",
            rng,
            patch=turn.options.patch_for(turn.grid_size),
            positive_share=turn.options.positive_share,
            offsets_mm=(0.0,),
            vary=turn.vary,
        )

    def loss(
        self, output: Tensor, batch: Batch, options: TrainingOptions, total: Total = alone
    ) -> tuple[Tensor, Tensor]:
        """Return cross-entropy plus 1 - soft Dice, and the soft Dice; output (B, 1, H, W)."""
        return loss_and_dice(output, batch.truth, batch.counted, options.weight_of_positives, total)

    def probabilities(
        self,
        networks: Mapping[str, Forward],
        crop: Crop,
        options: TrainingOptions,
        progress: Progress = silent,
    ) -> Tensor:
        """Return the probability, float32 Tensor (1, z, y, x), slice by slice; see `Rival.probabilities`."""
        count, height, width = crop.signal.shape
        found = torch.empty((1, count, height, width), device=crop.signal.device)
        at_once = slices_at_once(crop.signal.device, height * width, options.width)
        for start in range(0, count, at_once):
            stop = min(start + at_once, count)
            stack = pad_to_multiple(crop.signal[start:stop, None], crop.air)
            logits = networks["network"](stack)[:, 0, :height, :width]
            found[0, start:stop] = torch.sigmoid(logits)
            progress("slices", stop, count)
        return found


def unet(channels: tuple[int, ...]) -> nn.Module:
    """Return a 2D U-Net for one-channel images (B, 1, H, W), sides in multiples of 16, that answers with a logit.

    Parameters
    ----------
    channels : tuple of int
        Of the five levels, from the finest.
    """
    return BasicUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        features=(*channels, channels[0]),
        act=("relu", {"inplace": True}),
        norm="batch",
        bias=False,
    )
