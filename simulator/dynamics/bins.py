"""Signal bins: an infected voxel is an integer bin plus its offset within the bin (DESIGN 3).

130 bins of width 0.005 cover [-0.15, 0.5); the first 30 lie below 0, the threshold of the paper
(DOI 10.1109/TMI.2020.3001810, section III-C). Moves are whole bins, so texture survives and floats never
decide a bin after the first conversion.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.dynamics.errors import DynamicsError

BIN_WIDTH = 0.005
N_BINS = 130
N_BELOW = 30
SIGNAL_MIN = -0.15
SIGNAL_MAX = 0.5

_PER_UNIT = 200.0  # bins per unit of signal
_SNAP = 2.0**-14  # in bins: float32 signals that mean an edge (whole HU often do) land in the upper bin


def bin_centres() -> NDArray[np.float64]:
    """Signal at the centre of every bin, shape (130,), float64."""
    return np.asarray((np.arange(N_BINS) - N_BELOW + 0.5) / _PER_UNIT, dtype=np.float64)


def to_state(signal: ArrayLike) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Bin and offset of signals.

    Parameters
    ----------
    signal : array_like
        Windowed signal, any shape, dimensionless ((HU - WL) / WW).

    Returns
    -------
    bin : int16, same shape, 0..129
        Signals below -0.15 go to bin 0, signals of 0.5 and more to the top bin.
    offset : float32, same shape, in [0, 1)
        Place within the bin; clamped signals sit at the near edge of their bin (0 below, just under 1 above).

    Raises
    ------
    DynamicsError
        If a signal is not finite.
    """
    values = np.asarray(signal, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DynamicsError(
            "the signal holds NaN or infinite values where it is annotated as infected",
            got=f"{int((~np.isfinite(values)).sum())} such voxels",
            expected="finite numbers",
            remedy="repair or leave out these voxels",
        )
    place = values * _PER_UNIT + N_BELOW
    whole = np.clip(np.floor(place + _SNAP), 0, N_BINS - 1)
    highest = np.nextafter(np.float32(1), np.float32(0))
    offset = np.clip((place - whole).astype(np.float32), np.float32(0), highest)
    return whole.astype(np.int16), offset.astype(np.float32)


def clamped_counts(signal: ArrayLike) -> tuple[int, int]:
    """How many signals `to_state` moves: (below -0.15, at or above 0.5)."""
    place = np.asarray(signal, dtype=np.float64) * _PER_UNIT + N_BELOW + _SNAP
    return int((place < 0).sum()), int((place >= N_BINS).sum())


def to_signal(bin_index: ArrayLike, offset: ArrayLike) -> NDArray[np.float32]:
    """Signal of (bin, offset), float32; the inverse of `to_state` for signals that were not clamped.

    Bin -1 stands for a recovered voxel and gives signals just below -0.15.
    """
    place = np.asarray(bin_index, dtype=np.float64) + np.asarray(offset, dtype=np.float64)
    return ((place - N_BELOW) / _PER_UNIT).astype(np.float32)


def histogram(bin_index: ArrayLike) -> NDArray[np.float64]:
    """Number of voxels in every bin, float64, shape (130,).

    Raises
    ------
    DynamicsError
        If a bin lies outside 0..129.
    """
    values = np.asarray(bin_index).ravel()
    if values.size and (int(values.min()) < 0 or int(values.max()) >= N_BINS):
        raise DynamicsError(
            "a bin lies outside the model's range",
            got=f"{int(values.min())} to {int(values.max())}",
            expected=f"0 to {N_BINS - 1}",
        )
    return np.bincount(values.astype(np.int64), minlength=N_BINS).astype(np.float64)


def check_counts(counts: ArrayLike, name: str) -> NDArray[np.float64]:
    """A histogram as float64 of shape (130,), or a clear error.

    Raises
    ------
    DynamicsError
        If the shape is wrong or a value is negative, NaN or infinite.
    """
    values = np.asarray(counts, dtype=np.float64)
    if values.shape != (N_BINS,):
        raise DynamicsError(
            f"the histogram '{name}' has the wrong shape", got=values.shape, expected=f"({N_BINS},)"
        )
    if not np.isfinite(values).all():
        raise DynamicsError(f"the histogram '{name}' holds NaN or infinite values", expected="finite counts")
    if (values < 0).any():
        raise DynamicsError(
            f"the histogram '{name}' holds negative counts", got=values.min(), expected="0 or more"
        )
    return np.ascontiguousarray(values)
