"""Texture inside lesions: radial power spectrum and correlation of neighbouring voxels.

What is compared is shape, not amount: every measure is of the signal's deviation from its mean over the
lesion, divided by its variance, so that it does not see a different histogram.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from standard_space.errors import DataError

LOWEST_PER_MM = 0.02
"""Lowest frequency looked at, 1/mm: structures of 50 mm; below, the outline of the lesions dominates."""
N_FREQUENCIES = 12
LEAST_VOXELS = 500


@dataclass(frozen=True)
class Spectrum:
    """A radially averaged power spectrum.

    Parameters
    ----------
    frequency_per_mm : float64 array, shape (n,)
        Geometric centres of the bins, 1/mm.
    power : float64 array, shape (n,)
        Power relative to independent noise of the same variance, which is 1 everywhere.
    """

    frequency_per_mm: NDArray[np.float64]
    power: NDArray[np.float64]


def radial_spectrum(
    signal: NDArray[np.float32], lesion: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> Spectrum:
    """Power spectrum of the signal inside a lesion, averaged over directions.

    Small lesions have fewer bins: one that holds no frequency of the transform is left out. The deviation from
    the lesion's mean, 0 outside, is Fourier transformed over the lesion's bounding box,
    padded by a quarter; frequencies run from 1/50 per mm to the lowest Nyquist frequency of the three axes.

    Parameters
    ----------
    signal : float32, (z, y, x)
        Windowed signal, dimensionless.
    lesion : bool, (z, y, x)
    spacing_mm : tuple of float
        (z, y, x).

    Raises
    ------
    DataError
        When the lesion has fewer than 500 voxels or no variance.
    """
    if int(lesion.sum()) < LEAST_VOXELS:
        raise DataError(
            "the lesion is too small for a spectrum", got=f"{int(lesion.sum())} voxels",
            expected=f"{LEAST_VOXELS} or more",
        )  # fmt: skip
    box = ndimage.find_objects(lesion.astype(np.uint8))[0]
    inside = lesion[box]
    values = np.where(inside, signal[box].astype(np.float64), 0.0)
    values[inside] -= values[inside].mean()
    energy = float((values**2).sum())
    if energy <= 0.0:
        raise DataError("the signal does not vary inside the lesion, so it has no spectrum")
    shape = [fft.next_fast_len(int(1.25 * n) + 1) for n in values.shape]
    power = np.abs(fft.rfftn(values, shape)) ** 2 / energy
    axes = [fft.fftfreq(n, s) for n, s in zip(shape[:2], spacing_mm[:2], strict=True)]
    axes.append(fft.rfftfreq(shape[2], spacing_mm[2]))
    squared = np.zeros(power.shape)
    for axis, frequency in enumerate(axes):
        squared += np.square(frequency).reshape([-1 if k == axis else 1 for k in range(3)])
    highest = 0.5 / max(spacing_mm)
    edges = np.geomspace(LOWEST_PER_MM, highest, N_FREQUENCIES + 1)
    number = np.digitize(np.sqrt(squared).ravel(), edges) - 1
    used = (number >= 0) & (number < N_FREQUENCIES)
    # the half-spectrum holds every frequency of the last axis once; its mirror image is counted by weight
    twice = np.broadcast_to(np.where(axes[2] > 0, 2.0, 1.0), power.shape).ravel()
    total = np.bincount(number[used], (power.ravel() * twice)[used], N_FREQUENCIES)
    weight = np.bincount(number[used], twice[used], N_FREQUENCIES)
    filled = weight > 0
    return Spectrum(np.sqrt(edges[1:] * edges[:-1])[filled], total[filled] / weight[filled])


def log_spectrum_error(spectrum: Spectrum, reference: Spectrum) -> float:
    """Root mean square difference of the decadic logarithms of two spectra over the frequencies of both.

    Raises
    ------
    DataError
        When they share fewer than half of the twelve frequencies.
    """
    common, mine, theirs = np.intersect1d(
        spectrum.frequency_per_mm.round(9), reference.frequency_per_mm.round(9), return_indices=True
    )
    if common.size < N_FREQUENCIES // 2:
        raise DataError(
            "the spectra have too few frequencies in common",
            got=common.size,
            expected=f"{N_FREQUENCIES // 2} or more",
            remedy="compare larger lesions, in the same standard space",
        )
    difference = np.log10(spectrum.power[mine]) - np.log10(reference.power[theirs])
    return float(np.sqrt(np.mean(difference**2)))


def shuffled(signal: NDArray[np.float32], lesion: NDArray[np.bool_], seed: int = 0) -> NDArray[np.float32]:
    """The same signals in random places of the lesion: what independent voxels would look like."""
    result = signal.copy()
    result[lesion] = np.random.default_rng([seed, 0x5417]).permutation(signal[lesion])
    return result


def neighbour_correlation(
    signal: NDArray[np.float32], lesion: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Correlation of the signals of adjacent lesion voxels along (z, y, x); NaN where there are none."""
    found = []
    for axis in range(3):
        first = tuple(slice(None, -1) if k == axis else slice(None) for k in range(3))
        second = tuple(slice(1, None) if k == axis else slice(None) for k in range(3))
        both = lesion[first] & lesion[second]
        a, b = signal[first][both].astype(np.float64), signal[second][both].astype(np.float64)
        varies = a.size > 1 and a.std() > 0 and b.std() > 0
        found.append(float(np.corrcoef(a, b)[0, 1]) if varies else float("nan"))
    return found[0], found[1], found[2]
