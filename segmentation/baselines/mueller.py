"""Mueller et al.: a standard 3D U-Net that little data does not overfit, by heavy preprocessing and variation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from segmentation.baselines.losses import tversky_ce
from segmentation.baselines.mueller_preprocessing import GreyStatistics, vary
from segmentation.baselines.patches import (
    Shape,
    Triple,
    draw_patch,
    patch_shape,
    segment_by_patches,
    working_spacing,
)
from segmentation.training.cut import CutScan
from segmentation.training.examples import Batch, Example
from segmentation.training.losses import Total, alone
from segmentation.training.options import TrainingOptions
from segmentation.training.recipe import Crop, Forward, Rival, Row, Turn
from standard_space.errors import DataError
from standard_space.grid import StandardGrid
from standard_space.progress import Progress, silent

SPACING_MM: Triple = (2.70, 1.58, 1.58)
PATCH: Shape = (80, 160, 160)
OVERLAP = 0.5

BACKGROUND, LEFT_LUNG, RIGHT_LUNG, INFECTION = range(4)
RIGHT_IN_SCANS = 1
LEFT_IN_SCANS = 2

PLATEAU_FACTOR = 0.1
PLATEAU_SHARE = 0.1
PLATEAU_STEPS = 100
PLATEAU_GAIN = 1e-4
LOWEST_SHARE = 0.01


class Mueller(Rival):
    """The segmenter of Mueller, Soto-Rey and Kramer (10.1016/j.imu.2021.100681).

    As published: clipping to -1250..250 HU, grey values, z-scores, 1.58 x 1.58 x 2.70 mm; a standard 3D U-Net of
    32 to 512 features with batch normalisation (MONAI's `BasicUNet`); patches of 160 x 160 x 80 voxels at that
    spacing, placed at random, half overlapping and averaged in prediction; background, left lung, right lung
    and infection; Tversky loss plus cross-entropy; Adam at 1e-3, down by ten on a plateau; two patches a step.
    With `TrainingOptions.vary` off patches are not varied; with `TrainingOptions.preprocess` off the network sees
    the signal at the scan's own spacing. The paper's table has rows without either.

    Where this differs, or the paper leaves it open:

    - The z-score's mean and deviation are those of the lungs' box and 40 mm around it, which stands for the whole
      image: training and prediction see nothing else.
    - On a grid coarser than the published spacing the grid's own is used, and the patch keeps its millimetres.
      It never has more voxels than published.
    - Resampling comes before the clipping, not after it.
    - The rate falls when the training loss has not gained 1e-4 for a tenth of the steps, at least 100 steps,
      down to a hundredth of its peak. The published patience is 15 epochs of 150 steps; a whole run here may be
      shorter than that.
    - Published training ends after 100 epochs without a better loss. Here that is the user's ``--patience``
      (`TrainingOptions.patience`), in validations.
    - The loss counts everything inside the cut scan, not the lungs alone: the background is a class of its own.
      Validation counts the lungs and their rim, as for all methods.
    """

    name: ClassVar[str] = "mueller"
    title: ClassVar[str] = "Mueller et al. (MIScnn)"
    source: ClassVar[str] = "Müller et al., Informatics in Medicine Unlocked 2021, 10.1016/j.imu.2021.100681"
    dimensions: ClassVar[str] = "3D"
    defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 2,
        "validation_slices": None,
        "optimiser": "adam",
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "width": 32,
        "positive_share": 0.0,
    }
    needs_lungs: ClassVar[bool] = True
    channels_last: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ("positive_weight",)
    stride: ClassVar[tuple[int, ...]] = (16, 16, 16)

    def example_shape(self, options: TrainingOptions, grid_size: int) -> tuple[int, ...]:
        """Return the shape of a patch; see `working_grid`."""
        return working_grid(StandardGrid(grid_size).spacing_mm, options)[0]

    def network(self, part: str, options: TrainingOptions) -> nn.Module:
        """Return a 3D U-Net of five levels: (B, 1, z, y, x) in, logits of four classes (B, 4, z, y, x) out."""
        levels = [options.width * 2**level for level in range(5)]
        return BasicUNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=INFECTION + 1,
            features=(*levels, options.width),
            act=("relu", {"inplace": True}),
            norm="batch",
        )

    def example(self, cut: CutScan, part: str, rng: np.random.Generator, turn: Turn) -> Example:
        """Draw a patch anywhere in a cut scan; see `Recipe.example`.

        Raises
        ------
        DataError
            The cut scan has no lungs.
        """
        options = turn.options
        shape, spacing_mm = working_grid(StandardGrid(turn.grid_size).spacing_mm, options)
        if not turn.validation:
            cut = replace(cut, counted=torch.ones((1, 1, 1), dtype=torch.bool).expand(cut.signal.shape))
        patch = draw_patch(
            cut,
            rng,
            shape,
            positive_share=options.positive_share,
            spacing_mm=spacing_mm,
        )
        if patch.lungs is None:
            raise DataError("this scan has no right and left lung to learn from")
        image, air = patch.signal, cut.air
        if options.preprocess:
            statistics = GreyStatistics.of(cut.signal)
            image, air = statistics.z_scores(image), float(statistics.z_scores(torch.tensor(air)))
        labels, counted = classes(patch.lungs, patch.truth), patch.counted
        if turn.vary and options.vary:
            image, labels, counted = vary(image, labels, counted, rng, spacing_mm, air)
        return Example(image[None], labels[None], counted[None])

    def loss(
        self, output: Tensor, batch: Batch, options: TrainingOptions, total: Total = alone
    ) -> tuple[Tensor, Tensor]:
        """Return Tversky loss plus cross-entropy over the four classes, and the soft Dice of the infection."""
        return tversky_ce(output, batch.truth, batch.counted, total)

    def probability(self, output: Tensor) -> Tensor:
        """Return the infection's share of the softmax over the classes, (B, 1, z, y, x)."""
        return torch.softmax(output, 1)[:, INFECTION:]

    def positives(self, truth: Tensor) -> Tensor:
        """Return 1 where the label is the infection, else 0."""
        return (truth == INFECTION).to(truth.dtype)

    def learning_rate(self, step: int, steps: int, options: TrainingOptions, rows: Sequence[Row]) -> float:
        """Return the peak rate, down by ten after each plateau of the training loss; see the class."""
        patience = max(PLATEAU_STEPS, PLATEAU_SHARE * steps)
        share, best, since = 1.0, float("inf"), 0
        for row in rows:
            if row["kind"] != "training" or row["step"] > step:
                continue
            if row["loss"] < best - PLATEAU_GAIN:
                best, since = row["loss"], row["step"]
            elif row["step"] - since >= patience:
                share, since = max(share * PLATEAU_FACTOR, LOWEST_SHARE), row["step"]
        return options.peak_rate * share

    def probabilities(
        self,
        networks: Mapping[str, Forward],
        crop: Crop,
        options: TrainingOptions,
        progress: Progress = silent,
    ) -> Tensor:
        """Return the infection's probability, float32 (1, z, y, x); see `Rival.probabilities`."""
        shape, spacing_mm = working_grid(crop.spacing_mm, options)
        statistics = GreyStatistics.of(crop.signal) if options.preprocess else None
        return segment_by_patches(
            crop,
            shape,
            networks[self.parts[0]],
            overlap=OVERLAP,
            prepare=partial(_network_input, statistics),
            probability=self.probability,
            spacing_mm=spacing_mm,
            progress=progress,
        )


def classes(lungs: Tensor, truth: Tensor) -> Tensor:
    """Return the class of each voxel; the infection wins over the lungs.

    Parameters
    ----------
    lungs : uint8 Tensor (z, y, x)
        0 outside, 1 right, 2 left lung.
    truth : Tensor (z, y, x)
        1 where there is infection, else 0.

    Returns
    -------
    float32 Tensor (z, y, x)
        0 background, 1 left lung, 2 right lung, 3 infection.
    """
    labels = torch.full(lungs.shape, float(BACKGROUND))
    labels[lungs == LEFT_IN_SCANS] = LEFT_LUNG
    labels[lungs == RIGHT_IN_SCANS] = RIGHT_LUNG
    labels[truth > 0.5] = INFECTION
    return labels


def working_grid(own_mm: Triple, options: TrainingOptions) -> tuple[Shape, Triple]:
    """Return the patch and its spacing for a scan's own spacing."""
    spacing_mm = working_spacing(SPACING_MM, own_mm) if options.preprocess else own_mm
    if options.patch is not None:
        return (options.patch, options.patch, options.patch), spacing_mm
    depth_mm, height_mm, width_mm = (n * mm for n, mm in zip(PATCH, SPACING_MM, strict=True))
    nearest = patch_shape((depth_mm, height_mm, width_mm), spacing_mm)
    z, y, x = (min(pair) for pair in zip(nearest, PATCH, strict=True))
    return (z, y, x), spacing_mm


def _network_input(statistics: GreyStatistics | None, signal: Tensor) -> Tensor:
    return (signal if statistics is None else statistics.z_scores(signal))[None]
