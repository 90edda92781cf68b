"""A folder with a DICOM series: the largest CT series, slices ordered and spaced by ImagePositionPatient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from standard_space.errors import DataError, GeometryError, ReadError
from standard_space.window import Window

_POSITION, _ORIENTATION = "0020|0032", "0020|0037"
_LEVEL, _WIDTH, _MODALITY = "0028|1050", "0028|1051", "0008|0060"
SPACING_TOLERANCE_MM = 0.1
LUNG_LEVEL_MAX_HU, LUNG_WIDTH_MIN_HU = -300.0, 1000.0


def read_dicom_folder(folder: Path) -> tuple[sitk.Image, Window | None, list[str]]:
    """Read the largest CT series of a folder.

    Slices are ordered by the projection of ImagePositionPatient on the slice normal, and the slice spacing is
    taken from those positions: never from SliceThickness or InstanceNumber.

    Returns
    -------
    image : SimpleITK.Image
        HU, rescale slope and intercept applied.
    window : Window or None
        First window of the first slice's tags.
    notes : list of str
        Which series was taken when there are several.

    Raises
    ------
    ReadError
        When the folder holds no readable DICOM series.
    DataError
        When slices are missing or unevenly spaced, or the series is not a CT.
    GeometryError
        When slices differ in orientation or are sheared (gantry tilt).
    """
    warn = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return _read(folder)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        raise ReadError(f"the DICOM series cannot be read ({reason})", where=folder) from None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warn)


def _read(folder: Path) -> tuple[sitk.Image, Window | None, list[str]]:
    series = {
        uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
        for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    }
    if not series:
        raise ReadError("the folder holds no DICOM series", where=folder)
    names = max(series.values(), key=len)
    notes = (
        [f"{len(series)} series found; the largest, {len(names)} slices, is taken"] if len(series) > 1 else []
    )
    positions, orientations, window = [], [], None
    for name in names:
        header = sitk.ImageFileReader()
        header.SetFileName(name)
        header.LoadPrivateTagsOff()
        header.ReadImageInformation()
        if header.HasMetaDataKey(_MODALITY) and header.GetMetaData(_MODALITY).strip() != "CT":
            raise DataError(
                "the largest series is not a CT", where=folder, got=header.GetMetaData(_MODALITY).strip()
            )
        if not (header.HasMetaDataKey(_POSITION) and header.HasMetaDataKey(_ORIENTATION)):
            raise GeometryError("a slice carries no ImagePositionPatient or orientation", where=folder)
        positions.append(_numbers(header.GetMetaData(_POSITION)))
        orientations.append(_numbers(header.GetMetaData(_ORIENTATION)))
        if window is None and header.HasMetaDataKey(_LEVEL) and header.HasMetaDataKey(_WIDTH):
            level, width = _numbers(header.GetMetaData(_LEVEL))[0], _numbers(header.GetMetaData(_WIDTH))[0]
            window, note = _lung_window(level, width)
            notes += note
    if len(names) < 4:
        raise DataError(
            "the largest series has too few slices to be a chest CT", where=folder, got=len(names)
        )
    if np.abs(np.asarray(orientations) - orientations[0]).max() > 1e-3:
        raise GeometryError("the slices of the series differ in orientation", where=folder)
    row, column = np.asarray(orientations[0][:3]), np.asarray(orientations[0][3:])
    normal = np.cross(row, column)
    place = np.asarray(positions) @ normal
    order = np.argsort(place, kind="stable")
    gaps = np.diff(place[order])
    spacing_mm = float(np.median(gaps))
    if gaps.min() < SPACING_TOLERANCE_MM:
        raise DataError(
            "two slices lie at the same position", where=folder, remedy="remove duplicated slices"
        )
    if np.abs(gaps - spacing_mm).max() > max(SPACING_TOLERANCE_MM, 0.02 * spacing_mm):
        raise DataError(
            "slices are missing or unevenly spaced",
            where=folder,
            got=f"gaps of {gaps.min():.2f} to {gaps.max():.2f} mm",
            remedy="export the whole series again",
        )
    travel = np.asarray(positions)[order[-1]] - np.asarray(positions)[order[0]]
    if np.linalg.norm(travel - normal * (travel @ normal)) > 1.0:
        raise GeometryError(
            "the slices are sheared (gantry tilt)", where=folder, remedy="resample the series to an even grid"
        )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([names[i] for i in order])
    image = reader.Execute()
    spacing = image.GetSpacing()
    image.SetSpacing((spacing[0], spacing[1], float(gaps.mean())))
    image.SetOrigin(tuple(float(v) for v in positions[order[0]]))
    image.SetDirection(np.stack([row, column, normal], axis=1).ravel().tolist())
    return image, window, notes


def _lung_window(level: float, width: float) -> tuple[Window | None, list[str]]:
    """The tags' window when it shows lung; a mediastinal or bone window would put parenchyma far off scale.

    The recovery limit (-0.15) and the threshold (0) of the dynamics mean something only when aerated lung and
    soft tissue both lie inside the window.
    """
    if width >= LUNG_WIDTH_MIN_HU and level <= LUNG_LEVEL_MAX_HU:
        return Window(level, width, "dicom"), []
    return None, [f"the DICOM tags hold {level:g}/{width:g} HU, not a lung window: not used"]


def _numbers(text: str) -> list[float]:
    """Numbers of a multi-valued DICOM string."""
    return [float(part) for part in text.strip().split("\\") if part.strip()]
