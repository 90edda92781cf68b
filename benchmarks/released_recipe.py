"""The authors' released way to predict, written anew with the same architecture: benchmarks/segment.py's peer.

float32, channels first, batch norm apart, two slices at a time over all 512 of each direction; every stack is put
together by NumPy and sent off by itself, and three float64 volumes are summed on the CPU. What the release does
wrong is left out: each direction has its own network, and nothing is dilated afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

BATCH = 2
OFFSETS = (-5, -2, 0, 2, 5)


def stack_at(image: NDArray[np.float32], axis: int, index: int) -> NDArray[np.float32]:
    """Five slices around one, zeros beyond the volume; (5, H, W)."""
    planes = []
    for offset in OFFSETS:
        at = index + offset
        inside = 0 <= at < image.shape[axis]
        planes.append(image.take(at, axis) if inside else np.zeros(image.take(0, axis).shape))
    return np.stack(planes).astype(np.float32)


@torch.no_grad()
def predict_direction(
    network: nn.Module,
    image: NDArray[np.float32],
    axis: int,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> NDArray[np.float64]:
    """Probabilities of one direction, float64 with the volume's shape."""
    found = np.zeros(image.shape)
    target = np.moveaxis(found, axis, 0)
    for start in range(0, image.shape[axis], BATCH):
        stop = min(start + BATCH, image.shape[axis])
        batch = np.stack([stack_at(image, axis, index) for index in range(start, stop)])
        logits = network(torch.from_numpy(batch).to(device))
        target[start:stop] = torch.sigmoid(logits).cpu().numpy()[:, 0]
        progress(stop, image.shape[axis])
    return found


def predict(
    networks: dict[str, nn.Module],
    image: NDArray[np.float32],
    lungs: NDArray[np.bool_],
    threshold: float,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> NDArray[np.bool_]:
    """The mask: sum of the three above the threshold, inside the lungs. Axes (z, y, x)."""
    total = np.zeros(image.shape)
    for view, axis in (("xz", 1), ("yz", 2), ("xy", 0)):
        network = networks[view].eval().to(device)
        total = total + predict_direction(network, image, axis, device, progress)
    return (total > threshold) & lungs
