"""A 3D U-Net on an encoder that learned from videos: torchvision's `r3d_18` by names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from segmentation.segmenter import check_finite
from segmentation.tensor_file import read_tensors
from standard_space.errors import DataError
from standard_space.files import sha256_of

ENCODER_WIDTH = 64
"""Of `r3d_18`: its weights fit no other."""

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_DEVIATION = (0.22803, 0.22145, 0.216989)
"""Of the videos' red, green and blue, 0 to 1, in torchvision's training of `r3d_18` on Kinetics-400."""

CLASSIFIER = "fc."
REMEDY = "give a file of torchvision's r3d_18 weights (a state_dict saved by torch.save)"


class TransferNetwork(nn.Module):
    """A 3D U-Net whose way down is an 18-layer 3D ResNet.

    The way down halves rows and columns four times and slices three times. Each step up is a transposed
    convolution, the features of the same size from the way down, and two convolutions with batch normalisation;
    the last one, to full size in plane, takes the image itself. Slices may be any number, rows and columns
    multiples of 16.

    Parameters
    ----------
    width : int
        Channels of the encoder's first level; `r3d_18` has 64.

    Attributes
    ----------
    encoder : Encoder
    pretrained : bool Tensor
        Whether the encoder began with weights learned elsewhere. Kept with the network's state, so that a resumed
        run knows.
    """

    pretrained: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        half = max(1, width // 2)
        self.up = nn.ModuleList(
            [
                _Up(8 * width, 4 * width, 4 * width),
                _Up(4 * width, 2 * width, 2 * width),
                _Up(2 * width, width, width),
                _Up(width, len(KINETICS_MEAN), half, stride=(1, 2, 2)),
            ]
        )
        self.last = nn.Conv3d(half, 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.register_buffer("pretrained", torch.tensor(False))
        for name, values in (("mean", KINETICS_MEAN), ("deviation", KINETICS_DEVIATION)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1, 1), persistent=False)

    def forward(self, stack: Tensor) -> Tensor:
        """Return logits (B, 1, z, y, x) of images (B, 1, z, y, x), 0 to 1."""
        image = (stack - self.mean) / self.deviation
        features = self.encoder(image)
        x = features[-1]
        for up, skipped in zip(self.up, (*features[-2::-1], image), strict=True):
            x = up(x, skipped)
        logits: Tensor = self.last(x)
        return logits

    def load_encoder(self, path: str | Path) -> str:
        """Put weights of an `r3d_18` into the encoder and return the SHA-256 of their file.

        Its classifier is left out.

        Raises
        ------
        DataError
            The file is missing or damaged, holds something else or NaN, or does not fit; the encoder is then as it
            was.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError("there is no such file of encoder weights", where=path, remedy=REMEDY)
        content = read_tensors(path, "the encoder weights are damaged", remedy=REMEDY)
        if not (isinstance(content, Mapping) and all(isinstance(t, Tensor) for t in content.values())):
            raise DataError("the file holds no encoder weights", where=path, remedy=REMEDY)
        weights = {name: t for name, t in content.items() if not str(name).startswith(CLASSIFIER)}
        own = self.encoder.state_dict()
        lacking = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
        foreign = [name for name in weights if name not in own]
        if lacking or foreign:
            what = f"it lacks {lacking[0]}" if lacking else f"it has {foreign[0]}"
            raise DataError(f"the weights are not those of an r3d_18: {what}", where=path, remedy=REMEDY)
        for name, tensor in weights.items():
            if tensor.shape != own[name].shape:
                raise DataError(
                    f"the encoder weights do not fit: {name} has another shape",
                    where=path,
                    got=tuple(tensor.shape),
                    expected=tuple(own[name].shape),
                    remedy=f"train with --width {ENCODER_WIDTH}",
                )
        check_finite(weights, path)
        self.encoder.load_state_dict(weights, strict=False)
        self.pretrained.fill_(True)
        return sha256_of(path)


class Encoder(nn.Module):
    """The 18-layer 3D ResNet of Tran et al. (CVPR 2018, 10.1109/CVPR.2018.00675), without its classifier.

    Names and shapes of the weights are those of torchvision's `r3d_18`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(len(KINETICS_MEAN), width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.layer1 = _layer(width, width, 1)
        self.layer2 = _layer(width, 2 * width, 2)
        self.layer3 = _layer(2 * width, 4 * width, 2)
        self.layer4 = _layer(4 * width, 8 * width, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of the four layers, finest first."""
        first = self.layer1(self.stem(image))
        second = self.layer2(first)
        third = self.layer3(second)
        return first, second, third, self.layer4(third)


class _Block(nn.Module):
    """Two convolutions with a shortcut around them."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv3d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(
            nn.Conv3d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm3d(channels)
        )
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            None
            if stride == 1 and channels_in == channels
            else nn.Sequential(
                nn.Conv3d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm3d(channels)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(self.conv2(self.conv1(x)) + shortcut)
        return out


def _layer(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(channels_in, channels, stride), _Block(channels, channels, 1))


class _Up(nn.Module):
    """One step of the way up."""

    def __init__(
        self, channels_in: int, skipped: int, channels: int, stride: tuple[int, int, int] = (2, 2, 2)
    ) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose3d(channels_in, channels, stride, stride)
        self.convolve = nn.Sequential(
            *_convolution(channels + skipped, channels), *_convolution(channels, channels)
        )

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        # An odd number of slices was halved upwards: its double is one too many, at the far end.
        enlarged = self.enlarge(x)[:, :, : skipped.shape[2]]
        out: Tensor = self.convolve(torch.cat([enlarged, skipped], 1))
        return out


def _convolution(channels_in: int, channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv3d(channels_in, channels, 3, padding=1, bias=False),
        nn.BatchNorm3d(channels),
        nn.ReLU(inplace=True),
    )
