"""The part of a scan that an infection can play in: the box around its lungs, read alone (DESIGN 4).

An augmentation never needs what lies outside. The box is found from the masks, so that it is the same wherever and
however the scan is read; the engine's random numbers count voxels in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.engine import LesionState, start_state
from standard_space.cohort import Cohort, Entry
from standard_space.difference import Difference
from standard_space.errors import DataError
from standard_space.grid import StandardGrid
from standard_space.masks import bounding_box
from standard_space.scanfile import LAYERS, unpack, window_of
from standard_space.window import Window

_OPEN = np.uint8(sum(1 << LAYERS.index(layer) for layer in ("lungs", "infection")))
_CLOSED = np.uint8(sum(1 << LAYERS.index(layer) for layer in ("airways", "vessels")))
_LUNGS, _INFECTION = (np.uint8(1 << LAYERS.index(layer)) for layer in ("lungs", "infection"))


@dataclass(frozen=True)
class LungCrop:
    """An annotated scan in the box around its lungs.

    Parameters
    ----------
    head : dict
        The scan file's metadata (`read_meta`).
    corner : tuple of int
        First voxel (z, y, x) of the box on the standard grid.
    signal : float32 array, shape (z, y, x)
        (HU - WL) / WW, of the box.
    lungs, infection, susceptible : bool array, shape (z, y, x)
        Of the box; nothing outside the box is any of them.
    lungs_ml : float
    """

    head: dict[str, Any]
    corner: tuple[int, int, int]
    signal: NDArray[np.float32]
    lungs: NDArray[np.bool_]
    infection: NDArray[np.bool_]
    susceptible: NDArray[np.bool_]
    lungs_ml: float

    @property
    def name(self) -> str:
        """Patient and scan, for messages."""
        return f"{self.head['patient']}/{self.head['scan']}"

    @property
    def grid(self) -> StandardGrid:
        """The standard grid that the box is a part of."""
        return StandardGrid(int(self.head["grid"]))

    @property
    def window(self) -> Window:
        """Window that made the signal."""
        return window_of(self.head)

    @property
    def content_sha256(self) -> str:
        """Content hash of the scan."""
        return str(self.head["content_sha256"])

    def start(self) -> LesionState:
        """Engine state of the annotated infection; the crop is kept by reference and never written.

        Raises
        ------
        DataError
            When the scan is free of infection.
        """
        if not self.infection.any():
            raise DataError(
                "the scan has no infection to play on",
                where=self.name,
                remedy="leave it out, or seed one with `lungcast simulate --seeds 12`",
            )
        return start_state(self.signal, self.infection, self.susceptible, self.grid.spacing_mm)

    def difference(self, state: LesionState) -> Difference:
        """What a state that began as `start` has changed, on the standard grid, as it is stored."""
        index, signal = state.changed()
        stored = signal.astype(np.float16)
        infected = state.mask().reshape(-1)[index]
        before = self.signal.reshape(-1)[index].astype(np.float16)
        kept = (stored != before) | (infected != self.infection.reshape(-1)[index])
        return Difference(self.to_standard(index[kept]), stored[kept], infected[kept])

    def to_standard(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Flat indices of the box as flat indices of the standard grid; their order is kept."""
        _, rows, columns = self.signal.shape
        z, rest = np.divmod(index, rows * columns)
        y, x = np.divmod(rest, columns)
        n = self.grid.size
        result: NDArray[np.int64] = ((z + self.corner[0]) * n + y + self.corner[1]) * n + x + self.corner[2]
        return result


def read_lung_crop(cohort: Cohort, entry: Entry, *, verify: bool = False) -> LungCrop:
    """Read an observed, annotated scan of a cohort in the box around its lungs.

    Parameters
    ----------
    cohort : Cohort
    entry : Entry
    verify : bool
        Compare every voxel of the scan with its hash on the way; twice the time.

    Raises
    ------
    DataError
        When it has no infection mask, or neither lungs nor infection.
    ScanFileError
        When its file is missing, damaged, or no longer what the manifest says.
    """
    with cohort.open_scan(entry) as reader:
        if not reader.annotated:
            raise DataError("the scan has no infection mask", where=entry.name)
        packed = reader.packed_masks()
        inside = packed & _OPEN
        box = bounding_box(inside != 0)
        if box is None:
            raise DataError("the scan has neither lungs nor infection", where=entry.name)
        signal = reader.verified_signal(box, packed) if verify else reader.signal(box)
        packed = np.ascontiguousarray(packed[box])
        lungs = unpack(packed, "lungs")
        return LungCrop(
            head=reader.head,
            corner=(box[0].start, box[1].start, box[2].start),
            signal=signal,
            lungs=lungs,
            infection=unpack(packed, "infection"),
            susceptible=((packed & _LUNGS) != 0) & ((packed & _CLOSED) == 0) | ((packed & _INFECTION) != 0),
            lungs_ml=float(lungs.sum()) * reader.grid.voxel_volume_ml,
        )
