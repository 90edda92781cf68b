"""DICOM folders as hospitals export them: what is taken, where it lies, what it holds, and what is refused."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import compress
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    RLELossless,
)

from standard_space import dicom_codec
from standard_space.dicom import inspect_dicom_folder, read_dicom_folder
from standard_space.dicom_files import DamagedError
from standard_space.dicom_headers import slices_of
from standard_space.dicom_pixels import Storage, frame_bytes
from standard_space.dicom_series import looks_like_kernel
from standard_space.errors import DataError, GeometryError, LungcastError, ReadError
from standard_space.geometry import Geometry
from standard_space.image import read_image
from tests.standard_space.dicom_files import SECONDARY_CAPTURE, base, enhanced, place, save, series

SHARED = Path(__file__).parents[3] / "shared" / "data" / "dicom_lung_pet_ct_dx_a0002"
SECRETS = ("JANE", "SECRET", "4711", "1.2.9", "20200131", "DOE")
LUNG = {"WindowCenter": "-600", "WindowWidth": "1500"}


def noise(shape: tuple[int, int, int] = (8, 24, 20), seed: int = 0) -> np.ndarray:
    """Signed stored values, HU when the intercept is 0."""
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def read(folder: Path) -> tuple[np.ndarray, Geometry, list[str]]:
    """Voxels, geometry and notes; the check by headers alone must say the same, and nothing may be told."""
    image, window, notes = read_dicom_folder(folder)
    summary = inspect_dicom_folder(folder)
    assert summary.geometry == Geometry.of(image)
    assert (summary.window, summary.notes) == (window, notes)
    assert summary.size_bytes == sum(path.stat().st_size for path in summary.files)
    assert image.GetPixelID() == sitk.sitkFloat32
    assert not any(secret in " ".join(notes) for secret in SECRETS)
    return sitk.GetArrayFromImage(image), Geometry.of(image), notes


def refusal(folder: Path, *, headers_tell: bool = True) -> LungcastError:
    """The one sentence a folder is refused with."""
    with pytest.raises(LungcastError) as caught:
        read_dicom_folder(folder)
    if headers_tell:
        with pytest.raises(type(caught.value)) as checked:
            inspect_dicom_folder(folder)
        assert str(checked.value) == str(caught.value)
    text = str(caught.value).replace(str(folder), "")
    assert "\n" not in text
    assert not any(secret in text for secret in SECRETS)
    return caught.value


# What is taken


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


# Where it lies


@pytest.mark.parametrize(
    ("orientation", "code"),
    [
        ((1, 0, 0, 0, 1, 0), "LPS"),  # head first, supine
        ((-1, 0, 0, 0, 1, 0), "RPI"),  # feet first, supine
        ((-1, 0, 0, 0, -1, 0), "RAS"),  # head first, prone
        ((0, 1, 0, -1, 0, 0), "PRS"),  # decubitus
    ],
)
def test_every_patient_position_keeps_the_world(
    tmp_path: Path, orientation: tuple[float, ...], code: str
) -> None:
    volume = np.full((10, 24, 20), -1000, np.int16)
    volume[7, 5, 15] = 500
    series(tmp_path, volume, orientation=orientation, spacing=(1.5, 2.0, 2.5))
    array, where, _ = read(tmp_path)
    assert where.orientation == code
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    expected = np.array([-20, -24, 10]) + row * 15 * 1.5 + column * 5 * 2.0 + np.cross(row, column) * 7 * 2.5
    (k, j, i) = np.argwhere(array > 0)[0]
    np.testing.assert_allclose(where.to_world(np.array([i, j, k])), expected, atol=1e-6)


def ball(where: np.ndarray, centre: np.ndarray, radius_mm: float) -> np.ndarray:
    """A smooth ball of 40 HU in air, at world positions (..., 3)."""
    distance = np.linalg.norm(where - centre, axis=-1)
    return -1000 + 1040 / (1 + np.exp((distance - radius_mm) / 0.7))


@pytest.mark.parametrize("degrees", [20.0, -20.0, 7.3])
def test_a_gantry_tilt_is_corrected_in_the_world(tmp_path: Path, degrees: float) -> None:
    angle = np.deg2rad(degrees)
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))
    shape, pixel, table = (40, 64, 56), 1.5, 2.0
    positions = np.array([[-40.0, -50.0, 100.0 + table * k] for k in range(shape[0])])
    j, i = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    in_plane = i[..., None] * pixel * np.array(orientation[:3])
    in_plane = in_plane + j[..., None] * pixel * np.array(orientation[3:])
    world = positions[:, None, None, :] + in_plane
    centre = np.array([3.3, -4.1, 141.7])
    series(
        tmp_path,
        np.round(ball(world, centre, 14.0)).astype(np.int16),
        positions=positions,
        orientation=orientation,
        spacing=(pixel, pixel, 0.0),
    )
    array, where, notes = read(tmp_path)
    assert notes == [
        f"gantry tilt of {abs(degrees):.1f} degrees corrected: slices shifted in plane, the rest padded with air"
    ]
    turn = np.array(where.direction).reshape(3, 3)
    np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-9)
    assert where.spacing_mm[2] == pytest.approx(table * np.cos(angle))
    k, j3, i3 = np.meshgrid(*(np.arange(n, dtype=float) for n in where.shape), indexing="ij")
    grid = where.to_world(np.stack([i3, j3, k], axis=-1))
    weight = np.clip(array + 1000.0, 0, None) * (np.linalg.norm(grid - centre, axis=-1) < 25)
    found = (grid * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum()
    np.testing.assert_allclose(found, centre, atol=0.1)
    # Sharp as well as in place: a linear shift blurs this edge by some hundred HU.
    expected = ball(grid, centre, 14.0)
    assert np.abs(array - expected).max() < 60
    # Nothing is cut: every voxel of every slice lies on the grid.
    corners = where.to_index(world.reshape(-1, 3))
    assert (corners >= -1e-4).all()
    assert (corners <= np.array(where.size) - 1 + 1e-4).all()


def test_a_shear_no_gantry_makes_is_refused(tmp_path: Path) -> None:
    bent = np.array([[-20.0, -24 + 30 * np.sin(k / 3), 10 + 2.0 * k] for k in range(12)])
    series(tmp_path / "bent", noise((12, 24, 20)), positions=bent)
    assert isinstance(refusal(tmp_path / "bent"), GeometryError)
    steep = np.array([[-20.0, -24 + 5.0 * k, 10 + 2.0 * k] for k in range(12)])
    series(tmp_path / "steep", noise((12, 24, 20)), positions=steep)
    assert "68.2 degrees" in str(refusal(tmp_path / "steep"))


@pytest.mark.parametrize(
    ("heights", "parts"),
    [
        ([0, 2, 4, 6, 10, 12, 18, 20], ["3 slices are missing", "between 6.0 and 10.0", "12.0 and 18.0 mm"]),
        ([0, 2, 4, 6, 7, 9, 11], ["unevenly spaced", "1.00 to 2.00 mm"]),
        ([0, 1, 2, 3, 5, 7, 9, 11, 13], ["unevenly spaced"]),
        (
            [k * 0.97 if k < 100 else 97 + (k - 100) * 1.05 for k in range(200)],
            ["unevenly spaced", "even grid"],
        ),
        ([0, 2], ["too few slices"]),
    ],
)
def test_uneven_series_are_refused(tmp_path: Path, heights: list[float], parts: list[str]) -> None:
    positions = np.array([[-20.0, -24.0, h] for h in heights])
    series(tmp_path, noise((len(heights), 4, 4)), positions=positions)
    error = refusal(tmp_path)
    assert isinstance(error, DataError)
    assert all(part in str(error) for part in parts)


def test_rounded_positions_are_accepted(tmp_path: Path) -> None:
    positions = np.array([[-20.0, -24.0, round(0.625 * k, 1)] for k in range(41)])
    series(tmp_path, noise((41, 4, 4)), positions=positions)
    assert read(tmp_path)[1].spacing_mm[2] == pytest.approx(0.625)


# Duplicates


def test_exact_copies_are_dropped_with_a_note(tmp_path: Path) -> None:
    volume = noise()
    series(tmp_path / "a", volume)
    series(tmp_path / "b", volume[2:5], positions=np.array([[-20, -24, 10 + 2.5 * k] for k in range(2, 5)]))
    array, _, notes = read(tmp_path)
    np.testing.assert_array_equal(array, volume)
    assert notes == ["3 slices that repeat another exactly were left out"]


def test_acquisitions_at_the_same_positions_are_told_apart(tmp_path: Path) -> None:
    volume = noise(seed=1)
    series(tmp_path / "a", volume, AcquisitionNumber=2)
    series(tmp_path / "b", noise(seed=2)[1:], AcquisitionNumber=3, positions=heights(1, 8), first_number=53)
    array, _, notes = read(tmp_path)
    np.testing.assert_array_equal(array, volume)
    assert notes == ["the series holds 2 acquisitions at the same positions; taken: one of 8 slices"]


def heights(start: int, stop: int) -> np.ndarray:
    return np.array([[-20.0, -24.0, 10 + 2.5 * k] for k in range(start, stop)])


def test_different_slices_at_one_position_are_refused(tmp_path: Path) -> None:
    series(tmp_path / "a", noise(seed=1))
    series(tmp_path / "a", noise(seed=2), first_number=53)
    assert "8 of 8 positions" in str(refusal(tmp_path / "a"))
    # Acquisitions that overlap in part are two parts of one chest: neither alone will do.
    series(tmp_path / "b", noise(seed=1), AcquisitionNumber=1)
    series(tmp_path / "b", noise(seed=2), AcquisitionNumber=2, positions=heights(6, 14), first_number=53)
    assert "2 of 14 positions" in str(refusal(tmp_path / "b"))


# What it holds


def test_rescale_is_every_slices_own_and_exact(tmp_path: Path) -> None:
    stored = np.random.default_rng(4).integers(0, 4096, (8, 24, 20)).astype(np.uint16)
    slopes = [1.0, 0.5, 1.25, 0.703125, 2.0, 1.0, 0.1, 1.0]
    intercepts = [-1024, -1000, -1024.5, -1024, -2048, -1024, -8192, 0]
    series(
        tmp_path,
        stored,
        RescaleSlope=[str(v) for v in slopes],
        RescaleIntercept=[str(v) for v in intercepts],
        BitsStored=12,
        HighBit=11,
    )
    array, _, _ = read(tmp_path)
    exact = stored * np.array(slopes)[:, None, None] + np.array(intercepts)[:, None, None]
    np.testing.assert_array_equal(array, exact.astype(np.float32))


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
@pytest.mark.parametrize("kind", ["i2", "u2", "u1", "i4"])
def test_uncompressed_syntaxes(tmp_path: Path, syntax: UID, kind: str) -> None:
    volume = (noise().astype(np.int64) + (0 if kind[0] == "i" else 1000)).astype(kind)
    series(tmp_path, volume, syntax=syntax)
    np.testing.assert_array_equal(read(tmp_path)[0], volume)


def test_signed_twelve_bits_with_an_overlay_above_them(tmp_path: Path) -> None:
    volume = noise()
    dirty = ((volume & 0xFFF) | 0x5000).astype(np.uint16).view(np.int16)
    series(tmp_path, dirty, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read(tmp_path)[0], volume)


def test_padding_becomes_air(tmp_path: Path) -> None:
    volume = np.full((8, 24, 20), 30, np.int16)
    volume[:, :3] = -2000
    series(tmp_path / "a", volume, PixelPaddingValue=-2000)
    array = read(tmp_path / "a")[0]
    assert (array[:, :3] == -1000).all()
    assert (array[:, 3:] == 30).all()
    # A padding value that tissue holds as well: only what reaches the border is padding.
    volume[:, :3] = 0
    volume[:, 10, 10] = 0
    series(tmp_path / "b", volume, PixelPaddingValue=0)
    array = read(tmp_path / "b")[0]
    assert (array[:, :3] == -1000).all()
    assert (array[:, 10, 10] == 0).all()


def compressed(source: Path, target: Path, syntax: str) -> None:
    """The file compressed by pydicom (RLE) or by SimpleITK's GDCM."""
    if syntax == "RLE":
        dataset = dcmread(source)
        compress(dataset, RLELossless)
        dataset.save_as(target)
        return
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    writer.SetCompressor(syntax)
    writer.SetFileName(str(target))
    writer.Execute(sitk.ReadImage(str(source), imageIO="GDCMImageIO"))


