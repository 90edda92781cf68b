"""A manifest in, a cohort of scan files out; one bad scan never sinks the cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from standard_space.cohort import MANIFEST, Cohort, Entry
from standard_space.embedding import NativeMasks, embed
from standard_space.errors import LungcastError, ReadError, UsageError
from standard_space.files import clear_temporaries, prepare_output_folder, read_mark, sha256_of, write_mark
from standard_space.grid import StandardGrid
from standard_space.image import CTImage, read_image, read_labels, read_mask
from standard_space.jobs import run_isolated
from standard_space.manifest import ManifestRow, exists, read_manifest
from standard_space.progress import Progress, silent
from standard_space.scan import Scan
from standard_space.scanfile import is_whole, read_meta, read_scan, write_scan
from standard_space.version import lungcast_version
from standard_space.warmup import warm_up
from standard_space.window import Window


@dataclass(frozen=True)
class EmbedSettings:
    """What was asked for; compared when a run is continued.

    Parameters
    ----------
    grid : StandardGrid
    window : Window, "auto" or None
        For scans whose row of the manifest gives none; it goes before the DICOM tags. None: the tags, else the
        default.
    lungmask_weights : Path or None
        Weights for lungmask, which then finds the lungs of scans whose row gives none.
    """

    grid: StandardGrid
    window: Window | Literal["auto"] | None = None
    lungmask_weights: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file; the weights are known by their hash, not by their path."""
        window = self.window
        weights = self.lungmask_weights
        return {
            "grid": self.grid.size,
            "window": [window.level_hu, window.width_hu] if isinstance(window, Window) else window,
            "lungmask_sha256": None if weights is None else sha256_of(weights),
        }


@dataclass
class Outcome:
    """What a cohort run did: entries written, failures by scan, notes by scan, and scans found done before."""

    folder: Path
    entries: list[Entry] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)


def embed_row(row: ManifestRow, settings: EmbedSettings) -> Scan:
    """Embed one row of a manifest.

    Raises
    ------
    LungcastError
        Whatever is wrong with its image or masks.
    """
    image, masks = read_row(row, settings)
    lungs, source = masks.lungs, "user"
    if lungs is None and settings.lungmask_weights is not None:
        from standard_space.lungmask_adapter import lungmask_lungs

        lungs, source = lungmask_lungs(image, settings.lungmask_weights), "lungmask"
    scan = embed(
        image,
        settings.grid,
        patient=row.patient,
        scan=row.scan,
        day=row.day,
        stage=row.stage,
        infection=masks.infection,
        lungs=lungs,
        lobes=masks.lobes,
        window=row.window or settings.window,
        lungs_source=source,
    )
    if row.scanner is not None:
        scan.provenance["scanner"] = row.scanner
    if masks.infection is not None and not masks.infection.any():
        scan.provenance["notes"].append("the infection mask is empty: annotated as free of infection")
    return scan


def check_files(row: ManifestRow) -> None:
    """Say which file of a row is missing.

    Raises
    ------
    ReadError
    """
    for kind in ("image", "infection", "lungs", "lobes"):
        path = getattr(row, kind)
        if path is not None and not exists(path):
            raise ReadError(
                f"no such {kind} file",
                where=row.name,
                got=repr(path.name),
                remedy="paths are relative to the manifest",
            )


def read_row(row: ManifestRow, settings: EmbedSettings) -> tuple[CTImage, NativeMasks]:
    """Read the image and the masks of a row."""
    window = row.window or settings.window
    pair = (window.level_hu, window.width_hu) if isinstance(window, Window) else None
    image = read_image(row.image, level_width_hu=pair)
    where = image.geometry
    return image, NativeMasks(
        None if row.infection is None else read_mask(row.infection, where, single_label=True),
        None if row.lungs is None else read_mask(row.lungs, where),
        None if row.lobes is None else read_labels(row.lobes, where),
    )


def embed_cohort(
    manifest: str | Path,
    folder: str | Path,
    settings: EmbedSettings,
    *,
    jobs: int = 1,
    progress: Progress = silent,
) -> Outcome:
    """Embed every scan of a manifest into a folder made ready by `prepare_cohort`.

    A scan that cannot be used is named in `Outcome.failures`; the others are written all the same. Scans that an
    earlier run with the same settings wrote from the same input bytes are taken as they are.

    Parameters
    ----------
    manifest, folder : str or Path
    settings : EmbedSettings
    jobs : int
        Worker processes; see `run_isolated`.
    progress : Progress

    Raises
    ------
    ManifestError
        When the manifest itself is wrong.
    UsageError
        When the folder holds scans that the manifest does not list.
    """
    rows = read_manifest(manifest)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stale = sorted({path.name for path in folder.glob("*.h5")} - {row.file for row in rows})
    if stale:
        raise UsageError(
            "the cohort's folder holds scans that the manifest does not list",
            where=folder,
            got=", ".join(stale[:3]) + (", ..." if len(stale) > 3 else ""),
            remedy="choose another folder or pass --force to replace it",
        )
    if jobs > 1:
        warm_up()
    outcome = Outcome(folder)
    names = [row.name for row in rows]
    tasks = [_Task(row, settings, folder) for row in rows]
    progress(names[0], 0, len(rows))
    done = 0
    windows: list[Window | None] = [None] * len(rows)
    for index, result in run_isolated(_embed_and_write, tasks, jobs=jobs):
        done += 1
        progress(names[index], done, len(rows))
        if isinstance(result, LungcastError):
            outcome.failures[names[index]] = str(result)
            # An older scan file must not pass for the result of an input that can no longer be used.
            (folder / rows[index].file).unlink(missing_ok=True)
            continue
        outcome.entries.append(result.entry)
        windows[index] = result.window
        if result.notes:
            outcome.notes[names[index]] = result.notes
        if result.resumed:
            outcome.resumed.append(names[index])
    for index, note in compare_windows(rows, windows).items():
        outcome.notes.setdefault(names[index], []).append(note)
    place = {name: index for index, name in enumerate(names)}
    outcome.entries.sort(key=lambda entry: place[entry.name])
    outcome.failures = dict(sorted(outcome.failures.items(), key=lambda item: place[item[0]]))
    outcome.notes = dict(sorted(outcome.notes.items(), key=lambda item: place[item[0]]))
    Cohort.write_manifest(folder, outcome.entries)
    _write_mark(folder, settings, complete=True, scans=len(outcome.entries), failed=sorted(outcome.failures))
    return outcome


