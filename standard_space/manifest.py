"""The user's manifest: one CSV row per scan."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

from standard_space.errors import ManifestError, UsageError
from standard_space.window import Window

REQUIRED = ("patient", "scan", "image")
OPTIONAL = (
    "day", "date", "infection", "lungs", "lobes", "window_level", "window_width", "stage", "scanner"
)  # fmt: skip


@dataclass(frozen=True)
class ManifestRow:
    """One scan as its user describes it; paths are absolute, `day` counts from the patient's own zero.

    `scanner` is free text, for example a model's name.
    """

    patient: str
    scan: str
    day: float
    image: Path
    infection: Path | None = None
    lungs: Path | None = None
    lobes: Path | None = None
    window: Window | None = None
    stage: str | None = None
    scanner: str | None = None

    @property
    def name(self) -> str:
        """Patient and scan, for messages."""
        return f"{self.patient}/{self.scan}"

    @property
    def file(self) -> str:
        """Name of its scan file in a cohort."""
        return f"{self.patient}_{self.scan}.h5"


def read_manifest(path: str | Path) -> list[ManifestRow]:
    """Read and check a manifest.

    Columns `patient,scan,day,image` are required (`date`, ISO 8601, may stand in place of `day`: the first
    date of a patient becomes day 0); `infection,lungs,lobes,window_level,window_width,stage,scanner` are
    optional. Paths are relative to the CSV. A patient's scans stand in the order of their days.

    Raises
    ------
    ManifestError
        When the file is missing, a column is unknown or missing, a value is not a number, a scan occurs twice, two
        scans would get one file name, or a patient's days go backwards. Files that rows name are not looked at.
    """
    rows, problems = inspect_manifest(path)
    if problems:
        raise problems[0]
    return rows


def inspect_manifest(path: str | Path) -> tuple[list[ManifestRow], list[ManifestError]]:
    """The rows that can be used and every problem of the others; see `read_manifest`.

    Raises
    ------
    ManifestError
        When no row can be looked at: no such file, not a CSV, wrong columns, or no row at all.
    """
    path = Path(path)
    if path.is_dir():
        raise ManifestError("the manifest is a folder", where=path, expected="a CSV file")
    try:
        with open(path, "rb") as opened:
            if opened.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise ManifestError(
                    "the manifest is in UTF-16", where=path, expected="UTF-8", remedy='save it as "CSV UTF-8"'
                )
        with open(path, encoding="utf-8-sig", newline="") as handle:
            _check_separator(handle.readline(), path)
            handle.seek(0)
            reader = csv.DictReader(handle, strict=True)
            columns = [column.strip() for column in reader.fieldnames or []]
            reader.fieldnames = columns
            texts = list(reader)
    except FileNotFoundError:
        raise ManifestError("no such manifest", where=path) from None
    except UnicodeDecodeError:
        raise ManifestError(
            "not a text file", where=path, expected="a CSV in UTF-8", remedy="give the manifest, not an image"
        ) from None
    except csv.Error as error:
        raise ManifestError(f"not a readable CSV ({error})", where=path) from None
    _check_columns(columns, path)
    if not texts:
        raise ManifestError("the manifest lists no scan", where=path)
    rows: list[ManifestRow] = []
    problems: list[ManifestError] = []
    first: dict[str, datetime] = {}
    for number, text in enumerate(texts, start=2):
        where = f"{path}, row {number}"
        try:
            row = _parse(text, where, path.parent)
            rows.append(_dated(row, text["date"] or "", first, where) if "date" in columns else row)
        except ManifestError as error:
            problems.append(error)
    kept, disorder = _check_order(rows, path)
    return kept, problems + disorder


def _check_separator(first: str, path: Path) -> None:
    if not first.strip():
        raise ManifestError(
            "the first line is empty",
            where=path,
            expected=f"{', '.join(REQUIRED + OPTIONAL)}, or some of them",
        )
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if "," not in first and separator in first:
            raise ManifestError(
                f"the columns are separated by {word}",
                where=path,
                expected="commas",
                remedy="save it as CSV with commas",
            )


def _check_columns(columns: list[str], path: Path) -> None:
    known = REQUIRED + OPTIONAL
    if not columns:
        raise ManifestError(
            "the manifest is empty", where=path, expected=f"a first line of {', '.join(known)}"
        )
    unknown = [column for column in columns if column not in known]
    if unknown:
        near = [found for column in unknown for found in get_close_matches(column.lower(), known, n=1)]
        raise ManifestError(
            f"unknown column {', '.join(map(repr, unknown))}" if any(unknown) else "a column has no name",
            where=path,
            expected=", ".join(known),
            remedy=f"rename or remove it{f'; did you mean {near[0]!r}?' if near else ''}",
        )
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        raise ManifestError(f"the column {', '.join(missing)} is missing", where=path)
    if ("day" in columns) == ("date" in columns):
        raise ManifestError("exactly one of the columns day and date is needed", where=path)
    if len(set(columns)) != len(columns):
        raise ManifestError("a column occurs twice", where=path)


def _parse(row: dict[str, str | None], where: str, folder: Path) -> ManifestRow:
    if None in row:
        raise ManifestError("the row has more fields than the header", where=where)
    values = {key: (value or "").strip() for key, value in row.items()}
    for column in REQUIRED:
        if not values[column]:
            raise ManifestError(f"{column} is blank", where=where)
    for column in ("patient", "scan"):
        name = values[column]
        if name.startswith(".") or len(name) > 100 or any(c in name for c in "/\\\0\n\r"):
            raise ManifestError(f"{column} cannot be part of a file name", where=where, got=repr(name))
    files: dict[str, Path | None] = {}
    for column in ("image", "infection", "lungs", "lobes"):
        name = values.get(column, "")
        files[column] = (folder / name) if name else None
    level, width = values.get("window_level", ""), values.get("window_width", "")
    if bool(level) != bool(width):
        raise ManifestError("window_level and window_width go together", where=where)
    window = None
    if level:
        try:
            window = Window(
                _number(level, "window_level", where), _number(width, "window_width", where), "manifest"
            )
        except ManifestError:
            raise
        except UsageError as error:
            raise ManifestError(error.what, where=where, got=error.got, expected=error.expected) from None
    image = files["image"]
    if image is None:
        raise ManifestError("image is blank", where=where)
    return ManifestRow(
        patient=values["patient"],
        scan=values["scan"],
        day=_number(values["day"], "day", where) if "day" in values else 0.0,
        image=image,
        infection=files["infection"],
        lungs=files["lungs"],
        lobes=files["lobes"],
        window=window,
        stage=values.get("stage") or None,
        scanner=values.get("scanner") or None,
    )


def _number(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ManifestError(f"{column} is not a number", where=where, got=repr(text)) from None
    if not math.isfinite(value):
        raise ManifestError(f"{column} is not finite", where=where, got=repr(text))
    return value


def exists(path: Path) -> bool:
    """Whether a path is there; one that no file can have is not."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a null byte
        return False


