"""A phantom cohort on disk as a user would have it: images, masks, manifest, and the hidden truth."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.phantom.draws import draw_days, stream
from simulator.phantom.lesion import CONSOLIDATION_HU, LesionMoment, LesionSource
from simulator.phantom.lesion_fields import FieldLesionSource
from simulator.phantom.patient import (
    Patient,
    PhantomScan,
    acquisition_of,
    make_patient,
    scan_patient,
)
from simulator.phantom.scanner import scanners_named
from standard_space.errors import UsageError
from standard_space.files import write_json, write_text
from standard_space.image import write_volume

LESIONS = ("fields", "dynamics")
COLUMNS = (
    "patient", "scan", "day", "image", "infection", "lungs", "window_level", "window_width", "stage",
    "scanner",
)  # fmt: skip
SCHEMA = 1

ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CohortSummary:
    """What was written."""

    folder: Path
    manifest: Path
    truth: Path
    patients: int
    scans: int
    lesion_ml: tuple[float, ...]  # true extent of each scan's lesion, in manifest order


def make_cohort(
    out: str | Path,
    *,
    patients: int = 6,
    scans: int = 3,
    grid: int = 128,
    seed: int = 0,
    lesions: str = "dynamics",
    scanners: Sequence[str] | None = None,
    progress: ProgressCallback | None = None,
) -> CohortSummary:
    """Write a phantom cohort.

    Parameters
    ----------
    out : str or Path
        Folder to write into; made when missing. What to do with one that is not empty is the caller's affair.
    patients, scans : int
        Patients (1..999) and scans of each (1..50).
    grid : int
        Coarseness of the native images, 32..512: 128 gives voxels of about 3 mm, 512 clinical ones.
    seed : int
        The same arguments write the same bytes. Patients are named after it, so that cohorts never collide.
    lesions : "dynamics" or "fields"
        Lesions made by this project's own model (for parameter recovery), or by level sets of random fields,
        which share nothing with it (the honest test set).
    scanners : sequence of str, optional
        Names of `scanner.SCANNERS`, which patients take in turn; drawn when not given.
    progress : callable, optional
        Called as progress(item, done, total) after every scan.

    Returns
    -------
    CohortSummary

    Raises
    ------
    UsageError
        When an argument is out of range, or there is no such scanner.
    """
    for name, value, low, high in (
        ("number of patients", patients, 1, 999),
        ("number of scans", scans, 1, 50),
        ("grid", grid, 32, 512),
        ("seed", seed, 0, 2**31 - 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
            raise UsageError(f"the phantom's {name} is out of range", got=value, expected=f"{low} to {high}")
    if lesions not in LESIONS:
        raise UsageError("unknown source of lesions", got=lesions, expected=" or ".join(LESIONS))
    chosen = None if scanners is None else scanners_named(scanners)
    out = Path(out)
    rows: list[dict[str, str]] = []
    truths: list[dict[str, Any]] = []
    sizes: list[float] = []
    for index in range(patients):
        name = f"phantom{seed}-{index + 1:02d}"
        patient = make_patient(seed, index, chosen)
        days = draw_days(stream(seed, index, 0, "days"), scans)
        source = _source(lesions, patient, grid, scans)
        record = _patient_truth(name, patient, source)
        for number, (day, moment) in enumerate(zip(days, source.over(days), strict=True), start=1):
            result = scan_patient(patient, number, grid, moment.map)
            rows.append(_write_scan(out, name, f"s{number}", day, moment.stage, patient, result))
            sizes.append(float(result.infection.sum() * result.geometry.voxel_volume_ml))
            record["scans"].append(_scan_truth(number, day, moment, patient, result))
            if progress is not None:
                progress(f"{name} s{number}", len(rows), patients * scans)
        truths.append(record)
    truth = {
        "schema": SCHEMA, "seed": seed, "grid": grid, "lesions": lesions, "consolidation_hu": CONSOLIDATION_HU,
        "patients": truths,
    }  # fmt: skip
    write_json(out / "truth.json", _plain(truth))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "manifest.csv", text.getvalue())
    return CohortSummary(out, out / "manifest.csv", out / "truth.json", patients, len(rows), tuple(sizes))


def _source(lesions: str, patient: Patient, grid: int, scans: int) -> LesionSource:
    if lesions == "fields":
        return FieldLesionSource(patient)
    # Imported here: a cohort of random fields touches nothing of the dynamics.
    from simulator.phantom.lesion_dynamics import DynamicLesionSource

    return DynamicLesionSource(patient, grid, scans)


def _write_scan(
    out: Path, name: str, scan: str, day: float, stage: str, patient: Patient, result: PhantomScan
) -> dict[str, str]:
    stem = f"{name}_{scan}"
    files: dict[str, tuple[str, NDArray[Any]]] = {
        "image": (f"images/{stem}.nii.gz", result.image),
        "infection": (f"infections/{stem}.nii.gz", result.infection.astype(np.uint8)),
        "lungs": (f"lungs/{stem}.nii.gz", result.lungs.astype(np.uint8)),
    }
    for relative, array in files.values():
        write_volume(out / relative, array, result.geometry)
    scanner = patient.protocol.scanner
    return {
        "patient": name,
        "scan": scan,
        "day": f"{day:g}",
        **{column: relative for column, (relative, _) in files.items()},
        "window_level": f"{scanner.level_hu:g}",
        "window_width": f"{scanner.width_hu:g}",
        "stage": stage,
        "scanner": scanner.name,
    }


def _patient_truth(name: str, patient: Patient, source: LesionSource) -> dict[str, Any]:
    return {
        "patient": name,
        "anatomy": patient.shape._asdict(),
        "protocol": asdict(patient.protocol),
        "lesion": source.truth(),
        "scans": [],
    }


def _scan_truth(
    number: int, day: float, moment: LesionMoment, patient: Patient, result: PhantomScan
) -> dict[str, Any]:
    voxel_ml = result.geometry.voxel_volume_ml
    infected = int(result.infection.sum())
    return {
        "scan": f"s{number}",
        "day": day,
        "stage": moment.stage,
        "acquisition": asdict(acquisition_of(patient, number)),
        "geometry": result.geometry.to_json(),
        "orientation": result.geometry.orientation,
        "lung_ml": float(result.lungs.sum()) * voxel_ml,
        "infection_ml": infected * voxel_ml,
        "infected_voxels": infected,
        "consolidated_voxels": result.clean_consolidated,
        "lesion": moment.truth,
    }


def _plain(value: Any) -> Any:
    """NumPy values as plain Python, floats to 9 digits so that processors agree on the text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.9g}")
    if isinstance(value, np.integer):
        return int(value)
    return value
