"""A folder with DICOM files, as a hospital exports it: its largest axial CT series as one HU volume."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from standard_space.dicom.codec import decode_frames, decoded_frame, write_frame
from standard_space.dicom.files import DEFLATED, DamagedError, opened, quiet
from standard_space.dicom.pixels import frame_bytes, native_values, to_hu
from standard_space.dicom.series import choose_series, tag_window
from standard_space.dicom.stack import Stack, stack
from standard_space.errors import ReadError
from standard_space.geometry import Geometry
from standard_space.lanczos import resample
from standard_space.window import AIR_HU, Window

_LOWEST_HU = -1024.0


@dataclass(frozen=True)
class DicomSummary:
    """What `read_dicom_folder` would return, without the voxels.

    Parameters
    ----------
    geometry : Geometry
        Of the volume, after correction of a gantry tilt.
    window : Window or None
        The tags' window when it shows lung.
    notes : list of str
        What a user should know about the reading.
    size_bytes : int
        Bytes on disk of the files the volume is made of.
    files : tuple of Path
        Those files. Their names may hold identifiers: never write them anywhere.
    """

    geometry: Geometry
    window: Window | None
    notes: list[str]
    size_bytes: int
    files: tuple[Path, ...]


def inspect_dicom_folder(folder: Path) -> DicomSummary:
    """Check a folder by its headers only; no pixel is decoded.

    Raises
    ------
    LungcastError
        As `read_dicom_folder`, except for compressed pixels that turn out damaged when decoded.
    """
    with quiet():
        found, window = _find(folder)
    files = tuple(sorted({s.path for s in found.slices}))
    size = sum(path.stat().st_size for path in files)
    return DicomSummary(found.geometry, window, found.notes, size, files)


def read_dicom_folder(folder: Path) -> tuple[sitk.Image, Window | None, list[str]]:
    """Read the largest axial CT series of a folder and its subfolders.

    Slices are ordered and spaced by the projection of ImagePositionPatient on the slice normal, never by
    SliceThickness, InstanceNumber or SpacingBetweenSlices. A gantry tilt is corrected: each slice is shifted
    in its plane, by Lanczos interpolation, so that the grid is orthogonal and every voxel keeps its place in
    the world.

    Returns
    -------
    image : SimpleITK.Image
        float32 HU, every slice's own rescale slope and intercept applied, padding as air.
    window : Window or None
        First window of the tags, when it shows lung.
    notes : list of str
        Which series was taken, what was left out or corrected; no identifier of the patient.

    Raises
    ------
    ReadError
        When the folder holds no DICOM series, or files of the series are damaged or cannot be decoded.
    DataError
        When there is no CT, CT of several patients, too few slices, or slices are missing, unevenly spaced or
        doubled.
    GeometryError
        When slices do not say where they lie, or lie sideways as no gantry tilt explains.
    """
    with quiet():
        found, window = _find(folder)
        volume = _volume(found, folder)
    return found.geometry.apply(volume), window, found.notes


def _find(folder: Path) -> tuple[Stack, Window | None]:
    slices, notes = choose_series(folder)
    found = stack(slices, folder)
    window, window_notes = tag_window(found.slices)
    found.notes[:0] = notes
    found.notes.extend(window_notes)
    return found, window


def _volume(found: Stack, folder: Path) -> NDArray[np.float32]:
    """HU (z, y, x) of a stack. All slices are tried, so that the error can say how many files are damaged."""
    volume = np.empty(found.geometry.shape, np.float32)
    damaged: dict[Path, str] = {}
    with tempfile.TemporaryDirectory(prefix="lungcast-") as name:
        scratch = Path(name)
        packed = []
        for path, group in groupby(enumerate(found.slices), key=lambda member: member[1].path):
            members = list(group)
            deflated = members[0][1].stored.syntax == DEFLATED
            try:
                with opened(path, deflated=deflated) as handle:
                    for k, one in members:
                        data = frame_bytes(handle, one.stored, one.frame)
                        if one.stored.native:
                            volume[k] = _placed(native_values(data, one.stored), found, k)
                        else:
                            write_frame(scratch, k, data, one.stored)
                            packed.append(k)
            except DamagedError as error:
                damaged[path] = str(error)
        decode_frames(scratch)
        for k in packed:
            one = found.slices[k]
            try:
                volume[k] = _placed(decoded_frame(scratch, k, one.stored), found, k)
            except DamagedError as error:
                damaged[one.path] = str(error)
    if damaged:
        raise ReadError(
            f"{len(damaged)} of {len({s.path for s in found.slices})} files of the series are damaged",
            where=folder,
            got=Counter(damaged.values()).most_common(1)[0][0],
            remedy="export the series again",
        )
    return volume


def _placed(values: NDArray[np.integer[Any]], found: Stack, k: int) -> NDArray[np.float32]:
    """HU of a slice on the volume's grid: shifted in plane when the gantry was tilted."""
    one = found.slices[k]
    hu = to_hu(values, one.slope, one.intercept, one.padding)
    if found.starts is None:
        return hu
    y, x = found.starts[k].tolist()
    # Padding far below air would ring into the tissue beside it.
    np.maximum(hu, np.float32(_LOWEST_HU), out=hu)
    shape = (1, *found.geometry.shape[1:])
    return resample(hu[None], shape, (0.0, y, x), (1.0, 1.0, 1.0), fill=AIR_HU)[0]
