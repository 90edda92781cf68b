"""COVID-SegNet."""

from __future__ import annotations

from torch import Tensor, nn

from segmentation.baselines.covid_segnet_network import MULTIPLE, CovidSegNetwork
from segmentation.baselines.losses import dice_ce
from segmentation.baselines.patch_recipe import PatchRecipe, on_the_full_grid
from segmentation.training.examples import Batch
from segmentation.training.losses import Total, alone
from segmentation.training.options import TrainingOptions


class CovidSegNet(PatchRecipe):
    """COVID-SegNet (Yan et al. 2020, arXiv 2004.12987): a residual 3D network with feature-variation blocks.

    The network is `CovidSegNetwork`. Patches are 128 x 128 x 64 voxels (x, y, z) of the grid of 512, in mm. The
    loss is half Dice, half cross-entropy. It is trained for the infection alone: the published network also has a
    model of its own for the lungs.
    """

    name = "covid-segnet"
    title = "COVID-SegNet"
    source = "Yan et al. 2020, arXiv 2004.12987, 10.48550/arXiv.2004.12987"
    defaults = {  # noqa: RUF012
        "width": 64,
        "batch_size": 2,
        "validation_slices": None,
        "optimiser": "adam",
        "learning_rate": 1e-3,
    }
    patch_mm = on_the_full_grid(64, 128, 128)
    stride = (MULTIPLE,) * 3
    ignores = ("positive_weight",)

    def network(self, part: str, options: TrainingOptions) -> nn.Module:
        return CovidSegNetwork(width=options.width)

    def loss(
        self, output: Tensor, batch: Batch, options: TrainingOptions, total: Total = alone
    ) -> tuple[Tensor, Tensor]:
        return dice_ce(output, batch.truth, batch.counted, dice_share=0.5, total=total)
