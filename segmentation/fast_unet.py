"""A trained U-Net made ready for prediction: batch norm folded in, convolution and ReLU in one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmentation.device import cpu_has
from segmentation.unet import DoubleConv, UNet, channels_last, fused_copy


class FastUNet(nn.Module):
    """The same function as a trained `UNet` in evaluation mode, to rounding.

    On a CPU, oneDNN computes ReLU while a convolution's result is still in the cache; PyTorch reaches that through
    the operation its own compiler uses. Where it is missing (another build of PyTorch) the plain operations are
    used, with the same results.

    Parameters
    ----------
    network : UNet
        Not changed.
    device : torch.device
    dtype : torch.dtype
        float32, bfloat16 or float16: of the weights and the arithmetic.
    """

    def __init__(self, network: UNet, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.unet = channels_last(fused_copy(network).to(device, dtype))
        self._in_one_pass = device.type == "cpu" and _has_fused_convolution(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 1, H, W) of stacks (B, slices, H, W); H and W are multiples of 16."""
        skips = []
        for level, block in enumerate(self.unet.down):
            x = self._double(block, x if level == 0 else self._halved(x))  # type: ignore[arg-type]
            skips.append(x)
        skips.pop()
        for enlarge, block in zip(self.unet.up, self.unet.merge, strict=True):
            x = self._double(block, torch.cat([skips.pop(), enlarge(x)], dim=1))  # type: ignore[arg-type]
        return self.unet.head(x)

    def _halved(self, x: Tensor) -> Tensor:
        if not self._in_one_pass:
            return functional.max_pool2d(x, 2)
        # The largest of 2 x 2, as in `max_pool2d`, which on a CPU also notes where each one was.
        rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])

    def _double(self, block: DoubleConv, x: Tensor) -> Tensor:
        if not self._in_one_pass:
            return block(x)
        for convolution in (block.conv1, block.conv2):
            x = torch.ops.mkldnn._convolution_pointwise(
                x, convolution.weight, convolution.bias, [1, 1], [1, 1], [1, 1], 1, "relu", [], ""
            )
        return x


def _has_fused_convolution(dtype: torch.dtype) -> bool:
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and cpu_has("avx512_bw"))