@pytest.mark.parametrize(
    ("compressor", "uid"),
    [
        ("RLE", "1.2.840.10008.1.2.5"),
        ("JPEG", "1.2.840.10008.1.2.4.70"),
        ("JPEG2000", "1.2.840.10008.1.2.4.90"),
    ],
)
@pytest.mark.parametrize("signed", [True, False])
def test_compressed_syntaxes(tmp_path: Path, compressor: str, uid: str, signed: bool) -> None:
    stored = noise() if signed else (noise() + 1000).astype(np.uint16)
    (tmp_path / "out").mkdir()
    for path in series(tmp_path / "in", stored):
        target = tmp_path / "out" / f"{path.name}.dcm"
        compressed(path, target, compressor)
        if not signed:
            dataset = dcmread(target)
            dataset.RescaleIntercept = "-1000"
            dataset.save_as(target)
    written = dcmread(next((tmp_path / "out").iterdir()), stop_before_pixels=True)
    assert written.file_meta.TransferSyntaxUID == uid
    np.testing.assert_array_equal(read(tmp_path / "out")[0], noise())


def test_a_syntax_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    for path in series(tmp_path, noise()):
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
        dataset.PixelData = encapsulate([dataset.PixelData])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        dataset.save_as(path)
    assert "High-Throughput JPEG 2000" in str(refusal(tmp_path))


