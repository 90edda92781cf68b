"""The 3D U-Net."""

from __future__ import annotations

from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from segmentation.baselines.patch_recipe import PatchRecipe, on_the_full_grid
from segmentation.training.examples import Batch
from segmentation.training.losses import Total, alone, loss_and_dice
from segmentation.training.options import TrainingOptions


class UNet3D(PatchRecipe):
    """3D U-Net (Çiçek et al., MICCAI 2016, 10.1007/978-3-319-46723-8_49).

    The network is MONAI's `BasicUNet`, which is nearer to it than MONAI's `UNet`: two convolutions of 3^3 at each
    level, max pooling, transposed convolutions, and skips that are concatenated, where `UNet` has one convolution
    a level and strides. With batch norm and ReLU, as published. Unlike there it pools four times, not three, and
    starts from 32 channels that double only below the first level.

    Patches are 128^3 voxels of the grid of 512, in mm. On every grid they have 32 voxels a side at least: four
    poolings leave 2^3 of them, which batch norm needs even for a single patch. The loss is binary cross-entropy
    and Dice, as for the three-way method, in place of the published weighted cross-entropy.
    """

    name = "unet3d"
    title = "3D U-Net"
    source = "Çiçek et al., MICCAI 2016, 10.1007/978-3-319-46723-8_49"
    defaults = {  # noqa: RUF012
        "width": 32,
        "batch_size": 2,
        "validation_slices": None,
        "optimiser": "adam",
        "learning_rate": 1e-3,
        "positive_weight": 1.0,
    }
    patch_mm = on_the_full_grid(128, 128, 128)
    multiple = 32
    channels_last = True

    def network(self, part: str, options: TrainingOptions) -> nn.Module:
        width = options.width
        features = (width, 2 * width, 4 * width, 8 * width, 16 * width, width)
        # The norm follows and has a bias of its own.
        network: nn.Module = BasicUNet(3, 1, 1, features, act="relu", norm="batch", bias=False)
        return network

    def loss(
        self, output: Tensor, batch: Batch, options: TrainingOptions, total: Total = alone
    ) -> tuple[Tensor, Tensor]:
        return loss_and_dice(output, batch.truth, batch.counted, options.weight_of_positives, total)
