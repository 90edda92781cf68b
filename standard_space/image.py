"""Images in and out of files: NIfTI, NRRD, MHA or a folder with a DICOM series; HU, world geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from standard_space.dicom import read_dicom_folder
from standard_space.errors import DataError, GeometryError, ReadError
from standard_space.files import atomic_path, sha256_of
from standard_space.geometry import Geometry, orient
from standard_space.nifti_check import check_nifti
from standard_space.window import DEFAULT_LEVEL_HU, DEFAULT_WIDTH_HU, Window

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
HU_MIN, HU_MAX = -1024.0, 3071.0
MAX_VOXELS = 1_500_000_000


@dataclass
class CTImage:
    """A CT as read: HU on its native grid.

    Parameters
    ----------
    array : float32 array, shape (z, y, x)
        HU, clipped to -1024..3071 (padding such as -3024 becomes air).
    geometry : Geometry
        Where the voxels lie.
    image_sha256 : str
        Hash of the input's bytes, by which a scan is known without naming it.
    window : Window or None
        Window the file itself carries (DICOM tags, or 8-bit windowed input).
    notes : list of str
        What a user should know about the reading.
    """

    array: NDArray[np.float32]
    geometry: Geometry
    image_sha256: str = ""
    window: Window | None = None
    notes: list[str] = field(default_factory=list)


def read_image(path: str | Path, *, level_width_hu: tuple[float, float] | None = None) -> CTImage:
    """Read a chest CT.

    Parameters
    ----------
    path : str or Path
        A NIfTI, NRRD or MHA file, or a folder with a DICOM series.
    level_width_hu : (level, width), optional
        The window an 8-bit input was made with; -600/1600 when not given.

    Raises
    ------
    ReadError
        When the file is missing, unreadable, or of an unknown format.
    DataError
        When it is not a 3-D scalar image in HU, or holds NaN or infinite values.
    """
    path = Path(path)
    if not path.exists():
        raise ReadError("no such file or folder", where=path)
    if path.is_dir():
        image, window, notes = read_dicom_folder(path)
    else:
        image, window, notes = _read_file(path), None, []
    array = _scalar_array(image, path)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise DataError(
            f"the image holds {count} NaN or infinite voxels", where=path, remedy="export it again in HU"
        )
    low, high = float(array.min()), float(array.max())
    hu = array.astype(np.float32)
    if low >= 0 and high <= 255 and high > low:
        # Already windowed to 8 bits: 0..255 becomes -0.5..0.5 in signal (DESIGN 2).
        level, width = level_width_hu or (DEFAULT_LEVEL_HU, DEFAULT_WIDTH_HU)
        hu = np.float32(level) + (hu / np.float32(255.0) - np.float32(0.5)) * np.float32(width)
        window = Window(level, width, "8-bit")
        notes.append(f"8-bit windowed input: 0..255 taken as the window {level:g}/{width:g} HU")
    elif low > -500:
        raise DataError(
            "the image holds no air or lung, so it is not a chest CT in HU",
            where=path,
            got=f"values {low:g} to {high:g}",
            expected="values below -500 HU",
            remedy="apply the rescale slope and intercept first",
        )
    np.clip(hu, HU_MIN, HU_MAX, out=hu)
    return CTImage(hu, Geometry.of(image), sha256_of(path), window, notes)


def read_mask(path: str | Path, image: Geometry) -> NDArray[np.bool_]:
    """Read a mask (any non-zero voxel) that lies on an image.

    A mask stored in another axis order is brought into the image's; it must then lie on the image within a
    tenth of the smallest spacing.

    Returns
    -------
    bool array of the image's shape (z, y, x).

    Raises
    ------
    ReadError
        When the file is missing or unreadable.
    GeometryError
        When the mask lies on another grid than the image.
    """
    path = Path(path)
    mask = _read_file(path)
    array = _scalar_array(mask, path)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise DataError("the mask holds NaN or infinite voxels", where=path)
    mask = orient(mask, image.orientation)
    found = Geometry.of(mask)
    if not found.same_as(image):
        raise GeometryError(
            "the mask lies on another grid than its image",
            where=path,
            got=found.summary(),
            expected=image.summary(),
            remedy="resample the mask onto the image with nearest neighbour",
        )
    return sitk.GetArrayViewFromImage(mask) != 0


def write_volume(path: str | Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write a volume (z, y, x) as an image file atomically; masks (bool) are written as uint8.

    The format goes by the suffix; NIfTI (.nii.gz) is the usual one. The same input gives the same bytes.
    """
    image = geometry.apply(array.astype(np.uint8) if array.dtype == np.bool_ else np.ascontiguousarray(array))
    with atomic_path(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def _read_file(path: Path) -> sitk.Image:
    if not path.exists():
        raise ReadError("no such file", where=path)
    if not path.name.lower().endswith(SUFFIXES):
        raise ReadError(
            "not an image format lungcast reads",
            where=path,
            expected="NIfTI, NRRD, MHA, or a folder with a DICOM series",
        )
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    warn = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
        voxels = math.prod(reader.GetSize())
        if voxels > MAX_VOXELS:
            raise ReadError("the header asks for too many voxels", where=path, got=f"{voxels:.3g}")
        if path.name.lower().endswith((".nii", ".nii.gz")):
            check_nifti(path)
        image = reader.Execute()
    except RuntimeError as error:
        raise ReadError(f"the image cannot be read ({_last_line(error)})", where=path) from None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warn)
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    return image


def _scalar_array(image: sitk.Image, path: Path) -> NDArray[Any]:
    size = image.GetSize()
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(
            "not a 3-D scalar image",
            where=path,
            got=f"{'x'.join(map(str, size))}, {image.GetNumberOfComponentsPerPixel()} values a voxel",
        )
    if min(size) < 4:
        raise DataError("too few voxels along one axis to be a chest CT", where=path, got=f"{size}")
    spacing = image.GetSpacing()
    if not all(math.isfinite(v) and 1e-3 < v < 1e3 for v in spacing):
        raise GeometryError("the voxel spacing cannot be used", where=path, got=f"{spacing} mm")
    if not all(math.isfinite(v) for v in (*image.GetOrigin(), *image.GetDirection())):
        raise GeometryError("origin or direction is not finite", where=path)
    return sitk.GetArrayViewFromImage(image)


def _last_line(error: Exception) -> str:
    """The telling end of an ITK exception, without file paths of its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("ideal", "The file couldn't"))]
    return lines[-1].split("): ")[-1].rstrip(".") if lines else type(error).__name__
