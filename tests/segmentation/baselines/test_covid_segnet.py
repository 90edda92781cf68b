from __future__ import annotations

import pytest
import torch

pytest.importorskip("monai")

import numpy as np

from segmentation.baselines.covid_segnet import CovidSegNet
from segmentation.baselines.covid_segnet_network import CovidSegNetwork, FeatureVariation, ProgressivePyramid
from segmentation.methods import options_for
from segmentation.training.recipe import Crop, Turn
from standard_space.errors import UsageError
from standard_space.grid import StandardGrid
from tests.segmentation.baselines.learning import (
    AIR,
    example_bytes,
    forwards,
    learns,
    parameters_of,
    toy_cut,
)

RECIPE = CovidSegNet()
OPTIONS = options_for("covid-segnet", width=4, patch=16, learning_rate=1e-2)


def test_the_published_width_has_its_number_of_parameters() -> None:
    assert parameters_of(RECIPE.network("network", options_for("covid-segnet"))) == 37_046_273


def test_it_learns_a_toy() -> None:
    untrained, trained = learns(RECIPE, OPTIONS, 0), learns(RECIPE, OPTIONS, 40)
    assert trained > 0.5
    assert trained > untrained + 0.3


def test_an_example_is_a_pure_function_of_its_seed() -> None:
    assert example_bytes(RECIPE, OPTIONS, 1) == example_bytes(RECIPE, OPTIONS, 1)
    assert len({example_bytes(RECIPE, OPTIONS, seed) for seed in range(4)}) == 4


def test_an_example_that_is_not_to_vary_is_a_piece_of_the_scan() -> None:
    cut = toy_cut(5)
    example = RECIPE.example(cut, "network", np.random.default_rng(0), Turn(OPTIONS, 64, 0, 10, vary=False))
    assert example.stack.shape == example.truth.shape == example.counted.shape == (1, 16, 16, 16)
    assert set(example.stack.unique().tolist()) <= set(cut.signal.float().unique().tolist())


@pytest.mark.parametrize("shape", [(19, 37, 30), (5, 17, 11)])
def test_probabilities_have_the_shape_of_the_crop(shape: tuple[int, int, int]) -> None:
    crop = Crop(torch.rand(shape), AIR, StandardGrid(64).spacing_mm)
    with torch.no_grad():
        found = RECIPE.probabilities(forwards(RECIPE, OPTIONS), crop, OPTIONS)
    assert found.shape == (1, *shape)
    assert found.dtype == torch.float32
    assert 0.0 <= float(found.min()) < float(found.max()) <= 1.0


@pytest.mark.parametrize(
    ("grid", "shape"),
    [(512, (64, 128, 128)), (256, (32, 64, 64)), (128, (16, 32, 32)), (64, (16, 16, 16))],
)
def test_patches_are_the_published_millimetres(grid: int, shape: tuple[int, int, int]) -> None:
    spacing_mm = StandardGrid(grid).spacing_mm
    assert RECIPE.patch_shape(options_for("covid-segnet"), spacing_mm) == shape
    assert RECIPE.patch_shape(OPTIONS, spacing_mm) == (16, 16, 16)


def test_the_network_takes_any_multiple_of_eight() -> None:
    network = CovidSegNetwork(width=4).eval()
    assert network(torch.rand(1, 1, 8, 16, 24)).shape == (1, 1, 8, 16, 24)
    with pytest.raises(UsageError, match="multiples of 8"):
        network(torch.rand(1, 1, 8, 16, 20))


def test_the_contrast_branch_sees_the_whole_volume() -> None:
    torch.manual_seed(0)
    block = FeatureVariation(16).eval()
    volume = torch.rand(1, 16, 16, 8, 8)
    brighter = volume.clone()
    brighter[:, :, -1] += 5.0
    # Further from the change than any convolution of the block reaches.
    assert not torch.equal(block(volume)[:, :, 0], block(brighter)[:, :, 0])
    last = block.contrast[3]
    assert isinstance(last, torch.nn.Conv3d)
    torch.nn.init.zeros_(last.weight)
    assert torch.equal(block(volume)[:, :, 0], block(brighter)[:, :, 0])


def test_the_pyramid_reaches_eight_voxels() -> None:
    torch.manual_seed(0)
    pyramid = ProgressivePyramid(64).eval()
    volume = torch.rand(1, 64, 1, 1, 33)
    marked = volume.clone()
    marked[..., 16] += 1.0
    changed = (pyramid(volume) != pyramid(marked)).any(dim=1).flatten()
    assert torch.nonzero(changed).flatten().sub(16).tolist() == [-8, -4, -2, -1, 0, 1, 2, 4, 8]


def test_the_pyramid_needs_four_scales_of_channels() -> None:
    with pytest.raises(UsageError, match="multiples of four"):
        ProgressivePyramid(6)
