"""A persistent, spatially correlated random field, evaluated only where a voxel is infected (DESIGN 3).

Value noise: random integers at the corners of a lattice in millimetres, interpolated with a smooth step in
fixed-point integers, averaged over four lattices shifted against each other (a single one would show its
cells). No volume is allocated and no float is used after the lattice pitch is fixed, so the field at a
voxel depends on (seed, correlation, voxel) only and is the same on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics._jit import kernel
from simulator.dynamics.hashing import PURPOSE_FIELD, draw64, stream_key

FIELD_LEVELS = 128  # values 0 .. 127, mean about 63.5

# Ratio of lattice pitch to the distance at which the autocorrelation has fallen to one half (measured).
PITCH_PER_CORRELATION = 1.65
_ONE = 1 << 16  # fixed point
_SHIFT = np.array([[0, 0, 0], [32768, 16384, 49152], [16384, 49152, 32768], [49152, 32768, 16384]], np.int64)
_LATTICES = 4


def lattice_steps(spacing_mm: tuple[float, float, float], correlation_mm: float) -> NDArray[np.int64]:
    """Fixed-point lattice coordinate per voxel along (z, y, x); all 0 when the correlation length is 0."""
    if correlation_mm <= 0.0:
        return np.zeros(3, np.int64)
    pitch = PITCH_PER_CORRELATION * correlation_mm
    return np.array([round(s / pitch * _ONE) for s in spacing_mm], dtype=np.int64)


@kernel
def _smooth(t: int) -> int:
    """3t^2 - 2t^3 in 16-bit fixed point."""
    return ((t * t) >> 16) * (3 * _ONE - 2 * t) >> 16


@kernel
def field_value(z: int, y: int, x: int, steps: NDArray[np.int64], keys: NDArray[np.uint64]) -> int:
    """The field at one voxel, 0 .. 127.

    The average of several lattices is narrower than a uniform; it is stretched by 2.5 about its centre and
    clipped, which leaves ranks, the only thing used, nearly untouched.
    """
    total = 0
    for lattice in range(_LATTICES):
        pz = z * steps[0] + _SHIFT[lattice, 0]
        py = y * steps[1] + _SHIFT[lattice, 1]
        px = x * steps[2] + _SHIFT[lattice, 2]
        cz, cy, cx = pz >> 16, py >> 16, px >> 16
        fz, fy, fx = _smooth(pz & 0xFFFF), _smooth(py & 0xFFFF), _smooth(px & 0xFFFF)
        for corner in range(8):
            dz, dy, dx = corner >> 2, (corner >> 1) & 1, corner & 1
            wz = fz if dz else _ONE - fz
            wy = fy if dy else _ONE - fy
            wx = fx if dx else _ONE - fx
            cell = ((cz + dz) * 2097152 + (cy + dy)) * 2097152 + (cx + dx)
            value = np.int64(draw64(keys[lattice], np.uint64(cell)) >> np.uint64(48))
            total += (((wz * wy >> 16) * wx) >> 16) * value >> 16
    centred = (total // _LATTICES) - 32768
    scaled = 64 + (centred * 5 >> 10)
    return min(max(scaled, 0), FIELD_LEVELS - 1)


@kernel
def field_keys(seed: np.uint64) -> NDArray[np.uint64]:
    """Keys of the shifted lattices for a seed."""
    keys = np.empty(_LATTICES, np.uint64)
    for lattice in range(_LATTICES):
        keys[lattice] = stream_key(seed, PURPOSE_FIELD, lattice)
    return keys


@kernel
def fill_field(
    voxels: NDArray[np.int32],
    first: int,
    last: int,
    ny: int,
    nx: int,
    steps: NDArray[np.int64],
    keys: NDArray[np.uint64],
    result: NDArray[np.uint8],
) -> None:
    """Field of the voxels in slots first..last-1; a constant when the correlation length is 0."""
    flat = steps[0] == 0 and steps[1] == 0 and steps[2] == 0
    for i in range(first, last):
        if flat:
            result[i] = 0
            continue
        v = np.int64(voxels[i])
        z = v // (ny * nx)
        rest = v - z * (ny * nx)
        y = rest // nx
        result[i] = field_value(z, y, rest - y * nx, steps, keys)
