"""What the methods that learn from 3D patches of the scan's own grid have in common, one test for each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

pytest.importorskip("monai")

from segmentation.baselines.covid_segnet import CovidSegNet
from segmentation.baselines.patch_recipe import PatchRecipe
from segmentation.baselines.unet3d import UNet3D
from segmentation.baselines.vnet3d import VNet3D
from segmentation.methods import options_for
from segmentation.training.options import TrainingOptions
from segmentation.training.recipe import Crop, Turn
from standard_space.grid import StandardGrid
from tests.segmentation.baselines.learning import (
    AIR,
    example_bytes,
    forwards,
    learns,
    parameters_of,
    toy_cut,
)

GRIDS = (512, 256, 128, 64)


@dataclass(frozen=True)
class Method:
    """A method, small enough to learn a toy within seconds, and what is known of it as published."""

    recipe: PatchRecipe
    width: int
    learning_rate: float
    steps: int
    parameters: int
    shapes: tuple[tuple[int, int, int], ...]

    @property
    def options(self) -> TrainingOptions:
        return options_for(self.recipe.name, width=self.width, patch=16, learning_rate=self.learning_rate)


CUBES = ((128, 128, 128), (64, 64, 64), (32, 32, 32), (32, 32, 32))
FLAT = ((64, 128, 128), (32, 64, 64), (16, 32, 32), (16, 16, 16))
METHODS = (
    Method(UNet3D(), 4, 1e-2, 25, 22_622_337, CUBES),
    Method(VNet3D(), 2, 3e-3, 40, 45_601_516, CUBES),
    Method(CovidSegNet(), 4, 1e-2, 40, 37_046_273, FLAT),
)
every_method = pytest.mark.parametrize("method", METHODS, ids=[method.recipe.name for method in METHODS])


@every_method
def test_the_published_width_has_its_number_of_parameters(method: Method) -> None:
    published = options_for(method.recipe.name)
    assert parameters_of(method.recipe.network("network", published)) == method.parameters


@every_method
def test_it_learns_a_toy(method: Method) -> None:
    untrained, trained = (learns(method.recipe, method.options, steps) for steps in (0, method.steps))
    assert trained > 0.5
    assert trained > untrained + 0.3


@every_method
def test_an_example_is_a_pure_function_of_its_seed(method: Method) -> None:
    drawn = [example_bytes(method.recipe, method.options, seed) for seed in range(4)]
    assert example_bytes(method.recipe, method.options, 1) == drawn[1]
    assert len(set(drawn)) == 4


@every_method
def test_an_example_that_is_not_to_vary_is_a_piece_of_the_scan(method: Method) -> None:
    cut = toy_cut(5)
    turn = Turn(method.options, 64, 0, 10, vary=False)
    example = method.recipe.example(cut, "network", np.random.default_rng(0), turn)
    assert example.stack.shape == example.truth.shape == example.counted.shape == (1, 16, 16, 16)
    assert set(example.stack.unique().tolist()) <= set(cut.signal.float().unique().tolist())


@pytest.mark.parametrize("shape", [(19, 37, 30), (5, 17, 11)])
@every_method
def test_probabilities_have_the_shape_of_the_crop(method: Method, shape: tuple[int, int, int]) -> None:
    crop = Crop(torch.rand(shape), AIR, StandardGrid(64).spacing_mm)
    with torch.no_grad():
        found = method.recipe.probabilities(forwards(method.recipe, method.options), crop, method.options)
    assert found.shape == (1, *shape)
    assert found.dtype == torch.float32
    assert 0.0 <= float(found.min()) < float(found.max()) <= 1.0


@every_method
def test_patches_are_the_published_millimetres(method: Method) -> None:
    for grid, shape in zip(GRIDS, method.shapes, strict=True):
        spacing_mm = StandardGrid(grid).spacing_mm
        assert method.recipe.patch_shape(options_for(method.recipe.name), spacing_mm) == shape
        assert method.recipe.patch_shape(method.options, spacing_mm) == (16, 16, 16)


@every_method
def test_the_smallest_patch_trains_alone(method: Method) -> None:
    options = options_for(method.recipe.name, width=2)
    shape = method.recipe.patch_shape(options, StandardGrid(64).spacing_mm)
    network = method.recipe.network("network", options).train()
    assert torch.isfinite(network(torch.rand(1, 1, *shape))).all()
