"""What a path holds, as cases for the viewer."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from segmentation.results.files import ResultOptions, result_files
from segmentation.results.rethreshold import read_report, read_result
from segmentation.viewer.cases import Case, Frame, Kind, Point
from segmentation.viewer.volumes import View
from simulator.simulation import infection_origin
from standard_space.cohort import Cohort, Entry, open_with_sources
from standard_space.errors import DataError, UsageError
from standard_space.files import read_mark
from standard_space.image import inspect_image, read_image, read_labels, read_mask, require_same_grid
from standard_space.scan import Scan
from standard_space.scanfile import read_meta, read_scan
from standard_space.window import CONSOLIDATION_HU

_COLUMNS = ("infected_ml", "ggo_ml", "consolidation_ml")
_IN_A_DEMO = ("cohort", "augmented", "simulation", "validation_cohort", "test_cohort")


@dataclass(frozen=True)
class Shown:
    """What belongs to a path besides itself.

    Attributes
    ----------
    image : Path, optional
        The image of a segmentation result.
    infection, lungs : Path, optional
        Masks of an image.
    sources : Path, optional
        The cohort of an augmented folder or of a synthetic scan.
    patients : tuple of str
        Of a cohort, only these; all when empty.
    consolidation_hu : float
        Cut between GGO and consolidation, HU.
    """

    image: Path | None = None
    infection: Path | None = None
    lungs: Path | None = None
    sources: Path | None = None
    patients: tuple[str, ...] = ()
    consolidation_hu: float = CONSOLIDATION_HU


def cases_of(path: str | Path, shown: Shown | None = None) -> list[Case]:
    """Find what there is to see at a path; volumes are read later.

    Parameters
    ----------
    path : str or Path
        A cohort, an augmented folder, a simulation, a segmentation result (with its image), a demo, a scan file,
        an image file or a DICOM folder.
    shown : Shown, optional

    Raises
    ------
    UsageError
        No such path, or nothing that can be shown.
    """
    path, shown = Path(path), shown or Shown()
    if not path.exists():
        raise UsageError("no such file or folder", where=path)
    if path.suffix == ".h5":
        return [_scan_file(path, shown)]
    mark = read_mark(path) if path.is_dir() else None
    if mark is None:
        return [_image(path, shown)]
    find = _FOLDERS.get(str(mark["lungcast"]))
    if find is None:
        raise UsageError(
            "nothing that can be shown",
            where=path,
            got=f"a {mark['lungcast']} folder",
            expected="a cohort, an augmented folder, a simulation, a segmentation, a scan file or an image",
        )
    return find(path, shown)


def _cohort(path: Path, shown: Shown) -> list[Case]:
    cohort = open_with_sources(path, shown.sources)
    entries = list(cohort.entries)
    if cohort.sources is not None:
        patients = {entry.patient for entry in entries}
        entries += [
            entry for entry in cohort.sources.entries if entry.patient in patients and not entry.synthetic
        ]
    unknown = set(shown.patients) - {entry.patient for entry in entries}
    if unknown:
        raise UsageError("no such patient", where=path, got=", ".join(sorted(unknown)))
    cases = []
    for patient in sorted({entry.patient for entry in entries}):
        if shown.patients and patient not in shown.patients:
            continue
        mine = sorted(
            (entry for entry in entries if entry.patient == patient),
            key=lambda e: (e.day, e.synthetic, e.scan),
        )
        synthetic = sum(entry.synthetic for entry in mine)
        text = f"{len(mine) - synthetic} observed scans" + (
            f", {synthetic} synthetic ones" if synthetic else ""
        )
        frames = [_frame_of(cohort, entry, shown.consolidation_hu) for entry in mine]
        cases.append(Case(patient, f"{text}, in the standard space.", frames))
    return cases


def _frame_of(cohort: Cohort, entry: Entry, consolidation_hu: float) -> Frame:
    held = cohort if entry in cohort.entries else cohort.sources
    kind: Kind = "simulated" if entry.synthetic else "observed"
    return Frame(
        entry.scan,
        kind,
        entry.day,
        lambda: _view_of((held or cohort).read(entry), consolidation_hu),
        {"infected_ml": entry.infected_ml},
    )


def _scan_file(path: Path, shown: Shown) -> Case:
    mark = read_mark(path.parent)
    if mark is not None and mark["lungcast"] in ("cohort", "augmented"):
        for entry in Cohort.open(path.parent).entries:
            if entry.file == path.name:
                (case,) = _cohort(path.parent, replace(shown, patients=(entry.patient,)))
                return replace(case, title=f"{entry.patient}/{entry.scan}")
    meta = read_meta(path)
    sources = None if shown.sources is None else Cohort.open(shown.sources)
    kind: Kind = "simulated" if meta["kind"] == "synthetic scan" else "observed"
    scan = partial(read_scan, path, None if sources is None else sources.find_source)
    frame = Frame(
        str(meta["scan"]), kind, float(meta["day"]), lambda: _view_of(scan(), shown.consolidation_hu)
    )
    return Case(f"{meta['patient']}/{meta['scan']}", "One scan in the standard space.", [frame])


def _view_of(scan: Scan, consolidation_hu: float) -> View:
    hu = np.clip(np.round(scan.window.to_hu(scan.signal)), -1024, 3071).astype(np.int16)
    return View(scan.standard_geometry, hu, consolidation_hu, scan.lungs.astype(np.uint8), scan.infection)


def _simulation(path: Path, shown: Shown) -> list[Case]:
    rows = _numbers(path / "volumes.csv")
    images = sorted(path.glob("day*_image.nii.gz"))
    if not rows or len(images) != len(rows):
        raise DataError(
            "the simulation is not whole",
            where=path,
            got=f"{len(images)} images and {len(rows)} rows in volumes.csv",
            remedy="run `lungcast simulate` again with --force",
        )
    made = (read_mark(path) or {"provenance": {}})["provenance"]
    cut = float(made.get("consolidation_hu", shown.consolidation_hu))
    observed = not (made.get("seeds") or made.get("from_t0"))
    lungs = path / "lungs.nii.gz" if (path / "lungs.nii.gz").is_file() else None  # of older versions: none
    frames = [
        Frame(
            f"day {row['day']:.2f}",
            "observed" if index == 0 and observed else "simulated",
            row["day"],
            partial(_native, image, image.with_name(image.name.replace("_image", "_infection")), lungs, cut),
            {name: row.get(name) for name in _COLUMNS},
        )
        for index, (row, image) in enumerate(zip(rows, images, strict=True))
    ]
    length = rows[-1]["day"] - rows[0]["day"]
    population = made.get("population_sha256") is not None
    origin = infection_origin(made.get("seeds"), population, bool(made.get("from_t0")))
    text = f"{origin}, {length:g} days on the scan's own grid; volumes are those of the standard space."
    return [Case(path.name, text, frames, _observed_beside(path / "observed.csv", frames))]


def _observed_beside(table: Path, frames: Sequence[Frame]) -> list[Point]:
    """Observed scans of a simulation's patient that are no frame of it."""
    if not table.is_file():
        return []
    days = {frame.day for frame in frames if frame.kind == "observed"}
    rows = _numbers(table)
    try:
        with open(table, encoding="utf-8", newline="") as handle:
            names = [row["scan"] for row in csv.DictReader(handle)]
        points = [Point(name, row["day"], row["infected_ml"]) for name, row in zip(names, rows, strict=True)]
    except KeyError as error:
        raise DataError("a column is missing", where=table, got=f"no {error.args[0]}") from None
    return [point for point in points if point.day not in days]


