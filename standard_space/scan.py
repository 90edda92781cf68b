"""A scan in the standard embedding space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from standard_space.geometry import Geometry, Placement
from standard_space.grid import StandardGrid
from standard_space.window import Window


@dataclass
class Scan:
    """One embedded scan: signal and masks on the standard grid, and the way back to the native one.

    Parameters
    ----------
    patient, scan : str
        The manifest's names.
    day : float
        Day of acquisition on the patient's own clock, days.
    stage : str or None
        Stage of the disease, free text.
    grid : StandardGrid
        The standard grid.
    signal : float32 array, shape (z, y, x)
        (HU - WL) / WW; about -0.25 in air, 0 at the window level.
    lungs, airways, vessels : bool array, shape (z, y, x)
        Anatomy.
    infection : bool array, shape (z, y, x), or None
        Annotated infection; None when the scan was never annotated (an empty mask means: none there).
    window : Window
        Window that made the signal, with its source.
    placement : Placement
        Where the grid lies in the scan.
    native_infection, native_lungs : bool array, shape (z, y, x) native, or None
        The user's own masks on the native grid, kept for scoring.
    left_lung : bool array, shape (z, y, x), or None
        The patient's left lung, a part of `lungs`; the rest is the right one. None when they were not told apart.
    lobes : uint8 array, shape (z, y, x), or None
        The user's own lobe labels, 0 outside; lungcast carries them along and reads no meaning into them.
    provenance : dict
        Input hashes, parameters, seed, version; never a path or an identifier from DICOM.
    """

    patient: str
    scan: str
    day: float
    stage: str | None
    grid: StandardGrid
    signal: NDArray[np.float32]
    lungs: NDArray[np.bool_]
    airways: NDArray[np.bool_]
    vessels: NDArray[np.bool_]
    infection: NDArray[np.bool_] | None
    window: Window
    placement: Placement
    native_infection: NDArray[np.bool_] | None = None
    native_lungs: NDArray[np.bool_] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    left_lung: NDArray[np.bool_] | None = None
    lobes: NDArray[np.uint8] | None = None

    @property
    def right_lung(self) -> NDArray[np.bool_] | None:
        """The lungs without the left one; None when they were not told apart."""
        return None if self.left_lung is None else self.lungs & ~self.left_lung

    @property
    def susceptible(self) -> NDArray[np.bool_]:
        """(lungs minus airways minus vessels) plus whatever was annotated: nothing else is ever infected."""
        normal = self.lungs & ~self.airways & ~self.vessels
        return normal if self.infection is None else normal | self.infection

    @property
    def air_signal(self) -> float:
        """Signal of air, the pad value."""
        return self.window.air_signal

    @property
    def standard_geometry(self) -> Geometry:
        """Geometry of the standard grid in the world."""
        return self.placement.standard_geometry(self.grid)

    @property
    def name(self) -> str:
        """Patient and scan, for messages and file names."""
        return f"{self.patient}/{self.scan}"
