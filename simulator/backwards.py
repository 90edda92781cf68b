"""Backwards: the constructed state Y_t0 three days before a patient's first scan (paper III-C, DESIGN 4).

Forwards from there, the dynamics fitted to Y_t0 and the first scan play an onset that nobody saw.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulator.dynamics.bins import SIGNAL_MIN
from simulator.dynamics.engine import LesionState, start_state
from simulator.dynamics.neighbours import ANNOTATED, FREE
from simulator.dynamics.residual import fine_structure
from simulator.series import T0, T0_DAYS, t0_mask
from standard_space.errors import DataError
from standard_space.scan import Scan


def scan_before(scan: Scan, seed: int) -> Scan:
    """A patient's first scan as it may have been three days earlier.

    A tenth of the annotated voxels, drawn at random, is infected. All annotated voxels have a signal of -0.15, the
    recovery limit [paper], plus their own fine structure: their deviation from the annotated tissue around them.

    Parameters
    ----------
    scan : Scan
        An annotated scan.
    seed : int
        Of the draw; the same seed gives the same mask.

    Returns
    -------
    Scan
        Named "t0", day `scan.day` - 3.

    Raises
    ------
    DataError
        When the scan is not annotated or free of infection.

    Notes
    -----
    Zhou et al., IEEE TMI 2020, section III-C (DOI 10.1109/TMI.2020.3001810).
    """
    if scan.infection is None or not scan.infection.any():
        raise DataError(
            "the scan has no infection whose beginning could be constructed",
            where=scan.name,
            remedy="seed one with `lungcast simulate --seeds 12`",
        )
    status = np.where(scan.infection, np.uint8(FREE | ANNOTATED), scan.susceptible.astype(np.uint8))
    index = np.flatnonzero(scan.infection)
    fine = fine_structure(
        scan.signal.reshape(-1), status.reshape(-1), index, scan.signal.shape, scan.grid.spacing_mm
    )
    signal = scan.signal.copy()
    signal.reshape(-1)[index] = np.float32(SIGNAL_MIN) + fine - fine.mean()
    return replace(
        scan,
        scan=T0,
        day=scan.day - T0_DAYS,
        stage=None,
        signal=signal,
        infection=t0_mask(scan.infection, seed),
        native_infection=None,
        provenance={**scan.provenance, "constructed": "Y_t0", "constructed_seed": seed},
    )


def start_before(scan: Scan, seed: int) -> tuple[Scan, LesionState]:
    """Y_t0 of a scan (`scan_before`) and the engine's state of it: every infected voxel in bin 0.

    What was annotated in the scan is susceptible, wherever it lies.
    """
    before = scan_before(scan, seed)
    if before.infection is None:  # for the type checker: `scan_before` draws at least one voxel
        raise DataError("Y_t0 is empty", where=scan.name)
    state = start_state(
        before.signal, before.infection, scan.susceptible, scan.grid.spacing_mm, recovery_limit=True
    )
    return before, state
