"""`lungcast segment` and `lungcast threshold` as a user runs them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from cli.main import main
from standard_space.image import write_volume
from tests.segmentation.images import lively_model, write_air, write_chest, write_chest_series
from tests.standard_space.dicom.dicom_files import series


def lungcast(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def works(*arguments: str | Path) -> str:
    result = lungcast(*arguments)
    assert result.exit_code == 0, f"{arguments}\n{result.output}\n{result.exception!r}"
    return result.output


def fails(code: int, words: str, *arguments: str | Path) -> str:
    result = lungcast(*arguments)
    assert result.exit_code == code, f"{arguments}\n{result.output}\n{result.exception!r}"
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert words in result.output, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, an image, and a folder of scans one of which is air."""
    folder = tmp_path_factory.mktemp("place")
    torch.set_num_threads(1)
    lively_model().save(folder / "model")
    lively_model(target="lungs").save(folder / "lungs_model")
    where, lungs, _ = write_chest(folder / "chest.nii.gz")
    write_volume(folder / "lungs.nii.gz", lungs, where)
    shutil.copytree(
        folder, folder / "scans", ignore=lambda _, names: [n for n in names if n != "chest.nii.gz"]
    )
    write_air(folder / "scans" / "air.nii.gz")
    write_chest_series(folder / "scans" / "dicom")
    return folder


def test_one_scan_and_another_threshold(place: Path, tmp_path: Path) -> None:
    out, cut, anew = (tmp_path / name for name in ("out", "cut", "anew"))
    image = place / "chest.nii.gz"
    output = works("segment", place / "model", image, out, "--threshold", "1.5")
    assert "ml lung" in output
    assert f"{out / 'chest_infection.nii.gz'}" in output
    before = (out / "chest_infection.nii.gz").stat().st_mtime_ns
    assert "segmented before" in works("segment", place / "model", image, out, "--threshold", "1.5")
    assert (out / "chest_infection.nii.gz").stat().st_mtime_ns == before
    fails(2, "another segmentation", "segment", place / "model", image, out, "--threshold", "1.45")
    works("segment", place / "model", image, anew, "--threshold", "1.45")
    works("threshold", out, image, cut, "--threshold", "1.45")
    fails(2, "not empty", "threshold", out, image, cut, "--threshold", "1.4")
    for path in anew.iterdir():
        if path.name != "lungcast.json":
            assert path.read_bytes() == (cut / path.name).read_bytes(), path.name
    for folder in (out, cut):
        assert "segmentation folder" in works("info", folder)
        for path in folder.iterdir():
            assert str(tmp_path).encode() not in path.read_bytes()


def test_a_folder_of_scans_with_a_bad_one(place: Path, tmp_path: Path) -> None:
    words = ("segment", place / "model", place / "scans", tmp_path / "out")
    output = fails(1, "no lungs were found", *words)
    for part in ("infected, ml", "2 of 3 scans segmented;", "1 failed; the rest was completed"):
        assert part in output
    output = fails(1, "no lungs were found", *words)
    assert "2 of 3 scans segmented, 2 of them by an earlier run" in output
    assert "an earlier run" not in fails(1, "no lungs", *words, "--force")
    works("segment", place / "lungs_model", place / "scans", tmp_path / "lungs")
    assert (tmp_path / "lungs" / "air" / "air_lungs.nii.gz").is_file()
    fails(2, "many scans", "threshold", tmp_path / "out", place / "chest.nii.gz", tmp_path / "t")


def test_wrong_use_is_told_before_anything_is_written(place: Path, tmp_path: Path) -> None:
    model, image, scans, out = place / "model", place / "chest.nii.gz", place / "scans", tmp_path / "out"
    fails(2, "no such image", "segment", model, tmp_path / "absent", out)
    fails(2, "holds no scan", "segment", model, model, out)
    fails(2, "--lungs does not fit", "segment", model, scans, out, "--lungs", place / "lungs.nii.gz")
    fails(2, "--lobes does not fit", "segment", model, image, out, "--lobes", scans)
    fails(
        2, "finds the lungs", "segment", place / "lungs_model", image, out, "--lungs", place / "lungs.nii.gz"
    )
    fails(2, "out of range", "segment", model, image, out, "--threshold", "3.5")
    fails(2, "needs a DICOM folder", "segment", model, image, out, "--dicom-seg")
    fails(2, "output folder lies in what is read", "segment", model, scans, scans / "out")
    fails(2, "output folder holds what is read", "segment", model, image, place)
    fails(2, "cannot be written to", "segment", model, image, image / "out")
    fails(2, "not a result", "threshold", model, image, out)
    fails(2, "no such image", "threshold", model, tmp_path / "absent", out)
    assert not out.exists()
    out.mkdir()
    (out / "thesis.txt").write_text("x")
    fails(2, "not empty", "segment", model, image, out)
    fails(2, "only empties folders that lungcast made", "segment", model, image, out, "--force")
    fails(2, "only empties folders that lungcast made", "segment", model, scans, out, "--force")
    assert (out / "thesis.txt").exists()


@pytest.mark.interop
def test_a_dicom_seg_beside_the_rest(place: Path, tmp_path: Path) -> None:
    import highdicom as hd

    from standard_space.image import read_image as read
    from standard_space.image import read_mask

    ct = place / "scans" / "dicom"
    words = ("--dicom-seg", "--threshold", "1.5")
    output = works("segment", place / "model", ct, tmp_path / "out", *words)
    assert "dicom_seg" in output
    mask = read_mask(tmp_path / "out" / "dicom_infection.nii.gz", read(ct).geometry)
    found = hd.seg.segread(tmp_path / "out" / "dicom_infection.dcm").get_volume(combine_segments=True)
    assert int((found.array > 0).sum()) == int(mask.sum()) > 0
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert b"SECRET" not in content
        assert b"DOE" not in content
        if path.suffix != ".dcm":
            assert b"1.2.9" not in content
    works("threshold", tmp_path / "out", ct, tmp_path / "cut", *words)
    stored = hd.seg.segread(tmp_path / "cut" / "dicom_infection.dcm")
    assert np.array_equal(
        stored.pixel_array, hd.seg.segread(tmp_path / "out" / "dicom_infection.dcm").pixel_array
    )
    series(tmp_path / "frameless", np.random.default_rng(0).integers(-1000, 0, (6, 9, 9)).astype(np.int16))
    fails(
        1, "FrameOfReferenceUID", "segment", place / "model", tmp_path / "frameless", tmp_path / "o", *words
    )
    assert not (tmp_path / "o").exists()
