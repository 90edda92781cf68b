"""A cohort: a folder of scan files plus a manifest."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from standard_space.errors import LungcastError, ScanFileError, UsageError
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

    def head(self, entry: Entry) -> dict[str, Any]:
        """Metadata of an entry's scan file (`read_meta`).

        Raises
        ------
        ScanFileError
            When the file is missing, damaged, or not the one that the manifest names.
        """
        head = read_meta(self.path(entry))
        if head["content_sha256"] != entry.content_sha256:
            raise self.altered(entry, head["content_sha256"])
        return head

    def read(self, entry: Entry) -> Scan:
        """Read an entry's scan; a synthetic one is laid over its source.

        Raises
        ------
        ScanFileError
            See `head`; also when a synthetic scan's source is missing or altered.
        """
        self.head(entry)
        return read_scan(self.path(entry), self.find_source)

    def open_scan(self, entry: Entry) -> ScanReader:
        """Open an entry's scan file to read slices and crops without loading the volume; see `read`."""
        self.head(entry)
        return open_scan(self.path(entry), self.source_path)

    def verify(self, entry: Entry) -> None:
        """Compare every voxel of an observed scan with its hash, the first time it is asked for.

        Raises
        ------
        ScanFileError
            When they differ or the file cannot be read.
        """
        path = self.path(entry)
        key = (str(path), entry.content_sha256)
        if key not in self._verified:
            self.head(entry)
            if not is_whole(path):
                raise self.altered(entry, "other or unreadable voxels")
            self._verified.add(key)

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
        sources.verify(entry)
        return read_scan(sources.path(entry))

    def altered(self, entry: Entry, found: str) -> ScanFileError:
        """The error for a scan file that no longer is what a synthetic scan or the manifest says."""
        return ScanFileError(
            "the scan file was altered: it is not the one that the manifest or a synthetic scan names",
            where=self.path(entry),
            got=found[:30],
            expected=entry.content_sha256[:12],
            remedy="put the original back, or embed it and augment again",
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
    wanted = (read_mark(folder) or {"provenance": {}})["provenance"].get("sources", {})
    if not any(entry.synthetic for entry in opened.entries) or not wanted:
        return opened
    return Cohort.open(folder, find_cohort(folder, wanted))


def find_cohort(beside: str | Path, wanted: Mapping[str, str]) -> Cohort:
    """The cohort among the folders beside a folder that holds most of the wanted scans (name to content hash).

    Raises
    ------
    UsageError
        When none holds any of them.
    """
    best, most = None, 0
    for candidate in sorted(Path(beside).resolve().parent.iterdir()):
        mark = read_mark(candidate) if candidate.is_dir() else None
        if mark is None or mark["lungcast"] != "cohort":
            continue
        try:
            found = Cohort.open(candidate)
        except LungcastError:  # half-made or damaged: not the one that is looked for
            continue
        matches = sum(wanted.get(entry.name) == entry.content_sha256 for entry in found.entries)
        if matches > most:
            best, most = found, matches
    if best is None:
        raise UsageError(
            "the cohort that this folder was made from does not lie beside it",
            where=beside,
            remedy="name it with --sources COHORT",
        )
    return best


def cohort_of_source(scan: str | Path, sources: str | Path | None = None) -> Cohort | None:
    """The cohort that holds the source of a synthetic scan file; None when the file is no synthetic scan.

    It is `sources`, or else looked for beside the file's folder.

    Raises
    ------
    ScanFileError
        When the scan file is missing or damaged.
    UsageError
        See `find_cohort`.
    """
    origin = read_meta(scan).get("source")
    if origin is None:
        return None
    if sources is not None:
        return Cohort.open(sources)
    wanted = {f"{origin['patient']}/{origin['scan']}": origin["content_sha256"]}
    return find_cohort(Path(scan).resolve().parent, wanted)
