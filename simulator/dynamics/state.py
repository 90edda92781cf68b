"""The sparse state of a lesion on a scan: which voxels are infected, their bins and offsets (DESIGN 3)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.bins import N_BELOW, N_BINS, clamped_counts, to_signal, to_state
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.neighbours import enter_neighbourhoods, neighbour_table
from simulator.dynamics.pages import sparse_copy, untouched_zeros
from simulator.dynamics.regions import MAX_REGIONS, assign_regions, cell_voxels, label_cells
from simulator.dynamics.report import RunReport
from simulator.dynamics.residual import aerated_share, fine_structure, last_record_only, zero_mean_per_bin
from simulator.dynamics.survey import collect_infected, survey_tissue

_LARGE = ("_status", "_near")
_NEVER_WRITTEN = ("_source", "_dims", "_steps", "_weights", "_cell", "_cells")


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
        status: NDArray[np.uint8],
        n_free: int,
        spacing_mm: tuple[float, float, float],
        remembers: bool,
    ) -> None:
        self.shape: tuple[int, int, int] = source.shape  # type: ignore[assignment]
        self.spacing_mm = spacing_mm
        self.transition = 0
        self.report = RunReport()
        self._source = source
        self.n = index.size
        kind: Any = np.int32 if source.size <= np.iinfo(np.int32).max else np.int64
        self._kind = kind
        self._status = status
        self._n_free = n_free  # places for births
        self._near = untouched_zeros(source.size, np.uint16)
        self._dims = np.array(source.shape, np.int64)
        self._steps, self._weights = neighbour_table(self.shape, spacing_mm)
        capacity = index.size + 1024
        self._voxel = np.empty(capacity, kind)
        self._bin = np.empty(capacity, np.uint8)
        self._offset = np.empty(capacity, np.float32)
        self._field = np.empty(capacity, np.uint8)
        self._region = np.empty(capacity, np.uint8)
        self._born = np.zeros(capacity, np.uint8)
        self._voxel[: self.n] = index
        self._bin[: self.n] = bin_index
        self._offset[: self.n] = offset
        self._frontier = np.empty(min(26 * index.size + 4096, source.size + 26), kind)
        self._n_frontier = enter_neighbourhoods(
            self._voxel, self._bin, 0, self.n, N_BELOW, self._dims, self._steps, self._weights,
            self._status, self._near, self._frontier, 0,
        )  # fmt: skip
        self._cell = cell_voxels(spacing_mm)
        self._region_of_cell, self._cells, self._n_regions = label_cells(
            self._voxel[: self.n], self._dims, self._cell
        )
        self.assign_regions(0, self.n)
        row = self._region[: self.n].astype(np.int64) * N_BINS + self._bin[: self.n]
        self._counts = np.bincount(row, minlength=MAX_REGIONS * N_BINS).reshape(MAX_REGIONS, N_BINS)
        self._remembers = remembers
        self._field_of: tuple[int, float] | None = None
        self._remembered_mm: float | None = None  # see `branching`
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
        return self._counts.sum(axis=0).astype(np.float64)

    def region_counts(self) -> NDArray[np.float64]:
        """Voxels per bin of every lesion kept apart (`regions`), float64, shape (regions, 130)."""
        return self._counts[: self._n_regions].astype(np.float64)

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
            if isinstance(value, np.ndarray) and name not in _NEVER_WRITTEN:
                setattr(twin, name, sparse_copy(value) if name in _LARGE else value.copy())
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
            ) * aerated_share(signal[wants])
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

    def assign_regions(self, first: int, last: int) -> None:
        """Give slots first..last-1 the region of their tissue."""
        self._n_regions = assign_regions(
            self._voxel, first, last, self._dims, self._cell, self._cells, self._region_of_cell,
            self._n_regions, self._region,
        )  # fmt: skip

    def reserve(self, births: int, recoveries: int) -> None:
        """Make room before a jump, so that kernels never allocate."""
        if self.n + births > self._voxel.size:
            size = max(self.n + births, self._voxel.size * 3 // 2)
            for name in ("_voxel", "_bin", "_offset", "_field", "_born", "_region"):
                setattr(self, name, _grown(getattr(self, name), size))
        most = self._status.size + 26  # every voxel is listed at most once
        needed = min(self._n_frontier + 26 * births + recoveries, most)
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
    status = untouched_zeros(source.size, np.uint8)
    flat = infected.reshape(-1).view(np.uint8)
    number, outside, bad, free = survey_tissue(
        source.reshape(-1), flat, open_tissue.reshape(-1).view(np.uint8), status
    )
    if number == 0:
        raise DynamicsError(
            "the infection mask is empty",
            expected="at least one annotated voxel",
            remedy="annotate the scan or place seeds",
        )
    if outside:
        raise DynamicsError(
            "the infection mask reaches outside susceptible tissue",
            got=f"{outside} of {number} voxels",
            expected="none",
            remedy="pass susceptible | infection, or correct the lung mask",
        )
    if bad:
        raise DynamicsError(
            "the signal holds NaN or infinite values in susceptible tissue",
            got=f"{bad} such voxels",
            expected="finite numbers",
            remedy="repair the scan or leave these voxels out of the lung mask",
        )
    index = np.empty(number, np.int64)
    collect_infected(flat, index)
    values = source.reshape(-1)[index]
    if recovery_limit:
        bins, offset = np.zeros(index.size, np.int16), np.full(index.size, 0.5, np.float32)
    else:
        bins, offset = to_state(values)
    state = LesionState(source, index, bins, offset, status, free, spacing, not recovery_limit)  # type: ignore[arg-type]
    if not recovery_limit:
        state.report.clamped_below, state.report.clamped_above = clamped_counts(values)
    state.report.saturated = int(state._counts[:, N_BINS - 1].sum())
    return state


__all__ = ["LesionState", "start_state"]
