"""Hand-made NIfTI files, to say in a header what no writer would."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

GOOD = np.array([[-0.7, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, 2, 30.0]])
IDENTITY = ((0.0, 0.0, 1.0), (10.0, 20.0, 30.0))  # the quaternion and offset that say what GOOD says


def write_nifti(
    path: Path,
    *,
    sform: tuple[int, np.ndarray] | None = (1, GOOD),
    qform: tuple[int, tuple[float, ...], tuple[float, ...]] | None = None,
    pixdim: tuple[float, ...] = (1.0, 0.7, 0.7, 2.0),
    slope: float = 1.0,
    inter: float = 0.0,
    units: int = 2,
    dims: tuple[int, ...] = (3, 6, 7, 8, 1, 1, 1, 1),
    voxels: np.ndarray | None = None,
) -> Path:
    """Write int16 voxels (by default -1000 to 300) with the header given."""
    head = bytearray(348)

    def put(kind: str, offset: int, *values: float) -> None:
        struct.pack_into(f"<{len(values)}{kind}", head, offset, *values)

    put("i", 0, 348)
    put("h", 40, *dims)
    put("h", 70, 4, 16)
    put("f", 76, *pixdim, 1, 1, 1, 1)
    put("f", 108, 352, slope, inter)
    head[123] = units
    if qform is not None:
        put("h", 252, qform[0])
        put("f", 256, *qform[1], *qform[2])
    if sform is not None:
        put("h", 254, sform[0])
        put("f", 280, *np.asarray(sform[1]).ravel())
    head[344:348] = b"n+1\0"
    count = int(np.prod(dims[1:4]))
    data = np.linspace(-1000, 300, count) if voxels is None else voxels
    path.write_bytes(bytes(head) + b"\0" * 4 + data.astype("<i2").tobytes())
    return path
