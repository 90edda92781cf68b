"""Shards of one augmentation put together: nothing missing, nothing damaged, the bytes of an undivided run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from simulator.trajectory_file import read_keyframes
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, ScanFileError, UsageError
from standard_space.files import prepare_output_folder, read_mark, sha256_of, write_bytes, write_mark
from standard_space.folders import RUN_STATE, check_apart, folder_lock, is_continued, require_space
from standard_space.progress import Progress, silent
from standard_space.scanfile import is_whole, read_meta


def merge_shards(
    shards: Sequence[str | Path], into: str | Path, *, force: bool = False, progress: Progress = silent
) -> list[str]:
    """Copy all shards of an augmentation into one folder, after every file was found whole.

    The folder then holds the very bytes that one run without `--shard` writes.

    Parameters
    ----------
    shards : sequence of str or Path
        Folders of all N shards, in any order.
    into : str or Path
        The folder to make.
    force : bool
        Replace an augmentation that is there.

    Returns
    -------
    list of str
        Source scans that failed in their shard, which are not in the result.

    Raises
    ------
    UsageError
        When a folder is no shard, shards of different augmentations are mixed, one is given twice, or another run
        is writing into one of them.
    DataError
        When a shard is missing or not finished, a volume is missing, damaged, or not the one in the manifest.
    OutOfSpaceError
        When the disk cannot hold the result.
    """
    into, folders = Path(into), [Path(shard) for shard in shards]
    check_apart(into, folders)
    marks = [_shard_mark(folder) for folder in folders]
    asked = _same_request(folders, marks)
    by_part = _parts(folders, marks)
    is_continued(into, "augmented", asked, what="another augmentation", force=force)
    with ExitStack() as locks:
        for folder in folders:
            locks.enter_context(folder_lock(folder))
        marks = [_finished(folder) for folder in folders]
        files = _checked_files(by_part, asked, marks, progress)
        locks.enter_context(folder_lock(into))
        require_space(into, sum(path.stat().st_size for path in files))
        # Copies are made anew even where an earlier merge stopped: that is quicker than to check them.
        prepare_output_folder(into, "augmented", force=True, provenance={**asked, "complete": False})
        for path in files:
            write_bytes(into / path.name, path.read_bytes())
        entries = [entry for folder in by_part for entry in Cohort.open(folder).entries]
        Cohort.write_manifest(into, entries)
        failed = sorted(name for mark in marks for name in mark["failed"])
        dropped = {name: why for mark in marks for name, why in mark.get("dropped", {}).items()}
        write_mark(
            into,
            "augmented",
            {**asked, "complete": True, "failed": failed, **({"dropped": dropped} if dropped else {})},
        )
    return failed


def _shard_mark(folder: Path) -> dict[str, Any]:
    mark = read_mark(folder)
    if mark is None or mark["lungcast"] != "augmented" or "shard" not in mark["provenance"]:
        raise UsageError(
            "not a shard of an augmentation",
            where=folder,
            remedy="make one with `lungcast augment --shard i/N`",
        )
    provenance: dict[str, Any] = mark["provenance"]
    return provenance


def _finished(folder: Path) -> dict[str, Any]:
    mark = _shard_mark(folder)
    if not mark["complete"]:
        raise DataError(
            f"shard {mark['shard'][0]}/{mark['shard'][1]} is not finished",
            where=folder,
            remedy="run the same `lungcast augment` again to complete it",
        )
    return mark


def _same_request(folders: list[Path], marks: list[dict[str, Any]]) -> dict[str, Any]:
    """What all shards were asked for, without their number."""
    asked = [
        {key: value for key, value in mark.items() if key != "shard" and key not in RUN_STATE}
        for mark in marks
    ]
    for folder, other in zip(folders, asked, strict=True):
        differ = sorted(key for key in asked[0].keys() | other.keys() if asked[0].get(key) != other.get(key))
        if differ:
            raise UsageError(
                "the shards are of different augmentations",
                where=folder,
                got=f"other {', '.join(differ)} than {folders[0]}",
            )
    return asked[0]


def _parts(folders: list[Path], marks: list[dict[str, Any]]) -> list[Path]:
    """Folders in the order of their shards."""
    found: dict[int, Path] = {}
    parts = int(marks[0]["shard"][1])
    for folder, mark in zip(folders, marks, strict=True):
        part = int(mark["shard"][0])
        if int(mark["shard"][1]) != parts:
            raise UsageError(
                "the shards are of different divisions",
                where=folder,
                got=f"{mark['shard'][1]}",
                expected=parts,
            )
        if part in found:
            raise UsageError(f"shard {part}/{parts} is given twice", where=folder, got=str(found[part]))
        found[part] = folder
    missing = [f"{part}/{parts}" for part in range(1, parts + 1) if part not in found]
    if missing:
        raise DataError(
            "not all shards are here", got=f"{len(found)} of {parts}", expected=f"also {', '.join(missing)}"
        )
    return [found[part] for part in range(1, parts + 1)]


def _checked_files(
    folders: list[Path], asked: dict[str, Any], marks: list[dict[str, Any]], progress: Progress
) -> list[Path]:
    """Every file of the result, after each was found whole, its entry's, and none missing."""
    files: list[Path] = []
    seen: dict[str, Path] = {}
    volumes: list[tuple[Path, Entry]] = [
        (folder, entry) for folder in folders for entry in Cohort.open(folder).entries
    ]
    for done, (folder, entry) in enumerate(volumes):
        progress(entry.name, done, len(volumes))
        path = folder / entry.file
        if not is_whole(path) or read_meta(path)["content_sha256"] != entry.content_sha256:
            raise ScanFileError(
                "a volume of a shard is missing or damaged",
                where=path,
                remedy="run that shard's `lungcast augment` again",
            )
        if entry.name in seen:
            raise UsageError("two shards hold the same volume", where=path, got=str(seen[entry.name]))
        seen[entry.name] = path
        files.append(path)
    failed = {name for mark in marks for name in mark["failed"]}
    dropped = {name for mark in marks for name in mark.get("dropped", {})}
    for source, count in asked["planned"].items():
        for number in range(1, count + 1):
            name = f"{source}-sim{number}"
            if source not in failed and name not in dropped and name not in seen:
                raise DataError(
                    "a volume is in no shard", got=name, remedy="run the shards' `lungcast augment` again"
                )
    return files + _companions(folders, asked, failed)


def _companions(folders: list[Path], asked: dict[str, Any], failed: set[str]) -> list[Path]:
    """Files beside the volumes: trajectories, and the fits that every shard made for itself."""
    found = []
    for number, source in enumerate(asked["sources"]):
        if asked["trajectories"] and source in asked["planned"] and source not in failed:
            path = folders[number % len(folders)] / f"{source.replace('/', '_')}-trajectory.h5"
            read_keyframes(path)
            found.append(path)
    own = [folder / "fits.json" for folder in folders if (folder / "fits.json").is_file()]
    if len({sha256_of(path) for path in own}) > 1 or 0 < len(own) < len(folders):
        raise DataError("the shards were made with different fits", got=", ".join(map(str, own)))
    return found + own[:1]
