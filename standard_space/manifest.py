"""The user's manifest: one CSV row per scan."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from standard_space.errors import ManifestError, UsageError
from standard_space.window import Window

REQUIRED = ("patient", "scan", "image")
OPTIONAL = ("day", "date", "infection", "lungs", "window_level", "window_width", "stage")


@dataclass(frozen=True)
class ManifestRow:
    """One scan as its user describes it; paths are absolute, `day` counts from the patient's own zero."""

    patient: str
    scan: str
    day: float
    image: Path
    infection: Path | None = None
    lungs: Path | None = None
    window: Window | None = None
    stage: str | None = None

    @property
    def name(self) -> str:
        """Patient and scan, for messages."""
        return f"{self.patient}/{self.scan}"


def read_manifest(path: str | Path) -> list[ManifestRow]:
    """Read and check a manifest.

    Columns `patient,scan,day,image` are required (`date`, ISO 8601, may stand in place of `day`: the first
    date of a patient becomes day 0); `infection,lungs,window_level,window_width,stage` are optional. Paths are
    relative to the CSV. A patient's scans stand in the order of their days.

    Raises
    ------
    ManifestError
        When the file or a file it names is missing, a column is unknown or missing, a value is not a number, a
        scan occurs twice, or a patient's days go backwards.
    """
    path = Path(path)
    if path.is_dir():
        raise ManifestError("the manifest is a folder", where=path, expected="a CSV file")
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            columns = [column.strip() for column in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
    except FileNotFoundError:
        raise ManifestError("no such manifest", where=path) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"not a readable CSV ({error})", where=path) from None
    _check_columns(columns, path)
    if not rows:
        raise ManifestError("the manifest lists no scan", where=path)
    found = [_parse(row, f"{path}, row {number}", path.parent) for number, row in enumerate(rows, start=2)]
    if "date" in columns:
        found = _days_from_dates(found, rows, path)
    _check_order(found, path)
    return found


def _check_columns(columns: list[str], path: Path) -> None:
    unknown = [column for column in columns if column not in REQUIRED + OPTIONAL]
    if unknown:
        raise ManifestError(
            f"unknown column {', '.join(map(repr, unknown))}",
            where=path,
            expected=", ".join(REQUIRED + OPTIONAL),
            remedy="rename or remove it",
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
        if name.startswith(".") or any(c in name for c in "/\\\0\n"):
            raise ManifestError(f"{column} cannot be part of a file name", where=where, got=repr(name))
    files: dict[str, Path | None] = {}
    for column in ("image", "infection", "lungs"):
        name = values.get(column, "")
        files[column] = (folder / name) if name else None
        if files[column] is not None and not (folder / name).exists():
            raise ManifestError(f"no such {column} file", where=where, got=name)
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
        window=window,
        stage=values.get("stage") or None,
    )


def _number(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ManifestError(f"{column} is not a number", where=where, got=repr(text)) from None
    if not math.isfinite(value):
        raise ManifestError(f"{column} is not finite", where=where, got=repr(text))
    return value


def _days_from_dates(rows: list[ManifestRow], texts: list[dict[str, str]], path: Path) -> list[ManifestRow]:
    moments = []
    for number, text in enumerate(texts, start=2):
        value = (text["date"] or "").strip()
        try:
            moments.append(datetime.fromisoformat(value))
        except ValueError:
            raise ManifestError(
                "not an ISO 8601 date", where=f"{path}, row {number}", got=repr(value), expected="2020-03-01"
            ) from None
    if len({moment.tzinfo is None for moment in moments}) > 1:
        raise ManifestError("some dates carry a time zone and some do not", where=path)
    first: dict[str, datetime] = {}
    for row, moment in zip(rows, moments, strict=True):
        first.setdefault(row.patient, moment)
    return [
        ManifestRow(
            **{**row.__dict__, "day": (moment - first[row.patient]).total_seconds() / 86400.0},
        )
        for row, moment in zip(rows, moments, strict=True)
    ]


def _check_order(rows: list[ManifestRow], path: Path) -> None:
    seen: set[tuple[str, str]] = set()
    last: dict[str, ManifestRow] = {}
    for row in rows:
        if (row.patient, row.scan) in seen:
            raise ManifestError(
                "the scan occurs twice", where=path, got=row.name, remedy="remove one of the rows"
            )
        seen.add((row.patient, row.scan))
        before = last.get(row.patient)
        if before is not None and row.day <= before.day:
            problem = "two scans share a day" if row.day == before.day else "the days go backwards"
            raise ManifestError(
                f"{problem} for patient {row.patient}",
                where=path,
                got=f"{before.scan} on day {before.day:g}, then {row.scan} on day {row.day:g}",
                expected="scans in the order of their days",
            )
        last[row.patient] = row
