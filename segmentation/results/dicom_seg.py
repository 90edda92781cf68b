"""A mask as a DICOM Segmentation that opens on the series it was found in (extra `dicom`, highdicom).

It refers to the series by identifiers that no other output carries: the UIDs of study, series, frame of reference
and slices, without which no viewer lays it on them. Beyond these only where the slices lie is taken over: name,
number, birth date and sex of the patient, accession number, physician, dates and times of the study stay blank.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from standard_space.dicom.files import quiet
from standard_space.dicom.headers import Slice
from standard_space.dicom.series import choose_series
from standard_space.dicom.stack import stack
from standard_space.errors import DataError, UsageError
from standard_space.files import atomic_path
from standard_space.image import CTImage
from standard_space.version import lungcast_version

CARRIED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "Rows",
    "Columns",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "NumberOfFrames",
)
"""All that is taken over from a source file."""

BLANK = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_PLACING_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
_PLACING = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_SERIES_NUMBER = 9100


def check_highdicom() -> None:
    """Find out whether highdicom is there.

    Raises
    ------
    UsageError
        It is not.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise UsageError(
            "a DICOM-SEG needs the package highdicom", remedy="pip install 'lungcast[dicom]'"
        ) from None


def check_series(folder: str | Path) -> None:
    """Find out before the work, by headers alone, whether a series can carry a DICOM-SEG.

    Raises
    ------
    UsageError
        highdicom is missing, or it is no folder.
    LungcastError
        As `write_dicom_seg`.
    """
    if not Path(folder).is_dir():
        raise UsageError("a DICOM-SEG needs a DICOM folder as the image", where=folder)
    check_highdicom()
    _source(Path(folder))


def write_dicom_seg(
    path: str | Path,
    mask: NDArray[np.bool_],
    image: CTImage,
    folder: str | Path,
    *,
    target: str,
    about: dict[str, Any],
) -> None:
    """Write a mask as a DICOM-SEG, frame by frame on the slices of its series.

    Parameters
    ----------
    mask : bool (z, y, x)
        On the grid of `image`, as `read_image` read it from `folder`.
    target : str
        "infection" or "lungs".
    about : dict
        ``model_id`` goes into the file, and with the slices and the mask into its UIDs: the same result has the
        same UIDs.

    Raises
    ------
    UsageError
        highdicom is missing.
    DataError
        The slices were shifted for a gantry tilt, have no frame of reference or no UIDs of their own, or are
        only a part of a multi-frame file or spread over several: no file could refer to them pixel by pixel.
    """
    check_highdicom()
    with quiet():
        sources, order = _source(Path(folder))
        if len(order) != mask.shape[0]:
            raise DataError("the folder has changed since it was read", where=folder)
        dataset = _segmentation(mask[order], sources, image, target, about)
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def _source(folder: Path) -> tuple[list[Dataset], list[int]]:
    """What a segmentation may know of the source files, and the mask's slice for each of its frames."""
    with quiet():
        found = stack(choose_series(folder)[0], folder)
        if found.starts is not None:
            raise DataError(
                "a DICOM-SEG cannot lie on slices that were shifted for a gantry tilt",
                where=folder,
                remedy="use the NIfTI mask, whose grid is straight",
            )
        paths = list(dict.fromkeys(one.path for one in found.slices))
        if len(paths) == len(found.slices):
            sources = [_carried(dcmread(path, stop_before_pixels=True), folder) for path in paths]
            if len({source.SOPInstanceUID for source in sources}) != len(sources):
                raise DataError("slices of the series share a UID", where=folder)
            for source in sources:
                # highdicom asks for it; in files it is often not the distance of the slices.
                source.SliceThickness = round(found.geometry.spacing_mm[2], 6)
            return sources, list(range(len(sources)))
        if len(paths) == 1:
            return _multi_frame(found.slices, folder)
        raise DataError("a DICOM-SEG cannot refer to several multi-frame files", where=folder)


def _multi_frame(slices: tuple[Slice, ...], folder: Path) -> tuple[list[Dataset], list[int]]:
    source = _carried(dcmread(slices[0].path, stop_before_pixels=True), folder)
    if int(source.NumberOfFrames) != len(slices):
        raise DataError(
            "a DICOM-SEG cannot lie on a part of a multi-frame file",
            where=folder,
            got=f"{len(slices)} of {source.NumberOfFrames} frames",
        )
    return [source], np.argsort([one.frame for one in slices]).tolist()


def _carried(source: Dataset, folder: Path) -> Dataset:
    """A data set that holds `CARRIED` and where the frames lie, and nothing else."""
    kept = Dataset()
    for name in CARRIED:
        if name in source:
            kept[name] = source[name]
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if not kept.get(name):
            raise DataError(
                f"a DICOM-SEG cannot refer to a series without {name}",
                where=folder,
                remedy="use the NIfTI mask",
            )
    for name in BLANK:
        setattr(kept, name, "")
    if "SharedFunctionalGroupsSequence" in source:
        kept.SharedFunctionalGroupsSequence = [_placing(source.SharedFunctionalGroupsSequence[0])]
        kept.PerFrameFunctionalGroupsSequence = [
            _placing(frame) for frame in source.PerFrameFunctionalGroupsSequence
        ]
    return kept


def _placing(groups: Dataset) -> Dataset:
    kept = Dataset()
    for name in _PLACING_GROUPS:
        if name in groups:
            item = Dataset()
            for wanted in _PLACING:
                if wanted in groups[name][0]:
                    item[wanted] = groups[name][0][wanted]
            setattr(kept, name, [item])
    return kept


def _segmentation(
    mask: NDArray[np.bool_], sources: list[Dataset], image: CTImage, target: str, about: dict[str, Any]
) -> Dataset:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    described = {
        "infection": (codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion),
        "lungs": (codes.SCT.AnatomicalStructure, codes.SCT.Lung),
    }
    category, kind = described[target]
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=target,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=f"lungcast {about['model_id']}",
            version=lungcast_version(),
            family=codes.DCM.ArtificialIntelligence,
        ),
        anatomic_regions=[codes.SCT.Lung],
    )
    x, y, z = (round(mm, 6) for mm in image.geometry.spacing_mm)
    digest = hashlib.sha256(np.packbits(mask).tobytes() + str(about["model_id"]).encode())
    for source in sources:
        digest.update(str(source.SOPInstanceUID).encode())
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=mask.astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=_uid(digest, "series"),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=_uid(digest, "instance"),
        instance_number=1,
        manufacturer="lungcast",
        manufacturer_model_name="lungcast",
        software_versions=lungcast_version(),
        device_serial_number="none",
        content_label=target.upper(),
        content_description="research use only, not for diagnosis",
        series_description=f"lungcast {target}, research use only",
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=(y, x), slice_thickness=z, spacing_between_slices=z
        ),
    )


def _uid(digest: Any, purpose: str) -> str:
    """A UID of the root for UUIDs, by content."""
    own = digest.copy()
    own.update(purpose.encode())
    return f"2.25.{int.from_bytes(own.digest()[:16], 'big')}"
