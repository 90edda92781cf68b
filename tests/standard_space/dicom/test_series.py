"""Which series of a folder is taken, and what a window tag is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.uid import (
    UID,
)

from standard_space.dicom.series import looks_like_kernel
from standard_space.errors import DataError
from standard_space.geometry import Geometry
from standard_space.image import read_image
from tests.standard_space.dicom.dicom_files import SECONDARY_CAPTURE, base, save, series
from tests.standard_space.dicom.reading import (
    LUNG,
    SHARED,
    noise,
    raw_value,
    read,
    refusal,
)


def test_slices_are_placed_by_position_only_and_found_in_any_folder(tmp_path: Path) -> None:
    volume = noise((12, 24, 20))
    paths = series(tmp_path / "export" / "ST1" / "SE1", volume, **LUNG)
    for path in paths[::2]:
        (tmp_path / "export" / "more").mkdir(exist_ok=True)
        path.rename(tmp_path / "export" / "more" / f"{path.name}.IMA")
    for name in ("readme.txt", "index.xml", ".hidden.dcm", "empty", "picture.jpg"):
        (tmp_path / name).write_bytes(b"x" * (len(name) * 40) if name != "empty" else b"")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "a.dcm").write_bytes(b"junk")
    media = base(volume[0], uid="1.2.9.99")
    media.SOPClassUID = UID("1.2.840.10008.1.3.10")
    save(media, tmp_path / "DICOMDIR")
    array, where, notes = read(tmp_path)
    np.testing.assert_array_equal(array, volume)
    assert where.spacing_mm == pytest.approx((2.0, 2.0, 2.5))
    assert where.origin_mm == pytest.approx((-20, -24, 10))
    assert notes == []
    window = read_image(tmp_path).window
    assert window is not None
    assert (window.level_hu, window.width_hu, window.source) == (-600, 1500, "dicom")


def test_the_largest_axial_ct_is_taken_and_the_note_says_what_was_left_out(tmp_path: Path) -> None:
    volume = noise((12, 24, 20))
    series(tmp_path / "a", volume, ConvolutionKernel="B70f", uid="1.2.9.1", SeriesNumber=3)
    series(tmp_path / "b", noise((6, 24, 20)), uid="1.2.9.2", SeriesNumber=4)
    series(tmp_path / "c", noise((1, 24, 20)), uid="1.2.9.3", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    series(tmp_path / "d", noise((30, 24, 20)), uid="1.2.9.4", orientation=(1, 0, 0, 0, 0, -1))
    series(tmp_path / "e", noise((20, 24, 20)), uid="1.2.9.5", Modality="PT")
    series(
        tmp_path / "f", noise((40, 24, 20)), uid="1.2.9.6", ImageType=["DERIVED", "SECONDARY", "CT_SOM5 MIP"]
    )
    series(tmp_path / "g", noise((50, 24, 20)), uid="1.2.9.8", SOPClassUID=SECONDARY_CAPTURE)
    report = base(noise()[0], uid="1.2.9.70")
    report.Modality, report.SeriesInstanceUID = "SR", "1.2.9.9"
    del report.PixelData, report.Rows
    save(report, tmp_path / "report")
    array, _, notes = read(tmp_path)
    np.testing.assert_array_equal(array, volume)
    (note,) = notes
    assert note.startswith("8 series found; taken: series 3, 12 slices of 2.5 mm, kernel B70f; left out: ")
    for part in (
        "1 series of 6 slices",
        "1 localiser",
        "1 coronal series of 30 slices",
        "1 PT series of 20 images",
        "40 projection or screen images",
        "50 secondary captures",
        "1 structured report",
    ):
        assert part in note


def test_a_tie_goes_to_the_lung_window_then_to_the_thinner(tmp_path: Path) -> None:
    series(
        tmp_path / "a",
        noise(seed=1),
        uid="1.2.9.1",
        spacing=(2, 2, 1.0),
        WindowCenter="40",
        WindowWidth="400",
    )
    series(tmp_path / "b", noise(seed=2), uid="1.2.9.2", spacing=(2, 2, 5.0), **LUNG)
    assert read(tmp_path)[1].spacing_mm[2] == pytest.approx(5.0)
    series(tmp_path / "c", noise(seed=3), uid="1.2.9.3", spacing=(2, 2, 2.0), **LUNG)
    assert read(tmp_path)[1].spacing_mm[2] == pytest.approx(2.0)


def test_without_an_axial_series_another_is_taken_with_a_note(tmp_path: Path) -> None:
    volume = noise()
    series(tmp_path, volume, orientation=(1, 0, 0, 0, 0, -1))
    array, where, notes = read(tmp_path)
    np.testing.assert_array_equal(array, volume)
    assert notes == ["no axial series found: the slices are coronal"]
    assert where.orientation[2] == "P"


def test_ct_of_two_patients_is_refused_and_two_studies_are_noted(tmp_path: Path) -> None:
    series(tmp_path / "a", noise(), uid="1.2.9.1")
    series(tmp_path / "b", noise((6, 24, 20)), uid="1.2.9.2", StudyInstanceUID="1.2.9.77")
    assert any("2 studies" in note for note in read(tmp_path)[2])
    series(tmp_path / "c", noise(), uid="1.2.9.3", PatientID="SECRET-8")
    assert "2 patients" in str(refusal(tmp_path))


@pytest.mark.parametrize(
    ("kernel", "code"),
    [
        *(("B70f", True), ("FC52", True), ("LUNG", True), ("I70f", True), ("YA", True), ("Br40d", True)),
        *(("Smith", False), ("DOE^JANE", False), ("A1234567", False), ("", False), ("19700101", False)),
    ],
)
def test_only_a_kernel_that_looks_like_a_code_is_shown(kernel: str, code: bool) -> None:
    assert looks_like_kernel(kernel) == code


def test_what_is_no_ct_is_refused(tmp_path: Path) -> None:
    series(tmp_path / "mr", noise(), Modality="MR")
    error = refusal(tmp_path / "mr")
    assert isinstance(error, DataError)
    assert "not a CT" in str(error)
    assert "1 MR series of 8 images" in str(error)
    series(tmp_path / "map", noise(), RescaleType="Z_EFF")
    assert "not in HU" in str(refusal(tmp_path / "map"))
    series(tmp_path / "colour", noise(), PhotometricInterpretation="RGB")
    assert "colour" in str(refusal(tmp_path / "colour"))


@pytest.mark.parametrize(
    ("level", "width", "note"),
    [
        (["-600", "40"], ["1500", "400"], ""),
        ("40", "350", "not a lung window"),
        (["40", "-600"], ["350", "1500"], ""),
        (["40", "300"], ["350", "2000"], "not a lung window"),
        ("-600", "0", "cannot be used"),
        (b"abc ", b"1500", "cannot be used"),
        ("-600", "", ""),
    ],
)
def test_windows(tmp_path: Path, level: object, width: object, note: str) -> None:
    for path in series(tmp_path, noise()):
        dataset = dcmread(path)
        if isinstance(level, bytes) and isinstance(width, bytes):
            raw_value(dataset, "WindowCenter", level)
            raw_value(dataset, "WindowWidth", width)
        else:
            dataset.WindowCenter, dataset.WindowWidth = level, width
        dataset.save_as(path)
    notes = read(tmp_path)[2]
    assert len(notes) == bool(note)
    assert note in " ".join(notes)
    window = read_image(tmp_path).window
    assert (window is not None) == (not note and width != "")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the optional real CTs are not beside the checkout")
def test_a_real_series_reads_as_gdcm_reads_it() -> None:
    array, where, _ = read(SHARED)
    reader = sitk.ImageSeriesReader()
    names = list(map(str, SHARED.glob("*.dcm")))
    heights_mm = [float(dcmread(n, stop_before_pixels=True).ImagePositionPatient[2]) for n in names]
    reader.SetFileNames([names[i] for i in np.argsort(heights_mm)])
    image = reader.Execute()
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(image))
    assert where.same_as(Geometry.of(image))
