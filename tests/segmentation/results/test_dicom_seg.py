"""DICOM-SEG: read back by highdicom and pydicom, it lies where the NIfTI mask lies, and names nobody."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from segmentation.results.dicom_seg import BLANK, check_series, write_dicom_seg
from standard_space.errors import DataError, UsageError
from standard_space.image import CTImage, read_image
from tests.standard_space.dicom.dicom_files import SUPINE, enhanced, series

FRAME = {"FrameOfReferenceUID": "1.2.9.5"}
ABOUT = {"model_id": "0123456789abcdef"}
OBLIQUE = (0.9848077, 0.1736482, 0.0, -0.1710101, 0.9698463, 0.1736482)


def volume(slices: int = 6) -> np.ndarray:
    return np.random.default_rng(2).integers(-1000, 300, (slices, 12, 10)).astype(np.int16)


def mask_on(image: CTImage) -> np.ndarray:
    """A mask without any symmetry, empty in the first slice."""
    mask = np.random.default_rng(3).random(image.array.shape) > 0.8
    mask[0] = False
    return mask


def places(image: CTImage, mask: np.ndarray) -> np.ndarray:
    """World positions of a mask's voxels, sorted."""
    return ordered(image.geometry.to_world(np.argwhere(mask)[:, ::-1]))


def ordered(points: np.ndarray) -> np.ndarray:
    points = np.round(points, 2)
    return points[np.lexsort(points.T)]


def frame_places(segmentation: Dataset) -> np.ndarray:
    """World positions of a DICOM-SEG's voxels by its functional groups alone, as a viewer finds them."""
    found = []
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    row_mm, column_mm = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    turn = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        first = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(frame):
            found.append(first + column * column_mm * turn[:3] + row * row_mm * turn[3:])
    return ordered(np.array(found))


def write(folder: Path, path: Path) -> tuple[CTImage, np.ndarray]:
    image = read_image(folder)
    mask = mask_on(image)
    write_dicom_seg(path, mask, image, folder, target="infection", about=ABOUT)
    return image, mask