def _dated(row: ManifestRow, text: str, first: dict[str, datetime], where: str) -> ManifestRow:
    """The row with its day counted from its patient's first date, which `first` remembers."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ManifestError(
            "not an ISO 8601 date", where=where, got=repr(text.strip()), expected="2020-03-01"
        ) from None
    begun = first.setdefault(row.patient, moment)
    if (begun.tzinfo is None) != (moment.tzinfo is None):
        raise ManifestError("some dates of a patient carry a time zone and some do not", where=where)
    return replace(row, day=(moment - begun).total_seconds() / 86400.0)


def _check_order(rows: list[ManifestRow], path: Path) -> tuple[list[ManifestRow], list[ManifestError]]:
    """Rows that follow one another as they should, and what is wrong with the others."""
    kept: list[ManifestRow] = []
    problems: list[ManifestError] = []
    files: dict[str, ManifestRow] = {}
    last: dict[str, ManifestRow] = {}
    for row in rows:
        same = files.get(row.file)
        before = last.get(row.patient)
        if same is not None and (same.patient, same.scan) == (row.patient, row.scan):
            what, got, remedy = "the scan occurs twice", row.name, "remove one of the rows"
        elif same is not None:
            what, got = "two scans would get one file name", f"{same.name} and {row.name}: {row.file}"
            remedy = "rename one of them"
        elif before is not None and row.day <= before.day:
            problem = "two scans share a day" if row.day == before.day else "the days go backwards"
            what = f"{problem} for patient {row.patient}"
            got = f"{before.scan} on day {before.day:g}, then {row.scan} on day {row.day:g}"
            remedy = "list a patient's scans in the order of their days"
        else:
            files[row.file] = last[row.patient] = row
            kept.append(row)
            continue
        problems.append(ManifestError(what, where=path, got=got, remedy=remedy))
    return kept, problems
