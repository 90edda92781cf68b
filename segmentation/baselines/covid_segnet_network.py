"""The network of COVID-SegNet (Yan et al. 2020, arXiv 2004.12987), written from its description.

The paper shows its blocks in figures; where they leave something open the docstrings say what is done here.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from standard_space.errors import UsageError

LEVELS = 4
MULTIPLE = 2 ** (LEVELS - 1)
"""Sides of the input must be multiples of this."""

DILATIONS = (1, 2, 4, 8)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and ReLU at constant size.

    Batch norm and no norm by example: that would take away the overall level of the features, which the
    feature-variation block is there to see and to change.
    """

    def __init__(
        self, before: int, after: int, kernel: int, *, dilation: int = 1, activated: bool = True
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv3d(before, after, kernel, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm3d(after),
            nn.ReLU(inplace=True) if activated else nn.Identity(),
        )


class Residual(nn.Module):
    """Two convolutions of 3^3 beside a shortcut, which is projected by 1^3 where the channels change."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvNorm(before, after, 3), ConvNorm(after, after, 3, activated=False))
        self.shortcut: nn.Module = nn.Identity()
        if before != after:
            self.shortcut = ConvNorm(before, after, 1, activated=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class FeatureVariation(nn.Module):
    """Feature-variation block: features with their contrast and their places weighted, added to what came in.

    Three branches leave a convolution of 1^3. Contrast enhancement: the mean over the volume goes through two
    dense layers to a gain of 0 to 1 for each channel. Position-sensitive: two convolutions of 3^3 give a gain of
    0 to 1 for each voxel and channel. Identity: as it is. The three are joined by a convolution of 3^3. That
    the contrast's gain is by channel, and both dense layers as wide as the features, is decided here.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ConvNorm(channels, channels, 1)
        self.contrast = nn.Sequential(
            nn.AdaptiveAvgPool3d(1),
            nn.Conv3d(channels, channels, 1),
            nn.ReLU(inplace=True),
            nn.Conv3d(channels, channels, 1),
            nn.Sigmoid(),
        )
        self.position = nn.Sequential(
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.Sigmoid(),
        )
        self.join = ConvNorm(3 * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.enter(x)
        varied = torch.cat(
            [features, features * self.contrast(features), features * self.position(features)], dim=1
        )
        return x + self.join(varied)


class ProgressivePyramid(nn.Module):
    """Progressive atrous spatial pyramid pooling: four scales, fused by pairs and then together.

    Each scale is a quarter of the channels: a convolution of 1^3, then one of 3^3 with its dilation. To each scale
    of a pair (1 and 2, 4 and 8) what entered both is added; a convolution of 1^3 joins them, another the pairs.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % len(DILATIONS):
            raise UsageError("the pyramid needs channels in multiples of four", got=channels)
        quarter = channels // len(DILATIONS)
        self.enter = nn.ModuleList(ConvNorm(channels, quarter, 1) for _ in DILATIONS)
        self.atrous = nn.ModuleList(ConvNorm(quarter, quarter, 3, dilation=rate) for rate in DILATIONS)
        self.pairs = nn.ModuleList(ConvNorm(2 * quarter, 2 * quarter, 1) for _ in range(2))
        self.join = ConvNorm(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        entered = [enter(x) for enter in self.enter]
        seen = [atrous(part) for atrous, part in zip(self.atrous, entered, strict=True)]
        fused = []
        for pair, first in zip(self.pairs, (0, 2), strict=True):
            both = entered[first] + entered[first + 1]
            fused.append(pair(torch.cat([seen[first] + both, seen[first + 1] + both], dim=1)))
        return self.join(torch.cat(fused, dim=1))


class CovidSegNetwork(nn.Module):
    """Residual encoder with feature variation, a progressive pyramid at its bottom, and a residual decoder.

    Channels go width, 2, 4, 8 x width; each level halves the volume by max pooling on the way down and doubles it
    by a transposed convolution of 2^3 on the way up, where the skip is concatenated. Every level of the encoder
    but the first begins with a feature-variation block; the last has the pyramid after its residual block.

    Parameters
    ----------
    in_channels : int
    width : int
        Channels of the first level; published: 64.
    """

    def __init__(self, in_channels: int = 1, width: int = 64) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList([Residual(in_channels, width)])
        for before, after in itertools.pairwise(channels):
            self.down.append(nn.Sequential(FeatureVariation(before), Residual(before, after)))
        self.bottom = ProgressivePyramid(channels[-1])
        upward = list(itertools.pairwise(channels[::-1]))
        self.up = nn.ModuleList(nn.ConvTranspose3d(deep, shallow, 2, stride=2) for deep, shallow in upward)
        self.merge = nn.ModuleList(Residual(2 * shallow, shallow) for _, shallow in upward)
        self.head = nn.Conv3d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 1, z, y, x) of volumes (B, in_channels, z, y, x).

        Raises
        ------
        UsageError
            A side is not a multiple of 8.
        """
        if any(side % MULTIPLE for side in x.shape[2:]):
            raise UsageError("the network needs patches in multiples of 8", got=tuple(x.shape[2:]))
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else functional.max_pool3d(x, 2))
            skips.append(x)
        x = self.bottom(skips.pop())
        for enlarge, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([enlarge(x), skips.pop()], dim=1))
        return self.head(x)
