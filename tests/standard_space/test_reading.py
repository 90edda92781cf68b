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
