"""Separable resampling: one 1-D polyphase pass per axis, kernel widened when shrinking (DESIGN 2).

Intensities and masks go through a Lanczos kernel of three lobes, probabilities through a triangle (linear) kernel.
Weights at the borders are normalised over the voxels that exist.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from standard_space._jit import kernel as compiled
from standard_space._jit import parallel_kernel

Kernel = Literal["lanczos", "linear"]
LOBES = 3


class AxisWeights(NamedTuple):
    """Taps of one axis: output j is the weighted sum of inputs first[j] ... first[j] + weights.shape[1] - 1.

    `first` is int32 (n_out,), `weights` float32 (n_out, taps), each row summing to one, or all zero where the
    output voxel lies outside the input (more than half a voxel beyond its edge voxels).
    """

    first: NDArray[np.int32]
    weights: NDArray[np.float32]


def kernel_value(distance: NDArray[np.float64], kernel: Kernel) -> NDArray[np.float64]:
    """Value of the kernel at distances in units of its own (possibly widened) sample step."""
    if kernel == "linear":
        return np.maximum(0.0, 1.0 - np.abs(distance))
    return np.where(np.abs(distance) < LOBES, np.sinc(distance) * np.sinc(distance / LOBES), 0.0)


def axis_weights(n_in: int, n_out: int, start: float, step: float, kernel: Kernel) -> AxisWeights:
    """Taps that sample an axis of `n_in` voxels at `n_out` positions start + j * step (input voxel units)."""
    widening = max(1.0, step)
    reach = (LOBES if kernel == "lanczos" else 1) * widening
    position = start + step * np.arange(n_out, dtype=np.float64)
    taps = min(n_in, int(np.ceil(2 * reach)) + 1)
    first = np.clip(np.ceil(position - reach).astype(np.int64), 0, n_in - taps)
    index = first[:, None] + np.arange(taps)
    weights = kernel_value((index - position[:, None]) / widening, kernel)
    total = weights.sum(axis=1, keepdims=True)
    # A triangle sampled half a voxel beyond the edge has its only weight on the edge voxel; nothing is divided
    # by zero inside, and what lies further out is marked by a row of zeros and becomes fill.
    inside = ((position >= -0.5 - 1e-9) & (position <= n_in - 0.5 + 1e-9))[:, None] & (total > 1e-6)
    normalised = np.divide(weights, total, out=np.zeros_like(weights), where=inside)
    return AxisWeights(first.astype(np.int32), normalised.astype(np.float32))


@parallel_kernel
def _pass_z(source, first, weights, target):  # type: ignore[no-untyped-def]
    n_out, taps = weights.shape
    _, ny, nx = source.shape
    for job in prange(n_out * ny):
        j = job // ny
        y = job % ny
        for x in range(nx):
            target[j, y, x] = 0.0
        for t in range(taps):
            w = weights[j, t]
            if w != 0.0:
                z = first[j] + t
                for x in range(nx):
                    target[j, y, x] += w * source[z, y, x]


@compiled
def _along_y(source, first, weights, target):  # type: ignore[no-untyped-def]
    n_out, taps = weights.shape
    nx = source.shape[1]
    for j in range(n_out):
        for x in range(nx):
            target[j, x] = 0.0
        for t in range(taps):
            w = weights[j, t]
            if w != 0.0:
                y = first[j] + t
                for x in range(nx):
                    target[j, x] += w * source[y, x]


@compiled
def _along_x(source, first, weights, target):  # type: ignore[no-untyped-def]
    # Four rows at a time share each weight, and unsigned indices spare the test for negative ones: twice as fast
    # as the plain loop. Rows beyond the last repeat it and write the same values again.
    n_out, taps = weights.shape
    ny = source.shape[0]
    for y in range(0, ny, 4):
        a, b = np.uintp(y), np.uintp(min(y + 1, ny - 1))
        c, d = np.uintp(min(y + 2, ny - 1)), np.uintp(min(y + 3, ny - 1))
        row_a, row_b, row_c, row_d = source[a], source[b], source[c], source[d]
        out_a, out_b, out_c, out_d = target[a], target[b], target[c], target[d]
        for j in range(n_out):
            k = np.uintp(j)
            start = np.uintp(first[k])
            total_a = np.float32(0.0)
            total_b = np.float32(0.0)
            total_c = np.float32(0.0)
            total_d = np.float32(0.0)
            for t in range(taps):
                w = weights[k, np.uintp(t)]
                x = start + np.uintp(t)
                total_a += w * row_a[x]
                total_b += w * row_b[x]
                total_c += w * row_c[x]
                total_d += w * row_d[x]
            out_a[k] = total_a
            out_b[k] = total_b
            out_c[k] = total_c
            out_d[k] = total_d


@parallel_kernel
def _pass_yx(source, first_y, weights_y, first_x, weights_x, target):  # type: ignore[no-untyped-def]
    # Both axes of a slice while it is in the cache: no volume lies between them.
    nz, _, nx = source.shape
    for z in prange(nz):
        rows = np.empty((weights_y.shape[0], nx), np.float32)
        _along_y(source[z], first_y, weights_y, rows)
        _along_x(rows, first_x, weights_x, target[z])


def _with_z(source: NDArray[np.float32], taps: AxisWeights) -> NDArray[np.float32]:
    target = np.empty((len(taps.first), *source.shape[1:]), np.float32)
    _pass_z(source, *taps, target)
    return target


def resample(
    volume: NDArray[np.float32],
    shape: tuple[int, int, int],
    start: tuple[float, float, float],
    step: tuple[float, float, float],
    *,
    fill: float,
    kernel: Kernel = "lanczos",
) -> NDArray[np.float32]:
    """Sample a volume on a regular grid along its own axes.

    Parameters
    ----------
    volume : float32 array, shape (z, y, x)
        Input, any unit.
    shape : tuple of int
        Output shape (z, y, x).
    start, step : tuple of float
        Input voxel coordinate of output voxel 0, and input voxels per output voxel, along (z, y, x).
    fill : float
        Value of output voxels outside the input.
    kernel : {"lanczos", "linear"}
        Three-lobed Lanczos or triangle; both widened when shrinking.

    Returns
    -------
    float32 array of `shape`.
    """
    taps = [axis_weights(volume.shape[a], shape[a], start[a], step[a], kernel) for a in range(3)]
    z, y, x = taps
    current = np.ascontiguousarray(volume, np.float32)
    # An axis z that shrinks goes first, one that grows last: the other pass then touches less.
    z_first = shape[0] < volume.shape[0]
    if z_first:
        current = _with_z(current, z)
    plane = np.empty((current.shape[0], *shape[1:]), np.float32)
    _pass_yx(current, *y, *x, plane)
    current = plane if z_first else _with_z(plane, z)
    for axis in range(3):
        outside = ~taps[axis].weights.any(axis=1)
        if outside.any():
            current[(slice(None),) * axis + (outside,)] = fill
    return current
