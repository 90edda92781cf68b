from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmentation.predict import Predictor
from segmentation.results.rethreshold import read_result, rethreshold
from segmentation.results.segment_image import segment_image
from standard_space.errors import DataError, GeometryError, UsageError
from standard_space.files import write_mark
from standard_space.image import read_image, write_volume
from standard_space.window import Window
from tests.segmentation.images import TURNED, constant_model, lively_model, write_chest


def result_of(path: Path, out: Path, **options: Any) -> Path:
    """A result as the command leaves it."""
    model = options.pop("model", None) or lively_model()
    segment_image(model, path, out, device="cpu", **options)
    write_mark(out, "segmentation", {"operation": "segment", "complete": True})
    return out


def same_files(one: Path, other: Path) -> None:
    names = {path.name for path in one.iterdir()} | {path.name for path in other.iterdir()}
    names.discard("lungcast.json")
    assert len(names) >= 4
    for name in sorted(names):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "chest.nii.gz"
    write_chest(path, TURNED)
    return path


@pytest.fixture(scope="module")
def result(chest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result_of(chest, tmp_path_factory.mktemp("result") / "out", threshold=1.5)


@pytest.mark.parametrize("threshold", [0.0, 1.45])
def test_it_is_what_segmenting_with_that_threshold_writes(
    chest: Path, result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    options = {"threshold": threshold, "consolidation_hu": -450.0}
    report = segment_image(lively_model(), chest, tmp_path / "anew", device="cpu", **options)
    monkeypatch.setattr(Predictor, "__init__", lambda *_, **__: pytest.fail("a network was made"))
    assert rethreshold(read_result(result, chest), tmp_path / "cut", **options) == report
    same_files(tmp_path / "anew", tmp_path / "cut")
    assert report["infection_ml"] != json.loads((result / "quantification.json").read_text())["infection_ml"]


@pytest.mark.usefixtures("small_pictures")
def test_lobes_are_scored_again_and_must_be_given(chest: Path, tmp_path: Path) -> None:
    image = read_image(chest)
    lobes = np.ones(image.array.shape, np.uint8)
    lobes[:, :, 30:] = 2
    write_volume(tmp_path / "lobes.nii.gz", lobes, image.geometry)
    out = result_of(chest, tmp_path / "out", threshold=1.5, lobes=tmp_path / "lobes.nii.gz")
    with pytest.raises(UsageError, match="scores lobes"):
        read_result(out, chest)
    stored = read_result(out, chest, lobes=tmp_path / "lobes.nii.gz")
    rethreshold(stored, tmp_path / "cut", threshold=1.45)
    options = {"threshold": 1.45, "lobes": tmp_path / "lobes.nii.gz"}
    segment_image(lively_model(), chest, tmp_path / "anew", device="cpu", **options)
    same_files(tmp_path / "anew", tmp_path / "cut")


def test_a_result_of_lungs(chest: Path, tmp_path: Path) -> None:
    model = lively_model(target="lungs")
    out = result_of(chest, tmp_path / "out", model=model, threshold=1.5)
    rethreshold(read_result(out, chest), tmp_path / "cut", threshold=1.6)
    segment_image(model, chest, tmp_path / "anew", device="cpu", threshold=1.6)
    same_files(tmp_path / "anew", tmp_path / "cut")
    with pytest.raises(UsageError, match="has no lobes"):
        read_result(out, chest, lobes=chest)


@pytest.mark.usefixtures("small_pictures")
def test_an_8_bit_image_keeps_the_window_it_was_read_with(chest: Path, tmp_path: Path) -> None:
    image = read_image(chest)
    grey = np.clip(np.rint((image.array + 1350.0) / 1500.0 * 255.0), 0, 255).astype(np.uint8)
    write_volume(tmp_path / "grey.nii.gz", grey, image.geometry)
    window = Window(-600.0, 1500.0, "caller")
    out = result_of(tmp_path / "grey.nii.gz", tmp_path / "out", threshold=1.5, window=window)
    rethreshold(read_result(out, tmp_path / "grey.nii.gz"), tmp_path / "cut", threshold=1.5)
    same_files(out, tmp_path / "cut")


def test_what_is_no_result_or_not_its_image_is_refused(chest: Path, result: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a result"):
        read_result(tmp_path, chest)
    write_chest(tmp_path / "other.nii.gz", noise_hu=30.0)
    with pytest.raises(DataError, match="not the image"):
        read_result(result, tmp_path / "other.nii.gz")
    with pytest.raises(UsageError, match="needs a DICOM folder"):
        read_result(result, chest, dicom_seg=True)
    with pytest.raises(UsageError, match="threshold"):
        rethreshold(read_result(result, chest), tmp_path / "o", threshold=3.5)
    assert not (tmp_path / "o").exists()
    copy = tmp_path / "copy"

    def fresh() -> Path:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(result, copy)
        return copy

    write_mark(fresh(), "segmentation", {"operation": "segment a folder", "complete": True})
    with pytest.raises(UsageError, match="many scans"):
        read_result(copy, chest)
    write_mark(fresh(), "segmentation", {"operation": "segment", "complete": False})
    with pytest.raises(UsageError, match="not whole"):
        read_result(copy, chest)
    (fresh() / "chest_probability.nii.gz").unlink()
    with pytest.raises(UsageError, match="--no-probability"):
        read_result(copy, chest)
    (fresh() / "quantification.json").write_text("[]")
    with pytest.raises(DataError, match="damaged"):
        read_result(copy, chest)
    shutil.copy(chest, fresh() / "chest_probability.nii.gz")
    with pytest.raises(DataError, match="no probability"):
        read_result(copy, chest)
    moved, _, _ = write_chest(fresh() / "moved.nii.gz")
    write_volume(copy / "chest_lungs.nii.gz", np.ones(moved.shape, np.uint8), moved)
    with pytest.raises(GeometryError, match="another grid"):
        read_result(copy, chest)


@pytest.mark.usefixtures("small_pictures")
def test_a_threshold_on_the_scale_of_another_rule(chest: Path, tmp_path: Path) -> None:
    model = constant_model(0.7)
    model.aggregation = type(model.aggregation)("majority", 0.5)
    out = result_of(chest, tmp_path / "out", model=model)
    stored = read_result(out, chest)
    assert rethreshold(stored, tmp_path / "a", threshold=0.69)["infected_share"] == 1.0
    assert rethreshold(stored, tmp_path / "b", threshold=0.71)["infected_share"] == 0.0
    with pytest.raises(UsageError, match="threshold"):
        rethreshold(stored, tmp_path / "c", threshold=1.5)
