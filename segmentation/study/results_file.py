"""The tidy CSVs of a study: a row for every scored scan, and one for every trained model; see `records`."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from segmentation.study.records import CostRow, Record, Row, columns
from standard_space.errors import DataError, ReadError
from standard_space.files import write_bytes

AnyRecord = TypeVar("AnyRecord", Row, CostRow)


def read_results(path: str | Path) -> list[Row]:
    """Read a results CSV, gzip-compressed when its name ends in .gz.

    Raises
    ------
    ReadError
        The file is missing or no CSV, its columns are others, or a value is not of its column's type.
    DataError
        A value is out of range, or two rows share the key.
    """
    return _read(path, Row)


def read_costs(path: str | Path) -> list[CostRow]:
    """Read a costs CSV, see `read_results`."""
    return _read(path, CostRow)


def write_results(path: str | Path, rows: Iterable[Row]) -> None:
    """Write a results CSV atomically, ordered by key; gzip-compressed when its name ends in .gz.

    Raises
    ------
    DataError
        Two rows share the key.
    """
    _write(path, Row, rows)


def write_costs(path: str | Path, rows: Iterable[CostRow]) -> None:
    """Write a costs CSV, see `write_results`."""
    _write(path, CostRow, rows)


def merge(*parts: Iterable[AnyRecord]) -> list[AnyRecord]:
    """Put the rows of several files together, ordered by key; equal rows count once.

    Raises
    ------
    DataError
        Two rows share the key and say different things.
    """
    found: dict[tuple[Any, ...], AnyRecord] = {}
    for part in parts:
        for row in part:
            known = found.setdefault(row.key, row)
            if known != row:
                raise DataError("two rows contradict each other", where=row.name, **_unlike(known, row))
    return [found[key] for key in sorted(found)]


def _read(path: str | Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    path = Path(path)
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except FileNotFoundError:
        raise ReadError("no such file of results", where=path) from None
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError(f"the file cannot be read ({error})", where=path) from None
    expected = columns(kind)
    if not lines or tuple(lines[0]) != expected:
        got = ",".join(lines[0]) if lines else "an empty file"
        raise ReadError("the columns are others", where=path, got=got, expected=",".join(expected))
    types = get_type_hints(kind)
    rows = []
    seen: dict[tuple[Any, ...], int] = {}
    for number, cells in enumerate(lines[1:], 2):
        where = f"{path}, line {number}"
        if len(cells) != len(expected):
            raise ReadError(
                "a line is cut short or too long", where=where, got=len(cells), expected=len(expected)
            )
        try:
            row = kind(
                **{name: _parse(cell, types[name]) for name, cell in zip(expected, cells, strict=True)}
            )
        except ValueError as error:
            raise ReadError(f"a value cannot be read ({error})", where=where) from None
        except DataError as error:
            raise DataError(error.what, where=where, got=error.got, expected=error.expected) from None
        if seen.setdefault(row.key, number) != number:
            raise DataError(f"line {seen[row.key]} is about the same: {row.name}", where=where)
        rows.append(row)
    return rows


def _write(path: str | Path, kind: type[AnyRecord], rows: Iterable[AnyRecord]) -> None:
    ordered = sorted(rows, key=lambda row: row.key)
    for one, other in itertools.pairwise(ordered):
        if one.key == other.key:
            raise DataError("two rows are about the same", where=one.name)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns(kind))
    for row in ordered:
        writer.writerow([_cell(getattr(row, name)) for name in columns(kind)])
    content = text.getvalue().encode()
    # Without a time in its head the same rows give the same bytes.
    write_bytes(path, gzip.compress(content, mtime=0) if Path(path).suffix == ".gz" else content)


def _parse(cell: str, kind: Any) -> Any:
    """Read a cell as str, int, float, or one of them and None."""
    base, *none = getattr(kind, "__args__", (kind,))
    if cell == "" and none:
        return None
    return base(cell)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    # repr gives a float back bit for bit; a whole ratio reads better without its ".0".
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _unlike(one: Record, other: Record) -> dict[str, str]:
    for column in columns(type(one)):
        first, second = getattr(one, column), getattr(other, column)
        if first != second:
            return {"got": f"{column} {second}", "expected": f"{column} {first} as before"}
    return {}
