from __future__ import annotations

import pytest
import torch

pytest.importorskip("monai")

import numpy as np
from monai.networks.nets import VNet

from segmentation.baselines.vnet3d import VNet3D
from segmentation.methods import options_for
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

RECIPE = VNet3D()
OPTIONS = options_for("vnet3d", width=2, patch=16, learning_rate=3e-3)


def test_the_published_width_has_its_number_of_parameters() -> None:
    assert parameters_of(RECIPE.network("network", options_for("vnet3d"))) == 45_601_516


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


@pytest.mark.parametrize(("grid", "side"), [(512, 128), (256, 64), (128, 32), (64, 32)])
def test_patches_are_the_published_millimetres(grid: int, side: int) -> None:
    spacing_mm = StandardGrid(grid).spacing_mm
    assert RECIPE.patch_shape(options_for(RECIPE.name), spacing_mm) == (side, side, side)
    assert RECIPE.patch_shape(OPTIONS, spacing_mm) == (16, 16, 16)


def test_the_smallest_patch_trains_alone() -> None:
    options = options_for(RECIPE.name, width=2)
    shape = RECIPE.patch_shape(options, StandardGrid(64).spacing_mm)
    network = RECIPE.network("network", options).train()
    assert torch.isfinite(network(torch.rand(1, 1, *shape))).all()


def test_at_the_published_width_it_is_monais_network_to_the_bit() -> None:
    torch.manual_seed(7)
    ours = RECIPE.network("network", options_for("vnet3d")).state_dict()
    torch.manual_seed(7)
    network = VNet(out_channels=2, act="prelu", dropout_prob_down=None, dropout_prob_up=(None, 0.0))
    theirs = network.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_training_draws_nothing_from_torchs_generator() -> None:
    network = RECIPE.network("network", OPTIONS).train()
    stack = torch.rand(2, 1, 16, 16, 16)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = network(stack)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, network(stack))


def test_its_probability_is_the_softmax_of_two_classes() -> None:
    output = torch.randn(2, 2, 3, 3, 3)
    torch.testing.assert_close(RECIPE.probability(output), torch.softmax(output, 1)[:, 1:])
