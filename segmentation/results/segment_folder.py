"""Scans into result folders: one, or many with the model loaded once and the next scan read meanwhile.

A scan's folder is marked whole last, with what it was made from. Run again, whole folders are taken as they are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segmentation.results.files import QUANTIFICATION, notes_of, result_files
from segmentation.results.lung_finder import LungFinder
from segmentation.results.scan_folder import scan_input
from segmentation.results.segment_image import (
    PreparedScan,
    ScanInput,
    SegmentOptions,
    image_stem,
    prepare_scan,
    segment_prepared,
)
from segmentation.results.summary import SUMMARY, write_summary
from segmentation.scan_predictor import ScanPredictor
from segmentation.segmenter import Segmenter
from standard_space.errors import LungcastError, OutOfSpaceError, UsageError
from standard_space.files import clear_temporaries, prepare_output_folder, read_mark, sha256_of, write_mark
from standard_space.folders import RUN_STATE, is_continued, require_space
from standard_space.jobs import told
from standard_space.progress import Progress, silent
from standard_space.version import lungcast_version

KIND = "segmentation"

_BYTES_A_VOXEL = {True: 0.5, False: 0.05}
"""What a result takes on disk at most, with and without the probability."""


@dataclass
class FolderOutcome:
    """What a run did: reports, failures and notes by scan, and the scans an earlier run had done.

    `leftovers` are results in the folder of scans that are no longer among those asked for.
    """

    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


def run_request(
    model: Segmenter,
    options: SegmentOptions,
    *,
    precision: str = "auto",
    lung_finder: LungFinder | None = None,
) -> dict[str, Any]:
    """What a segmentation is known by, whatever the scan: the marks of its folders carry it.

    Raises
    ------
    UsageError
        The threshold is out of the model's range.
    """
    window = options.window
    return {
        "lungcast_version": lungcast_version(),
        "model_id": model.model_id,
        "target": model.target,
        "aggregation": model.aggregation.at(options.threshold).to_json(),
        "consolidation_hu": options.consolidation_hu,
        "probability": options.probability,
        "dicom_seg": options.dicom_seg,
        "precision": precision,
        "lungs_model": None if lung_finder is None else lung_finder.to_json(),
        "window": None if window is None else [window.level_hu, window.width_hu],
    }


def scan_request(source: ScanInput, asked: dict[str, Any]) -> dict[str, Any]:
    """What the segmentation of one scan is known by: the request and the hashes of what is read."""
    masks = {"lungs_sha256": source.lungs, "lobes_sha256": source.lobes}
    return {
        **asked,
        "operation": "segment",
        "image_sha256": sha256_of(source.image),
        **{name: sha256_of(path) if isinstance(path, Path) else None for name, path in masks.items()},
    }


def whole_report(
    folder: str | Path, stem: str, asked: dict[str, Any], options: SegmentOptions
) -> dict[str, Any] | None:
    """The report of a folder that holds the very result asked for, whole; else None."""
    folder = Path(folder)
    mark = read_mark(folder)
    if mark is None or mark["lungcast"] != KIND or not mark["provenance"].get("complete"):
        return None
    if {key: value for key, value in mark["provenance"].items() if key not in RUN_STATE} != asked:
        return None
    files = result_files(stem, asked["target"], options.result_options(folder))
    if not all((folder / name).is_file() for name in files.values()):
        return None
    try:
        report = json.loads((folder / QUANTIFICATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def check_writable(folder: str | Path) -> None:
    """Find out before the work whether a folder can be made or written into.

    Raises
    ------
    UsageError
    """
    there = Path(folder).absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(
            "the output folder cannot be written to", where=folder, remedy="choose another place"
        )


def segment_into(
    predictor: ScanPredictor,
    prepared: PreparedScan,
    folder: str | Path,
    asked: dict[str, Any],
    options: SegmentOptions,
    *,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Segment a prepared scan into a folder of its own, emptied before if lungcast made it, and marked last.

    Parameters
    ----------
    asked : dict
        See `scan_request`.

    Raises
    ------
    LungcastError
        See `segment_image`; before the networks run when the disk is too full or the folder holds something else.
    """
    voxels = float(prepared.image.array.size)
    require_space(folder, voxels * _BYTES_A_VOXEL[options.probability])
    prepare_output_folder(folder, KIND, force=True, provenance={**asked, "complete": False})
    report = segment_prepared(predictor, prepared, folder, options, progress=progress)
    write_mark(folder, KIND, {**asked, "complete": True})
    return report


