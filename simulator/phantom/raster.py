"""A coarse raster over the lungs in the inner frame, for fields that live in millimetres whatever the grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from simulator.phantom.anatomy import Anatomy, lung_within, outer_pleura


@dataclass(frozen=True)
class Raster:
    """Regular points over the lungs: voxel (k, j, i) lies at start + (k, j, i) * step, order (z, y, x), mm."""

    shape: tuple[int, int, int]
    start_mm: tuple[float, float, float]
    step_mm: tuple[float, float, float]

    @classmethod
    def over_lungs(cls, shape: Anatomy, step_mm: tuple[float, float, float]) -> Raster:
        """The raster that covers both lungs with a margin, centred on them."""
        reach_x = shape.axis_x + shape.lateral * 1.05 + 6.0
        low = (-16.0, -shape.anterior - 8.0, -reach_x)
        high = (shape.apex_z + 6.0, shape.posterior + 8.0, reach_x)
        count = [int(np.ceil((b - a) / s)) + 1 for a, b, s in zip(low, high, step_mm, strict=True)]
        start = [
            0.5 * (a + b) - 0.5 * (n - 1) * s for a, b, n, s in zip(low, high, count, step_mm, strict=True)
        ]
        return cls((count[0], count[1], count[2]), (start[0], start[1], start[2]), step_mm)

    @property
    def voxel_ml(self) -> float:
        """Volume of one raster voxel, ml."""
        return self.step_mm[0] * self.step_mm[1] * self.step_mm[2] / 1000.0

    def axes(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Broadcastable coordinates z, y, x of the points, mm."""
        z, y, x = (
            (a + s * np.arange(n)).astype(np.float32)
            for a, s, n in zip(self.start_mm, self.step_mm, self.shape, strict=True)
        )
        return z[:, None, None], y[None, :, None], x[None, None, :]

    def placing(self) -> NDArray[np.float64]:
        """start and step as one array of six, for kernels."""
        return np.array([*self.start_mm, *self.step_mm])


@njit(cache=True, nogil=True, parallel=True)
def _distances(
    shape: Anatomy, placing: NDArray[np.float64], inner: NDArray[np.float32], outer: NDArray[np.float32]
) -> None:
    nz, ny, nx = inner.shape
    for k in prange(nz):
        z = placing[0] + k * placing[3]
        for j in range(ny):
            y = placing[1] + j * placing[4]
            for i in range(nx):
                x = placing[2] + i * placing[5]
                outer[k, j, i] = outer_pleura(x, y, z, shape)
                inner[k, j, i] = lung_within(outer[k, j, i], x, y, z, shape)


def lung_distances(shape: Anatomy, raster: Raster) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Signed distances (z, y, x) to the lung's surface and to its outer pleura only, mm, negative inside."""
    inner = np.empty(raster.shape, np.float32)
    outer = np.empty(raster.shape, np.float32)
    _distances(shape, raster.placing(), inner, outer)
    return inner, outer


def random_field(rng: np.random.Generator, raster: Raster, sigma_mm: float) -> NDArray[np.float32]:
    """A Gaussian random field (z, y, x) of zero mean and unit variance; covariance exp(-d^2 / (4 sigma^2))."""
    noise = rng.standard_normal(raster.shape, dtype=np.float32)
    field = gaussian_filter(noise, [sigma_mm / s for s in raster.step_mm], mode="wrap", truncate=3.0)
    field -= field.mean()
    field /= field.std()
    return field


@njit(cache=True, nogil=True)
def sample(field: NDArray[np.float32], placing: NDArray[np.float64], x: float, y: float, z: float) -> float:
    """Trilinear value of a raster field at one point; beyond the raster, the nearest value on its border."""
    nz, ny, nx = field.shape
    a = min(max((z - placing[0]) / placing[3], 0.0), nz - 1.001)
    b = min(max((y - placing[1]) / placing[4], 0.0), ny - 1.001)
    c = min(max((x - placing[2]) / placing[5], 0.0), nx - 1.001)
    k, j, i = int(a), int(b), int(c)
    a -= k
    b -= j
    c -= i
    near = (1 - b) * ((1 - c) * field[k, j, i] + c * field[k, j, i + 1]) + b * (
        (1 - c) * field[k, j + 1, i] + c * field[k, j + 1, i + 1]
    )
    far = (1 - b) * ((1 - c) * field[k + 1, j, i] + c * field[k + 1, j, i + 1]) + b * (
        (1 - c) * field[k + 1, j + 1, i] + c * field[k + 1, j + 1, i + 1]
    )
    return (1 - a) * near + a * far
