"""The network of H-DenseUNet: a 2D DenseUNet on every slice, a 3D DenseUNet on the volume, and what joins them.

Source: Li et al., IEEE TMI 2018, DOI 10.1109/TMI.2018.2845918, and the code its authors published. The encoders
are MONAI's ``DenseNet``.

Sizes follow the width, of which 96 is published. Below `SHORT_WIDTH` dense blocks are a third as long as well,
for small experiments and tests.

==================  =============  =========================  ==================
part                published      at a width w               below `SHORT_WIDTH`
==================  =============  =========================  ==================
first convolution   96             w
growth, 2D and 3D   48, 32         w / 2, w / 3, at least 2
blocks, 2D          6, 12, 36, 24  the same                   2, 4, 12, 8
blocks, 3D          3, 4, 12, 8    the same                   1, 1, 4, 2
last features       64             2 w / 3, at least 2
==================  =============  =========================  ==================

Where paper and code are silent or differ:

- Skips are summed, as in the paper; the published code of the hybrid network leaves them out. Where the channels
  of a skip and of what it is added to differ, a 1x1 convolution fits them. The code has one such convolution, at
  the deepest skip of the 2D network; the channels that the paper gives for the 3D network need four.
- The 3D network halves the slices in its first convolution and its first pooling, and further down pools in plane
  only: published, and what lets four slices suffice.
- The 3D network gets the 2D network's probability; the published code gives it the scores times 250, to match an
  image in Hounsfield units.
- No drop-out (published: 0.3 before the last layers), and batch norm learns (published: frozen in the 2D network,
  which was trained before).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from monai.networks.nets.densenet import DenseNet
from torch import Tensor, nn
from torch.nn import functional

from standard_space.errors import UsageError

PLANE_MULTIPLE = 32
"""Rows and columns of a volume must be multiples of this."""

SLICE_MULTIPLE = 4
"""Slices of a volume must be multiples of this."""

PUBLISHED_WIDTH = 96
SHORT_WIDTH = 32

_BLOCKS_2D = (6, 12, 36, 24)
_BLOCKS_3D = (3, 4, 12, 8)


class DenseUNet(nn.Module):
    """A DenseNet whose features return to the image's size, level by level, with the encoder's summed to them.

    Parameters
    ----------
    dimensions : int
        2 or 3. In 3D the slices are halved twice only, at the two finest levels.
    in_channels : int
    width : int
        Channels of the first convolution.
    growth : int
        Channels that each layer of a dense block adds.
    blocks : sequence of int
        Layers of the four dense blocks.
    features : int
        Channels of the result.
    """

    def __init__(
        self, dimensions: int, in_channels: int, width: int, growth: int, blocks: Sequence[int], features: int
    ) -> None:
        super().__init__()
        self.encoder: nn.Sequential = DenseNet(
            dimensions, in_channels, 1, init_features=width, growth_rate=growth, block_config=tuple(blocks)
        ).features
        in_plane = (1, 2, 2) if dimensions == 3 else (2, 2)
        if dimensions == 3:
            for block in (1, 2, 3):
                self.encoder.get_submodule(f"transition{block}").pool = nn.AvgPool3d((1, 2, 2))
        skips, deepest = _encoder_channels(width, growth, blocks)
        # Published: 768, 384, 96, 96 and 64 channels in 2D; 504, 224, 192, 96 and 64 in 3D.
        middle = (skips[2], skips[1], skips[0])
        channels = (
            (deepest, *middle, width, features) if dimensions == 2 else (deepest, deepest, *middle, features)
        )
        everywhere = (2,) * dimensions
        self.factors = (in_plane, in_plane, in_plane, everywhere, everywhere)
        convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
        norm = nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm3d
        self.fits = nn.ModuleList(
            nn.Identity() if skip == wanted else convolution(skip, wanted, 1, bias=False)
            for skip, wanted in zip(reversed(skips), channels[:4], strict=True)
        )
        self.merges = nn.ModuleList(
            nn.Sequential(
                convolution(before, after, 3, padding=1, bias=False), norm(after), nn.ReLU(inplace=True)
            )
            for before, after in itertools.pairwise(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, features, ...) of images (B, in_channels, ...), of the same size."""
        skips = []
        for name, layer in self.encoder.named_children():
            x = layer(x)
            if name in ("relu0", "denseblock1", "denseblock2", "denseblock3"):
                skips.append(x)
        x = functional.relu(x)
        for level, (factor, merge) in enumerate(zip(self.factors, self.merges, strict=True)):
            x = functional.interpolate(x, scale_factor=factor, mode="nearest")
            if level < len(self.fits):
                x = x + self.fits[level](skips.pop())
            x = merge(x)
        return x


