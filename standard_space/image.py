"""Images in and out of files: NIfTI, NRRD, MHA or a folder with a DICOM series; HU, world geometry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from standard_space.dicom import inspect_dicom_folder, read_dicom_folder
from standard_space.errors import DataError, GeometryError, OutOfSpaceError, ReadError
from standard_space.files import atomic_path, sha256_of
from standard_space.geometry import Geometry, orient
from standard_space.image_file import read_file, read_geometry
from standard_space.window import DEFAULT_LEVEL_HU, DEFAULT_WIDTH_HU, Window

HU_MIN, HU_MAX = -1024.0, 3071.0
HU_ABSURD = 70_000.0
_NIFTI_HEADER_BYTES = 352
GREY_MAX_LEAST, GREY_LEVELS_LEAST = 128, 24
"""What an 8-bit picture of a chest has at least: a brightest value, and levels of grey."""


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
        raise ReadError("no such file or folder", where=path, remedy="paths in a manifest are relative to it")
    if path.is_dir():
        image, window, notes = read_dicom_folder(path)
    else:
        image, window, notes = read_file(path), None, []
    array = sitk.GetArrayViewFromImage(image)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise DataError(
            f"the image holds {count} NaN or infinite voxels", where=path, remedy="export it again in HU"
        )
    low, high = float(array.min()), float(array.max())
    if max(-low, high) > HU_ABSURD:
        raise DataError(
            "the values are no HU",
            where=path,
            got=f"values {low:.3g} to {high:.3g}",
            expected="-1024 to 3071 HU, give or take padding",
            remedy="export it again in HU",
        )
    hu = array.astype(np.float32)
    if low >= 0 and high <= 255:
        _check_is_8_bit(array, path)
        # Already windowed: 0..255 becomes -0.5..0.5 in signal (DESIGN 2). Its HU are those of its window alone.
        level, width = level_width_hu or (DEFAULT_LEVEL_HU, DEFAULT_WIDTH_HU)
        hu = np.float32(level) + (hu / np.float32(255.0) - np.float32(0.5)) * np.float32(width)
        notes.append(
            f"8-bit windowed input: 0..255 taken as the window {level:g}/{width:g} HU"
            f"{'' if level_width_hu else ', the default; if it was another, say so (manifest, or --window)'}"
        )
        return CTImage(hu, Geometry.of(image), sha256_of(path), Window(level, width, "8-bit"), notes)
    if low > -500:
        raise DataError(
            "the image holds no air or lung, so it is not a chest CT in HU",
            where=path,
            got=f"values {low:g} to {high:g}",
            expected="values below -500 HU",
            remedy="apply the rescale slope and intercept first",
        )
    np.clip(hu, HU_MIN, HU_MAX, out=hu)
    return CTImage(hu, Geometry.of(image), sha256_of(path), window, notes)


def _check_is_8_bit(array: NDArray[Any], path: Path) -> None:
    """Refuse what lies within 0..255 and is no windowed picture: masks, labels, values scaled to 0..1."""
    sample = array[:: max(1, array.shape[0] // 64)]
    whole = bool((np.floor(sample) == sample).all())
    if not whole or sample.max() < GREY_MAX_LEAST or len(np.unique(sample)) < GREY_LEVELS_LEAST:
        raise DataError(
            "the image is neither in HU nor an 8-bit picture (a mask, labels, or values scaled to 0..1?)",
            where=path,
            got=f"values {array.min():g} to {array.max():g}",
            expected="HU, or whole numbers 0..255",
            remedy="export the CT in HU",
        )


def inspect_image(path: str | Path) -> tuple[Geometry, list[str]]:
    """Geometry of a CT and what a user should know of it, from headers alone.

    Raises
    ------
    ReadError, DataError, GeometryError
        As `read_image`, for what the headers show.
    """
    path = Path(path)
    if not path.exists():
        raise ReadError("no such file or folder", where=path, remedy="paths in a manifest are relative to it")
    if path.is_dir():
        summary = inspect_dicom_folder(path)
        return summary.geometry, list(summary.notes)
    return read_geometry(path), []


def read_mask(path: str | Path, image: Geometry, *, single_label: bool = False) -> NDArray[np.bool_]:
    """Read a mask (any non-zero voxel) that lies on an image.

    `single_label` refuses a mask of several labels (lungs and infection in one file, for example).

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
    array = _read_on(path, image)
    mask = np.asarray(array != 0)
    values = np.unique(array[mask])
    if (np.floor(values) != values).any():
        raise DataError(
            "the mask holds fractions: a probability, not a mask",
            where=path,
            got=f"values {values.min():g} to {values.max():g}",
            remedy="cut it at a threshold first",
        )
    if single_label and len(values) > 1:
        raise DataError(
            "the infection mask holds several labels, and which of them are infection is not said",
            where=path,
            got=f"labels {', '.join(f'{v:g}' for v in values[:5])}",
            remedy="write a mask of the infection alone, with one label",
        )
    return mask


