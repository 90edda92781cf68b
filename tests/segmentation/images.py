"""Images as users have them, and models that answer something, for tests of whole segmentations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from segmentation.model import ThreeWaySegmenter
from standard_space.geometry import Geometry
from standard_space.image import write_volume
from tests.standard_space.bodies import body, geometry
from tests.standard_space.dicom.dicom_files import series

GRID = 32
TURNED = np.array([[-1.0, 0.0, 0.0], [0.0, 0.995, 0.0998], [0.0, 0.0998, -0.995]])
"""Directions of an image stored in axes of its own, and tilted."""


def constant_model(value: float, *, target: str = "infection") -> ThreeWaySegmenter:
    """A model whose views answer one probability everywhere."""
    model = ThreeWaySegmenter.untrained(GRID, width=2, target=target)
    with torch.no_grad():
        for network in model.networks.values():
            network.head.weight.zero_()
            network.head.bias.fill_(float(np.log(value / (1 - value))))
    return model


def lively_model(*, target: str = "infection") -> ThreeWaySegmenter:
    """A random model whose probabilities vary about one half from voxel to voxel."""
    model = ThreeWaySegmenter.untrained(GRID, width=2, seed=4, target=target)
    with torch.no_grad():
        for network in model.networks.values():
            for block in [*network.down, *network.merge]:
                block.conv1.weight.mul_(3.0)
                block.conv2.weight.mul_(3.0)
            network.head.weight.mul_(20.0)
    return model


def write_chest(
    path: Path, direction: np.ndarray | None = None, noise_hu: float = 5.0
) -> tuple[Geometry, np.ndarray, np.ndarray]:
    """Write a chest as a NIfTI file; its geometry, lungs and lesion."""
    where = geometry(direction=direction)
    image, lungs, infection = body(where, noise_hu)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, np.rint(image.array).astype(np.int16), where)
    return where, lungs, infection


def write_chest_series(folder: Path) -> None:
    """Write a chest as a DICOM series."""
    where = geometry()
    image, _, _ = body(where)
    positions = np.array(where.origin_mm) + np.arange(where.size[2])[:, None] * [
        0.0,
        0.0,
        where.spacing_mm[2],
    ]
    series(
        folder,
        np.rint(image.array).astype(np.int16),
        positions=positions,
        spacing=where.spacing_mm,
        FrameOfReferenceUID="1.2.9.5",
    )


def write_air(path: Path) -> None:
    """Write an image without lungs."""
    hu = np.full((40, 40, 40), -1000, np.int16)
    hu[10:30, 10:30, 10:30] = 40
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, hu, Geometry((40, 40, 40), (5, 5, 5), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1)))