def compare_windows(rows: Sequence[ManifestRow], windows: Sequence[Window | None]) -> dict[int, str]:
    """A note for each scan whose window differs from its patient's first: the same tissue differs in signal."""
    notes = {}
    first: dict[str, tuple[str, Window]] = {}
    for index, (row, window) in enumerate(zip(rows, windows, strict=True)):
        if window is None or window.source == "auto":
            continue
        name, before = first.setdefault(row.patient, (row.name, window))
        if (before.level_hu, before.width_hu) != (window.level_hu, window.width_hu):
            notes[index] = (
                f"window {window}, but {name} has {before}: the same HU becomes another signal; if these are "
                "display presets rather than calibrations, leave the manifest's window blank and pass "
                "--window -600,1600"
            )
    return notes


def prepare_cohort(
    manifest: str | Path, folder: str | Path, settings: EmbedSettings, *, force: bool = False
) -> None:
    """Make the cohort's folder, or take up an earlier run with the same settings where it stopped.

    Raises
    ------
    ManifestError
        When the manifest is wrong: it is said before anything is emptied.
    UsageError
        When the folder holds the manifest or a file it names, something else, or a cohort made with other settings
        and `force` is not given.
    """
    folder = Path(folder)
    inside = folder.resolve()
    for row in read_manifest(manifest):
        for path in (Path(manifest), row.image, row.infection, row.lungs, row.lobes):
            if path is not None and path.resolve().is_relative_to(inside):
                raise UsageError(
                    "the cohort's folder holds its own inputs", where=folder, remedy="choose another folder"
                )
    mark = read_mark(folder)
    if not force and mark is not None and mark["lungcast"] == "cohort":
        known = mark["provenance"]
        asked = {"lungcast_version": lungcast_version(), **settings.to_json()}
        if all(known.get(key) == value for key, value in asked.items()):
            clear_temporaries(folder)
            # Until it is whole again it is no cohort: what stands in an old manifest may be written anew.
            _write_mark(folder, settings, complete=False)
            (folder / MANIFEST).unlink(missing_ok=True)
            return
        other = ", ".join(
            f"{key} {known.get(key)}" for key, value in asked.items() if known.get(key) != value
        )
        raise UsageError(
            "the folder holds a cohort embedded with other settings",
            where=folder,
            got=other,
            expected=", ".join(f"{k} {v}" for k, v in asked.items() if known.get(k) != v),
            remedy="choose another folder or pass --force to replace it",
        )
    prepare_output_folder(folder, "cohort", force=force)
    _write_mark(folder, settings, complete=False)


def _write_mark(folder: Path, settings: EmbedSettings, **state: Any) -> None:
    provenance = {"lungcast_version": lungcast_version(), "operation": "embed", **settings.to_json(), **state}
    write_mark(folder, "cohort", provenance)


@dataclass(frozen=True)
class _Task:
    row: ManifestRow
    settings: EmbedSettings
    folder: Path


@dataclass(frozen=True)
class _Done:
    entry: Entry
    notes: list[str]
    resumed: bool
    window: Window


def _embed_and_write(task: _Task) -> _Done:
    row, path = task.row, task.folder / task.row.file
    check_files(row)
    window = row.window
    made_from = {
        **{
            kind: None if file is None else sha256_of(file)
            for kind, file in (
                ("image", row.image),
                ("infection", row.infection),
                ("lungs", row.lungs),
                ("lobes", row.lobes),
            )
        },
        "window": None if window is None else [window.level_hu, window.width_hu],
    }
    earlier = _earlier(path, row, task.settings, made_from)
    if earlier is not None:
        scan, digest = earlier
        entry = Entry.of(scan, "observed", row.file, digest)
        return _Done(entry, list(scan.provenance["notes"]), resumed=True, window=scan.window)
    scan = embed_row(row, task.settings)
    scan.provenance["made_from"] = made_from
    scan.provenance["settings"] = task.settings.to_json()
    digest = write_scan(path, scan)
    entry = Entry.of(scan, "observed", row.file, digest)
    return _Done(entry, list(scan.provenance["notes"]), resumed=False, window=scan.window)


def _earlier(
    path: Path, row: ManifestRow, settings: EmbedSettings, made_from: dict[str, Any]
) -> tuple[Scan, str] | None:
    """The scan of an earlier run when it is whole and is the very one that is asked for."""
    if not path.is_file() or not is_whole(path):
        return None
    meta, scan = read_meta(path), read_scan(path)
    known = meta["provenance"]
    same = (
        known.get("lungcast_version") == lungcast_version()
        and known.get("made_from") == made_from
        and known.get("settings") == settings.to_json()
        and known.get("scanner") == row.scanner
        and (scan.patient, scan.scan, scan.day, scan.stage) == (row.patient, row.scan, row.day, row.stage)
    )
    return (scan, str(meta["content_sha256"])) if same else None
