"""What recipes have in common that take patches of the standard grid as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from torch import Tensor

from segmentation.baselines.patches import (
    Shape,
    Triple,
    draw_patch,
    patch_shape,
    segment_by_patches,
    vary_patch,
)
from segmentation.training.cut import CutScan
from segmentation.training.examples import Example
from segmentation.training.options import TrainingOptions
from segmentation.training.recipe import Crop, Forward, Rival, Turn
from standard_space.grid import StandardGrid
from standard_space.progress import Progress, silent

OVERLAP = 0.25
"""Of neighbouring patches at prediction, as a share of their side."""


def on_the_full_grid(z: int, y: int, x: int) -> Triple:
    """Return the extent (z, y, x) in mm of so many voxels of the standard grid of 512."""
    spacing_mm = StandardGrid().spacing_mm
    return z * spacing_mm[0], y * spacing_mm[1], x * spacing_mm[2]


class PatchRecipe(Rival):
    """A single 3D network that sees patches at the scan's own spacing.

    Attributes
    ----------
    patch_mm : tuple of float
        The published patch, (z, y, x); `TrainingOptions.patch` makes it a cube of so many voxels.
    multiple : int
        Sides of a patch are multiples of so many voxels; at least one of it is there.
    """

    dimensions = "3D"
    patch_mm: ClassVar[Triple]
    multiple: ClassVar[int] = 16
    stride: ClassVar[tuple[int, ...]] = (16, 16, 16)

    def example_shape(self, options: TrainingOptions, grid_size: int) -> tuple[int, ...]:
        return self.patch_shape(options, StandardGrid(grid_size).spacing_mm)

    def patch_shape(self, options: TrainingOptions, spacing_mm: Triple) -> Shape:
        """Return a patch's voxels (z, y, x) on a grid."""
        if options.patch is not None:
            return options.patch, options.patch, options.patch
        return patch_shape(self.patch_mm, spacing_mm, self.multiple)

    def example(self, cut: CutScan, part: str, rng: np.random.Generator, turn: Turn) -> Example:
        shape = self.patch_shape(turn.options, cut.spacing_mm)
        patch = draw_patch(cut, rng, shape, positive_share=turn.options.positive_share)
        if turn.vary and turn.options.vary:
            patch = vary_patch(patch, rng, cut.air)
        return Example(patch.signal[None], patch.truth[None], patch.counted[None])

    def probabilities(
        self,
        networks: Mapping[str, Forward],
        crop: Crop,
        options: TrainingOptions,
        progress: Progress = silent,
    ) -> Tensor:
        return segment_by_patches(
            crop,
            self.patch_shape(options, crop.spacing_mm),
            networks["network"],
            overlap=OVERLAP,
            prepare=lambda signal: signal[None],
            probability=self.probability,
            progress=progress,
        )
