"""A cohort: a folder of scan files plus a manifest."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from standard_space.errors import ScanFileError, UsageError
from standard_space.files import read_mark, write_text
from standard_space.scan import Scan
from standard_space.scanfile import is_whole, read_meta, read_scan
from standard_space.scanreader import ScanReader, open_scan

MANIFEST = "manifest.csv"
COLUMNS = ("patient", "scan", "day", "stage", "kind", "file", "content_sha256", "lungs_ml", "infected_ml")


@dataclass(frozen=True)
class Entry:
    """One scan of a cohort.

    `kind` is "observed" or "synthetic"; `file` is relative to the cohort's folder; volumes are in ml,
    `infected_ml` is None for a scan that was never annotated.
    """

    patient: str
    scan: str
    day: float
    stage: str | None
    kind: str
    file: str
    content_sha256: str
    lungs_ml: float
    infected_ml: float | None

    @property
    def synthetic(self) -> bool:
        """Whether the scan was simulated."""
        return self.kind == "synthetic"

    @property
    def name(self) -> str:
        """Patient and scan, for messages."""
        return f"{self.patient}/{self.scan}"

    @classmethod
    def of(cls, scan: Scan, kind: str, file: str, digest: str) -> Entry:
        """The entry of a scan written to `file`."""
        voxel_ml = scan.grid.voxel_volume_ml
        infected = None if scan.infection is None else round(float(scan.infection.sum()) * voxel_ml, 4)
        lungs = round(float(scan.lungs.sum()) * voxel_ml, 3)
        return cls(scan.patient, scan.scan, scan.day, scan.stage, kind, file, digest, lungs, infected)


class Cohort:
    """A folder of scan files with its manifest.

    Use `Cohort.open(folder)`; an augmented folder is opened with the cohort it came from as `sources`.
    """

    def __init__(self, folder: Path, entries: list[Entry], sources: Cohort | None = None) -> None:
        self.folder = folder
        self.entries = entries
        self.sources = sources
        self._verified: set[tuple[str, str]] = set()

    @classmethod
    def open(cls, folder: str | Path, sources: Cohort | None = None) -> Cohort:
        """Open a cohort folder; see `open_with_sources` for an augmented one.

        Raises
        ------
        UsageError
            When the folder does not exist or is not a cohort.
        ScanFileError
            When its manifest is damaged.
        """
        folder = Path(folder)
        manifest = folder / MANIFEST
        mark = read_mark(folder)
        if not manifest.is_file() or mark is None or mark["lungcast"] not in ("cohort", "augmented"):
            raise UsageError(
                "not a lungcast cohort", where=folder, remedy="make one with `lungcast embed MANIFEST COHORT`"
            )
        entries = []
        try:
            with open(manifest, encoding="utf-8", newline="") as handle:
                for row in csv.DictReader(handle):
                    entries.append(
                        Entry(
                            patient=row["patient"],
                            scan=row["scan"],
                            day=float(row["day"]),
                            stage=row["stage"] or None,
                            kind=row["kind"],
                            file=row["file"],
                            content_sha256=row["content_sha256"],
                            lungs_ml=float(row["lungs_ml"]),
                            infected_ml=float(row["infected_ml"]) if row["infected_ml"] else None,
                        )
                    )
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise ScanFileError(f"the cohort's manifest is damaged ({error})", where=manifest) from None
        return cls(folder, entries, sources)

    @staticmethod
    def write_manifest(folder: str | Path, entries: Iterable[Entry]) -> None:
        """Write the manifest of a cohort folder atomically, sorted by patient, day and scan."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for entry in sorted(entries, key=lambda e: (e.patient, e.day, e.scan)):
            values = [getattr(entry, column) for column in COLUMNS]
            writer.writerow(["" if value is None else value for value in values])
        write_text(Path(folder) / MANIFEST, text.getvalue())

    def path(self, entry: Entry) -> Path:
        """Where an entry's scan file lies."""
        return self.folder / entry.file

    def read(self, entry: Entry) -> Scan:
        """Read an entry's scan; a synthetic one is laid over its source."""
        return read_scan(self.path(entry), self.find_source)

    def open_scan(self, entry: Entry) -> ScanReader:
        """Open an entry's scan file to read slices and crops without loading the volume."""
        return open_scan(self.path(entry), self.source_path)

    def find(self, patient: str, scan: str) -> Entry:
        """The entry of a patient's scan.

        Raises
        ------
        UsageError
            When the cohort has no such patient or scan; the message lists those there are.
        """
        of_patient = [entry for entry in self.entries if entry.patient == patient]
        if not of_patient:
            known = ", ".join(sorted({entry.patient for entry in self.entries}))
            raise UsageError("no such patient", where=self.folder, got=patient, expected=f"one of {known}")
        for entry in of_patient:
            if entry.scan == scan:
                return entry
        known = ", ".join(entry.scan for entry in of_patient)
        raise UsageError(
            f"no such scan of {patient}", where=self.folder, got=scan, expected=f"one of {known}"
        )

    def by_patient(self) -> dict[str, list[Entry]]:
        """Entries of each patient in the order of their days."""
        groups: dict[str, list[Entry]] = {}
        for entry in sorted(self.entries, key=lambda e: (e.patient, e.day, e.scan)):
            groups.setdefault(entry.patient, []).append(entry)
        return groups

    def find_source(self, patient: str, scan: str, content_sha256: str) -> Scan:
        """The source of a synthetic scan, in this cohort or in its `sources`.

        The first time a source is read its voxels are checked against their hash.

        Raises
        ------
        ScanFileError
            When it is missing or was altered.
        """
        sources = self.sources or self
        entry = self.source(patient, scan, content_sha256)
        path = sources.path(entry)
        key = (str(path), content_sha256)
        if key not in self._verified:
            if not is_whole(path):
                raise sources.altered(entry, "other voxels")
            self._verified.add(key)
        return read_scan(path)

    def altered(self, entry: Entry, found: str) -> ScanFileError:
        """The error for a scan file that no longer is what a synthetic scan or the manifest says."""
        return ScanFileError(
            "the source of a synthetic scan was altered",
            where=self.path(entry),
            got=found[:12],
            expected=entry.content_sha256[:12],
            remedy="put the original back, or augment again from the present cohort",
        )

    def source(self, patient: str, scan: str, content_sha256: str) -> Entry:
        """The entry of the source of a synthetic scan, in this cohort or in its `sources`.

        Raises
        ------
        ScanFileError
            When it is missing, or its file's hash is another one.
        """
        sources = self.sources or self
        for entry in sources.entries:
            if entry.patient == patient and entry.scan == scan and not entry.synthetic:
                wanted = replace(entry, content_sha256=content_sha256)
                found = read_meta(sources.path(entry))["content_sha256"]
                if found != content_sha256:
                    raise sources.altered(wanted, found)
                return wanted
        raise ScanFileError(
            f"the source {patient}/{scan} of a synthetic scan is missing",
            where=sources.folder,
            remedy="open it together with the cohort that it was made from (`--sources COHORT`)",
        )

    def source_path(self, patient: str, scan: str, content_sha256: str) -> Path:
        """Where the source of a synthetic scan lies; see `source`."""
        return (self.sources or self).path(self.source(patient, scan, content_sha256))


