"""2D U-Net: single axial slices in, one probability out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("monai")

from segmentation.baselines.unet2d import UNet2D
from segmentation.methods import options_for
from segmentation.training.examples import Batch
from segmentation.training.recipe import Crop, Turn
from tests.segmentation.baselines.learning import AIR, GRID_SIZE, crop_of, forwards, learns, toy_cut

RECIPE = UNet2D()


def tiny(**given):
    return options_for("unet2d", **{"width": 4, "batch_size": 4, "patch": 32, **given})


def example(seed=0, vary=True, **given):
    turn = Turn(tiny(**given), GRID_SIZE, 0, 10, vary)
    return RECIPE.example(toy_cut(1), "network", np.random.default_rng(seed), turn)


def test_published_width_has_31_million_parameters():
    network = RECIPE.network("network", options_for("unet2d"))
    assert sum(weights.numel() for weights in network.parameters()) == 31_106_177


def test_positives_weigh_as_much_as_the_rest_unless_asked_otherwise():
    assert options_for("unet2d").weight_of_positives == 1.0
    assert tiny(positive_weight=3.0).weight_of_positives == 3.0


def test_an_example_is_one_axial_slice():
    cut, drawn = toy_cut(1), example(vary=False)
    assert drawn.stack.shape == drawn.truth.shape == drawn.counted.shape == (1, 32, 32)
    assert any(torch.equal(drawn.stack[0], plane) for plane in cut.signal.float())


def test_the_patch_follows_the_grid_when_none_is_asked_for():
    assert example(patch=None).stack.shape == (1, 32, 32)
    turn = Turn(tiny(patch=None), 128, 0, 10)
    drawn = RECIPE.example(toy_cut(1), "network", np.random.default_rng(0), turn)
    assert drawn.stack.shape == (1, 48, 48)
    assert drawn.counted.sum() > 0
    assert drawn.counted[0, 0].sum() == 0


def test_an_example_is_a_pure_function_of_its_arguments():
    one, same, other = example(3), example(3), example(4)
    assert torch.equal(one.stack, same.stack)
    assert torch.equal(one.truth, same.truth)
    assert torch.equal(one.counted, same.counted)
    assert not torch.equal(one.stack, other.stack)


def test_a_crop_of_odd_size_is_answered_voxel_by_voxel():
    options = tiny()
    signal = toy_cut(1).signal.float()[:7, :21, :30].contiguous()
    seen = []
    found = RECIPE.probabilities(
        forwards(RECIPE, options),
        Crop(signal, AIR, (8.0, 5.2, 5.2)),
        options,
        lambda *step: seen.append(step),
    )
    assert found.shape == (1, 7, 21, 30)
    assert found.dtype == torch.float32
    assert 0.0 <= found.min() < found.max() <= 1.0
    assert seen[-1] == ("slices", 7, 7)


def test_a_slice_is_answered_by_itself_padded_with_air():
    options = tiny()
    networks = forwards(RECIPE, options)
    signal = toy_cut(1).signal.float()[:, :21, :30].contiguous()
    with torch.no_grad():
        whole = RECIPE.probabilities(networks, Crop(signal, AIR, (8.0, 5.2, 5.2)), options)
        padded = torch.full((1, 1, 32, 32), AIR)
        padded[0, 0, :21, :30] = signal[11]
        alone = torch.sigmoid(networks["network"](padded))[0, 0, :21, :30]
    torch.testing.assert_close(whole[0, 11], alone)


def test_the_loss_counts_marked_pixels_only():
    batch = Batch.of([example(seed) for seed in range(2)])
    output = torch.zeros(2, 1, 32, 32, requires_grad=True)
    loss, dice = RECIPE.loss(output, batch, tiny())
    loss.backward()
    assert 0.0 < dice < 1.0
    assert torch.all((output.grad == 0.0) == (batch.counted == 0.0))


def test_it_learns_a_toy():
    options = tiny(batch_size=8, learning_rate=1e-2)
    assert learns(RECIPE, options, 0) < 0.5
    assert learns(RECIPE, options, 50) > 0.8


def test_a_crop_of_a_cut_scan_needs_nothing_else():
    options = tiny()
    cut = toy_cut(2)
    assert RECIPE.probabilities(forwards(RECIPE, options), crop_of(cut), options).shape == (
        1,
        *cut.signal.shape,
    )
