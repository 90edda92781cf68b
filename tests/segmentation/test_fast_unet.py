from __future__ import annotations

import pytest
import torch

from segmentation import fast_unet
from segmentation.fast_unet import FastUNet
from segmentation.unet import UNet

from .test_unet import randomise

CPU = torch.device("cpu")


@pytest.mark.parametrize("in_one_pass", [True, False])
@pytest.mark.parametrize("shape", [(1, 5, 32, 48), (3, 5, 64, 16)])
def test_the_same_function_as_the_trained_network(
    in_one_pass: bool, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_one_pass:
        monkeypatch.setattr(fast_unet, "_has_fused_convolution", lambda dtype: False)
    network = randomise(UNet(5, 4))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        expected = network(x)
        found = FastUNet(network, CPU, torch.float32)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_both_ways_agree_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    network = UNet(5, 4).eval()
    x = torch.randn((2, 5, 48, 32), generator=torch.Generator().manual_seed(0)).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        fused = FastUNet(network, CPU, torch.bfloat16)(x)
        monkeypatch.setattr(fast_unet, "_has_fused_convolution", lambda dtype: False)
        plain = FastUNet(network, CPU, torch.bfloat16)(x)
    torch.testing.assert_close(fused.float(), plain.float(), rtol=0, atol=0.02)
    assert fused.dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # PyTorch's own, of its own compiler
def test_a_compiled_network_gives_the_same() -> None:
    network = UNet(5, 4).eval()
    x = torch.randn((2, 5, 48, 32), generator=torch.Generator().manual_seed(0))
    fast = FastUNet(network, CPU, torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(torch.compile(fast)(x), fast(x), rtol=1e-4, atol=1e-4)
