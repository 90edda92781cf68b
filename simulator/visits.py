"""One scan of a series, cut to what a forecast needs, so that two full-size scans fit in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simulator.alignment import PlacedMask
from simulator.dynamics.bins import N_BINS
from simulator.series import Observation, observe
from standard_space.errors import DataError
from standard_space.geometry import Placement, Triple
from standard_space.grid import StandardGrid
from standard_space.scan import Scan
from standard_space.window import Window

MARGIN_MM = 12.0
"""Room kept around lungs and infection, for the other scan's infection that falls beyond them."""


@dataclass(frozen=True)
class Visit:
    """An annotated scan, its volumes cut to the box of lungs and infection plus a margin.

    Parameters
    ----------
    observation : Observation
        What the scan shows; all counts are 0 where the annotation is empty.
    grid : StandardGrid
    placement : Placement
    window : Window
    first_voxel : tuple of int
        Standard voxel (z, y, x) at which the box starts.
    signal : float32 array, shape (z, y, x)
    infection, lungs, susceptible : bool array, shape (z, y, x)
    """

    observation: Observation
    grid: StandardGrid
    placement: Placement
    window: Window
    first_voxel: tuple[int, int, int]
    signal: NDArray[np.float32]
    infection: NDArray[np.bool_]
    lungs: NDArray[np.bool_]
    susceptible: NDArray[np.bool_]

    @property
    def name(self) -> str:
        """Patient and scan, for messages."""
        return f"{self.observation.patient}/{self.observation.scan}"

    @property
    def above(self) -> NDArray[np.bool_]:
        """Infected voxels with a signal of 0 or more."""
        return np.asarray(self.infection & (self.signal >= 0.0))

    @property
    def annotated_counts(self) -> NDArray[np.float64]:
        """Infected voxels per bin as the engine starts with them: those below -0.15 stand in bin 0."""
        counts = self.observation.counts.copy()
        counts[0] += self.observation.clamped_low
        return counts

    def placed(self, mask: NDArray[np.bool_]) -> PlacedMask:
        """A mask of this visit's box with its place in the scan's standard frame."""
        spacing = self.grid.spacing_mm
        z, y, x = (first * step for first, step in zip(self.first_voxel, spacing, strict=True))
        origin: Triple = (z, y, x)
        return PlacedMask(mask, origin, spacing)


def visit_of(scan: Scan, content_sha256: str) -> Visit:
    """Cut a scan; its large arrays can be freed afterwards.

    Raises
    ------
    DataError
        When the scan has no lungs or no annotation, or its annotated signals cannot be used.
    """
    if scan.infection is None:
        raise DataError(
            "the scan has no infection mask", where=scan.name, remedy="fill the manifest's infection column"
        )
    if not scan.lungs.any():
        raise DataError("the scan has no lungs", where=scan.name)
    found = scan.lungs | scan.infection
    box = []
    for axis, step in enumerate(scan.grid.spacing_mm):
        margin = int(np.ceil(MARGIN_MM / step))
        inside = np.flatnonzero(found.any(tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(0, int(inside[0]) - margin), min(scan.grid.size, int(inside[-1]) + margin + 1)))
    cut = tuple(box)
    infection = scan.infection[cut].copy()
    small = replace(
        scan,
        signal=scan.signal[cut].copy(),
        infection=infection,
        lungs=scan.lungs[cut].copy(),
        airways=scan.airways[cut],
        vessels=scan.vessels[cut],
    )
    return Visit(
        observation=_observe(scan, content_sha256),
        grid=scan.grid,
        placement=scan.placement,
        window=scan.window,
        first_voxel=(box[0].start, box[1].start, box[2].start),
        signal=small.signal,
        infection=infection,
        lungs=small.lungs,
        susceptible=small.susceptible,
    )


def _observe(scan: Scan, content_sha256: str) -> Observation:
    """`observe`, with an empty annotation as zeros: an infection that is gone can still be forecast."""
    if scan.infection is not None and scan.infection.any():
        return observe(scan, content_sha256)
    lungs_ml = float(scan.lungs.sum()) * scan.grid.voxel_volume_ml
    return Observation(
        scan.patient, scan.scan, scan.day, content_sha256, np.zeros(N_BINS), 0, 0, scan.grid.voxel_volume_ml,
        lungs_ml,
    )  # fmt: skip


def at_inspiration(observation: Observation, lungs_ml: float) -> Observation:
    """The observation as if its lungs held `lungs_ml`: counts scale as the lungs' volume, signals stay.

    It takes lesions to inflate as the lung around them does, which consolidation hardly does; it is therefore
    offered, not the default. Signals stay because how much a lesion thins out on breathing in is not known, and a
    shift of signals would look like dynamics.

    Raises
    ------
    DataError
        When either lung volume is not positive.
    """
    if not (observation.lungs_ml > 0 and lungs_ml > 0):
        raise DataError(
            "there are no lungs to normalise the inspiration by",
            where=f"{observation.patient}/{observation.scan}",
        )
    return replace(
        observation, counts=observation.counts * (lungs_ml / observation.lungs_ml), lungs_ml=lungs_ml
    )
