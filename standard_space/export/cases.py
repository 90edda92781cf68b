"""Which scans an export holds, what they are called, and the table that lists them."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from standard_space.cohort import Cohort, Entry
from standard_space.errors import LungcastError
from standard_space.export.settings import ExportSettings
from standard_space.files import write_text
from standard_space.geometry import Geometry, Placement
from standard_space.grid import StandardGrid
from standard_space.scanfile import read_meta

CASES = "cases.csv"
COLUMNS = (
    "case", "patient", "scan", "kind", "day", "stage", "fold", "source_scan", "image", "label",
)  # fmt: skip
_SIMULATED = re.compile(r"-sim\d+$")
_STEM_BYTES_MAX = 150
"""File systems allow 255 bytes a name; a channel, a suffix and a temporary's prefix come on top."""


@dataclass(frozen=True)
class Case:
    """One scan to export.

    Parameters
    ----------
    name : str
        Unique in the export also where case does not count, and part of file names.
    entry : Entry
        The scan in its cohort.
    path : Path
        Its scan file.
    source : Entry
        The observed scan whose volume it is, or is laid over; of an observed scan itself.
    source_path : Path
        The source's scan file.
    written_on : Geometry
        Where the exported voxels lie.
    """

    name: str
    entry: Entry
    path: Path
    source: Entry
    source_path: Path
    written_on: Geometry

    @property
    def labelled(self) -> bool:
        """Whether there is an infection to write."""
        return self.entry.infected_ml is not None


@dataclass
class CaseList:
    """Cases in the order of patient, day and scan; what was left out, and why, by the scan's name.

    `unusable` holds the case names of the failures.
    """

    cases: list[Case] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


def list_cases(cohort: Cohort, settings: ExportSettings) -> CaseList:
    """The cases of an export: what a cohort holds and, of an augmented one, the scans it was made from.

    A scan whose file or source cannot be used is a failure of its own.
    """
    found = CaseList()
    places = [(cohort, entry) for entry in cohort.entries]
    if cohort.sources is not None:
        own = {entry.name for entry in cohort.entries if not entry.synthetic}
        others = [entry for entry in cohort.sources.entries if not entry.synthetic and entry.name not in own]
        places += [(cohort.sources, entry) for entry in others]
    places = [(holder, entry) for holder, entry in places if entry.synthetic or settings.originals]
    places.sort(key=lambda place: (place[1].patient, place[1].day, place[1].scan))
    for (holder, entry), name in zip(places, case_names([entry for _, entry in places]), strict=True):
        if entry.infected_ml is None and settings.needs_labels:
            found.notes[entry.name] = [f"never annotated: left out of the {settings.format} export"]
            continue
        try:
            found.cases.append(_case(holder, entry, name, settings))
        except LungcastError as error:
            found.failures[entry.name] = str(error)
            found.unusable.append(name)
    return found


def _case(cohort: Cohort, entry: Entry, name: str, settings: ExportSettings) -> Case:
    path = cohort.path(entry)
    head = read_meta(path)
    if head["content_sha256"] != entry.content_sha256:
        raise cohort.altered(entry, head["content_sha256"])
    source, source_path = entry, path
    if entry.synthetic:
        origin = head["source"]
        source = cohort.source(origin["patient"], origin["scan"], origin["content_sha256"])
        source_path = (cohort.sources or cohort).path(source)
    placement = Placement.from_json(head["placement"])
    standard = placement.standard_geometry(StandardGrid(int(head["grid"])))
    written_on = placement.native if settings.geometry == "native" else standard
    return Case(name, entry, path, source, source_path, written_on)


def case_names(entries: Sequence[Entry]) -> list[str]:
    """Names that are part of file names anywhere: letters, digits, ``. _ -``; synthetic scans end in ``-simN``.

    Names that would be the same (also but for upper and lower case) get a hash of patient and scan.
    """
    digits = 0
    names = [_name(entry, digits) for entry in entries]
    while True:
        count = Counter(name.casefold() for name in names)
        if digits == 64 or max(count.values(), default=1) == 1:
            return names
        digits = 8 if digits == 0 else 64
        names = [
            _name(entry, digits) if count[name.casefold()] > 1 else name
            for entry, name in zip(entries, names, strict=True)
        ]


def _name(entry: Entry, digits: int) -> str:
    scan, ending = entry.scan, ""
    simulated = _SIMULATED.search(scan)
    if entry.synthetic:
        ending = simulated.group() if simulated else "-sim0"
        scan = scan[: simulated.start()] if simulated else scan
    elif simulated:
        ending = "-observed"
    stem = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", f"{entry.patient}_{scan}")).lstrip("-.")
    digest = hashlib.sha256(f"{entry.kind}\0{entry.patient}\0{entry.scan}".encode()).hexdigest()
    cut = stem.encode()[:_STEM_BYTES_MAX].decode(errors="ignore")
    if cut != stem:
        digits = max(digits, 8)
    return (f"{cut}-{digest[:digits]}" if digits else cut) + ending


@dataclass(frozen=True)
class Row:
    """An exported case: its fold (None where it is never validated on) and its files, relative to the folder."""

    case: Case
    fold: int | None
    image: str
    label: str | None


def write_cases(folder: Path, rows: Sequence[Row]) -> None:
    """Write the table of all exported cases."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        entry = row.case.entry
        source = row.case.source.scan if entry.synthetic else ""
        writer.writerow(
            [
                row.case.name, entry.patient, entry.scan, entry.kind, entry.day, entry.stage or "",
                "" if row.fold is None else row.fold, source, row.image, row.label or "",
            ]
        )  # fmt: skip
    write_text(folder / CASES, text.getvalue())
