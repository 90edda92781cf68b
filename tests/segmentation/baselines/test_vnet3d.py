from __future__ import annotations

import pytest
import torch

pytest.importorskip("monai")

from monai.networks.nets import VNet

from segmentation.baselines.vnet3d import VNet3D
from segmentation.methods import options_for

RECIPE = VNet3D()
OPTIONS = options_for("vnet3d", width=2, patch=16)


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
