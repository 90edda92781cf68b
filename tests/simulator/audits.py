"""An augmented folder of small scans, and volumes broken on purpose but stored as if nothing were wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from simulator.augmentation import AugmentationSettings
from simulator.augmentation_plan import Ratios
from simulator.augmentation_run import augment_cohort, prepare_folder
from simulator.cohort_fit import fit_cohort
from simulator.fits import CohortFits
from standard_space.cohort import Cohort
from standard_space.difference import Difference, read_difference, write_synthetic_scan
from standard_space.scan import Scan
from standard_space.scanfile import read_meta
from tests.simulator.scans import cohort_of, small_scan
from tests.standard_space.differences import write_as_difference

SETTINGS = AugmentationSettings(Ratios(2.0), seed=5)


def augmented(folder: Path, patients: int = 2) -> Path:
    """A cohort `c` of two scans a patient, its fits, and volumes of it in `a`, whose folder is returned."""
    scans = []
    for number in range(patients):
        scans += [small_scan(f"p{number}", "a"), small_scan(f"p{number}", "b", 3.0, 0.03)]
    for scan in scans:
        scan.vessels.ravel()[np.flatnonzero(scan.lungs & ~scan.infection)[::50]] = True
    cohort = cohort_of(folder / "c", *scans)
    fits = fit_cohort(cohort)
    fits.save(folder / "fits.json")
    augment_again(folder)
    return folder / "a"


def augment_again(folder: Path) -> None:
    """What running the same `augment` again does."""
    cohort = Cohort.open(folder / "c")
    prepare_folder(folder / "a", cohort, SETTINGS)
    augment_cohort(cohort, folder / "a", CohortFits.load(folder / "fits.json"), SETTINGS)


def break_volume(
    folder: Path, name: str, change: Callable[[Scan, Scan], None], *, keep_plan: bool = True
) -> None:
    """Let `change` alter a volume (given the whole scan and its source) and store it with right hashes."""
    cohort = Cohort.open(folder, Cohort.open(folder.parent / "c"))
    entry = cohort.find(*name.split("/"))
    head = read_meta(cohort.path(entry))
    scan, source = cohort.read(entry), cohort.find_source(**head["source"])
    change(scan, source)
    scan.provenance = head["provenance"] if keep_plan else {}
    digest = write_as_difference(cohort.path(entry), scan, source, head["source"]["content_sha256"])
    infected_ml = round(float(scan.infection.sum()) * scan.grid.voxel_volume_ml, 4)
    changed = replace(entry, content_sha256=digest, infected_ml=infected_ml)
    Cohort.write_manifest(folder, [changed if item == entry else item for item in cohort.entries])


def rewrite(path: Path, **head: object) -> None:
    """Write a volume again with other metadata and the same voxels."""
    meta = read_meta(path)
    with h5py.File(path, "r") as file:
        found = read_difference(file)
    source = {**meta, **meta["source"], "content_sha256": meta["source"]["content_sha256"]}
    values = {
        "day": meta["day"],
        "infected_voxels": meta["infected_voxels"],
        "provenance": meta["provenance"],
    }
    write_synthetic_scan(
        path,
        source,
        Difference(found.index, found.signal, found.infection),
        scan=meta["scan"],
        **{**values, **head},  # type: ignore[arg-type]
    )
