"""A manifest in, a cohort of scan files out; one bad scan never sinks the cohort."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from standard_space.cohort import Cohort, Entry
from standard_space.embedding import embed
from standard_space.errors import LungcastError, ManifestError
from standard_space.files import write_mark
from standard_space.grid import StandardGrid
from standard_space.image import read_image, read_mask
from standard_space.manifest import ManifestRow, read_manifest
from standard_space.progress import Progress, silent
from standard_space.scan import Scan
from standard_space.scanfile import write_scan
from standard_space.version import lungcast_version


@dataclass
class Outcome:
    """What a cohort run did: entries written, failures by scan, and notes by scan."""

    folder: Path
    entries: list[Entry] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


def embed_row(row: ManifestRow, grid: StandardGrid) -> Scan:
    """Embed one row of a manifest.

    Raises
    ------
    LungcastError
        Whatever is wrong with its image or masks.
    """
    window = row.window
    image = read_image(row.image, level_width_hu=(window.level_hu, window.width_hu) if window else None)
    infection = None if row.infection is None else read_mask(row.infection, image.geometry)
    lungs = None if row.lungs is None else read_mask(row.lungs, image.geometry)
    scan = embed(
        image,
        grid,
        patient=row.patient,
        scan=row.scan,
        day=row.day,
        stage=row.stage,
        infection=infection,
        lungs=lungs,
        window=window,
    )
    if infection is not None and not infection.any():
        scan.provenance["notes"].append("the infection mask is empty: annotated as free of infection")
    return scan


def embed_cohort(
    manifest: str | Path, folder: str | Path, grid: StandardGrid, *, progress: Progress = silent
) -> Outcome:
    """Embed every scan of a manifest into an (empty) folder.

    A scan that cannot be used is named in `Outcome.failures`; the others are written all the same.

    Raises
    ------
    ManifestError
        When the manifest itself is wrong, or two scans would get one file name.
    """
    rows = read_manifest(manifest)
    names = [f"{row.patient}_{row.scan}.h5" for row in rows]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ManifestError("two scans would get one file name", where=manifest, got=name)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(folder)
    for done, (row, name) in enumerate(zip(rows, names, strict=True)):
        progress(row.name, done, len(rows))
        try:
            scan = embed_row(row, grid)
        except LungcastError as error:
            outcome.failures[row.name] = str(error)
            continue
        digest = write_scan(folder / name, scan)
        outcome.entries.append(Entry.of(scan, "observed", name, digest))
        if scan.provenance["notes"]:
            outcome.notes[row.name] = list(scan.provenance["notes"])
    Cohort.write_manifest(folder, outcome.entries)
    provenance = {
        "lungcast_version": lungcast_version(),
        "operation": "embed",
        "grid": grid.size,
        "scans": len(outcome.entries),
        "failed": sorted(outcome.failures),
    }
    write_mark(folder, "cohort", provenance)
    progress("done", len(rows), len(rows))
    return outcome
