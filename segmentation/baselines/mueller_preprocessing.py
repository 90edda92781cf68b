"""What Mueller et al. do to images before the network sees them: grey values, z-scores, and variation in training.

Source: Mueller, Soto-Rey and Kramer, Informatics in Medicine Unlocked 2021, 10.1016/j.imu.2021.100681, with MIScnn
(Mueller and Kramer, BMC Medical Imaging 2021, 10.1186/s12880-020-00543-7), whose usual ranges these are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from segmentation.signal import REFERENCE_WINDOW

CLIP_HU = (-1250.0, 250.0)
GREY_TOP = 255.0
VOXELS_FOR_STATISTICS = 2**21
"""Of larger volumes every n-th voxel along each axis is taken: enough for a mean and a deviation."""

VARIED_SHARE = 0.15
"""Each transform is applied to this share of the patches."""

CONTRAST = (0.3, 3.0)
BRIGHTNESS = (0.5, 2.0)
GAMMA = (0.7, 1.5)
SCALING = (0.85, 1.25)
NOISE_DEVIATION = 0.05
ROTATION_DEGREES = 15.0
BEND_SMOOTHING_MM = (14.0, 20.0)
"""Published are 9 to 13 voxels, at 1.58 mm in plane."""

BEND_DEVIATION_MM = 3.5
"""The published field, white noise times up to 900 and smoothed so, moves voxels by about this much at most."""

LATTICE_PER_SMOOTHING = 2
"""Points of the lattice on which a bend is drawn, per smoothing width: the smooth field needs no more."""


@dataclass(frozen=True)
class GreyStatistics:
    """Mean and standard deviation of a volume's grey values, 0 to 255."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, signal: Tensor) -> GreyStatistics:
        """Measure a volume.

        Parameters
        ----------
        signal : float Tensor (z, y, x)
            At the reference window.
        """
        step = max(1, math.ceil((signal.numel() / VOXELS_FOR_STATISTICS) ** (1 / 3)))
        grey = grey_values(signal[::step, ::step, ::step]).double()
        # A volume of one grey value has no deviation to divide by.
        return cls(float(grey.mean()), max(float(grey.std(correction=0)), 1e-3))

    def z_scores(self, signal: Tensor) -> Tensor:
        """Return grey values minus the mean, over the deviation; float32, the shape of the signal."""
        return (grey_values(signal) - self.mean) / self.deviation


def grey_values(signal: Tensor) -> Tensor:
    """Return signal clipped to -1250..250 HU and scaled to 0..255.

    Parameters
    ----------
    signal : float Tensor
        At the reference window, (HU + 600) / 1600.

    Returns
    -------
    float32 Tensor
        The same shape.
    """
    low, high = CLIP_HU
    hu = signal.float() * REFERENCE_WINDOW.width_hu + REFERENCE_WINDOW.level_hu
    return (hu.clamp(low, high) - low) * (GREY_TOP / (high - low))