class HybridDenseUNet(nn.Module):
    """2D and 3D DenseUNet and the hybrid feature fusion that joins them.

    Every slice goes through the 2D network with its two neighbours; at the ends the outermost slice is its own
    neighbour. The 3D network gets the volume and the 2D network's probability. The features of both are added; a
    3x3x3 convolution and a 1x1x1 one give the result.

    Parameters
    ----------
    width : int
        See the table of this module.
    """

    def __init__(self, width: int = PUBLISHED_WIDTH) -> None:
        super().__init__()
        if width < 1:
            raise UsageError("a network needs at least one channel", got=width)
        shorter = 3 if width < SHORT_WIDTH else 1
        features = max(2, round(width * 2 / 3))
        blocks_2d, blocks_3d = (
            tuple(max(1, layers // shorter) for layers in blocks) for blocks in (_BLOCKS_2D, _BLOCKS_3D)
        )
        self.slices = DenseUNet(2, 3, width, max(2, round(width / 2)), blocks_2d, features)
        self.slice_head = nn.Conv2d(features, 1, 1)
        self.volume = DenseUNet(3, 2, width, max(2, round(width / 3)), blocks_3d, features)
        self.fusion = nn.Sequential(
            nn.Conv3d(features, features, 3, padding=1, bias=False),
            nn.BatchNorm3d(features),
            nn.ReLU(inplace=True),
            nn.Conv3d(features, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 2, z, y, x) of volumes (B, 1, z, y, x): the hybrid network's, and the 2D network's.

        Raises
        ------
        UsageError
            z is not a multiple of 4, or y or x not one of 32.
        """
        count, _, *sides = x.shape
        if sides[0] % SLICE_MULTIPLE or sides[1] % PLANE_MULTIPLE or sides[2] % PLANE_MULTIPLE:
            raise UsageError(
                "the network needs slices in multiples of 4, of sides in multiples of 32", got=tuple(sides)
            )
        features = self.slices(_with_neighbours(x[:, 0]).flatten(0, 1))
        logits = _as_volume(self.slice_head(features), count)
        context = torch.cat([x, torch.sigmoid(logits)], dim=1)
        fused = self.volume(context) + _as_volume(features, count)
        return torch.cat([self.fusion(fused), logits], dim=1)


def _encoder_channels(width: int, growth: int, blocks: Sequence[int]) -> tuple[list[int], int]:
    """Return the channels of a DenseNet's four skips, from the finest, and of its deepest features."""
    skips, channels = [width], width
    for layers in blocks:
        channels += layers * growth
        skips.append(channels)
        channels //= 2
    return skips[:4], skips[4]


def _with_neighbours(volumes: Tensor) -> Tensor:
    """Stack each slice of volumes (B, z, y, x) with its neighbours: (B, z, 3, y, x)."""
    ends = torch.cat([volumes[:, :1], volumes, volumes[:, -1:]], dim=1)
    return torch.stack([ends[:, :-2], volumes, ends[:, 2:]], dim=2)


def _as_volume(slices: Tensor, count: int) -> Tensor:
    """Return slices (B * z, C, y, x) of `count` volumes as (B, C, z, y, x)."""
    return slices.unflatten(0, (count, -1)).transpose(1, 2)
