"""What ITK does not say of NRRD and MetaImage headers.

ITK takes a missing spacing as 1 mm and a missing orientation as LPS, follows a header to data in another file,
and on truncated MetaImage data writes to the terminal and blames the file system. Here each is refused first.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from standard_space.errors import GeometryError, ReadError

_HEADER_BYTES = 65536
_BYTES = {"char": 1, "short": 2, "int": 4, "long": 4, "long_long": 8, "float": 4, "double": 8}
EXPORT_AGAIN = "write it again, or copy it again from its source"


def check_text_header(path: Path) -> None:
    """Refuse a NRRD or MetaImage file whose placement or data ITK would get wrong.

    Raises
    ------
    ReadError
        When the voxels lie in another file, or are fewer than the header says.
    GeometryError
        When spacing or orientation is not said.
    """
    with open(path, "rb") as handle:
        content = handle.read(_HEADER_BYTES)
    if content.startswith(b"NRRD"):
        _check_nrrd(content, path)
    elif b"ndims" in content[:400].lower():
        _check_meta_image(content, path)


def _check_nrrd(content: bytes, path: Path) -> None:
    fields = _fields(content.split(b"\n\n", 1)[0].split(b"\r\n\r\n", 1)[0], ":")
    if "data file" in fields or "datafile" in fields:
        raise _detached(path)
    if "space directions" not in fields and "spacings" not in fields:
        raise _no_spacing(path)
    if "space" not in fields or "space directions" not in fields:
        raise _no_orientation(path, "space and space directions")


def _check_meta_image(content: bytes, path: Path) -> None:
    end = re.search(rb"(?im)^elementdatafile\s*=.*?\n", content)
    fields = _fields(content[: end.end()] if end else content, "=")
    if fields.get("elementdatafile", "").lower() != "local":
        raise _detached(path)
    if "elementspacing" not in fields and "elementsize" not in fields:
        raise _no_spacing(path)
    if not {"transformmatrix", "orientation", "rotation"} & set(fields):
        raise _no_orientation(path, "TransformMatrix")
    held = path.stat().st_size - (end.end() if end else 0)
    expected = _expected_bytes(fields)
    if expected is not None and held < expected:
        raise ReadError(
            "the image cannot be read (the file is truncated)",
            where=path,
            got=f"{held} bytes of voxels",
            expected=expected,
            remedy=EXPORT_AGAIN,
        )


def _expected_bytes(fields: dict[str, str]) -> int | None:
    """Bytes of voxels that a MetaImage announces; None when it does not, or not in a way known here."""
    try:
        if fields.get("compresseddata", "").lower() == "true":
            return int(fields["compresseddatasize"])
        kind = fields["elementtype"].lower().removeprefix("met_").removeprefix("u")
        values = math.prod(int(n) for n in fields["dimsize"].split())
        return values * _BYTES[kind] * int(fields.get("elementnumberofchannels", "1"))
    except (KeyError, ValueError):
        return None


def _fields(header: bytes, separator: str) -> dict[str, str]:
    fields = {}
    for line in header.decode("latin-1").splitlines():
        name, found, value = line.partition(separator)
        if found and not line.startswith("#"):
            fields[name.strip().lower()] = value.strip().lstrip("=").strip()
    return fields


def _detached(path: Path) -> ReadError:
    return ReadError(
        "the header keeps its voxels in another file",
        where=path,
        remedy="write it as one file (.mha, .nrrd or .nii.gz)",
    )


def _no_spacing(path: Path) -> GeometryError:
    return GeometryError(
        "the header gives no voxel spacing",
        where=path,
        remedy="write it again with its spacing, origin and direction",
    )


def _no_orientation(path: Path, field: str) -> GeometryError:
    return GeometryError(
        "the header says nothing of its orientation",
        where=path,
        expected=field,
        remedy="write it again with its origin and direction",
    )
