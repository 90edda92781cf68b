"""docs/formats.md, made of files that were written: `python -m benchmarks.formats ROAD docs/formats.md`.

ROAD is a folder in which the README's commands have run. Names and types come from the files, meanings from
format_meanings.toml; a name without a meaning, or a meaning without a name, is an error.
"""

from __future__ import annotations

import csv
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.format_files import FILES, OUTPUTS, FileKind
from simulator.dynamics.parameters import PARAMETER_NAMES
from standard_space.files import write_text

HEAD = """# File formats

Made by `python -m benchmarks.formats` from files that the README's commands wrote: names and types are those of
these examples. What only some options bring (lobes, validation) is not in them. Everything is written to a
temporary file, flushed and renamed, so a file that is there is whole. Volumes are ml, lengths mm, times days,
densities HU, shares 0 to 1; arrays are (z, y, x); identifiers are those of your manifest. JSON has no NaN: what
is not defined is `null`, and what the data leave open `"inf"`. The manifest that you write yourself is described
in the [README](../README.md#your-own-scans).
"""

_WHERE_NULL = {
    "made_from.lobes": "text",
    "lobes": "object",
    "severity": "object",
    "window": "list",
    "reason": "text",
    "interval": "list",
}
"""Types of what is null in the examples, by the end of its name; all else is a number."""


def formats_page(road: Path) -> str:
    """The page.

    Parameters
    ----------
    road : Path
        A folder in which the README's commands have run.

    Returns
    -------
    str
        Markdown.

    Raises
    ------
    KeyError
        A name that no meaning is known of, meanings that no file has, and a meaning that was written for another
        kind of file.
    """
    parts = [HEAD, "## What each command leaves\n", _table(("output", "files"), OUTPUTS)]
    tables = tomllib.loads((Path(__file__).parent / "format_meanings.toml").read_text(encoding="utf-8"))
    meanings = tables["shared"] | tables["own"] | tables["placed"]
    used: dict[str, set[str]] = {}
    for kind in FILES:
        names = dict(_names(road, kind))
        rows = []
        for name, shown in names.items():
            key = f"{kind.name}:{name}"
            known = key if key in meanings else name.rsplit(".", 1)[-1].removesuffix("[]")
            if known not in meanings:
                raise KeyError(f"no meaning of {key}")
            used.setdefault(known, set()).add(kind.name)
            rows.append((f"`{name}`", shown, meanings[known]))
        parts += [f"## {kind.title}\n", kind.text + "\n", _table((kind.column, "type", "meaning"), rows)]
    unused = sorted(set(meanings) - set(used))
    if unused:
        raise KeyError(f"meanings of nothing: {', '.join(unused)}")
    taken_over = sorted(name for name in tables["own"] if len(used[name]) > 1)
    if taken_over:
        raise KeyError(f"names of one kind of file that another one has, too: {', '.join(taken_over)}")
    return "\n".join(parts)


def _names(road: Path, kind: FileKind) -> Iterator[tuple[str, str]]:
    path = road / kind.example
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        for name in rows[0]:
            yield name, _cell_type([row[name] for row in rows])
    elif path.suffix == ".h5":
        yield from _hdf5_names(path)
    else:
        yield from _json_names(json.loads(path.read_text(encoding="utf-8")), "", kind)


def _hdf5_names(path: Path) -> Iterator[tuple[str, str]]:
    import h5py

    with h5py.File(path, "r") as file:
        for name, value in sorted(file.attrs.items()):
            if name != "meta":
                yield name, f"attribute, {'integer' if not isinstance(value, str) else 'text'}"
        for name, dataset in sorted(file.items()):
            shape = "(n, n, n)" if dataset.ndim == 3 else "(k,)"
            yield name, f"{dataset.dtype}, {shape}"
            for inner in sorted(dataset.attrs):
                yield f"{name}.{inner}", "attribute, 3 integers"
        meta = json.loads(file.attrs["meta"])
        yield "meta", "attribute, JSON"
        yield from _json_names(meta, "meta.", None)


def _json_names(value: Mapping[str, Any], prefix: str, kind: FileKind | None) -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        name = f"{prefix}{key}"
        closed = kind is not None and (key in kind.closed or name in kind.closed)
        if isinstance(inner, dict):
            by_parameter = set(inner) >= set(PARAMETER_NAMES)
            yield name, "object, by parameter" if by_parameter else "object"
            if not by_parameter and not closed:
                yield from _json_names(inner, f"{name}.", kind)
        elif isinstance(inner, list) and inner and all(isinstance(item, dict) for item in inner):
            yield f"{name}[]", "object"
            if not closed:
                yield from _json_names(_merged(inner), f"{name}[].", kind)
        else:
            yield name, _json_type(name, inner)


def _merged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One object with the first value of every name that is not null."""
    merged: dict[str, Any] = {}
    for row in rows:
        for key, value in row.items():
            if merged.get(key) is None:
                merged[key] = value
    return merged


def _json_type(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, list):
        return "list"
    if value is None:  # a score may be defined on one machine and not on another, so null is no type
        if name.endswith("_sha256"):
            return "text"
        return next((kind for end, kind in _WHERE_NULL.items() if name.endswith(end)), "number")
    return "text" if isinstance(value, str) else "number"


def _cell_type(cells: list[str]) -> str:
    filled = [cell for cell in cells if cell]
    try:
        [float(cell) for cell in filled]
    except ValueError:
        return "text"
    return "number" if filled else "empty here"


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_text(Path(sys.argv[2]), formats_page(Path(sys.argv[1])))
