from __future__ import annotations

import pytest
import torch

pytest.importorskip("monai")

from segmentation.baselines.covid_segnet_network import CovidSegNetwork, FeatureVariation, ProgressivePyramid
from standard_space.errors import UsageError


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
