"""The 3D V-Net."""

from __future__ import annotations

import torch
from monai.networks.nets import VNet
from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition
from torch import Tensor, nn

from segmentation.baselines.losses import dice_ce
from segmentation.baselines.patch_recipe import PatchRecipe, on_the_full_grid
from segmentation.training.examples import Batch
from segmentation.training.losses import Total, alone
from segmentation.training.options import TrainingOptions

ACTIVATION = "prelu"
"""As published."""


class VNet3D(PatchRecipe):
    """V-Net (Milletari et al., 3DV 2016, 10.1109/3DV.2016.79): MONAI's, with PReLU and the Dice loss as published.

    MONAI's network starts from 16 channels, the published number, and can do no other; for another width its
    blocks are put together anew. Its dropout, which the paper has not, is off: it would draw from torch's own
    generator, and a resumed run would differ from an uninterrupted one. Its two outputs are the classes of a
    softmax, as published. Trained by Adam: at the published rate of 1e-4 momentum needs
    tens of thousands of steps.

    Patches are 128^3 voxels of the grid of 512, in mm (published: 128 x 128 x 64 of prostate), 32 a side at
    least: four halvings leave 2^3 of them, which batch norm needs even for a single patch.
    """

    name = "vnet3d"
    title = "3D V-Net"
    source = "Milletari et al., 3DV 2016, 10.1109/3DV.2016.79"
    defaults = {  # noqa: RUF012
        "width": 16,
        "batch_size": 2,
        "validation_slices": None,
        "optimiser": "adam",
        "learning_rate": 1e-3,
    }
    patch_mm = on_the_full_grid(128, 128, 128)
    multiple = 32
    channels_last = True
    ignores = ("positive_weight",)

    def network(self, part: str, options: TrainingOptions) -> nn.Module:
        # Only the wiring is MONAI's object: without memory, and without a draw from the generator.
        with torch.device("meta"):
            network: nn.Module = VNet(
                out_channels=2, act=ACTIVATION, dropout_prob_down=None, dropout_prob_up=(None, 0.0)
            )
        for name, block in _blocks(options.width).items():
            setattr(network, name, block)
        return network

    def loss(
        self, output: Tensor, batch: Batch, options: TrainingOptions, total: Total = alone
    ) -> tuple[Tensor, Tensor]:
        return dice_ce(_logit(output), batch.truth, batch.counted, dice_share=1.0, squared=True, total=total)

    def probability(self, output: Tensor) -> Tensor:
        return torch.sigmoid(_logit(output))


def _logit(output: Tensor) -> Tensor:
    """Return the one logit (B, 1, ...) whose sigmoid is the softmax of two classes."""
    return output[:, 1:] - output[:, :1]


def _blocks(width: int) -> dict[str, nn.Module]:
    """Return the blocks by MONAI's names; the numbers there are the channels at the published width."""

    def down(level: int, convolutions: int) -> nn.Module:
        block: nn.Module = DownTransition(3, level * width, convolutions, ACTIVATION)
        return block

    def up(before: int, after: int, convolutions: int) -> nn.Module:
        block: nn.Module = UpTransition(
            3, before * width, after * width, convolutions, ACTIVATION, dropout_prob=(None, 0.0)
        )
        return block

    return {
        "in_tr": InputTransition(3, 1, width, ACTIVATION),
        "down_tr32": down(1, 1),
        "down_tr64": down(2, 2),
        "down_tr128": down(4, 3),
        "down_tr256": down(8, 2),
        "up_tr256": up(16, 16, 2),
        "up_tr128": up(16, 8, 2),
        "up_tr64": up(8, 4, 1),
        "up_tr32": up(4, 2, 1),
        "out_tr": OutputTransition(3, 2 * width, 2, ACTIVATION),
    }
