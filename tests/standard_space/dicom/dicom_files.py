"""Small DICOM series written with pydicom, as scanners and hospital exports write them, good and bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

CT, ENHANCED_CT, SECONDARY_CAPTURE = (UID(f"1.2.840.10008.5.1.4.1.1.{part}") for part in ("2", "2.1", "7"))
SUPINE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def base(stored: np.ndarray, *, uid: str, syntax: UID = ExplicitVRLittleEndian) -> Dataset:
    """A CT image without any place: identifiers that must never come out, and pixels (int16 or uint16)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CT
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, uid
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality = "CT"
    dataset.StudyDate, dataset.StudyInstanceUID = "20200131", "1.2.9"
    dataset.SeriesDescription = "SECRET DESCRIPTION"
    dataset.PatientName, dataset.PatientID = "DOE^JANE", "SECRET-4711"
    dataset.SeriesInstanceUID, dataset.SeriesNumber = "1.2.9.1", 3
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = 8 * stored.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.RescaleIntercept, dataset.RescaleSlope = "0", "1"
    big = syntax == ExplicitVRBigEndian
    dataset.PixelData = (
        np.ascontiguousarray(stored).astype(stored.dtype.newbyteorder("><"[not big])).tobytes()
    )
    dataset["PixelData"].VR = "OW" if stored.dtype.itemsize > 1 else "OB"
    return dataset


def save(dataset: Dataset, path: Path) -> None:
    """Write a file as its transfer syntax asks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    syntax = dataset.file_meta.TransferSyntaxUID
    dataset.save_as(
        path,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )


def place(
    dataset: Dataset,
    position: tuple[float, ...],
    orientation: tuple[float, ...] = SUPINE,
    spacing: tuple[float, float] = (2.0, 2.0),
) -> None:
    """Where a slice lies: first pixel, orientation, and spacing between rows and between columns."""
    dataset.ImagePositionPatient = [f"{v:.6f}"[:16] for v in position]
    dataset.ImageOrientationPatient = [f"{v:.8f}" for v in orientation]
    dataset.PixelSpacing = list(spacing)


def series(
    folder: Path,
    volume: np.ndarray,
    *,
    positions: np.ndarray | None = None,
    orientation: tuple[float, ...] = SUPINE,
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.5),
    uid: str = "1.2.9.1",
    syntax: UID = ExplicitVRLittleEndian,
    first_number: int = 1,
    **tags: Any,
) -> list[Path]:
    """A series of single-frame files, one a slice of `volume` (z, y, x), in shuffled order with lying tags.

    `positions` (z, 3) default to the stack at (-20, -24, 10) along the normal; `spacing` is (x, y, z). A tag that
    is a list of one entry a slice varies with the slice.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    if positions is None:
        steps = np.arange(len(volume)) * spacing[2]
        positions = np.array([-20.0, -24.0, 10.0]) + steps[:, None] * normal
    paths = []
    for k, stored in enumerate(volume):
        dataset = base(stored, uid=f"{uid}.{first_number + k}", syntax=syntax)
        place(dataset, tuple(positions[k]), orientation, (spacing[1], spacing[0]))
        dataset.SeriesInstanceUID = uid
        dataset.SliceThickness, dataset.SpacingBetweenSlices = "99", "77"
        dataset.InstanceNumber = len(volume) - k
        for name, value in tags.items():
            setattr(
                dataset, name, value[k] if isinstance(value, list) and len(value) == len(volume) else value
            )
        path = folder / f"JANE_{(k * 7 + first_number) % 1009:04d}"
        save(dataset, path)
        paths.append(path)
    return paths


def enhanced(
    path: Path,
    volume: np.ndarray,
    *,
    positions: np.ndarray,
    slopes: list[float] | None = None,
    intercepts: list[float] | None = None,
    uid: str = "1.2.9.7",
    window: tuple[float, float] = (-600.0, 1500.0),
    orientation: tuple[float, ...] = SUPINE,
    spacing: tuple[float, float] = (2.0, 2.0),
    **tags: Any,
) -> Dataset:
    """An Enhanced CT file holding all frames of `volume` (z, y, x), frame k at `positions[k]`."""
    dataset = base(volume, uid=uid + ".1")
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = ENHANCED_CT
    dataset.SeriesInstanceUID = uid
    dataset.NumberOfFrames = len(volume)
    del dataset.RescaleIntercept, dataset.RescaleSlope
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(orientation)
    shared.PixelMeasuresSequence = Sequence([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = list(spacing)
    shared.FrameVOILUTSequence = Sequence([Dataset()])
    shared.FrameVOILUTSequence[0].WindowCenter, shared.FrameVOILUTSequence[0].WindowWidth = window
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k in range(len(volume)):
        frame, where, values = Dataset(), Dataset(), Dataset()
        where.ImagePositionPatient = [float(v) for v in positions[k]]
        frame.PlanePositionSequence = Sequence([where])
        values.RescaleSlope = 1.0 if slopes is None else slopes[k]
        values.RescaleIntercept = 0.0 if intercepts is None else intercepts[k]
        values.RescaleType = "HU"
        frame.PixelValueTransformationSequence = Sequence([values])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    for name, value in tags.items():
        setattr(dataset, name, value)
    save(dataset, path)
    return dataset
