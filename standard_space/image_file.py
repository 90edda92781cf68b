"""One image file, header first: what a header asks for is checked before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from standard_space.errors import DataError, GeometryError, ReadError
from standard_space.geometry import Geometry
from standard_space.nifti_check import check_nifti_header, check_nifti_voxels
from standard_space.text_header_check import EXPORT_AGAIN, check_text_header

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
MAX_VOXELS = 600_000_000
"""More than a chest ever has (512 x 512 x 2288); stops a damaged header from asking for all memory."""

_DEFLATE_MAX_RATIO = 1100
SHEAR_TOLERANCE = 1e-3


def read_geometry(path: Path) -> Geometry:
    """Geometry of a 3-D scalar image file, from its header alone.

    Raises
    ------
    ReadError
        When the file is missing, of an unknown format, or its header cannot be read.
    DataError, GeometryError
        When it is not a 3-D scalar image, or its spacing or placement cannot be used.
    """
    return _open(path)[1]


def read_file(path: Path) -> sitk.Image:
    """Read a 3-D scalar image file; a 4-D file of one volume is that volume.

    Raises
    ------
    ReadError, DataError, GeometryError
        See `read_geometry`; also when the voxels are truncated or not finite (NIfTI), or cannot be read.
    """
    reader, _ = _open(path)
    image = _checked_while_reading(reader, path) if _is_nifti(path) else _execute(reader, path)
    return image[:, :, :, 0] if image.GetDimension() == 4 else image


def _execute(reader: sitk.ImageFileReader, path: Path) -> sitk.Image:
    with _itk_errors(path):
        return reader.Execute()


def _checked_while_reading(reader: sitk.ImageFileReader, path: Path) -> sitk.Image:
    """Both decompress the file, and neither waits for the other: that halves the time of reading."""
    with ThreadPoolExecutor(1) as pool:
        checking = pool.submit(check_nifti_voxels, path)
        try:
            return _execute(reader, path)
        finally:
            checking.result()  # its sentence goes before ITK's


def _open(path: Path) -> tuple[sitk.ImageFileReader, Geometry]:
    if not path.exists():
        raise ReadError("no such file", where=path, remedy="paths in a manifest are relative to it")
    if not path.name.lower().endswith(SUFFIXES) or path.is_dir():
        raise ReadError(
            "not an image format lungcast reads",
            where=path,
            expected="NIfTI, NRRD, MHA, or a folder with a DICOM series",
        )
    if _is_nifti(path):
        check_nifti_header(path)
    else:
        check_text_header(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _itk_errors(path):
        reader.ReadImageInformation()
    size = list(reader.GetSize())
    components = reader.GetNumberOfComponents()
    if len(size) == 4 and size[3] == 1:
        size = size[:3]
    if len(size) != 3 or components != 1:
        raise DataError(
            "not a 3-D scalar image",
            where=path,
            got=f"{'x'.join(map(str, size))}, {components} values a voxel",
        )
    if min(size) < 4:
        raise DataError(
            "too few voxels along one axis to be a chest CT",
            where=path,
            got=f"{tuple(size)}",
            expected="at least 4",
            remedy="give the whole volume, not a slice of it",
        )
    _check_amount(path, reader, math.prod(size))
    axes = reader.GetDimension()
    spacing, origin, direction = reader.GetSpacing()[:3], reader.GetOrigin()[:3], reader.GetDirection()
    turn = tuple(direction[row * axes + column] for row in range(3) for column in range(3))
    if not all(math.isfinite(v) and 1e-3 < v < 1e3 for v in spacing):
        raise GeometryError(
            "the voxel spacing cannot be used",
            where=path,
            got=f"{spacing} mm",
            remedy="write it again with its spacing in mm",
        )
    if not all(math.isfinite(v) and abs(v) < 1e7 for v in (*origin, *turn)):
        raise GeometryError(
            "origin or direction is not finite", where=path, remedy="write it again with its placement"
        )
    axis_vectors = np.array(turn).reshape(3, 3)
    if np.abs(axis_vectors.T @ axis_vectors - np.eye(3)).max() > SHEAR_TOLERANCE:
        raise GeometryError(
            "the axes are not perpendicular (gantry tilt?)",
            where=path,
            remedy="give the DICOM folder, which lungcast straightens, or resample to right angles",
        )
    return reader, Geometry((size[0], size[1], size[2]), spacing, origin, turn)


def _check_amount(path: Path, reader: sitk.ImageFileReader, voxels: int) -> None:
    if voxels > MAX_VOXELS:
        raise ReadError(
            "the header asks for too many voxels",
            where=path,
            got=f"{voxels:.3g}",
            expected=f"at most {MAX_VOXELS:.3g}",
            remedy="crop or resample the image, or check that the file is whole",
        )
    wanted = voxels * sitk.Image([1, 1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
    held = path.stat().st_size
    if held * _DEFLATE_MAX_RATIO < wanted:
        raise ReadError(
            "the image cannot be read (the file is truncated)",
            where=path,
            got=f"{held} bytes in the file",
            expected=f"{wanted} bytes of voxels",
            remedy=EXPORT_AGAIN,
        )


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


@contextmanager
def _itk_errors(path: Path) -> Iterator[None]:
    """ITK's exceptions as one sentence, its warnings not at all."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except RuntimeError as error:
        raise ReadError(
            f"the image cannot be read ({_last_line(error)})", where=path, remedy=EXPORT_AGAIN
        ) from None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _last_line(error: Exception) -> str:
    """The telling end of an ITK exception, without file paths of its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("ideal", "The file couldn't"))]
    return lines[-1].split("): ")[-1].rstrip(".") if lines else type(error).__name__
