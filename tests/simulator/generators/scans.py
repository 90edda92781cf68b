"""Small scans for generators: two boxes of lung, a vessel and an airway, and where asked a lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from standard_space.geometry import Geometry, Placement
from standard_space.grid import StandardGrid
from standard_space.scan import Scan
from standard_space.window import Window

GRID = StandardGrid(48)
LUNG_HU, LESION_HU = -850.0, -400.0


def lungs_at(rows: slice) -> np.ndarray:
    mask = np.zeros(GRID.shape, bool)
    mask[rows, 12:36, 6:20] = True
    mask[rows, 12:36, 28:42] = True
    return mask


def hand_made(
    patient: str,
    *,
    lesion: tuple[slice, slice, slice] | None = None,
    window: Window | None = None,
    rows: slice = slice(12, 36),
) -> Scan:
    """A 48^3 scan; every lung voxel has its own HU, so that a moved voxel is known again."""
    window = window or Window()
    lungs = lungs_at(rows)
    airways, vessels = np.zeros_like(lungs), np.zeros_like(lungs)
    airways[rows, 24, 10] = True
    vessels[rows, 20:28, 34] = True
    infection = np.zeros_like(lungs)
    if lesion is not None:
        infection[lesion] = True
    hu = np.full(GRID.shape, 40.0)
    hu[lungs] = LUNG_HU + np.random.default_rng(len(patient)).normal(0.0, 20.0, int(lungs.sum()))
    hu[infection] = LESION_HU + np.arange(infection.sum()) % 50
    hu[airways], hu[vessels] = -1000.0, 30.0
    size = GRID.size
    z, y, x = GRID.spacing_mm
    geometry = Geometry((size, size, size), (x, y, z), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel().tolist()))
    return Scan(
        patient=patient,
        scan="a",
        day=0.0,
        stage=None,
        grid=GRID,
        signal=window.to_signal(hu.astype(np.float32)),
        lungs=lungs,
        airways=airways,
        vessels=vessels,
        infection=infection,
        window=window,
        placement=Placement(geometry, geometry, (0.0, 0.0, 0.0)),
        native_infection=infection.copy(),
        provenance={"notes": []},
    )


@dataclass(frozen=True)
class Reads:
    """A reader that can be pickled and counts nothing."""

    patient: str
    lesion: bool = False
    rows: tuple[int, int] = (12, 36)

    def __call__(self) -> Scan:
        low, high = self.rows
        lesion = (slice(low + 4, low + 12), slice(16, 26), slice(8, 16)) if self.lesion else None
        return hand_made(self.patient, lesion=lesion, rows=slice(low, high))
