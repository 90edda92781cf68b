"""H-DenseUNet: a 2D network on every slice, a 3D one on the sub-volume, and their fusion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("monai")

from segmentation.baselines.h_denseunet import HDenseUNet, sub_volume
from segmentation.baselines.h_denseunet_network import HybridDenseUNet, _with_neighbours
from segmentation.methods import options_for
from segmentation.training.examples import Batch
from segmentation.training.losses import loss_and_dice
from segmentation.training.recipe import Crop, Turn
from standard_space.errors import UsageError
from standard_space.grid import StandardGrid
from tests.segmentation.baselines.learning import AIR, GRID_SIZE, forwards, learns, toy_cut

RECIPE = HDenseUNet()
SPACING = (8.0, 5.2, 5.2)


def tiny(**given):
    return options_for("h-denseunet", **{"width": 4, **given})


def example(seed=0, vary=True, **given):
    turn = Turn(tiny(**given), GRID_SIZE, 0, 10, vary)
    return RECIPE.example(toy_cut(1), "network", np.random.default_rng(seed), turn)


def count(module):
    return sum(weights.numel() for weights in module.parameters())


@pytest.fixture(scope="module")
def published():
    # On the device "meta" 66 million weights take neither memory nor time.
    with torch.device("meta"):
        return HybridDenseUNet()


# The network.


def test_published_width_has_66_million_parameters(published):
    assert count(published.slices) == 49_524_032
    assert count(published.volume) == 16_334_656
    assert count(published) == 65_969_538
    assert options_for("h-denseunet").width == 96


def test_the_slices_encoder_is_densenet_161(published):
    # The 28,681,000 of DenseNet-161 without its last layer, which gives 1000 classes of 2208 features.
    assert count(published.slices.encoder) == 28_681_000 - 2208 * 1000 - 1000


def test_channels_are_the_published_ones(published):
    channels = {
        name: [merge[0].out_channels for merge in part.merges]
        for name, part in (("slices", published.slices), ("volume", published.volume))
    }
    assert channels == {"slices": [768, 384, 96, 96, 64], "volume": [504, 224, 192, 96, 64]}


def test_a_smaller_width_scales_all(published):
    with torch.device("meta"):
        half, narrow = HybridDenseUNet(48), HybridDenseUNet(31)
    assert half.slice_head.in_channels == 32
    assert 0.2 < count(half) / count(published) < 0.3
    assert count(narrow) < count(half) / 10


def test_four_slices_suffice():
    network = HybridDenseUNet(4).eval()
    assert network(torch.randn(2, 1, 4, 32, 64)).shape == (2, 2, 4, 32, 64)
    assert network(torch.randn(1, 1, 12, 32, 32)).shape == (1, 2, 12, 32, 32)


@pytest.mark.parametrize("sides", [(6, 32, 32), (4, 48, 32), (4, 32, 16)])
def test_other_sides_are_refused(sides):
    with pytest.raises(UsageError, match="multiples"):
        HybridDenseUNet(4)(torch.zeros(1, 1, *sides))


def test_a_width_below_one_is_refused():
    with pytest.raises(UsageError):
        HybridDenseUNet(0)


def test_each_slice_sees_its_two_neighbours():
    volumes = torch.arange(2 * 5).view(2, 5, 1, 1).float()
    stacks = _with_neighbours(volumes)[..., 0, 0]
    assert stacks[0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]
    assert stacks[1].tolist() == [[5, 5, 6], [5, 6, 7], [6, 7, 8], [7, 8, 9], [8, 9, 9]]


def test_the_slice_network_looks_one_slice_far_and_the_volume_network_further():
    torch.manual_seed(0)
    network = HybridDenseUNet(4).eval()
    volume = torch.randn(1, 1, 12, 32, 32)
    changed = volume.clone()
    changed[0, 0, 6] += 1.0
    with torch.no_grad():
        moved = (network(changed) - network(volume)).abs().amax((0, 3, 4))
    fused, slices = moved
    assert [slot for slot in range(12) if slices[slot] > 0] == [5, 6, 7]
    assert (fused > 0).sum() > 3


def test_one_smallest_sub_volume_trains_both_networks():
    network = HybridDenseUNet(4)
    network(torch.randn(1, 1, 4, 64, 64))[:, 0].sum().backward()
    for part in (network.slices, network.slice_head, network.volume, network.fusion):
        assert all(weights.grad is not None for weights in part.parameters())


# Sub-volumes.


def test_sub_volumes_are_the_published_ones_and_as_large_in_millimetres_on_coarser_grids():
    shapes = {grid: sub_volume(StandardGrid(grid).spacing_mm) for grid in (512, 256, 128, 64)}
    assert shapes == {512: (12, 224, 224), 256: (8, 128, 128), 128: (4, 64, 64), 64: (4, 64, 64)}


def test_a_side_can_be_asked_for_in_multiples_of_32():
    assert sub_volume((1.0, 1.0, 1.0), 96) == (12, 96, 96)
    assert example(patch=96).stack.shape == (1, 4, 96, 96)
    for side in (32, 80):
        with pytest.raises(UsageError, match="32"):
            sub_volume((1.0, 1.0, 1.0), side)


def test_an_example_is_a_sub_volume():
    drawn, cut = example(vary=False), toy_cut(1)
    assert drawn.stack.shape == drawn.truth.shape == drawn.counted.shape == (1, 4, 64, 64)
    # The toy is 32 voxels wide: air around it.
    middle = (slice(None), slice(16, 48), slice(16, 48))
    starts = [z for z in range(29) if torch.equal(drawn.stack[0][middle], cut.signal[z : z + 4].float())]
    assert len(starts) == 1
    assert torch.equal(drawn.truth[0][middle], cut.truth[starts[0] : starts[0] + 4].float())
    assert torch.all(drawn.stack[0, :, :16] == AIR)
    assert drawn.counted[0, :, :16].sum() == 0


def test_an_example_is_a_pure_function_of_its_arguments():
    one, same, other = example(3), example(3), example(4)
    assert torch.equal(one.stack, same.stack)
    assert torch.equal(one.truth, same.truth)
    assert torch.equal(one.counted, same.counted)
    assert not torch.equal(one.stack, other.stack)


def test_the_loss_adds_half_the_slice_networks():
    batch = Batch.of([example(seed) for seed in range(2)])
    torch.manual_seed(0)
    output = torch.randn(2, 2, 4, 64, 64)
    fused, dice = loss_and_dice(output[:, :1], batch.truth, batch.counted)
    slices, _ = loss_and_dice(output[:, 1:], batch.truth, batch.counted)
    loss, told = RECIPE.loss(output, batch, tiny())
    torch.testing.assert_close(loss, fused + 0.5 * slices)
    torch.testing.assert_close(told, dice)


def test_the_answer_is_the_fused_probability():
    output = torch.randn(1, 2, 4, 32, 32)
    assert torch.equal(RECIPE.probability(output), torch.sigmoid(output[:, :1]))


# Prediction.


def test_a_crop_of_odd_size_is_answered_voxel_by_voxel():
    options = tiny()
    signal = toy_cut(1).signal.float()[:7, :21].repeat(1, 1, 3)[:, :, :75].contiguous()
    seen = []
    with torch.no_grad():
        found = RECIPE.probabilities(
            forwards(RECIPE, options), Crop(signal, AIR, SPACING), options, lambda *step: seen.append(step)
        )
    assert found.shape == (1, 7, 21, 75)
    assert found.dtype == torch.float32
    assert 0.0 <= found.min() < found.max() <= 1.0
    assert seen[-1][1] == seen[-1][2]


def test_a_crop_as_large_as_a_sub_volume_is_answered_in_one_pass():
    options = tiny()
    networks = forwards(RECIPE, options)
    signal = toy_cut(1).signal.float()[10:14].repeat(1, 2, 2)
    with torch.no_grad():
        found = RECIPE.probabilities(networks, Crop(signal, AIR, SPACING), options)
        expected = torch.sigmoid(networks["network"](signal[None, None])[:, 0])
    torch.testing.assert_close(found, expected)


def test_it_learns_a_toy():
    options = tiny(width=8, learning_rate=1e-2)
    assert learns(RECIPE, options, 0) < 0.3
    assert learns(RECIPE, options, 50) > 0.5
