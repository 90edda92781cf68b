"""Weights of the authors' release (lzx325/COVID-19-repo), brought into a model of ours.

Their arrays lie (row, column, slice), so their views are named by another axis than the medical ones, and two of
them see their planes transposed:

=====  ===================  ====  ==================
file   slices along         view  our plane
=====  ===================  ====  ==================
X.pth  rows (y)             xz    transposed
Y.pth  columns (x)          yz    transposed
Z.pth  slices (z)           xy    the same
=====  ===================  ====  ==================
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from segmentation.model import ThreeWaySegmenter
from segmentation.tensor_file import read_tensors
from segmentation.unet import DEPTH, UNet
from segmentation.views import VIEWS, normal_axis
from standard_space.errors import DataError, UsageError
from standard_space.files import sha256_of
from standard_space.grid import StandardGrid

GRID_SIZE = 512
VIEW_OF_FILE = {"X": "xz", "Y": "yz", "Z": "xy"}
_TRANSPOSED = ("X", "Y")

Offsets = Literal["trained", "predicted"]

OFFSETS_VOXELS: dict[str, dict[str, tuple[int, ...]]] = {
    "trained": {"X": (-8, -3, 0, 3, 8), "Y": (-8, -3, 0, 3, 8), "Z": (-5, -2, 0, 2, 5)},
    "predicted": dict.fromkeys(VIEW_OF_FILE, (-5, -2, 0, 2, 5)),
}
"""Slices of a stack, voxels from the central one: +-5 and +-2 mm as the networks were trained; what the release
takes when it predicts."""


def import_released(
    files: Mapping[str, str | Path], *, offsets: Offsets = "trained", target: str = "infection"
) -> ThreeWaySegmenter:
    """Read three checkpoints of the release.

    A checkpoint is a dictionary with the weights under ``"state_dict"``. Its two outputs (softmax) become one
    logit, their difference. The networks see each scan at its own window [paper III-B]. Beyond the volume ours see
    air, where the release put zeros.

    Parameters
    ----------
    files : mapping of str to path
        Of "X", "Y" and "Z".
    offsets : {"trained", "predicted"}
        See `OFFSETS_VOXELS`.
    target : str
        What the networks were trained to find, "infection" or "lungs".

    Raises
    ------
    DataError
        A file is missing, is no checkpoint, or holds another network.
    UsageError
        Unknown offsets or target.
    """
    if offsets not in OFFSETS_VOXELS:
        raise UsageError("unknown slice offsets", got=offsets, expected=", ".join(OFFSETS_VOXELS))
    grid = StandardGrid(GRID_SIZE)
    voxels = OFFSETS_VOXELS[offsets]
    networks, offsets_mm = {}, {}
    for letter, view in VIEW_OF_FILE.items():
        spacing_mm = grid.spacing_mm[normal_axis(view)]
        networks[view] = _network(Path(files[letter]), transposed=letter in _TRANSPOSED)
        offsets_mm[view] = tuple(offset * spacing_mm for offset in voxels[letter])
    training = {
        "imported": {
            "release": "lzx325/COVID-19-repo",
            "sha256": {letter: sha256_of(files[letter]) for letter in VIEW_OF_FILE},
            "view_of_file": VIEW_OF_FILE,
            "slice_offsets": offsets,
            "slice_offsets_voxels": {letter: list(voxels[letter]) for letter in VIEW_OF_FILE},
        }
    }
    ordered = {view: networks[view] for view in VIEWS}
    return ThreeWaySegmenter(
        ordered, GRID_SIZE, offsets_mm, target=target, input_window=None, training=training
    )


def _network(path: Path, *, transposed: bool) -> UNet:
    theirs = _weights(path)
    first = theirs.get("encoder1.enc1conv1.weight")
    if first is None or first.ndim != 4:
        raise DataError(
            "not a checkpoint of the release: it lacks encoder1.enc1conv1.weight",
            where=path,
            expected='a U-Net under "state_dict"',
        )
    network = UNet(first.shape[1], first.shape[0])
    state = network.state_dict()
    for name in state:
        if name.startswith("head"):
            continue
        source = _their_name(name)
        if source not in theirs:
            raise DataError(f"the checkpoint lacks {source}", where=path)
        value = theirs.pop(source)
        if name.startswith("merge") and name.endswith("conv1.weight"):
            # They put what comes from below first, we put the skip first.
            value = torch.cat(value.chunk(2, dim=1)[::-1], dim=1)
        state[name] = _plane(value, transposed)
    for kind in ("weight", "bias"):
        if f"conv.{kind}" not in theirs or theirs[f"conv.{kind}"].shape[0] != 2:
            raise DataError("the checkpoint's last layer does not have two outputs", where=path)
        value = theirs.pop(f"conv.{kind}")
        state[f"head.{kind}"] = _plane(value[1:] - value[:1], transposed)
    if theirs:
        raise DataError(
            "the checkpoint holds more than the released network", where=path, got=sorted(theirs)[:3]
        )
    expected = {name: value.shape for name, value in network.state_dict().items()}
    wrong = [name for name, value in state.items() if value.shape != expected[name]]
    if wrong:
        raise DataError(f"the checkpoint's {_their_name(wrong[0])} has another shape", where=path)
    network.load_state_dict(state)
    return network.eval()


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DataError("there is no such checkpoint", where=path)
    content = read_tensors(
        path,
        "the checkpoint is damaged, or holds more than tensors and plain values",
        remedy="where you trust its source, load it with PyTorch and save {'state_dict': ...} anew",
    )
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise DataError('the checkpoint has no weights under "state_dict"', where=path)
    if not all(bool(torch.isfinite(value).all()) for value in weights.values() if value.is_floating_point()):
        raise DataError("the checkpoint holds NaN or infinity", where=path)
    # Training on several GPUs puts a prefix before every name.
    return {str(name).removeprefix("module."): value for name, value in weights.items()}


def _their_name(name: str) -> str:
    """Name of a weight in the release."""
    part, level, *rest = name.split(".")
    place = int(level) if part != "head" else 0
    if part == "up":
        return f"upconv{DEPTH - place}.{rest[0]}"
    if part == "head":
        return f"conv.{level}"
    kind = ".".join(rest)
    if part == "down":
        return f"encoder{place + 1}.enc{place + 1}{kind}" if place < DEPTH else f"bottleneck.bottleneck{kind}"
    return f"decoder{DEPTH - place}.dec{DEPTH - place}{kind}"


def _plane(value: Tensor, transposed: bool) -> Tensor:
    """A kernel for our orientation of the plane."""
    return value.transpose(2, 3).contiguous() if transposed and value.ndim == 4 else value
