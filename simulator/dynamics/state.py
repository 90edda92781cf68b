"""The sparse state of a lesion on a scan: which voxels are infected, their bins and offsets (DESIGN 3)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.bins import N_BELOW, N_BINS, clamped_counts, histogram, to_signal, to_state
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.neighbours import ANNOTATED, FREE, INFECTED, enter_neighbourhoods, neighbour_table
from simulator.dynamics.report import RunReport
from simulator.dynamics.residual import count_not_finite, fine_structure, last_record_only, zero_mean_per_bin


class LesionState:
    """Infected voxels of one scan, made by `start_state`, moved by `advance`.

    Attributes
    ----------
    shape : tuple of int
        (z, y, x).
    spacing_mm : tuple of float
        (z, y, x).
    transition : int
        Transitions since the start; part of every random draw.
    report : RunReport
        What happened so far.
    index : int32 or int64, shape (n,)
        Flat C-order indices of the infected voxels, in storage order (NOT sorted); `bin`, `offset` and
        `born` share that order.
    bin : uint8, shape (n,), 0..129
    offset : float32, shape (n,), in [0, 1)
    born : bool, shape (n,)
        Whether the voxel was infected during the simulation rather than annotated.
    """

    def __init__(
        self,
        source: NDArray[np.float32],
        index: NDArray[np.int64],
        bin_index: NDArray[np.int16],
        offset: NDArray[np.float32],
        susceptible: NDArray[np.bool_],
        spacing_mm: tuple[float, float, float],
    ) -> None:
        self.shape: tuple[int, int, int] = source.shape  # type: ignore[assignment]
        self.spacing_mm = spacing_mm
        self.transition = 0
        self.report = RunReport()
        self._source = source
        self.n = index.size
        kind: Any = np.int32 if source.size <= np.iinfo(np.int32).max else np.int64
        self._kind = kind
        self._status = susceptible.reshape(-1).astype(np.uint8)  # FREE is 1
        self._n_free = int(np.count_nonzero(susceptible)) - index.size  # places for births
        self._status[index] = INFECTED | ANNOTATED
        self._ggo_weight = np.zeros(source.size, np.uint16)
        self._above = np.zeros(source.size, np.uint8)
        self._dims = np.array(source.shape, np.int64)
        self._steps, self._weights = neighbour_table(self.shape, spacing_mm)
        capacity = index.size + 1024
        self._voxel = np.empty(capacity, kind)
        self._bin = np.empty(capacity, np.uint8)
        self._offset = np.empty(capacity, np.float32)
        self._field = np.empty(capacity, np.uint16)
        self._born = np.zeros(capacity, np.uint8)
        self._voxel[: self.n] = index
        self._bin[: self.n] = bin_index
        self._offset[: self.n] = offset
        self._frontier = np.empty(min(26 * index.size + 4096, source.size + 26), kind)
        self._counts = histogram(bin_index).astype(np.int64)
        self._n_frontier = enter_neighbourhoods(
            self._voxel, self._bin, 0, self.n, N_BELOW, self._dims, self._steps, self._weights,
            self._status, self._ggo_weight, self._above, self._frontier, 0,
        )  # fmt: skip
        self._field_of: tuple[int, float] | None = None
        self._gone_voxel = np.empty(1024, kind)
        self._gone_offset = np.empty(1024, np.float32)
        self._gone_born = np.empty(1024, np.uint8)
        self._n_gone = 0

    @property
    def index(self) -> NDArray[np.int32]:
        """Flat indices of the infected voxels, storage order."""
        return self._voxel[: self.n].copy()

    @property
    def bin(self) -> NDArray[np.uint8]:
        """Bins of the infected voxels, storage order."""
        return self._bin[: self.n].copy()

    @property
    def offset(self) -> NDArray[np.float32]:
        """Offsets within the bins, storage order."""
        return self._offset[: self.n].copy()

    @property
    def born(self) -> NDArray[np.bool_]:
        """Whether each voxel was infected during the simulation, storage order."""
        return self._born[: self.n].astype(bool)

    def counts(self) -> NDArray[np.float64]:
        """Voxels per bin, float64, shape (130,)."""
        return self._counts.astype(np.float64)

    def mask(self) -> NDArray[np.bool_]:
        """Infection mask, bool, (z, y, x)."""
        result = np.zeros(self._status.size, bool)
        result[self._voxel[: self.n]] = True
        return result.reshape(self.shape)

    def copy(self) -> LesionState:
        """An independent copy (the source signal is shared, it is never written)."""
        twin = copy.copy(self)
        twin.report = copy.copy(self.report)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray) and name not in ("_source", "_dims", "_steps", "_weights"):
                setattr(twin, name, value.copy())
        return twin

    def changed(self, *, residual: bool = True) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Voxels whose signal is the model's, and that signal: infected ones and recovered ones.

        Parameters
        ----------
        residual : bool
            Add the anatomy residual (DESIGN 3) to newly infected and to recovered voxels: their own
            deviation from the surrounding tissue of the source scan, with zero mean per bin. It is for
            display and training only: bins, counts and masks never depend on it.

        Returns
        -------
        index : int64, shape (m,), sorted flat indices
        signal : float32, shape (m,)
        """
        keep = last_record_only(self._gone_voxel[: self._n_gone], self._status)
        gone = self._gone_voxel[: self._n_gone][keep].astype(np.int64)
        voxels = np.concatenate([self._voxel[: self.n].astype(np.int64), gone])
        order = np.argsort(voxels, kind="stable")  # first, so that neighbours are close in memory below
        voxels = voxels[order]
        bins = np.concatenate([self._bin[: self.n].astype(np.int16), np.full(gone.size, -1, np.int16)])[order]
        offsets = np.concatenate([self._offset[: self.n], self._gone_offset[: self._n_gone][keep]])[order]
        signal = to_signal(bins, offsets)
        if residual:
            born = np.concatenate([self._born[: self.n], self._gone_born[: self._n_gone][keep]]).astype(bool)
            wants = born[order] | (bins < 0)
            fine = np.zeros(voxels.size, np.float32)
            fine[wants] = fine_structure(
                self._source.reshape(-1), self._status, voxels[wants], self.shape, self.spacing_mm
            )
            signal = signal + zero_mean_per_bin(fine, bins, wants)
        return voxels, signal.astype(np.float32)

    def signal_volume(
        self, *, residual: bool = True, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """The whole scan as it looks now, float32, (z, y, x).

        Infected voxels show their bin and offset, recovered ones a signal just below -0.15 (they are normal
        again and stop changing), all others the source untouched. Without any transition this is the source
        up to float precision, except where annotated signals lay outside the model's range.

        Parameters
        ----------
        residual : bool
            See `changed`.
        out : float32 array, optional
            Written and returned instead of a new array.
        """
        if out is None:
            out = self._source.copy()
        else:
            out[...] = self._source
        index, signal = self.changed(residual=residual)
        out.reshape(-1)[index] = signal
        return out

    def reserve(self, births: int, frontier_events: int, recoveries: int) -> None:
        """Make room before a jump, so that kernels never allocate."""
        if self.n + births > self._voxel.size:
            size = max(self.n + births, self._voxel.size * 3 // 2)
            for name in ("_voxel", "_bin", "_offset", "_field", "_born"):
                setattr(self, name, _grown(getattr(self, name), size))
        most = self._status.size + 26  # every voxel is listed at most once
        needed = min(self._n_frontier + 26 * frontier_events + recoveries, most)
        if needed > self._frontier.size:
            self._frontier = _grown(self._frontier, min(max(needed, self._frontier.size * 3 // 2), most))
        if self._n_gone + recoveries > self._gone_voxel.size:
            size = max(self._n_gone + recoveries, self._gone_voxel.size * 2)
            for name in ("_gone_voxel", "_gone_offset", "_gone_born"):
                setattr(self, name, _grown(getattr(self, name), size))


def _grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    result = np.zeros(size, array.dtype)
    result[: array.size] = array
    return result


def _volume(array: object, name: str, shape: tuple[int, ...] | None) -> NDArray[np.bool_]:
    mask = np.asarray(array)
    if mask.ndim != 3 or (shape is not None and mask.shape != shape):
        raise DynamicsError(
            f"{name} has the wrong shape", got=mask.shape, expected="(z, y, x)" if shape is None else shape
        )
    return np.ascontiguousarray(mask if mask.dtype == bool else mask != 0)


def start_state(
    signal: NDArray[np.float32],
    infection: NDArray[np.bool_],
    susceptible: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    *,
    recovery_limit: bool = False,
) -> LesionState:
    """State of an annotated scan.

    Parameters
    ----------
    signal : float32, (z, y, x)
        Windowed signal of the scan, dimensionless. Kept by reference and never written.
    infection : bool, (z, y, x)
        Annotation.
    susceptible : bool, (z, y, x)
        Where infection may be: lungs minus airways minus vessels, plus the annotation (DESIGN 3).
    spacing_mm : tuple of float
        (z, y, x) voxel spacing in mm, positive.
    recovery_limit : bool
        Start every voxel in bin 0, mid-bin, whatever its signal: the Y_t0 of DESIGN 4.

    Returns
    -------
    LesionState

    Raises
    ------
    DynamicsError
        Shapes differ, an empty annotation, annotation outside susceptible tissue, NaN in susceptible
        tissue, or a bad spacing.
    """
    source = np.ascontiguousarray(signal, dtype=np.float32)
    if source.ndim != 3:
        raise DynamicsError("signal has the wrong shape", got=source.shape, expected="(z, y, x)")
    infected = _volume(infection, "infection", source.shape)
    open_tissue = _volume(susceptible, "susceptible", source.shape)
    spacing = tuple(float(s) for s in spacing_mm)
    if len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise DynamicsError(
            "spacing_mm is no voxel spacing", got=spacing, expected="three positive numbers (z, y, x)"
        )
    index = np.flatnonzero(infected.reshape(-1))
    if index.size == 0:
        raise DynamicsError(
            "the infection mask is empty",
            expected="at least one annotated voxel",
            remedy="annotate the scan or place seeds",
        )
    outside = int(index.size - np.count_nonzero(open_tissue.reshape(-1)[index]))
    if outside:
        raise DynamicsError(
            "the infection mask reaches outside susceptible tissue",
            got=f"{outside} of {index.size} voxels",
            expected="none",
            remedy="pass susceptible | infection, or correct the lung mask",
        )
    bad = int(count_not_finite(source.reshape(-1), open_tissue.reshape(-1)))
    if bad:
        raise DynamicsError(
            "the signal holds NaN or infinite values in susceptible tissue",
            got=f"{bad} such voxels",
            expected="finite numbers",
            remedy="repair the scan or leave these voxels out of the lung mask",
        )
    values = source.reshape(-1)[index]
    if recovery_limit:
        bins, offset = np.zeros(index.size, np.int16), np.full(index.size, 0.5, np.float32)
    else:
        bins, offset = to_state(values)
    state = LesionState(source, index, bins, offset, open_tissue, spacing)  # type: ignore[arg-type]
    if not recovery_limit:
        state.report.clamped_below, state.report.clamped_above = clamped_counts(values)
    state.report.saturated = int(state._counts[N_BINS - 1])
    return state


__all__ = ["FREE", "LesionState", "start_state"]
