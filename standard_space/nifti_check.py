"""What SimpleITK's NIfTI reader does not say.

ITK fills the missing end of a truncated NIfTI with zeros and turns NaN into 0 (0 HU is soft tissue: a broken file
would read as a dense lung); it takes the voxel spacing from pixdim where the sform says another, a missing one as
1 mm, sform or qform by rules of its own where the two disagree, and unknown orientation as LPS. All of it is
silent. Here each is refused before ITK reads.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from standard_space.errors import DataError, GeometryError, ReadError
from standard_space.text_header_check import EXPORT_AGAIN

FORMS_TOLERANCE_MM = 1.0
SPACING_TOLERANCE = 0.01
SHEAR_TOLERANCE = 1e-3

_BLOCK = 1 << 24
_HEADER_BYTES = 348
_FLOATS = {16: "f4", 64: "f8"}
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


@dataclass(frozen=True)
class _Header:
    order: str
    dimensions: list[int]
    datatype: int
    bits: int
    pixdim: NDArray[np.float64]
    offset: int
    qform_code: int
    sform_code: int
    quaternion: NDArray[np.float64]
    qoffset: NDArray[np.float64]
    sform: NDArray[np.float64]
    mm_per_unit: float


def check_nifti_header(path: Path) -> None:
    """Refuse a NIfTI file whose placement ITK would get wrong without a word.

    Raises
    ------
    ReadError
        When the header is damaged.
    GeometryError
        When orientation is unknown, sform and qform disagree, the sform is sheared, or spacing is missing or
        differs from the sform's.
    """
    with _opened(path) as handle:
        header = _read_header(handle, path)
        _check_placement(header, path)


def check_nifti_voxels(path: Path) -> None:
    """Refuse a NIfTI file that is truncated or holds NaN or infinite voxels.

    Raises
    ------
    ReadError
        When the header is damaged or the file holds fewer bytes than it announces.
    DataError
        When a floating-point image holds NaN or infinite values.
    """
    with _opened(path) as handle:
        header = _read_header(handle, path)
        _check_voxels(handle, header, path)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as handle:
            yield handle  # type: ignore[misc]
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ReadError(
            "the image cannot be read (the compressed data is damaged or truncated)",
            where=path,
            remedy=EXPORT_AGAIN,
        ) from None


def _read_header(handle: BinaryIO, path: Path) -> _Header:
    content = handle.read(_HEADER_BYTES)
    if len(content) < _HEADER_BYTES:
        raise ReadError("the image cannot be read (no whole NIfTI header)", where=path, remedy=EXPORT_AGAIN)
    sizes = {order: int(np.frombuffer(content, f"{order}i4", 1)[0]) for order in "<>"}
    if 540 in sizes.values():
        raise ReadError(
            "the image is NIfTI-2, which ITK does not read", where=path, remedy="write it as NIfTI-1"
        )
    orders = [order for order, size in sizes.items() if size == _HEADER_BYTES]
    if not orders:
        raise ReadError("the image cannot be read (no NIfTI header)", where=path, remedy=EXPORT_AGAIN)
    order = orders[0]

    def values(kind: str, offset: int, count: int = 1) -> NDArray[Any]:
        return np.frombuffer(content, order + kind, count, offset=offset)

    def reals(offset: int, count: int) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):  # a signalling NaN; it is refused where it matters
            return values("f4", offset, count).astype(np.float64)

    dimensions = [int(n) for n in values("i2", 40, 8)]
    axes, start = dimensions[0], float(reals(108, 1)[0])
    if not 1 <= axes <= 7 or any(n < 1 for n in dimensions[1 : axes + 1]) or not 0 <= start < 1e9:
        raise ReadError(
            "the image cannot be read (the NIfTI header is damaged)", where=path, remedy=EXPORT_AGAIN
        )
    qform_code, sform_code = (int(code) for code in values("i2", 252, 2))
    return _Header(
        order=order,
        dimensions=dimensions[1 : axes + 1],
        datatype=int(values("i2", 70)[0]),
        bits=int(values("i2", 72)[0]),
        pixdim=reals(76, 8),
        offset=int(start),
        qform_code=qform_code,
        sform_code=sform_code,
        quaternion=reals(256, 3),
        qoffset=reals(268, 3),
        sform=reals(280, 12).reshape(3, 4),
        mm_per_unit=_MM_PER_UNIT.get(content[123] & 7, 1.0),
    )


def _check_placement(header: _Header, path: Path) -> None:
    spacing = np.abs(header.pixdim[1:4])
    if not np.isfinite(header.pixdim[:4]).all() or (spacing[: len(header.dimensions)] == 0).any():
        raise GeometryError(
            "the NIfTI header gives no voxel spacing",
            where=path,
            got=f"pixdim {header.pixdim[1:4].tolist()}",
            remedy="write it again with its spacing",
        )
    if header.sform_code <= 0 and header.qform_code <= 0:
        raise GeometryError(
            "the NIfTI says nothing of its orientation (sform and qform codes are 0)",
            where=path,
            remedy="write it again with its orientation (nibabel: set_sform(affine, 1))",
        )
    placements = []
    if header.sform_code > 0:
        affine = header.sform
        if not np.isfinite(affine).all():
            raise GeometryError(
                "the NIfTI's sform is not finite", where=path, remedy="write it again with its placement"
            )
        steps = np.linalg.norm(affine[:, :3], axis=0)
        if (np.abs(steps - spacing) > SPACING_TOLERANCE * spacing).any():
            raise GeometryError(
                "the NIfTI's sform and pixdim give different voxel spacings",
                where=path,
                got=f"{np.round(steps, 4).tolist()} and {np.round(spacing, 4).tolist()} mm",
                remedy="write it again with one spacing (nibabel: set_sform and set_zooms)",
            )
        cosines = affine[:, :3] / steps
        if np.abs(cosines.T @ cosines - np.eye(3)).max() > SHEAR_TOLERANCE:
            raise GeometryError(
                "the NIfTI's sform is sheared (gantry tilt?)",
                where=path,
                remedy="give the DICOM folder, which lungcast straightens, or resample to right angles",
            )
        placements.append(affine)
    if header.qform_code > 0:
        parts = np.concatenate([header.quaternion, header.qoffset])
        if not np.isfinite(parts).all() or np.linalg.norm(header.quaternion) > 1.001:
            raise GeometryError(
                "the NIfTI's qform is not finite, or no rotation",
                where=path,
                remedy="write it again with its placement",
            )
        placements.append(_qform(header))
    if len(placements) == 2:
        apart_mm = _distance(placements[0], placements[1], header.dimensions) * header.mm_per_unit
        if apart_mm > FORMS_TOLERANCE_MM:
            raise GeometryError(
                "the NIfTI's sform and qform place the image differently, and programs differ in which they take",
                where=path,
                got=f"{apart_mm:.1f} mm apart",
                remedy="write it again with one placement (nibabel: set_qform(img.affine, 1))",
            )


def _qform(header: _Header) -> NDArray[np.float64]:
    """The affine (3, 4) of the quaternion, as the NIfTI-1 standard defines it."""
    b, c, d = header.quaternion
    a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    if a < 1e-7:  # rounding made the vector part longer than one
        b, c, d = header.quaternion / np.linalg.norm(header.quaternion)
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    handed = -1.0 if header.pixdim[0] < 0 else 1.0
    steps = np.abs(header.pixdim[1:4]) * np.array([1.0, 1.0, handed])
    return np.column_stack([turn * steps, header.qoffset])


def _distance(one: NDArray[np.float64], other: NDArray[np.float64], dimensions: list[int]) -> float:
    """Largest distance between the corner voxels of two placements."""
    ends = np.array([(*dimensions, 1, 1)[:3]], np.float64) - 1.0
    corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * ends
    homogeneous = np.column_stack([corners, np.ones(len(corners))])
    return float(np.linalg.norm(homogeneous @ (one - other).T, axis=1).max())


def _check_voxels(handle: BinaryIO, header: _Header, path: Path) -> None:
    expected = math.prod(header.dimensions) * header.bits // 8
    handle.read(max(0, header.offset - _HEADER_BYTES))
    float_type = _FLOATS.get(header.datatype)
    received = 0
    while block := handle.read(min(_BLOCK, max(1, expected - received))):
        received += len(block)
        if float_type is not None:
            whole = len(block) - len(block) % int(float_type[1])
            if not np.isfinite(np.frombuffer(block[:whole], header.order + float_type)).all():
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
        remedy=EXPORT_AGAIN,
    )
