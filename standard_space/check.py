"""Look at a whole manifest before anything expensive starts: every problem of every scan, and the cost."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from standard_space.embedding import has_lungs
from standard_space.errors import LungcastError
from standard_space.geometry import Geometry, orient
from standard_space.image import CTImage, inspect_image, read_image, read_labels, read_mask, require_same_grid
from standard_space.image_file import read_geometry
from standard_space.ingest import EmbedSettings, check_files, compare_windows, embed_row
from standard_space.jobs import peak_memory_gb, run_isolated
from standard_space.manifest import ManifestRow, inspect_manifest
from standard_space.memory import memory
from standard_space.progress import Progress, silent
from standard_space.scanfile import write_scan
from standard_space.version import lungcast_version
from standard_space.warmup import warm_up
from standard_space.window import Window

TRIALS = 3
"""A trial embedding that fails is a problem of its scan; the next largest is tried."""


@dataclass(frozen=True)
class Problem:
    """What is wrong: the parts of a `LungcastError`, as text."""

    what: str
    where: str | None = None
    got: str | None = None
    expected: str | None = None
    remedy: str | None = None

    @classmethod
    def of(cls, error: LungcastError) -> Problem:
        """The parts of an error."""
        parts = (error.where, error.got, error.expected)
        where, got, expected = (None if part is None else str(part) for part in parts)
        return cls(error.what, where, got, expected, error.remedy)

    def to_json(self) -> dict[str, str | None]:
        """Plain values for a file, without the place: folders of DICOM files are named after patients."""
        return {key: value for key, value in asdict(self).items() if key != "where"}

    def sentence(self) -> str:
        """The whole in one sentence."""
        return str(LungcastError(self.what, where=self.where, got=self.got, expected=self.expected))


@dataclass
class ScanCheck:
    """What was found of one scan.

    `geometry` and `window` are None when its image cannot be used; the window is also None when only headers were
    read, or when it is to be taken from the parenchyma. `annotated` says whether the manifest names an infection
    mask; `scanner` is the manifest's, None where it names none.
    """

    scan: str
    annotated: bool = False
    scanner: str | None = None
    geometry: Geometry | None = None
    window: Window | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Prediction:
    """What embedding the usable scans will take, from one trial embedding of the largest of them.

    Parameters
    ----------
    trial : str
        The scan embedded on trial.
    trial_seconds, trial_memory_gb, trial_disk_mb : float
        Its wall time, peak memory of its process, and scan file.
    seconds, memory_gb, disk_mb : float
        For the cohort: wall time and peak memory with `jobs` processes, and disk.
    free_disk_gb, machine_memory_gb : float
        Free now where the manifest lies; memory of this machine.
    """

    trial: str
    trial_seconds: float
    trial_memory_gb: float
    trial_disk_mb: float
    jobs: int
    seconds: float
    memory_gb: float
    disk_mb: float
    free_disk_gb: float
    machine_memory_gb: float

    def shortages(self) -> list[str]:
        """What the machine has too little of."""
        short = []
        if self.disk_mb / 1000.0 > self.free_disk_gb:
            short.append(f"disk: {self.disk_mb / 1000.0:.1f} GB wanted, {self.free_disk_gb:.1f} GB free here")
        if self.memory_gb > self.machine_memory_gb:
            short.append(f"memory: {self.memory_gb:.1f} GB wanted, {self.machine_memory_gb:.1f} GB there")
        return short


@dataclass
class CheckReport:
    """The whole check; `manifest_problems` are of rows that could not even be looked at."""

    grid: int
    scans: list[ScanCheck]
    manifest_problems: list[Problem]
    prediction: Prediction | None = None

    @property
    def problem_count(self) -> int:
        """Problems in all."""
        return len(self.manifest_problems) + sum(len(scan.problems) for scan in self.scans)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {
            "lungcast": "check",
            "lungcast_version": lungcast_version(),
            "grid": self.grid,
            "problem_count": self.problem_count,
            "manifest_problems": [problem.to_json() for problem in self.manifest_problems],
            "scans": [
                {
                    "scan": scan.scan,
                    "annotated": scan.annotated,
                    "scanner": scan.scanner,
                    "geometry": None if scan.geometry is None else scan.geometry.to_json(),
                    "orientation": None if scan.geometry is None else scan.geometry.orientation,
                    "window": None if scan.window is None else str(scan.window),
                    "problems": [problem.to_json() for problem in scan.problems],
                    "notes": scan.notes,
                }
                for scan in self.scans
            ],
            "prediction": None if self.prediction is None else asdict(self.prediction),
        }


def check_cohort(
    manifest: str | Path,
    settings: EmbedSettings,
    *,
    jobs: int = 1,
    headers_only: bool = False,
    find_lungs: bool = False,
    trial: bool = True,
    progress: Progress = silent,
) -> CheckReport:
    """Check every row of a manifest and predict what embedding will take.

    Parameters
    ----------
    manifest : str or Path
    settings : EmbedSettings
        What `embed` would be given.
    jobs : int
        Worker processes, for the check and for the prediction.
    headers_only : bool
        Leave the voxels unread: truncated files, NaN and empty masks go unseen.
    find_lungs : bool
        Look for lungs where the manifest gives no mask, as `embed` will: seconds a scan.
    trial : bool
        Embed the largest usable scan into a temporary folder, to predict from.
    progress : Progress

    Raises
    ------
    ManifestError
        When the manifest cannot be looked at row by row (missing, not a CSV, wrong columns, empty).
    """
    rows, manifest_problems = inspect_manifest(manifest)
    if jobs > 1:
        warm_up()
    tasks = [_Look(row, settings, headers_only, find_lungs) for row in rows]
    total = len(rows) + int(trial)
    found: dict[int, ScanCheck] = {}
    progress(rows[0].name if rows else "manifest", 0, total)
    for index, result in run_isolated(_look, tasks, jobs=jobs):
        if isinstance(result, LungcastError):
            problem = Problem.of(result)
            result = _blank(rows[index])
            result.problems.append(problem)
        found[index] = result
        progress(rows[index].name, len(found), total)
    scans = [found[index] for index in range(len(rows))]
    for index, note in compare_windows(rows, [scan.window for scan in scans]).items():
        scans[index].notes.append(note)
    report = CheckReport(settings.grid.size, scans, [Problem.of(error) for error in manifest_problems])
    usable = [k for k in range(len(rows)) if not scans[k].problems and scans[k].geometry is not None]
    if trial and usable:
        for largest in sorted(usable, key=lambda k: -_voxels(scans[k]))[:TRIALS]:
            progress(f"trial embedding of {rows[largest].name}", len(rows), total)
            report.prediction = _predict(rows, scans, usable, largest, settings, jobs, Path(manifest))
            if report.prediction is not None:
                break
            usable.remove(largest)
    progress("done", total, total)
    return report


@dataclass(frozen=True)
class _Look:
    row: ManifestRow
    settings: EmbedSettings
    headers_only: bool
    find_lungs: bool


def _blank(row: ManifestRow) -> ScanCheck:
    """What the manifest alone says of a scan."""
    return ScanCheck(row.name, row.infection is not None, row.scanner)


def _look(task: _Look) -> ScanCheck:
    row, settings = task.row, task.settings
    result = _blank(row)
    chosen = row.window or settings.window
    image: CTImage | None = None
    try:
        check_files(row)
        if task.headers_only:
            result.geometry, result.notes = inspect_image(row.image)
        else:
            pair = (chosen.level_hu, chosen.width_hu) if isinstance(chosen, Window) else None
            image = read_image(row.image, level_width_hu=pair)
            result.geometry, result.notes = image.geometry, list(image.notes)
            result.window = None if chosen == "auto" else chosen or image.window or Window()
    except LungcastError as error:
        result.problems.append(Problem.of(error))
        return result
    masks: dict[str, NDArray[Any]] = {}
    for kind, path in (("infection", row.infection), ("lungs", row.lungs), ("lobes", row.lobes)):
        if path is None:
            continue
        try:
            if task.headers_only:
                _same_grid(path, result.geometry)
            else:
                masks[kind] = _read(kind, path, result.geometry)
        except LungcastError as error:
            result.problems.append(Problem.of(error))
    _look_at_masks(masks, row, result)
    searched = task.find_lungs and row.lungs is None and settings.lungmask_weights is None
    if searched and image is not None and not has_lungs(image):
        result.problems.append(Problem("no lungs were found", remedy="give a lung mask (column `lungs`)"))
    return result


def _read(kind: str, path: Path, image: Geometry) -> NDArray[Any]:
    if kind == "lobes":
        return read_labels(path, image)
    return read_mask(path, image, single_label=kind == "infection")


def _look_at_masks(masks: dict[str, NDArray[Any]], row: ManifestRow, result: ScanCheck) -> None:
    lungs, infection = masks.get("lungs"), masks.get("infection")
    if lungs is not None and not lungs.any():
        remedy = "leave the column blank, and lungcast finds the lungs"
        result.problems.append(Problem("the lung mask is empty", remedy=remedy))
    if infection is not None and not infection.any():
        result.notes.append("the infection mask is empty: annotated as free of infection")
    elif infection is not None and lungs is not None and lungs.any():
        outside = float((infection & ~lungs).sum()) / float(infection.sum())
        if outside > 0.05:
            result.notes.append(f"{outside:.0%} of the annotated infection lies outside the lung mask")


def _same_grid(path: Path, image: Geometry) -> None:
    mask = read_geometry(path)
    if mask.orientation != image.orientation:
        # Turning needs an image, not its voxels.
        blank = mask.apply(np.zeros(mask.shape, np.uint8))
        mask = Geometry.of(orient(blank, image.orientation))
    require_same_grid(path, mask, image)


def _voxels(scan: ScanCheck) -> int:
    return 0 if scan.geometry is None else int(np.prod(scan.geometry.size))


@dataclass(frozen=True)
class _Cost:
    native_seconds: float
    standard_seconds: float
    memory_gb: float
    disk_mb: float


def _trial(task: tuple[ManifestRow, EmbedSettings]) -> _Cost:
    """Embed and write one scan; what goes with its voxels is told apart from what goes with the grid's."""
    row, settings = task
    begun = time.perf_counter()
    read_image(row.image)
    read = time.perf_counter() - begun
    begun = time.perf_counter()
    scan = embed_row(row, settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.h5"
        write_scan(path, scan)
        disk_mb = path.stat().st_size / 1e6
    whole = time.perf_counter() - begun
    return _Cost(read, max(0.0, whole - read), peak_memory_gb(), disk_mb)


def _predict(
    rows: Sequence[ManifestRow],
    scans: Sequence[ScanCheck],
    usable: Sequence[int],
    largest: int,
    settings: EmbedSettings,
    jobs: int,
    manifest: Path,
) -> Prediction | None:
    """Predict from one trial, in a process of its own with the share of cores that a worker gets."""
    warm_up()
    task = (rows[largest], settings)
    ((_, cost),) = run_isolated(_trial, [task], jobs=jobs, alone=True)
    if isinstance(cost, LungcastError):
        scans[largest].problems.append(Problem.of(cost))
        return None
    share = sum(_voxels(scans[k]) for k in usable) / _voxels(scans[largest])
    seconds = cost.native_seconds * share + cost.standard_seconds * len(usable)
    workers = min(jobs, len(usable))
    return Prediction(
        trial=rows[largest].name,
        trial_seconds=round(cost.native_seconds + cost.standard_seconds, 2),
        trial_memory_gb=round(cost.memory_gb, 2),
        trial_disk_mb=round(cost.disk_mb, 2),
        jobs=jobs,
        seconds=round(seconds / workers, 1),
        memory_gb=round(cost.memory_gb * workers, 2),
        disk_mb=round(cost.disk_mb * len(usable), 2),
        free_disk_gb=round(shutil.disk_usage(manifest.parent).free / 1e9, 1),
        machine_memory_gb=round(memory().total_gb, 1),
    )
