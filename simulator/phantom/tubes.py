"""Tapered capsules painted into volumes with partial volume: vessels, airways, ribs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

SLAB = 8
"""Slices per parallel work item; the result does not depend on it, for coverages combine by maximum."""


@dataclass(frozen=True)
class Frame:
    """Where the voxels of an array lie in the chest frame.

    Parameters
    ----------
    shape : tuple of int
        Array shape, (z, y, x) of the stored array.
    to_mm : float64 array (3, 4)
        Chest (x, y, z) of array index (a0, a1, a2, 1), mm.
    breath : float64 array (6,)
        Scale and shift of (x, y, z) from the inner frame to the chest frame.
    """

    shape: tuple[int, int, int]
    to_mm: NDArray[np.float64]
    breath: NDArray[np.float64]

    @property
    def to_index(self) -> NDArray[np.float64]:
        """Array index of chest (x, y, z, 1)."""
        inverse = np.linalg.inv(self.to_mm[:, :3])
        return np.ascontiguousarray(np.hstack([inverse, -inverse @ self.to_mm[:, 3:]]))

    @property
    def voxel_mm(self) -> float:
        """Size of a voxel as the cube root of its volume."""
        return float(abs(np.linalg.det(self.to_mm[:, :3])) ** (1.0 / 3.0))

    def breathe(self, tubes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tubes of the inner frame, moved to the chest frame."""
        moved = tubes.copy()
        scale, shift = self.breath[:3], self.breath[3:]
        moved[:, 0:3] = tubes[:, 0:3] * scale + shift
        moved[:, 3:6] = tubes[:, 3:6] * scale + shift
        return moved


@njit(cache=True, nogil=True, parallel=True)
def paint_coverage(
    coverage: NDArray[np.uint8],
    tubes: NDArray[np.float64],
    to_mm: NDArray[np.float64],
    to_index: NDArray[np.float64],
) -> None:
    """Raise `coverage` (0..255) to the share of each voxel inside the tubes (n, 8: p0, p1, r0, r1; chest mm)."""
    n0, n1, n2 = coverage.shape
    slabs = (n0 + SLAB - 1) // SLAB
    reach = np.empty(3)
    for a in range(3):
        reach[a] = np.sqrt(to_index[a, 0] ** 2 + to_index[a, 1] ** 2 + to_index[a, 2] ** 2)
    spacing = np.empty(3)
    for a in range(3):
        spacing[a] = np.sqrt(to_mm[0, a] ** 2 + to_mm[1, a] ** 2 + to_mm[2, a] ** 2)
    pad = 0.5 * max(spacing[0], max(spacing[1], spacing[2]))
    for slab in prange(slabs):
        first, last = slab * SLAB, min(n0, slab * SLAB + SLAB)
        low = np.empty(3)
        high = np.empty(3)
        for t in range(tubes.shape[0]):
            tube = tubes[t]
            radius = max(tube[6], tube[7]) + 2.0 * pad
            for a in range(3):
                e0 = to_index[a, 0] * tube[0] + to_index[a, 1] * tube[1] + to_index[a, 2] * tube[2]
                e1 = to_index[a, 0] * tube[3] + to_index[a, 1] * tube[4] + to_index[a, 2] * tube[5]
                low[a] = min(e0, e1) + to_index[a, 3] - radius * reach[a]
                high[a] = max(e0, e1) + to_index[a, 3] + radius * reach[a]
            k0, k1 = max(first, int(np.ceil(low[0]))), min(last - 1, int(np.floor(high[0])))
            j0, j1 = max(0, int(np.ceil(low[1]))), min(n1 - 1, int(np.floor(high[1])))
            i0, i1 = max(0, int(np.ceil(low[2]))), min(n2 - 1, int(np.floor(high[2])))
            dx, dy, dz = tube[3] - tube[0], tube[4] - tube[1], tube[5] - tube[2]
            length2 = max(dx * dx + dy * dy + dz * dz, 1e-12)
            for k in range(k0, k1 + 1):
                for j in range(j0, j1 + 1):
                    for i in range(i0, i1 + 1):
                        px = to_mm[0, 0] * k + to_mm[0, 1] * j + to_mm[0, 2] * i + to_mm[0, 3] - tube[0]
                        py = to_mm[1, 0] * k + to_mm[1, 1] * j + to_mm[1, 2] * i + to_mm[1, 3] - tube[1]
                        pz = to_mm[2, 0] * k + to_mm[2, 1] * j + to_mm[2, 2] * i + to_mm[2, 3] - tube[2]
                        s = min(max((px * dx + py * dy + pz * dz) / length2, 0.0), 1.0)
                        px -= s * dx
                        py -= s * dy
                        pz -= s * dz
                        d = np.sqrt(px * px + py * py + pz * pz)
                        r = tube[6] + s * (tube[7] - tube[6])
                        if d > r + 2.0 * pad:
                            continue
                        # The voxel's extent along the way to the surface, by which partial volume goes.
                        w = pad * 2.0
                        if d > 1e-6:
                            w = 0.0
                            for a in range(3):
                                along = (px * to_mm[0, a] + py * to_mm[1, a] + pz * to_mm[2, a]) / d
                                w += along * along
                            w = np.sqrt(w)
                        full = max(r, 0.5 * w)
                        share = min(max(0.5 + (full - d) / w, 0.0), 1.0)
                        thin = r / full
                        value = np.uint8(255.0 * share * thin * thin + 0.5)
                        if value > coverage[k, j, i]:
                            coverage[k, j, i] = value


@njit(cache=True, nogil=True, parallel=True)
def composite(hu: NDArray[np.float32], coverage: NDArray[np.uint8], value_hu: float) -> None:
    """Blend one tissue into a volume by its coverage, and clear the coverage for the next one."""
    n0, n1, n2 = hu.shape
    for k in prange(n0):
        for j in range(n1):
            for i in range(n2):
                c = coverage[k, j, i]
                if c > 0:
                    hu[k, j, i] += np.float32(c / 255.0) * (np.float32(value_hu) - hu[k, j, i])
                    coverage[k, j, i] = 0


def paint(
    hu: NDArray[np.float32],
    frame: Frame,
    tubes: NDArray[np.float64],
    value_hu: float,
    scratch: NDArray[np.uint8],
) -> None:
    """Paint tubes (chest frame) of one tissue; `scratch` is a zeroed buffer of the volume's shape."""
    if len(tubes):
        paint_coverage(scratch, np.ascontiguousarray(tubes), frame.to_mm, frame.to_index)
        composite(hu, scratch, value_hu)