@pytest.mark.parametrize("compressor", ["RLE", "JPEG", "JPEG2000"])
def test_damaged_compressed_slices_are_counted(
    tmp_path: Path, compressor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    for number, path in enumerate(series(tmp_path / "in", noise())):
        target = tmp_path / "out" / f"{path.name}.dcm"
        compressed(path, target, compressor)
        if number in (2, 5):
            dataset = dcmread(target)
            data = bytearray(dataset.PixelData)
            data[16 : 16 + 64] = b"\x7f" * 64
            dataset.PixelData = bytes(data)
            dataset.save_as(target)
    assert "2 of 8 files" in str(refusal(tmp_path / "out", headers_tell=False))
    assert capfd.readouterr() == ("", "")


# Multi-frame


def test_an_enhanced_ct_is_read_frame_by_frame(tmp_path: Path) -> None:
    volume = noise((9, 24, 20))
    order = np.random.default_rng(1).permutation(9)
    slopes = [1.0 + 0.25 * k for k in range(9)]
    intercepts = [-100.0 - k for k in range(9)]
    positions = heights(0, 9)
    enhanced(
        tmp_path / "big",
        volume[order],
        positions=positions[order],
        slopes=[slopes[k] for k in order],
        intercepts=[intercepts[k] for k in order],
    )
    enhanced(tmp_path / "small", noise((5, 24, 20), 3), positions=heights(0, 5), uid="1.2.9.8")
    array, where, notes = read(tmp_path)
    exact = volume * np.array(slopes)[:, None, None] + np.array(intercepts)[:, None, None]
    np.testing.assert_array_equal(array, exact.astype(np.float32))
    assert where.spacing_mm == pytest.approx((2.0, 2.0, 2.5))
    assert where.origin_mm == pytest.approx((-20, -24, 10))
    assert notes == ["2 series found; taken: series 3, 9 slices of 2.5 mm; left out: 1 series of 5 slices"]
    window = read_image(tmp_path).window
    assert window is not None
    assert window.level_hu == -600


def test_a_compressed_enhanced_ct(tmp_path: Path) -> None:
    volume = noise((6, 24, 20))
    enhanced(tmp_path / "raw", volume, positions=heights(0, 6))
    (tmp_path / "out").mkdir()
    compressed(tmp_path / "raw", tmp_path / "out" / "rle", "RLE")
    np.testing.assert_array_equal(read(tmp_path / "out")[0], volume)


def test_a_concatenation_is_put_together_and_refused_in_part(tmp_path: Path) -> None:
    volume = noise((10, 24, 20))
    for part, (start, stop) in enumerate([(0, 4), (4, 10)]):
        enhanced(
            tmp_path / f"part{part}",
            volume[start:stop],
            positions=heights(start, stop),
            ConcatenationUID="1.2.9.55",
            InConcatenationTotalNumber=2,
            InConcatenationNumber=part + 1,
        )
    np.testing.assert_array_equal(read(tmp_path)[0], volume)
    (tmp_path / "part0").unlink()
    assert "concatenation are missing" in str(refusal(tmp_path))


def test_a_multi_frame_file_that_does_not_say_where_its_frames_lie_is_refused(tmp_path: Path) -> None:
    dataset = enhanced(tmp_path / "a", noise((6, 24, 20)), positions=heights(0, 6))
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:4]
    save(dataset, tmp_path / "a")
    assert "where its frames lie" in str(refusal(tmp_path))
    dataset.NumberOfFrames = 2_000_000_000
    save(dataset, tmp_path / "a")
    refusal(tmp_path)


