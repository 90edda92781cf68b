"""Cohorts of made-up scans on disk."""

from __future__ import annotations

from pathlib import Path

from standard_space.cohort import Cohort, Entry
from standard_space.files import write_mark
from standard_space.scan import Scan
from standard_space.scanfile import write_scan


def toy_cohort(folder: Path, *scans: Scan) -> Cohort:
    """Write scans as a cohort."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for scan in scans:
        name = f"{scan.patient}_{scan.scan}.h5"
        entries.append(Entry.of(scan, "observed", name, write_scan(folder / name, scan)))
    Cohort.write_manifest(folder, entries)
    write_mark(folder, "cohort", {})
    return Cohort.open(folder)
