from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segmentation.unet import DoubleConv, UNet, fused_copy, pad_to_multiple
from standard_space.errors import UsageError

Array = NDArray[np.float64]


def randomise(network: UNet) -> UNet:
    """Give every weight and running statistic a value that matters."""
    generator = torch.Generator().manual_seed(3)
    state = network.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            drawn = torch.rand(value.shape, generator=generator)
            value.copy_(drawn + 0.5 if "running_var" in name else drawn - 0.4)
    network.load_state_dict(state)
    return network.eval()


def conv(x: Array, weight: Array) -> Array:
    """3x3 convolution with zero padding, one output pixel at a time."""
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.empty((weight.shape[0], height, width))
    for i in range(height):
        for j in range(width):
            out[:, i, j] = np.tensordot(weight, padded[:, i : i + 3, j : j + 3], 3)
    return out


def twin(w: dict[str, Array], x: Array) -> Array:
    """The U-Net in NumPy, from its state dict."""

    def double(prefix: str, x: Array) -> Array:
        for k in "12":
            x = conv(x, w[f"{prefix}.conv{k}.weight"])
            mean, var = w[f"{prefix}.norm{k}.running_mean"], w[f"{prefix}.norm{k}.running_var"]
            scale, shift = w[f"{prefix}.norm{k}.weight"], w[f"{prefix}.norm{k}.bias"]
            x = (x - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
            x = np.maximum(x * scale[:, None, None] + shift[:, None, None], 0)
        return x

    skips = [double("down.0", x)]
    for level in range(1, 5):
        c, h, v = skips[-1].shape
        skips.append(double(f"down.{level}", skips[-1].reshape(c, h // 2, 2, v // 2, 2).max(axis=(2, 4))))
    x = skips.pop()
    for level in range(4):
        weight, bias = w[f"up.{level}.weight"], w[f"up.{level}.bias"]
        c, h, v = x.shape
        larger = np.einsum("chv,coab->ohavb", x, weight).reshape(weight.shape[1], 2 * h, 2 * v)
        x = double(f"merge.{level}", np.concatenate([skips.pop(), larger + bias[:, None, None]]))
    return np.tensordot(w["head.weight"][:, :, 0, 0], x, 1) + w["head.bias"][:, None, None]


def test_reference_width_has_the_published_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in UNet().parameters()) == 1_942_865


def test_forward_equals_the_numpy_twin() -> None:
    network = randomise(UNet(5, 2)).double()
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 5, 16, 32)))
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    with torch.no_grad():
        found = network(x)[0].numpy()
    np.testing.assert_allclose(found, twin(weights, x[0].numpy()), rtol=1e-9, atol=1e-9)


def test_fused_copy_gives_the_same_logits_and_leaves_the_network_alone() -> None:
    network = randomise(UNet(5, 4)).double()
    fused = fused_copy(network)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 5, 32, 32)))
    with torch.no_grad():
        torch.testing.assert_close(fused(x), network(x), rtol=1e-9, atol=1e-9)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    block = network.down[0]
    assert isinstance(block, DoubleConv)
    assert isinstance(block.norm1, torch.nn.BatchNorm2d)


def test_padding_reaches_multiples_of_16_with_air() -> None:
    padded = pad_to_multiple(torch.ones(1, 5, 17, 32), -0.25)
    assert padded.shape == (1, 5, 32, 32)
    assert torch.equal(padded[:, :, :17], torch.ones(1, 5, 17, 32))
    assert torch.equal(padded[:, :, 17:], torch.full((1, 5, 15, 32), -0.25))
    same = torch.ones(1, 5, 16, 48)
    assert pad_to_multiple(same, -0.25) is same


def test_other_sizes_and_widths_are_refused() -> None:
    with pytest.raises(UsageError, match="multiples of 16"):
        UNet(5, 2)(torch.zeros(1, 5, 20, 16))
    with pytest.raises(UsageError, match="at least one channel"):
        UNet(5, 0)


@pytest.mark.interop
def test_forward_equals_monai_s_basic_unet_on_copied_weights() -> None:
    from monai.networks.nets import BasicUNet

    width = 4
    ours = randomise(UNet(5, width))
    theirs = BasicUNet(
        spatial_dims=2,
        in_channels=5,
        out_channels=1,
        features=(width, 2 * width, 4 * width, 8 * width, 16 * width, width),
        act="relu",
        norm="batch",
        bias=False,
        upsample="deconv",
    ).eval()
    state = {name: torch.zeros_like(value) for name, value in theirs.state_dict().items()}
    blocks = {"conv_0": ours.down[0]}
    blocks |= {f"down_{k}.convs": ours.down[k] for k in range(1, 5)}
    blocks |= {f"upcat_{4 - k}.convs": ours.merge[k] for k in range(4)}
    for prefix, block in blocks.items():
        for k in "01":
            for source, target in (("conv", f"conv_{k}.conv"), ("norm", f"conv_{k}.adn.N")):
                for name, value in getattr(block, f"{source}{int(k) + 1}").state_dict().items():
                    into = state[f"{prefix}.{target}.{name}"]
                    # MONAI does not halve the channels of the last upsampling: what is more there stays zero.
                    into[tuple(slice(0, size) for size in value.shape)] = value
    for k in range(4):
        for name, value in ours.up[k].state_dict().items():
            into = state[f"upcat_{4 - k}.upsample.deconv.{name}"]
            into[tuple(slice(0, size) for size in value.shape)] = value
    for name, value in ours.head.state_dict().items():
        state[f"final_conv.{name}"] = value
    theirs.load_state_dict(state)
    x = torch.randn((2, 5, 48, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = theirs(x), ours(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