# Windows


@pytest.mark.parametrize(
    ("level", "width", "note"),
    [
        (["-600", "40"], ["1500", "400"], ""),
        ("40", "350", "not a lung window"),
        (["40", "-600"], ["350", "1500"], "not a lung window"),
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


# Bad input


def raw_value(dataset: Dataset, name: str, value: bytes) -> None:
    """Put bytes where a value belongs, past pydicom's checks."""
    tag = Tag(name)
    dataset.pop(tag, None)
    dataset[tag] = RawDataElement(tag, dictionary_VR(tag)[:2], len(value), value, 0, False, True)


def change(folder: Path, numbers: list[int], **tags: object) -> None:
    """Set header values of some slices of a series; None removes."""
    paths = sorted(folder.iterdir())
    for number in numbers:
        dataset = dcmread(paths[number])
        for name, value in tags.items():
            if value is None:
                delattr(dataset, name)
            elif isinstance(value, bytes):
                raw_value(dataset, name, value)
            else:
                setattr(dataset, name, value)
        dataset.save_as(paths[number])


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "ImageOrientationPatient"),
        ({"ImagePositionPatient": b"1\\2\\NaN "}, "ImagePositionPatient is not"),
        ({"ImagePositionPatient": b"1\\2 "}, "ImagePositionPatient is not"),
        ({"ImageOrientationPatient": b"NaN\\0\\0\\0\\1\\0 "}, "perpendicular"),
        ({"ImageOrientationPatient": b"0\\0\\0\\0\\0\\0"}, "perpendicular"),
        ({"ImageOrientationPatient": b"1\\0\\0\\1\\0\\0"}, "perpendicular"),
        ({"PixelSpacing": None}, "PixelSpacing"),
        ({"PixelSpacing": [0, 0]}, "PixelSpacing"),
        ({"PixelSpacing": b"2\\x "}, "PixelSpacing"),
        ({"Rows": 0}, "0 rows"),
        ({"Rows": None}, "no rows"),
        ({"Rows": 65535, "Columns": 65535}, "65535 rows"),
        ({"Rows": 4000, "Columns": 4000}, "fewer pixels"),
        ({"BitsAllocated": 12}, "12 bits"),
        ({"BitsStored": 17}, "bits stored"),
        ({"RescaleSlope": "0"}, "slope"),
        ({"RescaleIntercept": b"abc "}, "intercept"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1"),
        ({"PixelData": None}, "no pixels"),
    ],
)
def test_bad_headers_get_one_sentence(tmp_path: Path, tags: dict[str, object], message: str) -> None:
    series(tmp_path, noise())
    change(tmp_path, [3, 5], **tags)
    error = refusal(tmp_path)
    assert "2 of 8 files of the series" in str(error)
    assert message in str(error)
    change(tmp_path, [0, 1, 2, 4, 6, 7], **tags)
    error = refusal(tmp_path)
    assert "8 of 8 files of the series" in str(error)
    assert message in str(error)