@pytest.mark.interop
@pytest.mark.parametrize(
    "orientation",
    [SUPINE, (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0), (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0), OBLIQUE],
    ids=["supine", "prone", "feet first", "oblique"],
)
def test_a_segmentation_lies_where_the_mask_lies(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    import highdicom as hd

    series(tmp_path / "ct", volume(), orientation=orientation, **FRAME)
    image, mask = write(tmp_path / "ct", tmp_path / "seg.dcm")
    expected = places(image, mask)
    assert np.abs(frame_places(dcmread(tmp_path / "seg.dcm")) - expected).max() < 0.02
    found = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    world = found.map_indices_to_reference(np.argwhere(found.array))
    assert np.abs(ordered(world) - expected).max() < 0.02


@pytest.mark.interop
def test_frames_refer_to_the_slices_they_lie_on(tmp_path: Path) -> None:
    paths = series(tmp_path / "ct", volume(), **FRAME)
    _, mask = write(tmp_path / "ct", tmp_path / "seg.dcm")
    sources = {str(s.SOPInstanceUID): s for s in map(dcmread, paths)}
    found = dcmread(tmp_path / "seg.dcm")
    assert found.NumberOfFrames == mask.any(axis=(1, 2)).sum()
    for groups in found.PerFrameFunctionalGroupsSequence:
        (referred,) = groups.DerivationImageSequence[0].SourceImageSequence
        source = sources[referred.ReferencedSOPInstanceUID]
        assert source.ImagePositionPatient == groups.PlanePositionSequence[0].ImagePositionPatient
    assert (found.StudyInstanceUID, found.FrameOfReferenceUID) == ("1.2.9", "1.2.9.5")
    assert found.SegmentSequence[0].SegmentLabel == "infection"
    assert float(found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness) == 2.5


@pytest.mark.interop
def test_frames_of_a_multi_frame_file_in_any_order(tmp_path: Path) -> None:
    order = np.array([3, 0, 5, 1, 4, 2])
    positions = np.array([[-20.0, -24.0, 10.0 + 2.5 * k] for k in order])
    (tmp_path / "ct").mkdir()
    enhanced(tmp_path / "ct" / "file.dcm", volume(), positions=positions, **FRAME)
    image, mask = write(tmp_path / "ct", tmp_path / "seg.dcm")
    found = dcmread(tmp_path / "seg.dcm")
    assert np.abs(frame_places(found) - places(image, mask)).max() < 0.02
    assert b"DOE" not in (tmp_path / "seg.dcm").read_bytes()


@pytest.mark.interop
def test_no_identifier_but_uids_is_carried(tmp_path: Path) -> None:
    named = {
        "PatientBirthDate": "19710203",
        "PatientSex": "F",
        "AccessionNumber": "ACC-4711",
        "ReferringPhysicianName": "HOUSE^GREGORY",
        "InstitutionName": "Saint Secret",
        "StudyID": "STUDY-7",
        "StudyTime": "112233",
        "PatientComments": "lives next door",
        "DeviceSerialNumber": "SN-99812",
    }
    series(tmp_path / "ct", volume(), **FRAME, **named)
    write(tmp_path / "ct", tmp_path / "seg.dcm")
    content = (tmp_path / "seg.dcm").read_bytes()
    for secret in (*named.values(), "DOE", "SECRET", "20200131", str(tmp_path)):
        if secret != "F":
            assert secret.encode() not in content, secret
    found = dcmread(tmp_path / "seg.dcm")
    assert not any(found.get(name) for name in BLANK)


@pytest.mark.interop
def test_the_same_result_has_the_same_uids_and_an_empty_one_is_written(tmp_path: Path) -> None:
    series(tmp_path / "ct", volume(), **FRAME)
    image = read_image(tmp_path / "ct")
    mask = mask_on(image)
    uids = []
    for number, content in enumerate((mask, mask, ~mask, np.zeros_like(mask))):
        path = tmp_path / f"{number}.dcm"
        write_dicom_seg(path, content, image, tmp_path / "ct", target="lungs", about=ABOUT)
        uids.append(str(dcmread(path).SOPInstanceUID))
    assert uids[0] == uids[1]
    assert len(set(uids)) == 3
    assert not dcmread(tmp_path / "3.dcm").pixel_array.any()


@pytest.mark.interop
def test_what_cannot_carry_a_segmentation_says_why(tmp_path: Path) -> None:
    series(tmp_path / "frameless", volume())
    with pytest.raises(DataError, match="without FrameOfReferenceUID"):
        check_series(tmp_path / "frameless")
    steps = np.arange(6.0)[:, None]
    tilted = np.array([-20.0, -24.0, 10.0]) + steps * [0.0, 1.0, 2.5]
    series(tmp_path / "tilted", volume(), positions=tilted, **FRAME)
    with pytest.raises(DataError, match="gantry tilt"):
        check_series(tmp_path / "tilted")
    series(tmp_path / "twins", volume(), **FRAME, SOPInstanceUID="1.2.9.1.1")
    with pytest.raises(DataError, match="share a UID"):
        check_series(tmp_path / "twins")
    series(tmp_path / "ct", volume(), **FRAME)
    check_series(tmp_path / "ct")
    image = read_image(tmp_path / "ct")
    mask = mask_on(image)
    next((tmp_path / "ct").iterdir()).unlink()
    with pytest.raises(DataError):
        write_dicom_seg(tmp_path / "s.dcm", mask, image, tmp_path / "ct", target="lungs", about=ABOUT)
    assert not (tmp_path / "s.dcm").exists()


def test_it_needs_a_folder_and_highdicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="needs a DICOM folder"):
        check_series(tmp_path / "scan.nii.gz")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UsageError, match=r"pip install 'lungcast\[dicom\]'"):
        check_series(tmp_path)
