"""What SimpleITK's NIfTI reader does not say: truncated files and NaN voxels.

ITK fills the missing end of a truncated NIfTI with zeros and turns NaN into 0, both silently: 0 HU is soft
tissue, so a broken file would read as a dense lung. The bytes are therefore counted, and floats checked, first.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from standard_space.errors import DataError, ReadError

_BLOCK = 1 << 24
_FLOATS = {16: "f4", 64: "f8"}


def check_nifti(path: Path) -> None:
    """Refuse a NIfTI-1 file that is truncated or holds NaN or infinite voxels.

    Raises
    ------
    ReadError
        When the header is damaged or the file holds fewer bytes than it announces.
    DataError
        When a floating-point image holds NaN or infinite values.
    """
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as handle:
            _check(handle, path)  # type: ignore[arg-type]
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ReadError(
            "the image cannot be read (the compressed data is damaged or truncated)", where=path
        ) from None


def _check(handle: BinaryIO, path: Path) -> None:
    header = handle.read(348)
    if len(header) < 348:
        raise ReadError("the image cannot be read (no whole NIfTI header)", where=path)
    for order in "<>":
        if int(np.frombuffer(header, f"{order}i4", 1)[0]) == 348:
            break
    else:
        return  # NIfTI-2 or something else altogether: left to ITK, which refuses what it does not know
    dimensions = np.frombuffer(header, f"{order}i2", 8, offset=40)
    datatype, bits = (int(v) for v in np.frombuffer(header, f"{order}i2", 2, offset=70))
    offset = int(np.frombuffer(header, f"{order}f4", 1, offset=108)[0])
    axes = int(dimensions[0])
    if not 1 <= axes <= 7 or (dimensions[1 : axes + 1] < 1).any():
        raise ReadError("the image cannot be read (the NIfTI header is damaged)", where=path)
    expected = math.prod(int(n) for n in dimensions[1 : axes + 1]) * bits // 8
    handle.read(max(0, offset - 348))
    float_type = _FLOATS.get(datatype)
    received = 0
    while block := handle.read(min(_BLOCK, max(1, expected - received))):
        received += len(block)
        if float_type is not None:
            whole = len(block) - len(block) % int(float_type[1])
            bad = int((~np.isfinite(np.frombuffer(block[:whole], order + float_type))).sum())
            if bad:
                raise DataError(
                    "the image holds NaN or infinite voxels", where=path, remedy="export it again in HU"
                )
        if received >= expected:
            # Reading to the end of a gzip stream also checks its checksum.
            while handle.read(_BLOCK):
                pass
            return
    raise ReadError(
        "the image cannot be read (the file is truncated)",
        where=path,
        got=f"{received} bytes of voxels",
        expected=expected,
    )