def test_truncated_and_foreign_files_are_counted_not_dropped(tmp_path: Path) -> None:
    series(tmp_path, noise())
    first, second = sorted(tmp_path.iterdir())[:2]
    whole = first.read_bytes()
    first.write_bytes(whole[:-100])
    assert "1 of 8 files" in str(refusal(tmp_path))
    assert "cut short" in str(refusal(tmp_path))
    first.write_bytes(whole[:300])
    assert "1 of the files beside" in str(refusal(tmp_path))
    first.unlink()
    second.with_suffix(".dcm").write_bytes(np.random.default_rng(0).bytes(5000))
    second.unlink()
    assert "1 of the files beside" in str(refusal(tmp_path))


def test_damage_elsewhere_is_a_note(tmp_path: Path) -> None:
    series(tmp_path / "a", noise())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.dcm").write_bytes(b"junk")
    assert "1 damaged file elsewhere" in read(tmp_path)[2][0]
    with pytest.raises(ReadError, match="no DICOM series"):
        read_dicom_folder(tmp_path / "b")


def test_a_damaged_series_does_not_give_way_to_a_smaller_one(tmp_path: Path) -> None:
    series(tmp_path / "a", noise((12, 24, 20)))
    change(tmp_path / "a", list(range(12)), Rows=4000, Columns=4000)
    series(tmp_path / "b", noise((6, 24, 20)), uid="1.2.9.2")
    assert "12 of 12 files" in str(refusal(tmp_path))


