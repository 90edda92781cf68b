"""A cohort: a folder of scan files plus a manifest."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from standard_space.errors import ScanFileError, UsageError
from standard_space.files import read_mark, write_text
from standard_space.scan import Scan
from standard_space.scanfile import read_meta, read_scan
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

    @classmethod
    def open(cls, folder: str | Path, sources: Cohort | None = None) -> Cohort:
        """Open a cohort folder.

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
        return open_scan(self.path(entry), self._source_path)

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

        Raises
        ------
        ScanFileError
            When it is missing or was altered.
        """
        return read_scan(self._source_path(patient, scan, content_sha256))

    def _source_path(self, patient: str, scan: str, content_sha256: str) -> Path:
        sources = self.sources or self
        for entry in sources.entries:
            if entry.patient == patient and entry.scan == scan and not entry.synthetic:
                found = read_meta(sources.path(entry))["content_sha256"]
                if found != content_sha256:
                    raise ScanFileError(
                        "the source of a synthetic scan was altered",
                        where=sources.path(entry),
                        got=found[:12],
                        expected=content_sha256[:12],
                        remedy="augment again from the present cohort",
                    )
                return sources.path(entry)
        raise ScanFileError(
            f"the source {patient}/{scan} of a synthetic scan is missing",
            where=sources.folder,
            remedy="open it together with the cohort that it was made from",
        )
