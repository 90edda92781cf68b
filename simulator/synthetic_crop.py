"""A synthetic volume in memory, cropped to the lungs: what on-the-fly training takes (DESIGN 4, 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.engine import LesionState
from simulator.lung_crop import LungCrop
from simulator.series import TRANSITIONS_PER_DAY
from standard_space.cohort import Cohort, Entry
from standard_space.scanfile import window_of


@dataclass(frozen=True)
class Surroundings:
    """What a progression leaves as it is: a source scan in a box around its lungs, with a margin.

    Parameters
    ----------
    head : dict
        The source's metadata (`read_meta`).
    corner : tuple of int
        First voxel (z, y, x) of the box on the standard grid.
    offset : tuple of int
        First voxel (z, y, x) of the lung box in this box.
    inner_shape : tuple of int
        Shape of the lung box.
    signal : float32 array, shape (z, y, x)
    lungs : bool array, shape (z, y, x)
        Read-only.
    left_lung : bool array, shape (z, y, x), or None
        Read-only; only with a margin, and where the source tells the lungs apart.
    """

    head: dict[str, Any]
    corner: tuple[int, int, int]
    offset: tuple[int, int, int]
    inner_shape: tuple[int, int, int]
    signal: NDArray[np.float32]
    lungs: NDArray[np.bool_]
    left_lung: NDArray[np.bool_] | None = None

    def place(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Flat indices of the lung box as flat indices of this box."""
        if self.signal.shape == self.inner_shape:
            return index
        _, rows, columns = self.inner_shape
        z, rest = np.divmod(index, rows * columns)
        y, x = np.divmod(rest, columns)
        _, height, width = self.signal.shape
        placed: NDArray[np.int64] = ((z + self.offset[0]) * height + y + self.offset[1]) * width
        return placed + x + self.offset[2]


@dataclass(frozen=True)
class SyntheticCrop:
    """A synthetic scan in the box around its lungs.

    Parameters
    ----------
    patient, scan : str
        Names of the source scan.
    day : float
        On the patient's own clock, days.
    signal : float32 array, shape (z, y, x)
        (HU - WL) / WW.
    infection : bool array, shape (z, y, x)
    lungs : bool array, shape (z, y, x)
        Shared between the crops of a source, read-only.
    spacing_mm : tuple of float
        (z, y, x).
    corner : tuple of int
        First voxel (z, y, x) of the box on the standard grid.
    air_signal : float
        Signal of air, to pad with.
    provenance : dict
        How it was made; enough to make it again from its source.
    left_lung : bool array, shape (z, y, x), or None
        See `Surroundings`.
    """

    patient: str
    scan: str
    day: float
    signal: NDArray[np.float32]
    infection: NDArray[np.bool_]
    lungs: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]
    corner: tuple[int, int, int]
    air_signal: float
    provenance: dict[str, Any]
    left_lung: NDArray[np.bool_] | None = None

    @property
    def name(self) -> str:
        """Patient and source scan, for messages."""
        return f"{self.patient}/{self.scan}"


def surroundings_of(cohort: Cohort, entry: Entry, crop: LungCrop, margin_mm: float = 0.0) -> Surroundings:
    """The source scan in the lungs' box, widened by a margin as far as the standard extent goes."""
    shape: tuple[int, int, int] = crop.signal.shape  # type: ignore[assignment]
    if margin_mm <= 0.0:
        return _frozen(Surroundings(crop.head, crop.corner, (0, 0, 0), shape, crop.signal, crop.lungs))
    n = crop.grid.size
    wide = [math.ceil(margin_mm / spacing) for spacing in crop.grid.spacing_mm]
    first = [max(0, c - w) for c, w in zip(crop.corner, wide, strict=True)]
    last = [min(n, c + s + w) for c, s, w in zip(crop.corner, shape, wide, strict=True)]
    offset = tuple(c - f for c, f in zip(crop.corner, first, strict=True))
    z, y, x = (slice(f, e) for f, e in zip(first, last, strict=True))
    with cohort.open_scan(entry) as reader:
        signal = reader.signal((z, y, x))
        left = reader.mask("left_lung", (z, y, x)) if crop.head.get("sides") else None
    lungs = np.zeros(signal.shape, np.bool_)
    lungs[tuple(slice(o, o + s) for o, s in zip(offset, shape, strict=True))] = crop.lungs
    corner = (first[0], first[1], first[2])
    placed = (offset[0], offset[1], offset[2])
    return _frozen(Surroundings(crop.head, corner, placed, shape, signal, lungs, left))


def _frozen(surroundings: Surroundings) -> Surroundings:
    surroundings.lungs.flags.writeable = False
    if surroundings.left_lung is not None:
        surroundings.left_lung.flags.writeable = False
    return surroundings


def synthesise(
    surroundings: Surroundings, state: LesionState, transitions: int, provenance: dict[str, Any]
) -> SyntheticCrop:
    """The crop that a played state of a source makes (pure)."""
    head = surroundings.head
    index, values = state.changed()
    signal = surroundings.signal.copy()
    signal.reshape(-1)[surroundings.place(index)] = values
    infection = np.zeros(signal.shape, np.bool_)
    infection.reshape(-1)[surroundings.place(state.index.astype(np.int64))] = True
    source = {key: head[key] for key in ("patient", "scan", "content_sha256")}
    return SyntheticCrop(
        patient=str(head["patient"]),
        scan=str(head["scan"]),
        day=float(head["day"]) + transitions / TRANSITIONS_PER_DAY,
        signal=signal,
        infection=infection,
        lungs=surroundings.lungs,
        spacing_mm=state.spacing_mm,
        corner=surroundings.corner,
        air_signal=window_of(head).air_signal,
        provenance={"source": source, **provenance, "report": state.report.to_json()},
        left_lung=surroundings.left_lung,
    )
