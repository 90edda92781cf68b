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


@pytest.mark.parametrize(("level", "width", "said"), [(-600.0, 1600.0, False), (-500.0, 1000.0, True)])
def test_eight_bit_windowed_input(tmp_path: Path, level: float, width: float, said: bool) -> None:
    """0..255 is -0.5..0.5 in signal, whatever the window was; black is not clipped away."""
    where = geometry()
    image, lungs, _ = body(where)
    grey = np.round(np.clip((image.array - level) / width + 0.5, 0, 1) * 255)
    write_volume(tmp_path / "grey.nii.gz", grey.astype(np.uint8), where)
    read = read_image(tmp_path / "grey.nii.gz", level_width_hu=(level, width) if said else None)
    assert read.window is not None
    assert (read.window.level_hu, read.window.width_hu, read.window.source) == (level, width, "8-bit")
    scan = embed(read, StandardGrid(32), lungs=lungs)
    np.testing.assert_allclose(np.median(scan.signal[scan.lungs]), (-850 - level) / width, atol=0.01)
    np.testing.assert_allclose(read.window.to_signal(read.array), grey / 255 - 0.5, atol=1e-5)
    assert any("8-bit" in note for note in read.notes)
    assert any("the default" in note for note in read.notes) == (not said)


@pytest.mark.parametrize("kind", ["mask", "labels", "0 to 1", "constant"])
def test_what_only_looks_like_8_bits_is_refused(tmp_path: Path, kind: str) -> None:
    where = geometry()
    image, lungs, infection = body(where)
    array = {
        "mask": lungs.astype(np.uint8),
        "labels": (lungs * 100 + infection * 55).astype(np.uint8),
        "0 to 1": ((image.array + 1000) / 1100).clip(0, 1).astype(np.float32),
        "constant": np.full(where.shape, 200, np.uint8),
    }[kind]
    write_volume(tmp_path / "a.nii.gz", array, where)
    with pytest.raises(DataError, match="neither in HU nor an 8-bit picture"):
        read_image(tmp_path / "a.nii.gz")


def test_masks_of_several_labels_and_probabilities(tmp_path: Path) -> None:
    """Lungs may come as 1 right and 2 left; which of several labels is infection only the user knows."""
    where = geometry()
    _, lungs, infection = body(where)
    write_volume(tmp_path / "labels.nii.gz", (lungs + 2 * infection).astype(np.uint8), where)
    assert read_mask(tmp_path / "labels.nii.gz", where).sum() == lungs.sum()
    with pytest.raises(DataError, match="several labels"):
        read_mask(tmp_path / "labels.nii.gz", where, single_label=True)
    write_volume(tmp_path / "soft.nii.gz", (lungs * 0.4).astype(np.float32), where)
    with pytest.raises(DataError, match="a probability, not a mask"):
        read_mask(tmp_path / "soft.nii.gz", where)
    write_volume(tmp_path / "255.nii.gz", (infection * 255).astype(np.uint8), where)
    assert read_mask(tmp_path / "255.nii.gz", where, single_label=True).sum() == infection.sum()


NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 8 8 8\nencoding: raw\nendian: little\n"
MHA = "ObjectType = Image\nNDims = 3\nDimSize = 8 8 8\nElementType = MET_SHORT\n"
LOCAL = "ElementDataFile = LOCAL\n"
SPACED = "ElementSpacing = 1 1 1\n"
BAD_HEADERS = {
    "spacing.nrrd": (NRRD + "\n", "no voxel spacing"),
    "spacing.mha": (MHA + "TransformMatrix = 1 0 0 0 1 0 0 0 1\n" + LOCAL, "no voxel spacing"),
    "space.nrrd": (NRRD + "spacings: 1 1 2\n\n", "nothing of its orientation"),
    "space2.nrrd": (
        NRRD + "space dimension: 3\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n\n",
        "nothing of its orientation",
    ),
    "matrix.mha": (MHA + SPACED + LOCAL, "nothing of its orientation"),
    "sheared.nrrd": (
        NRRD + "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0.3,1)\n\n",
        "not perpendicular",
    ),
    "sheared.mha": (
        MHA + SPACED + "TransformMatrix = 1 0 0 0 1 0 0 0.3 1\n" + LOCAL,
        "not perpendicular|cannot be",
    ),
    "elsewhere.nrrd": (NRRD + "data file: other.raw\n\n", "in another file"),
    "elsewhere.mha": (MHA + SPACED + "ElementDataFile = other.raw\n", "in another file"),
    "short.mha": (
        MHA.replace("8 8 8", "8 8 80") + SPACED + "TransformMatrix = 1 0 0 0 1 0 0 0 1\n" + LOCAL,
        "truncated",
    ),
    "detached.mhd": (MHA, "not an image format"),
    "detached.nhdr": (NRRD, "not an image format"),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_text_headers_that_itk_would_take(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    text, message = BAD_HEADERS[name]
    (tmp_path / name).write_bytes(text.encode() + np.full(512, -900, "<i2").tobytes())
    with pytest.raises((GeometryError, ReadError), match=message):
        read_image(tmp_path / name)
    assert capfd.readouterr().err == ""


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