def _numbers(path: Path) -> list[dict[str, float]]:
    """Rows of a simulation's table, without the names of scans."""
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            return [
                {key: float(value) for key, value in row.items() if key != "scan"}
                for row in csv.DictReader(handle)
            ]
    except (OSError, ValueError, TypeError) as error:
        raise DataError("the simulation's volumes cannot be read", where=path, got=error) from None


def _result(path: Path, shown: Shown) -> list[Case]:
    report = read_report(path)
    if shown.image is None:
        raise UsageError(
            "a result of `lungcast segment` holds no image",
            where=path,
            remedy="give --image, the scan it was made from",
        )
    image, target = shown.image, report["target"]

    def read() -> View:
        stored = read_result(path, image)
        files = result_files(stored.stem, target, ResultOptions())
        mask = read_mask(path / files["mask"], stored.image.geometry)
        lungs = mask.astype(np.uint8) if target == "lungs" else stored.sides
        hu = np.round(stored.image.array).astype(np.int16)
        cut = float(report.get("consolidation_hu", shown.consolidation_hu))
        infection = None if target == "lungs" else mask
        return View(stored.image.geometry, hu, cut, lungs, infection, stored.probability)

    known = {
        "infected_ml": report.get("infection_ml"),
        "ggo_ml": report.get("ggo_ml"),
        "consolidation_ml": report.get("consolidation_ml"),
    }
    text = f"What the model found ({target}), on the image's own grid."
    return [Case(path.name, text, [Frame("prediction", "predicted", None, read, known)])]


def _image(path: Path, shown: Shown) -> Case:
    text = (
        "An image on its own grid." if shown.infection is None else "An image and its mask, on its own grid."
    )
    _check_image(path, shown)
    read = partial(_native, path, shown.infection, shown.lungs, shown.consolidation_hu)
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    return Case(name, text, [Frame(name, "observed", None, read)])


def _check_image(path: Path, shown: Shown) -> None:
    """Find out from headers alone, before a page is made, whether there is something to show."""
    where, _ = inspect_image(path)
    for mask in (shown.infection, shown.lungs):
        if mask is not None:
            require_same_grid(mask, inspect_image(mask)[0], where)


def _native(image: Path, infection: Path | None, lungs: Path | None, consolidation_hu: float) -> View:
    read = read_image(image)
    return View(
        read.geometry,
        np.round(read.array).astype(np.int16),
        consolidation_hu,
        None if lungs is None else read_labels(lungs, read.geometry),
        None if infection is None else read_mask(infection, read.geometry),
    )


def _demo(path: Path, shown: Shown) -> list[Case]:
    cases = []
    for name in _IN_A_DEMO:
        if read_mark(path / name) is not None:
            for case in cases_of(path / name, Shown(consolidation_hu=shown.consolidation_hu)):
                cases.append(replace(case, title=f"{name}: {case.title}"))
    if not cases:
        raise UsageError("the demo is not whole", where=path, remedy="run `lungcast demo` again with --force")
    return cases


_FOLDERS: dict[str, Callable[[Path, Shown], list[Case]]] = {
    "cohort": _cohort,
    "augmented": _cohort,
    "simulation": _simulation,
    "segmentation": _result,
    "demo": _demo,
}