def prepare_folder(folder: str | Path, asked: dict[str, Any], *, force: bool = False) -> None:
    """Make the output folder of many scans, or take up the same run where it stopped; hold its lock.

    Raises
    ------
    UsageError
        When it holds something else, or another run, and `force` is not given.
    """
    folder = Path(folder)
    asked = _folder_request(asked)
    if is_continued(folder, KIND, asked, what="another segmentation", force=force):
        clear_temporaries(folder)
        write_mark(folder, KIND, {**asked, "complete": False})
        (folder / SUMMARY).unlink(missing_ok=True)
    else:
        prepare_output_folder(folder, KIND, force=force, provenance={**asked, "complete": False})


def segment_folder(
    predictor: ScanPredictor,
    images: Sequence[Path],
    folder: str | Path,
    asked: dict[str, Any],
    options: SegmentOptions,
    *,
    lungs: Path | None = None,
    lobes: Path | None = None,
    lung_finder: LungFinder | None = None,
    progress: Progress = silent,
) -> FolderOutcome:
    """Segment scans into folders of their own names inside a folder made ready by `prepare_folder`.

    The next scan is read and embedded while this one computes, and no more than that one. A scan that cannot be
    used is named in the outcome's `failures`, and the rest completes.

    Parameters
    ----------
    images : sequence of Path
        See `scans_in`.
    asked : dict
        See `run_request`.
    lungs, lobes : Path, optional
        Folders of masks with the scans' names.
    lung_finder : LungFinder, optional
        Finds the lungs where no masks are given.

    Raises
    ------
    OutOfSpaceError
        The disk is full: what is done is whole.
    """
    folder = Path(folder)
    outcome = FolderOutcome(leftovers=_leftovers(folder, images))
    problems: dict[str, str] = {}

    def read(image: Path) -> _Ready | _Kept:
        source = scan_input(image, lungs, lobes)
        mine = scan_request(source, asked)
        report = whole_report(folder / source.stem, source.stem, mine, options)
        if report is not None:
            return _Kept(report)
        return _Ready(mine, prepare_scan(source, predictor.model, options, lung_finder=lung_finder))

    def compute(ready: _Ready) -> dict[str, Any]:
        stem = ready.prepared.source.stem
        return segment_into(predictor, ready.prepared, folder / stem, ready.asked, options)

    for done, (image, ready) in enumerate(_read_ahead(images, read)):
        stem = image_stem(image)
        progress(stem, done, len(images))
        result = told(compute, ready) if isinstance(ready, _Ready) else ready
        del ready
        if isinstance(result, OutOfSpaceError):
            raise OutOfSpaceError(
                "the disk is full",
                where=folder,
                got=f"{len(outcome.reports)} of {len(images)} scans done, whole and safe",
                remedy="free some space and run the same command again",
            )
        if isinstance(result, LungcastError):
            outcome.failures[stem], problems[stem] = str(result), result.what
            _discard(folder / stem)
        elif isinstance(result, _Kept):
            outcome.reports[stem] = result.report
            outcome.kept.append(stem)
        else:
            outcome.reports[stem] = result
            outcome.notes[stem] = notes_of(result)
        progress(stem, done + 1, len(images))
    stems = [image_stem(image) for image in images]
    write_summary(folder / SUMMARY, stems, outcome.reports, problems, target=asked["target"])
    state = {"complete": True, "failed": sorted(outcome.failures)}
    write_mark(folder, KIND, {**_folder_request(asked), **state})
    return outcome


@dataclass
class _Ready:
    asked: dict[str, Any]
    prepared: PreparedScan


@dataclass
class _Kept:
    report: dict[str, Any]


def _folder_request(asked: dict[str, Any]) -> dict[str, Any]:
    return {**asked, "operation": "segment a folder"}


def _read_ahead(
    images: Sequence[Path], read: Callable[[Path], _Ready | _Kept]
) -> Iterator[tuple[Path, _Ready | _Kept | LungcastError]]:
    """Give each image with what was read of it, while the next one, and only that, is being read."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(told, read, images[0])
        for index, image in enumerate(images):
            ready = upcoming.result()
            if index + 1 < len(images):
                upcoming = pool.submit(told, read, images[index + 1])
            yield image, ready
            del ready


def _leftovers(folder: Path, images: Sequence[Path]) -> list[str]:
    """Names of earlier results in a folder that belong to none of the images."""
    asked = {image_stem(image) for image in images}
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in asked)
    return [path.name for path in inside if (read_mark(path) or {}).get("lungcast") == KIND]


def _discard(folder: Path) -> None:
    """Remove an older result: it must not pass for that of a scan that can no longer be used."""
    mark = read_mark(folder)
    if mark is not None and mark["lungcast"] == KIND:
        shutil.rmtree(folder)