def vary(
    image: Tensor,
    labels: Tensor,
    counted: Tensor,
    rng: np.random.Generator,
    spacing_mm: Sequence[float],
    air: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Vary a patch: each transform by itself with probability 0.15.

    - Mirrored along each axis with even odds; labels keep their numbers, as published.
    - Contrast times 0.3 to 3 about the mean, within the range that was there; brightness times 0.5 to 2; gamma 0.7
      to 1.5, mean and deviation kept; white noise of a deviation up to 0.05 (in units of the image).
    - Rotated by up to 15 degrees about each axis; scaled by 0.85 to 1.25; bent elastically. These are in
      millimetres about the middle. Images are interpolated linearly (published: cubic), labels taken from the
      nearest voxel.

    Parameters
    ----------
    image, labels, counted : float32 Tensor (z, y, x)
    spacing_mm : sequence of float
        (z, y, x).
    air : float
        Of the image; it lies beyond the patch, with label 0 and not counted.

    Returns
    -------
    tuple of float32 Tensor (z, y, x)
        Image, labels, counted.
    """
    volumes = [image, labels, counted]
    if rng.random() < VARIED_SHARE:
        axes = [axis for axis in range(3) if rng.random() < 0.5]
        volumes = [volume.flip(axes) for volume in volumes]
    image = _vary_intensity(volumes[0], rng)
    field = _sampling_field(image.shape, rng, spacing_mm)
    if field is None:
        return image, volumes[1], volumes[2]
    return (
        _sampled(image - air, field, "bilinear") + air,
        _sampled(volumes[1], field, "nearest"),
        _sampled(volumes[2], field, "nearest"),
    )


def _vary_intensity(image: Tensor, rng: np.random.Generator) -> Tensor:
    if rng.random() < VARIED_SHARE:
        mean, low, high = image.mean(), image.min(), image.max()
        image = ((image - mean) * _about_one(rng, *CONTRAST) + mean).clamp(low, high)
    if rng.random() < VARIED_SHARE:
        image = image * rng.uniform(*BRIGHTNESS)
    if rng.random() < VARIED_SHARE:
        image = _with_gamma(image, _about_one(rng, *GAMMA))
    if rng.random() < VARIED_SHARE:
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0.0, NOISE_DEVIATION))
        image = image + torch.from_numpy(noise)
    return image


def _about_one(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a factor below or above 1 with even odds."""
    return float(rng.uniform(low, 1.0) if rng.random() < 0.5 else rng.uniform(1.0, high))


def _with_gamma(image: Tensor, gamma: float) -> Tensor:
    mean, deviation, low, span = image.mean(), image.std(), image.min(), image.max() - image.min()
    if span <= 0:
        return image
    bent = ((image - low) / span) ** gamma
    return (bent - bent.mean()) / bent.std().clamp(min=1e-6) * deviation + mean


def _sampling_field(
    shape: Sequence[int], rng: np.random.Generator, spacing_mm: Sequence[float]
) -> Tensor | None:
    """Return where each voxel is taken from, (1, z, y, x, 3) for `grid_sample`; None where nothing moves."""
    turned, scaled, bent = (rng.random() < VARIED_SHARE for _ in range(3))
    if not (turned or scaled or bent):
        return None
    degrees = rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, 3) if turned else np.zeros(3)
    scale = _about_one(rng, *SCALING) if scaled else 1.0
    # `grid_sample` names x first, and its coordinates run from -1 to 1 along each side.
    half_mm = np.array([size * side / 2.0 for size, side in zip(shape, spacing_mm, strict=True)])[::-1]
    turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * scale
    matrix = np.zeros((1, 3, 4), np.float32)
    matrix[0, :, :3] = turn * half_mm[None, :] / half_mm[:, None]
    field = functional.affine_grid(torch.from_numpy(matrix), [1, 1, *shape], align_corners=False)
    if bent:
        field = field + _bend_mm(shape, rng, spacing_mm) / torch.tensor(half_mm.copy(), dtype=torch.float32)
    return field


def _bend_mm(shape: Sequence[int], rng: np.random.Generator, spacing_mm: Sequence[float]) -> Tensor:
    """Return a smooth random displacement (1, z, y, x, 3), mm."""
    smoothing_mm, deviation_mm = rng.uniform(*BEND_SMOOTHING_MM), rng.uniform(0.0, BEND_DEVIATION_MM)
    pitch_mm = smoothing_mm / LATTICE_PER_SMOOTHING
    points = [
        max(4, math.ceil(size * side / pitch_mm) + 1) for size, side in zip(shape, spacing_mm, strict=True)
    ]
    noise: NDArray[np.float64] = rng.standard_normal((3, *points))
    width = float(LATTICE_PER_SMOOTHING)
    smooth = gaussian_filter(noise, (0.0, width, width, width), mode="wrap")
    # White noise smoothed with a Gaussian keeps this deviation per axis.
    kept = (1.0 / (2.0 * math.sqrt(math.pi) * width)) ** 1.5
    lattice = torch.from_numpy((smooth * (deviation_mm / kept)).astype(np.float32))
    fine = functional.interpolate(lattice[None], tuple(shape), mode="trilinear", align_corners=True)
    return fine.permute(0, 2, 3, 4, 1)


def _sampled(volume: Tensor, field: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(volume[None, None], field, mode, "zeros", align_corners=False)[0, 0]
