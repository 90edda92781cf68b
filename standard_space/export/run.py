"""A whole cohort exported: continued where it was interrupted, no case sinking the others, always the same bytes.

What an export is (its settings, and every scan's content hash) stands in the folder's mark. A folder whose mark
says the same can only hold files of this export, and files appear whole or not at all: those there are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from standard_space.cohort import Cohort, open_with_sources
from standard_space.errors import DataError, LungcastError, UsageError
from standard_space.export.cases import CASES, Case, CaseList, Row, list_cases, write_cases
from standard_space.export.folds import fold_count, folds_of_patients
from standard_space.export.monai_datalist import DATALIST, fold_datalist, write_monai
from standard_space.export.nnunet import DATASET, SPLITS, nnunet_remarks, write_nnunet
from standard_space.export.settings import ExportSettings
from standard_space.export.volumes import Volume, export_arrays, read_volume
from standard_space.files import clear_temporaries, prepare_output_folder, write_mark
from standard_space.folders import check_apart, folder_lock, is_continued, require_space
from standard_space.image import write_volume
from standard_space.image_file import read_geometry
from standard_space.jobs import run_isolated
from standard_space.progress import Progress, silent
from standard_space.version import lungcast_version
from standard_space.warmup import warm_up

KIND = "export"
BYTES_PER_VOXEL = 1.4
"""Compressed HU of a CT with its labels; docs/export.md has what was measured."""


@dataclass
class ExportOutcome:
    """What a run did.

    `rows` are the cases that lie in the folder, `kept` of them from an earlier run. `failures` and `notes` go by
    scan; `remarks` concern the whole; `files` are the lists that were written, by what they are.
    """

    rows: list[Row] = field(default_factory=list)
    kept: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def folds(self) -> int:
        """How many folds there are; 0 without any."""
        return fold_count(self.rows)


def export_cohort(
    source: str | Path,
    folder: str | Path,
    settings: ExportSettings,
    *,
    sources: str | Path | None = None,
    jobs: int = 1,
    force: bool = False,
    progress: Progress = silent,
) -> ExportOutcome:
    """Export a cohort, or an augmented one together with the scans it was made from.

    Run again with the same arguments, it continues. A scan that cannot be exported is named in
    `ExportOutcome.failures`; the others are written all the same.

    Parameters
    ----------
    source, folder : str or Path
        The cohort, and where the export goes.
    settings : ExportSettings
    sources : str or Path, optional
        The cohort an augmented one was made from; else looked for beside it.
    jobs : int
        Worker processes; see `run_isolated`.
    force : bool
        Replace another export in the folder.
    progress : Progress

    Raises
    ------
    UsageError
        When `source` is no cohort or has nothing to export, or the folder holds something else, or another export
        and `force` is not given.
    OutOfSpaceError
        When the disk will not hold it.
    """
    folder = Path(folder)
    cohort = open_with_sources(source, sources)
    found = list_cases(cohort, settings)
    if not found.cases and not found.failures:
        raise UsageError(
            "there is nothing to export",
            where=source,
            got=f"{len(cohort.entries)} scans{'' if settings.originals else ', without the observed ones'}"
            f"{', none annotated' if found.notes else ''}",
        )
    asked = _request(cohort, found, settings)
    _check_folder(folder, cohort, asked, force=force)
    missing = [case for case in found.cases if force or not _is_there(folder, case, settings)]
    require_space(folder, _predicted_bytes(missing) - (_size_of(folder) if force else 0))
    with folder_lock(folder):
        continued = _check_folder(folder, cohort, asked, force=force)
        if continued or force:
            # A list goes before what it lists.
            _remove_lists(folder)
        started = {**asked, "complete": False}
        if continued:
            write_mark(folder, KIND, started)
            for name in {settings.image_file("x"), settings.label_file("x")}:
                parent = (folder / name).parent
                if parent.is_dir():
                    clear_temporaries(parent)
        else:
            prepare_output_folder(folder, KIND, force=True, provenance=started)
        return _export(folder, found, settings, asked, jobs, progress)


def _export(
    folder: Path,
    found: CaseList,
    settings: ExportSettings,
    asked: dict[str, Any],
    jobs: int,
    progress: Progress,
) -> ExportOutcome:
    kept = [case for case in found.cases if _is_there(folder, case, settings)]
    outcome = ExportOutcome(kept=len(kept), failures=dict(found.failures), notes=dict(found.notes))
    written = {case.name for case in kept}
    tasks = _tasks([case for case in found.cases if case.name not in written], folder, settings)
    if tasks and jobs > 1:
        warm_up()
    for name in found.unusable:
        _remove(folder, name, settings)
    done, total = len(kept), len(found.cases)
    progress(tasks[0].cases[0].entry.name if tasks else "done", done, total)
    for index, result in run_isolated(_export_group, tasks, jobs=jobs):
        cases = tasks[index].cases
        results = [result] * len(cases) if isinstance(result, LungcastError) else result
        for case, told in zip(cases, results, strict=True):
            if isinstance(told, LungcastError):
                outcome.failures[case.entry.name] = str(told)
                _remove(folder, case.name, settings)
                continue
            written.add(case.name)
            if told:
                outcome.notes[case.entry.name] = told
        done += len(cases)
        progress(cases[-1].entry.name, done, total)
    exported = [case for case in found.cases if case.name in written]
    folds = folds_of_patients(exported, settings.folds)
    outcome.rows = [_row(case, folds, settings) for case in exported]
    if outcome.rows:
        _write_lists(folder, outcome, settings)
    failed = sorted(outcome.failures)
    write_mark(folder, KIND, {**asked, "complete": bool(exported), "cases": len(exported), "failed": failed})
    return outcome


def _write_lists(folder: Path, outcome: ExportOutcome, settings: ExportSettings) -> None:
    rows, files = outcome.rows, outcome.files
    files["cases"] = folder / CASES
    if not outcome.folds:
        outcome.remarks.append(
            "no folds: cross-validation needs observed, annotated scans of two patients or more"
        )
    elif outcome.folds < settings.folds:
        outcome.remarks.append(f"{outcome.folds} folds instead of {settings.folds}: one a patient")
    apart = sum(row.fold is None for row in rows)
    if outcome.folds and apart:
        outcome.remarks.append(
            f"{apart} cases are in no fold: their patients have no observed, annotated scan to validate on"
        )
    if settings.format == "nnunet":
        write_nnunet(folder, rows, settings)
        files["dataset"] = folder / DATASET
        if outcome.folds:
            files["splits"] = folder / SPLITS
        outcome.remarks += nnunet_remarks(folder, rows)
    elif settings.format == "monai":
        write_monai(folder, rows, settings)
        files["datalist"] = folder / DATALIST
        if outcome.folds:
            files["of each fold"] = folder / fold_datalist(0).replace("0", f"[0-{outcome.folds - 1}]")
    write_cases(folder, rows)


def _row(case: Case, folds: dict[str, int], settings: ExportSettings) -> Row:
    return Row(
        case,
        folds.get(case.entry.patient),
        settings.image_file(case.name),
        settings.label_file(case.name) if case.labelled else None,
    )


@dataclass(frozen=True)
class _Task:
    """The cases of one source, whose volume is read once."""

    cases: tuple[Case, ...]
    folder: Path
    settings: ExportSettings


def _tasks(cases: Sequence[Case], folder: Path, settings: ExportSettings) -> list[_Task]:
    groups: dict[tuple[Path, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.source_path, case.source.content_sha256), []).append(case)
    return [_Task(tuple(group), folder, settings) for group in groups.values()]


def _export_group(task: _Task) -> list[list[str] | LungcastError]:
    """Notes, or what went wrong, of each case."""
    source = task.cases[0].source
    volume = read_volume(task.cases[0].source_path, source.content_sha256)
    write = partial(_write_case, volume, task.folder, task.settings)
    return [result for _, result in run_isolated(write, task.cases)]


def _write_case(volume: Volume, folder: Path, settings: ExportSettings, case: Case) -> list[str]:
    if case.entry.synthetic:
        with volume.changed_to(case.path) as changed:
            image, labels, notes = export_arrays(changed, settings)
    else:
        image, labels, notes = export_arrays(volume, settings)
    if (labels is None) == case.labelled:
        raise DataError(
            "the manifest and the scan file disagree on whether the scan is annotated", where=case.path
        )
    write_volume(folder / settings.image_file(case.name), image, case.written_on)
    if labels is not None:
        write_volume(folder / settings.label_file(case.name), labels, case.written_on)
    return notes


def _is_there(folder: Path, case: Case, settings: ExportSettings) -> bool:
    image, label = folder / settings.image_file(case.name), folder / settings.label_file(case.name)
    if not image.is_file() or not (label.is_file() or not case.labelled):
        return False
    # A corrected placement has other files, though the voxels are the same.
    return read_geometry(image).same_as(case.written_on)


def _remove(folder: Path, name: str, settings: ExportSettings) -> None:
    """Remove what there is of a case that failed: programs that list folders would take half of it for a whole."""
    for file in (settings.image_file(name), settings.label_file(name)):
        (folder / file).unlink(missing_ok=True)


def _predicted_bytes(cases: Sequence[Case]) -> float:
    return sum(BYTES_PER_VOXEL * float(case.written_on.size[0]) * case.written_on.size[1]
               * case.written_on.size[2] for case in cases)  # fmt: skip


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _request(cohort: Cohort, found: CaseList, settings: ExportSettings) -> dict[str, Any]:
    """What an export is known by: its folder's mark carries it. No path is in it."""
    cohorts = [cohort] if cohort.sources is None else [cohort.sources, cohort]
    return {
        "lungcast_version": lungcast_version(),
        "operation": "export",
        **settings.to_json(),
        "scans": {
            f"{entry.kind} {entry.name}": [entry.content_sha256, entry.day, entry.stage]
            for opened in cohorts
            for entry in opened.entries
        },
    }


def _check_folder(folder: Path, cohort: Cohort, asked: dict[str, Any], *, force: bool) -> bool:
    """Whether the folder holds this very export, which is to be continued; touches nothing."""
    check_apart(folder, [opened.folder for opened in (cohort, cohort.sources) if opened is not None])
    return is_continued(folder, KIND, asked, what="another export", force=force)


def _remove_lists(folder: Path) -> None:
    for name in (CASES, DATASET, SPLITS, DATALIST):
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob("datalist_fold*.json"):
        path.unlink()
