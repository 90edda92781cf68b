"""Small cohorts to export, observed and augmented."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from standard_space.cohort import Cohort, Entry
from standard_space.embedding import embed
from standard_space.files import write_mark
from standard_space.geometry import Geometry
from standard_space.grid import StandardGrid
from standard_space.scan import Scan
from standard_space.scanfile import write_scan
from tests.standard_space.bodies import body, geometry
from tests.standard_space.differences import write_as_difference

GRID = StandardGrid(48)


def observed(
    patient: str = "p",
    scan: str = "a",
    day: float = 0.0,
    *,
    where: Geometry | None = None,
    annotated: bool = True,
    grid: StandardGrid = GRID,
    keep_native: bool = True,
) -> Scan:
    """An embedded body with a lesion of two densities."""
    where = geometry(size=(40, 36, 34), spacing=(9.0, 9.0, 10.6)) if where is None else where
    image, lungs, infection = body(where)
    dense = infection & (np.cumsum(infection.ravel()).reshape(infection.shape) > infection.sum() / 2)
    image.array[dense] = 30.0
    made = embed(
        image,
        grid,
        patient=patient,
        scan=scan,
        day=day,
        infection=infection if annotated else None,
        lungs=lungs,
    )
    signal = made.signal.astype(np.float16).astype(np.float32)
    return replace(made, signal=signal, native_infection=made.native_infection if keep_native else None)


def played(source: Scan, number: int = 1) -> Scan:
    """A synthetic scan: every second infected voxel gets well, and a block in the left lung falls ill."""
    infection = np.zeros_like(source.lungs) if source.infection is None else source.infection.copy()
    signal = source.signal.copy()
    well = np.flatnonzero(infection)[::2]
    infection.ravel()[well] = False
    signal.ravel()[well] = -0.2
    left = source.lungs & (np.arange(source.grid.size) > source.grid.size // 2)
    middle = np.argwhere(left).mean(axis=0).astype(int)
    box = tuple(slice(m - 2 - number, m + 3) for m in middle)
    new = np.zeros_like(infection)
    new[box] = source.lungs[box]
    infection |= new
    signal[new] = 0.1
    return replace(
        source,
        scan=f"{source.scan}-sim{number}",
        day=source.day + number / 4,
        infection=infection,
        signal=signal.astype(np.float16).astype(np.float32),
        native_infection=None,
    )


def cohort_of(folder: Path, *scans: Scan) -> Cohort:
    """Write scans as a cohort."""
    folder.mkdir(parents=True)
    entries = []
    for number, scan in enumerate(scans):
        file = f"{number}.h5"
        entries.append(Entry.of(scan, "observed", file, write_scan(folder / file, scan)))
    Cohort.write_manifest(folder, entries)
    write_mark(folder, "cohort", {})
    return Cohort.open(folder)


def augmented_of(folder: Path, cohort: Cohort, *scans: tuple[Scan, Scan]) -> Path:
    """Write pairs of a synthetic scan and its source as the augmented folder of a cohort."""
    folder.mkdir(parents=True)
    entries = []
    for number, (scan, source) in enumerate(scans):
        digest = cohort.find(source.patient, source.scan).content_sha256
        file = f"s{number}.h5"
        entries.append(
            Entry.of(scan, "synthetic", file, write_as_difference(folder / file, scan, source, digest))
        )
    Cohort.write_manifest(folder, entries)
    sources = {entry.name: entry.content_sha256 for entry in cohort.entries}
    write_mark(folder, "augmented", {"sources": sources})
    return folder


def small_study(folder: Path, patients: int = 3, synthetic: int = 2) -> Path:
    """A cohort `c` of patients p0, p1, ... with one scan each; returns its augmented folder `aug`."""
    scans = [observed(f"p{k}") for k in range(patients)]
    cohort = cohort_of(folder / "c", *scans)
    pairs = [(played(scan, number), scan) for scan in scans for number in range(1, synthetic + 1)]
    return augmented_of(folder / "aug", cohort, *pairs)