def open_with_sources(folder: str | Path, sources: str | Path | None = None) -> Cohort:
    """Open a cohort; an augmented one together with the cohort that it was made from.

    No path is stored in an augmented folder. Unless `sources` is given, the cohort is looked for among the folders
    beside it, by the content hashes of its scans.

    Raises
    ------
    UsageError
        When a folder is no cohort, or no folder beside an augmented one holds its sources.
    """
    opened = Cohort.open(folder)
    if sources is not None:
        return Cohort.open(folder, Cohort.open(sources))
    mark = read_mark(folder)
    wanted = dict((mark or {}).get("provenance", {}).get("sources", {}))
    if not any(entry.synthetic for entry in opened.entries) or not wanted:
        return opened
    best, most = None, 0
    for candidate in sorted(Path(folder).resolve().parent.iterdir()):
        other = read_mark(candidate) if candidate.is_dir() else None
        if other is None or other["lungcast"] != "cohort" or not (candidate / MANIFEST).is_file():
            continue
        found = Cohort.open(candidate)
        matches = sum(wanted.get(entry.name) == entry.content_sha256 for entry in found.entries)
        if matches > most:
            best, most = found, matches
    if best is None:
        raise UsageError(
            "the cohort that this folder was made from does not lie beside it",
            where=folder,
            remedy="name it with --sources COHORT",
        )
    return Cohort.open(folder, best)
