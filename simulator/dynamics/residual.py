"""The anatomy residual: fine structure of the lung that shows through a new or healed lesion (DESIGN 3).

A voxel's residual is its deviation, in the source scan, from a normalised Gaussian mean over like tissue
nearby: normal lung for voxels that were normal, annotated tissue for voxels that were annotated. Evaluated
only at the voxels asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.bins import N_BINS
from simulator.dynamics.exactmath import exact_exp
from simulator.dynamics.neighbours import ANNOTATED, FREE, INFECTED

SIGMA_MM = 1.5
RADIUS_MM = 3.0
LARGEST = 0.15  # residuals beyond this are not fine structure (borders, missed vessels) and are clipped

LUNG_SIGNAL, SOLID_SIGNAL = -0.15, 0.4
"""Signals of normal lung, and of airless tissue, at which a voxel has lost its own structure."""

_TISSUE = FREE | INFECTED  # every voxel that is or may be infected carries one of these


@kernel
def _deviation(
    source: NDArray[np.float32],
    status: NDArray[np.uint8],
    voxels: NDArray[np.int64],
    dims: NDArray[np.int64],
    reach: NDArray[np.int64],
    stride: NDArray[np.int64],
    spacing: NDArray[np.float64],
    sigma: float,
    result: NDArray[np.float32],
) -> None:
    n = 1
    for axis in range(3):
        n *= 2 * reach[axis] // stride[axis] + 1
    steps = np.empty((n, 3), np.int64)
    offsets = np.empty(n, np.int64)
    weights = np.empty(n)
    ny, nx = dims[1], dims[2]
    n = 0
    for dz in range(-reach[0], reach[0] + 1, stride[0]):
        for dy in range(-reach[1], reach[1] + 1, stride[1]):
            for dx in range(-reach[2], reach[2] + 1, stride[2]):
                squared = (dz * spacing[0]) ** 2 + (dy * spacing[1]) ** 2 + (dx * spacing[2]) ** 2
                steps[n, 0], steps[n, 1], steps[n, 2] = dz, dy, dx
                offsets[n] = (dz * ny + dy) * nx + dx
                weights[n] = exact_exp(-squared / (2.0 * sigma * sigma))
                n += 1
    for i in range(voxels.shape[0]):
        v = voxels[i]
        z = v // (ny * nx)
        y = (v - z * ny * nx) // nx
        x = v - (z * ny + y) * nx
        inside = reach[0] <= z < dims[0] - reach[0]
        inside = inside and reach[1] <= y < ny - reach[1] and reach[2] <= x < nx - reach[2]
        kind = status[v] & ANNOTATED
        total = 0.0
        weight = 0.0
        for k in range(n):
            if not inside:
                qz, qy, qx = z + steps[k, 0], y + steps[k, 1], x + steps[k, 2]
                if qz < 0 or qz >= dims[0] or qy < 0 or qy >= ny or qx < 0 or qx >= nx:
                    continue
            q = v + offsets[k]
            if status[q] & _TISSUE != 0 and status[q] & ANNOTATED == kind:
                total += weights[k] * source[q]
                weight += weights[k]
        result[i] = source[v] - total / weight


def fine_structure(
    source: NDArray[np.float32],
    status: NDArray[np.uint8],
    voxels: NDArray[np.int64],
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.float32]:
    """Deviation of voxels from like tissue within a few mm, float32, signal units, clipped to +-0.15."""
    result = np.zeros(voxels.size, np.float32)
    # at least one voxel each way, so that coarse grids still have neighbours to compare with; on fine grids
    # every second voxel is enough for a mean
    reach = np.array([max(1, int(RADIUS_MM / s)) for s in spacing_mm], np.int64)
    stride = np.where(reach >= 4, 2, 1)
    reach -= reach % stride
    sigma = max(SIGMA_MM, 0.75 * max(spacing_mm))
    _deviation(
        source, status, voxels, np.array(shape, np.int64), reach, stride,
        np.array(spacing_mm, np.float64), sigma, result,
    )  # fmt: skip
    return np.clip(result, -LARGEST, LARGEST)


def aerated_share(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of a voxel still is lung: 1 at a signal of -0.15, falling evenly to 0 at 0.4.

    A voxel of this signal is a mixture of its lung and of solid filling, so its own structure shows through in
    proportion to what is left of the lung: ground glass shows it, consolidation hides it.
    """
    share = (SOLID_SIGNAL - signal) / (SOLID_SIGNAL - LUNG_SIGNAL)
    return np.clip(share, 0.0, 1.0).astype(np.float32)


def zero_mean_per_bin(
    fine: NDArray[np.float32], bins: NDArray[np.int16], wants: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Residuals with the mean of every bin's wanted voxels taken out (bin -1 is recovered)."""
    group = bins[wants].astype(np.int64) + 1
    sums = np.bincount(group, weights=fine[wants].astype(np.float64), minlength=N_BINS + 1)
    numbers = np.bincount(group, minlength=N_BINS + 1)
    means = sums / np.maximum(numbers, 1)
    result = fine.copy()
    result[wants] = (fine[wants] - means[group]).astype(np.float32)
    return result


@kernel
def _last_records(
    voxels: NDArray[np.int32], order: NDArray[np.int64], status: NDArray[np.uint8], keep: NDArray[np.bool_]
) -> None:
    for i in range(order.shape[0]):
        v = voxels[order[i]]
        latest = i + 1 == order.shape[0] or voxels[order[i + 1]] != v
        keep[order[i]] = latest and status[v] & INFECTED == 0


def last_record_only(voxels: NDArray[np.int32], status: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which records of recovery are the latest of a voxel that is still normal."""
    keep = np.zeros(voxels.size, bool)
    if voxels.size:
        _last_records(voxels, np.argsort(voxels, kind="stable"), status, keep)
    return keep
