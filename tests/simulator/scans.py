"""A small embedded scan with lungs and a lesion, made without any file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from standard_space.cohort import Cohort, Entry
from standard_space.embedding import embed
from standard_space.files import write_mark
from standard_space.grid import StandardGrid
from standard_space.scan import Scan
from standard_space.scanfile import write_scan
from tests.standard_space.bodies import body, geometry


def small_scan(patient: str = "p", scan: str = "a", day: float = 0.0, shift: float = 0.0) -> Scan:
    """A 48^3 scan whose lesion spreads over signals below and above 0; `shift` raises them."""
    image, lungs, infection = body(geometry())
    made = embed(
        image, StandardGrid(48), patient=patient, scan=scan, day=day, infection=infection, lungs=lungs
    )
    rng = np.random.default_rng(len(patient + scan))
    signal = made.signal.copy()
    spread = rng.normal(-0.03 + shift, 0.05, int(made.infection.sum()))
    signal[made.infection] = np.clip(spread, -0.14, 0.45).astype(np.float32)
    return replace(made, signal=signal.astype(np.float16).astype(np.float32))


def cohort_of(folder: Path, *scans: Scan) -> Cohort:
    """Write scans as a cohort."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for scan in scans:
        file = f"{scan.patient}_{scan.scan}.h5"
        entries.append(Entry.of(scan, "observed", file, write_scan(folder / file, scan)))
    Cohort.write_manifest(folder, entries)
    write_mark(folder, "cohort", {})
    return Cohort.open(folder)