def read_labels(path: str | Path, image: Geometry) -> NDArray[np.uint8]:
    """Read labels (whole numbers 0..255) that lie on an image; see `read_mask`.

    Returns
    -------
    uint8 array of the image's shape (z, y, x).

    Raises
    ------
    ReadError
        When the file is missing or unreadable.
    GeometryError
        When the labels lie on another grid than the image.
    DataError
        When a value is not a whole number from 0 to 255.
    """
    array = _read_on(path, image)
    labels = array.astype(np.uint8)
    if not np.array_equal(labels, array):
        raise DataError(
            "labels are whole numbers from 0 to 255",
            where=path,
            got=f"values {array.min():g} to {array.max():g}",
        )
    return labels


def _read_on(path: str | Path, image: Geometry) -> NDArray[Any]:
    """An array that lies on an image, brought into its axis order."""
    path = Path(path)
    mask = read_file(path)
    array = sitk.GetArrayViewFromImage(mask)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise DataError("the mask holds NaN or infinite voxels", where=path, remedy="write it again")
    mask = orient(mask, image.orientation)
    require_same_grid(path, Geometry.of(mask), image)
    return sitk.GetArrayFromImage(mask)


def require_same_grid(path: str | Path, mask: Geometry, image: Geometry) -> None:
    """Refuse a mask that does not lie on its image.

    Raises
    ------
    GeometryError
        When the two differ by more than a tenth of the smallest spacing.
    """
    if not mask.same_as(image):
        raise GeometryError(
            "the mask lies on another grid than its image",
            where=path,
            got=mask.summary(),
            expected=image.summary(),
            remedy="resample the mask onto the image with nearest neighbour",
        )


def write_volume(path: str | Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write a volume (z, y, x) as an image file atomically; masks (bool) are written as uint8.

    The format goes by the suffix; NIfTI (.nii.gz) is the usual one. The same input gives the same bytes.

    Raises
    ------
    OutOfSpaceError
        When the file could not be written to its end.
    """
    values = array.astype(np.uint8) if array.dtype == np.bool_ else np.ascontiguousarray(array)
    image = geometry.apply(values)
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            whole = _is_whole_nifti(temporary, values.nbytes)
        except RuntimeError:
            whole = False
        if not whole:
            raise OutOfSpaceError(
                "the image could not be written whole: the disk is full, or its limit for a file is reached",
                where=path,
                remedy="free some space and run the command again",
            )


def _is_whole_nifti(path: Path, voxel_bytes: int) -> bool:
    """Whether a NIfTI file is as long as it must be: ITK says nothing when it cannot write one to its end."""
    expected = _NIFTI_HEADER_BYTES + voxel_bytes
    if path.name.lower().endswith(".nii"):
        return path.stat().st_size == expected
    if not path.name.lower().endswith(".nii.gz"):
        return True
    with open(path, "rb") as handle:
        handle.seek(-4, 2)
        # gzip ends with the length of its content
        return int.from_bytes(handle.read(4), "little") == expected % 2**32
