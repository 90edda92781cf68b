"""Images and masks from files: formats, world geometry, windows, and every bad input we promised to handle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from standard_space.embedding import embed
from standard_space.errors import DataError, GeometryError, ReadError
from standard_space.geometry import Geometry
from standard_space.grid import StandardGrid
from standard_space.image import read_image, read_mask, write_volume
from tests.standard_space.bodies import body, geometry, rotation


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_formats_keep_hu_and_world(tmp_path: Path, suffix: str) -> None:
    where = geometry(direction=rotation(6.0, 2))
    image, _, _ = body(where)
    path = tmp_path / f"ct{suffix}"
    write_volume(path, np.round(image.array).astype(np.int16), where)
    read = read_image(path)
    assert read.geometry.same_as(where)
    np.testing.assert_array_equal(read.array, np.clip(np.round(image.array), -1024, 3071))
    assert len(read.image_sha256) == 64
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_mask_in_another_axis_order_is_brought_over(tmp_path: Path) -> None:
    where = geometry()
    _, _, infection = body(where)
    flipped = sitk.DICOMOrient(where.apply(infection.astype(np.uint8)), "RAI")
    sitk.WriteImage(flipped, str(tmp_path / "m.nii.gz"))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii.gz", where), infection)


def test_a_mask_on_another_grid_is_refused(tmp_path: Path) -> None:
    where = geometry()
    _, _, infection = body(where)
    moved = Geometry(
        where.size, where.spacing_mm, (where.origin_mm[0] + 3, *where.origin_mm[1:]), where.direction
    )
    write_volume(tmp_path / "moved.nii.gz", infection, moved)
    write_volume(
        tmp_path / "small.nii.gz", infection[1:], Geometry((72, 64, 59), *list(where.__dict__.values())[1:])
    )
    for name in ("moved.nii.gz", "small.nii.gz"):
        with pytest.raises(GeometryError, match="another grid") as caught:
            read_mask(tmp_path / name, where)
        assert name in str(caught.value)


def test_rounding_in_a_header_is_not_another_grid(tmp_path: Path) -> None:
    where = geometry()
    _, _, infection = body(where)
    nudged = Geometry(
        where.size, where.spacing_mm, (where.origin_mm[0] + 1e-3, *where.origin_mm[1:]), where.direction
    )
    write_volume(tmp_path / "m.nii.gz", infection, nudged)
    assert read_mask(tmp_path / "m.nii.gz", where).sum() == infection.sum()


def test_eight_bit_windowed_input(tmp_path: Path) -> None:
    where = geometry()
    image, lungs, _ = body(where)
    grey = np.clip((image.array + 600) / 1600 + 0.5, 0, 1) * 255
    write_volume(tmp_path / "grey.nii.gz", np.round(grey).astype(np.uint8), where)
    read = read_image(tmp_path / "grey.nii.gz")
    assert read.window is not None
    assert read.window.source == "8-bit"
    scan = embed(read, StandardGrid(32), lungs=lungs)
    assert -0.51 < np.median(scan.signal[scan.lungs]) + 0.35 < 0.51
    np.testing.assert_allclose(np.median(scan.signal[scan.lungs]), -250 / 1600, atol=0.01)


def bad_files(folder: Path) -> dict[str, str]:
    where = geometry(size=(20, 20, 20))
    air = np.full(where.shape, -1000.0, np.float32)
    nan = air.copy()
    nan[3, 4, 5] = np.nan
    write_volume(folder / "nan.nii.gz", nan, where)
    write_volume(folder / "raw.nii.gz", np.full(where.shape, 900, np.int16), where)
    (folder / "random.nii.gz").write_bytes(np.random.default_rng(0).bytes(4000))
    (folder / "text.nrrd").write_text("hello")
    (folder / "picture.png").write_bytes(b"x")
    write_volume(folder / "whole.nii", air, where)
    (folder / "cut.nii").write_bytes((folder / "whole.nii").read_bytes()[:5000])
    for suffix in (".nrrd", ".mha", ".nii.gz"):
        write_volume(
            folder / f"whole{suffix}", np.random.default_rng(1).integers(-1000, 9, where.shape), where
        )
        whole = (folder / f"whole{suffix}").read_bytes()
        (folder / f"cut{suffix}").write_bytes(whole[: len(whole) * 2 // 3])
    sitk.WriteImage(sitk.Image(20, 20, sitk.sitkInt16), str(folder / "flat.mha"))
    sitk.WriteImage(sitk.Image([20, 20, 20], sitk.sitkVectorInt16, 3), str(folder / "rgb.mha"))
    (folder / "empty").mkdir()
    (folder / "folder").mkdir()
    (folder / "folder" / "a.dcm").write_bytes(b"junk")
    return {
        "nan.nii.gz": "NaN",
        "raw.nii.gz": "not a chest CT in HU",
        "random.nii.gz": "cannot be read",
        "text.nrrd": "cannot be read",
        "picture.png": "not an image format",
        "cut.nii": "truncated",
        "cut.nii.gz": "truncated",
        "cut.nrrd": "cannot be read",
        "cut.mha": "cannot be read",
        "flat.mha": "not a 3-D",
        "rgb.mha": "not a 3-D",
        "empty": "no DICOM series",
        "folder": "no DICOM series",
        "absent.nii.gz": "no such file",
    }


def test_bad_images_get_one_sentence(tmp_path: Path) -> None:
    for name, message in bad_files(tmp_path).items():
        with pytest.raises((ReadError, DataError, GeometryError), match=message) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def write_dicom(
    folder: Path, *, positions: list[float], window: str = "-600\\1500", modality: str = "CT"
) -> None:
    """A small DICOM series whose SliceThickness and InstanceNumber lie."""
    folder.mkdir(exist_ok=True)
    level, width = window.split("\\")
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, place in enumerate(positions):
        image = sitk.GetImageFromArray(np.full((1, 24, 20), number - 900, np.int16))
        image.SetSpacing((2.0, 2.0, 1.0))
        for key, value in {
            "0008|0060": modality,
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0010|0010": "DOE^JANE",
            "0010|0020": "SECRET-4711",
            "0018|0050": "99",
            "0020|000d": "1.2.3.4",
            "0020|000e": "1.2.3.4.5",
            "0008|0018": f"1.2.3.4.5.{number + 1}",
            "0020|0013": str(len(positions) - number),
            "0020|0032": f"-20\\-24\\{place}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1050": level,
            "0028|1051": width,
            "0028|1052": "0",
            "0028|1053": "1",
        }.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{(number * 7) % 100:03d}.dcm"))
        writer.Execute(image)


def test_dicom_slices_are_placed_by_position_only(tmp_path: Path) -> None:
    write_dicom(tmp_path / "d", positions=[10 + 2.5 * k for k in range(12)])
    image = read_image(tmp_path / "d")
    assert image.geometry.spacing_mm == pytest.approx((2.0, 2.0, 2.5))
    assert image.geometry.origin_mm == pytest.approx((-20, -24, 10))
    np.testing.assert_array_equal(image.array[:, 0, 0], np.arange(12) - 900)
    assert image.window is not None
    assert (image.window.level_hu, image.window.width_hu, image.window.source) == (-600, 1500, "dicom")


def test_a_mediastinal_window_is_not_used(tmp_path: Path) -> None:
    write_dicom(tmp_path / "d", positions=[2.0 * k for k in range(8)], window="40\\350")
    image = read_image(tmp_path / "d")
    assert image.window is None
    assert "not a lung window" in " ".join(image.notes)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0, 2, 4, 6, 10, 12], "missing or unevenly spaced"),
        ([0, 2, 4, 4, 6, 8], "same position"),
        ([0, 2], "too few slices"),
    ],
)
def test_bad_dicom_series(tmp_path: Path, positions: list[float], message: str) -> None:
    write_dicom(tmp_path / "d", positions=positions)
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / "d")


def test_an_mr_series_is_refused(tmp_path: Path) -> None:
    write_dicom(tmp_path / "d", positions=[2.0 * k for k in range(8)], modality="MR")
    with pytest.raises(DataError, match="not a CT"):
        read_image(tmp_path / "d")
