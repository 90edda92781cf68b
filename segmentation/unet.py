"""The 2D U-Net of one view: five slices in, one logit per pixel of the central slice out."""

from __future__ import annotations

import copy
import itertools
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from standard_space.errors import UsageError

DEPTH = 4
"""Number of 2x2 poolings."""

MULTIPLE = 2**DEPTH
"""Height and width of the input must be multiples of this; see `pad_to_multiple`."""


class DoubleConv(nn.Module):
    """Two rounds of 3x3 convolution, batch norm and ReLU at constant image size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        return functional.relu(self.norm2(self.conv2(x)), inplace=True)

    def fuse(self) -> None:
        """Fold the batch norms into the convolutions (evaluation only)."""
        self.conv1 = fuse_conv_bn_eval(self.conv1, cast(nn.BatchNorm2d, self.norm1))
        self.conv2 = fuse_conv_bn_eval(self.conv2, cast(nn.BatchNorm2d, self.norm2))
        self.norm1, self.norm2 = nn.Identity(), nn.Identity()


class UNet(nn.Module):
    """Standard 2D U-Net [paper III-D]; 1.94 M parameters at the reference width 16.

    Channels go width, 2, 4, 8, 16 x width; each level halves the image by 2x2 max pooling on the way down
    and doubles it by a 2x2 transposed convolution on the way up, where the skip is concatenated first.

    Parameters
    ----------
    in_channels : int
        Number of slices in a stack.
    width : int
        Channels of the first level.
    """

    def __init__(self, in_channels: int = 5, width: int = 16) -> None:
        super().__init__()
        if width < 1 or in_channels < 1:
            raise UsageError("a network needs at least one channel", got=(in_channels, width))
        channels = [width * 2**level for level in range(DEPTH + 1)]
        self.in_channels = in_channels
        self.width = width
        self.down = nn.ModuleList(
            DoubleConv(before, after)
            for before, after in zip([in_channels, *channels[:-1]], channels, strict=True)
        )
        deepest_first = channels[::-1]
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(deep, shallow, 2, stride=2)
            for deep, shallow in itertools.pairwise(deepest_first)
        )
        self.merge = nn.ModuleList(
            DoubleConv(deep, shallow) for deep, shallow in itertools.pairwise(deepest_first)
        )
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 1, H, W) of stacks (B, in_channels, H, W).

        Raises
        ------
        UsageError
            Height or width is not a multiple of 16.
        """
        if x.shape[-1] % MULTIPLE or x.shape[-2] % MULTIPLE:
            raise UsageError(
                "the network needs images in multiples of 16",
                got=tuple(x.shape[-2:]),
                remedy="pad with air by pad_to_multiple",
            )
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for enlarge, block in zip(self.up, self.merge, strict=True):
            x = block(torch.cat([skips.pop(), enlarge(x)], dim=1))
        return self.head(x)


def pad_to_multiple(stack: Tensor, air: float) -> Tensor:
    """Pad (B, C, H, W) with air below and to the right, up to multiples of 16.

    The caller crops the network's output back to ``[..., :H, :W]``.
    """
    height, width = stack.shape[-2:]
    bottom, right = -height % MULTIPLE, -width % MULTIPLE
    if bottom == 0 and right == 0:
        return stack
    return functional.pad(stack, (0, right, 0, bottom), value=air)


def fused_copy(network: UNet) -> UNet:
    """Return a copy for prediction: evaluation mode, batch norms folded into the convolutions."""
    fused = copy.deepcopy(network).eval()
    with torch.no_grad():
        for module in fused.modules():
            if isinstance(module, DoubleConv):
                module.fuse()
    return fused.requires_grad_(False)


def channels_last(network: UNet) -> UNet:
    """Lay the weights out channels-last, in place: convolutions are faster so."""
    # Module.to documents memory_format, its type hints lack it.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