def test_a_false_length_in_a_header_allocates_nothing(tmp_path: Path) -> None:
    series(tmp_path, noise())
    path = sorted(tmp_path.iterdir())[0]
    data = bytearray(path.read_bytes())
    place_of = data.index(b"\x28\x00\x30\x00DS")
    data[place_of + 4 : place_of + 12] = b"OB\0\0\xf0\xff\xff\xff"
    path.write_bytes(bytes(data))
    assert "damaged" in str(refusal(tmp_path))


def test_a_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path, noise(), syntax=DeflatedExplicitVRLittleEndian)
    monkeypatch.setattr("standard_space.dicom_files.MAX_INFLATED_BYTES", 500)
    assert "far too large" in str(refusal(tmp_path))


def test_files_without_a_preamble_are_read(tmp_path: Path) -> None:
    volume = noise()
    for path in series(tmp_path, volume, syntax=ImplicitVRLittleEndian):
        dataset = dcmread(path)
        dataset.file_meta, dataset.preamble = FileMetaDataset(), None
        dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(read(tmp_path)[0], volume)


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


# Fuzz


def tiny() -> Dataset:
    dataset = base(noise((1, 6, 5))[0], uid="1.2.9.1.1")
    place(dataset, (-5.0, -5.0, 10.0))
    return dataset


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good slices of a six-slice series; the sixth, at the end, is what the fuzz damages."""
    folder = tmp_path_factory.mktemp("fuzz")
    series(folder, noise((6, 6, 5)))
    return folder


def survives(folder: Path) -> None:
    """Read and check: both answer, or both refuse in one sentence (pixels aside)."""
    with contextlib.suppress(LungcastError):
        image, _, _ = read_dicom_folder(folder)
        assert np.isfinite(sitk.GetArrayViewFromImage(image)).all()
    with contextlib.suppress(LungcastError):
        inspect_dicom_folder(folder)


FUZZ = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZ
@given(
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
)
def test_fuzzed_bytes_never_crash(good: Path, cut: float, flips: list[tuple[float, int]]) -> None:
    path = sorted(good.iterdir())[0]
    whole = path.read_bytes()
    data = bytearray(whole[: 132 + round(cut * (len(whole) - 132))])
    for where, value in flips:
        data[132 + int(where * (len(data) - 132)) if len(data) > 132 else 0] = value
    path.write_bytes(bytes(data))
    try:
        survives(good)
    finally:
        path.write_bytes(whole)


ABSURD = st.sampled_from(
    [
        b"",
        b"NaN ",
        b"inf ",
        b"-1e308\\1e308\\1 ",
        b"abc ",
        b"0 ",
        b"1\\2\\3 ",
        b"\xff\xff",
        b"\x00\x00",
        b"\xff" * 8,
    ]
)
NAMES = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "SamplesPerPixel"),
    *("WindowCenter", "WindowWidth", "NumberOfFrames", "PixelPaddingValue", "SeriesInstanceUID", "ImageType"),
    *("Modality", "SOPClassUID", "PhotometricInterpretation", "PerFrameFunctionalGroupsSequence"),
)


@FUZZ
@given(
    values=st.dictionaries(st.sampled_from(NAMES), ABSURD, min_size=1, max_size=4), everywhere=st.booleans()
)
def test_absurd_header_values_never_crash(good: Path, values: dict[str, bytes], everywhere: bool) -> None:
    paths = sorted(good.iterdir())[: None if everywhere else 1]
    whole = [path.read_bytes() for path in paths]
    try:
        for path in paths:
            dataset = dcmread(path)
            for name, value in values.items():
                raw_value(dataset, name, value)
            dataset.save_as(path)
        survives(good)
    finally:
        for path, content in zip(paths, whole, strict=True):
            path.write_bytes(content)


def test_damaged_codestreams_never_crash(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(1)
    for compressor in ("RLE", "JPEG", "JPEG2000"):
        folder = tmp_path / compressor
        folder.mkdir()
        for path in series(tmp_path / "raw", noise((60, 12, 10))):
            compressed(path, folder / path.name, compressor)
            data = bytearray((folder / path.name).read_bytes())
            start = data.index(b"\xe0\x7f\x10\x00") + 40
            for _ in range(4):
                data[int(generator.integers(start, len(data) - 16))] = int(generator.integers(256))
            (folder / path.name).write_bytes(bytes(data))
        survives(folder)
    assert capfd.readouterr() == ("", "")


def test_a_decoder_that_dies_costs_one_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    paths = series(tmp_path / "in", noise())
    for path in paths:
        compressed(path, tmp_path / "out" / path.name, "RLE")
    worker = Path(dicom_codec.__file__).with_name("gdcm_worker.py").read_text()
    dying = worker.replace(
        "        try:\n", "        os.abort() if source.stem == '3' else None\n        try:\n"
    )
    (tmp_path / "worker.py").write_text(dying.replace("import sys\n", "import os\nimport sys\n"))
    monkeypatch.setattr(dicom_codec, "_WORKER", tmp_path / "worker.py")
    error = str(refusal(tmp_path / "out", headers_tell=False))
    assert "1 of 8 files" in error
    assert "RLE Lossless pixel data cannot be decoded" in error


@FUZZ
@given(
    compressor=st.sampled_from(["RLE", "JPEG", "JPEG2000"]),
    flips=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 400),
)
def test_fuzzed_codestreams_are_checked_before_they_are_decoded(
    streams: dict[str, tuple[bytes, Storage]], compressor: str, flips: list[tuple[int, int]], cut: int
) -> None:
    whole, storage = streams[compressor]
    data = bytearray(whole[:cut] if cut < 200 else whole)
    for where, value in flips:
        if where < len(data):
            data[where] = value
    with contextlib.suppress(DamagedError):
        dicom_codec.check_codestream(bytes(data), storage)


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, Storage]]:
    """A codestream of every kind, with what its header says."""
    folder = tmp_path_factory.mktemp("streams")
    (source,) = series(folder, noise((1, 24, 20)))
    found = {}
    for compressor in ("RLE", "JPEG", "JPEG2000"):
        compressed(source, folder / compressor, compressor)
        (one,) = slices_of(folder / compressor)
        with open(folder / compressor, "rb") as handle:
            found[compressor] = (frame_bytes(handle, one.stored, 0), one.stored)
    return found


def test_a_codestream_of_another_size_is_refused(streams: dict[str, tuple[bytes, Storage]]) -> None:
    for data, storage in streams.values():
        dicom_codec.check_codestream(data, storage)
        for other in (replace(storage, rows=storage.rows + 1), replace(storage, columns=4000)):
            if storage.syntax != RLELossless:
                with pytest.raises(DamagedError, match="another size"):
                    dicom_codec.check_codestream(data, other)
                with pytest.raises(DamagedError, match="cut short"):
                    dicom_codec.check_codestream(data[:-20], storage)
        with pytest.raises(DamagedError):
            dicom_codec.check_codestream(data[:5], storage)
    # More than 16 bits a value crash GDCM's JPEG decoder.
    data, storage = streams["JPEG"]
    assert data[2:4] == b"\xff\xc3"
    with pytest.raises(DamagedError):
        dicom_codec.check_codestream(data[:6] + b"\x7f" + data[7:], storage)
