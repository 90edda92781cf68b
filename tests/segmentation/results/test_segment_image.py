from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from segmentation.predict import Predictor
from segmentation.results.native import LEFT_LUNG, RIGHT_LUNG
from segmentation.results.segment_image import image_stem, segment_image
from standard_space.errors import DataError, GeometryError, NoLungsError, UsageError
from standard_space.geometry import Geometry
from standard_space.image import read_image, read_labels, write_volume
from standard_space.window import Window
from tests.segmentation.images import TURNED, constant_model, lively_model, write_air, write_chest


def read(path: Path) -> tuple[np.ndarray, Geometry]:
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), Geometry.of(image)


def test_results_lie_on_the_image_s_own_grid(tmp_path: Path) -> None:
    _, lungs, _ = write_chest(tmp_path / "chest.one.nii.gz", TURNED)
    image = read_image(tmp_path / "chest.one.nii.gz")
    write_volume(tmp_path / "lungs.nii.gz", lungs, image.geometry)
    model, out = constant_model(0.9), tmp_path / "out"
    report = segment_image(
        model,
        tmp_path / "chest.one.nii.gz",
        out,
        lungs=tmp_path / "lungs.nii.gz",
        device="cpu",
        consolidation_hu=-500.0,
    )
    kinds = ("ggo_consolidation", "infection", "lungs", "probability")
    names = [f"chest.one_{kind}.nii.gz" for kind in kinds]
    expected = sorted([*names, "chest.one_overlay.png", "quantification.json"])
    assert sorted(path.name for path in out.iterdir()) == expected
    arrays = {}
    for kind, name in zip(kinds, names, strict=True):
        arrays[kind], where = read(out / name)
        assert where.same_as(image.geometry)
        assert arrays[kind].dtype == (np.float32 if kind == "probability" else np.uint8)
    dense = lungs & (image.array >= -500)
    assert np.array_equal(arrays["infection"], lungs)
    assert np.array_equal(arrays["ggo_consolidation"], np.where(dense, 2, lungs))
    assert np.array_equal(arrays["lungs"] > 0, lungs)
    assert set(np.unique(arrays["lungs"])) == {0, RIGHT_LUNG, LEFT_LUNG}
    assert np.array_equal(arrays["probability"] > np.float32(2 / 3), arrays["infection"])
    assert report == json.loads((out / "quantification.json").read_text())
    assert report["infected_share"] == 1.0
    assert report["lungs_ml"] == pytest.approx(lungs.sum() * image.geometry.voxel_volume_ml)
    assert report["consolidation_ml"] == pytest.approx(dense.sum() * image.geometry.voxel_volume_ml)
    assert (report["model_id"], report["lungs_from"]) == (model.model_id, "user")
    assert report["window"] == {"level_hu": -600.0, "width_hu": 1600.0, "source": "default"}
    assert str(tmp_path) not in (out / "quantification.json").read_text()


def test_left_and_right_are_the_patient_s(tmp_path: Path) -> None:
    write_chest(tmp_path / "chest.nii.gz", TURNED)
    image = read_image(tmp_path / "chest.nii.gz")
    report = segment_image(lively_model(), tmp_path / "chest.nii.gz", tmp_path / "out", device="cpu")
    assert "classical operations" in report["quantification_notes"][0]
    sides, _ = read(tmp_path / "out" / "chest_lungs.nii.gz")
    # In LPS millimetres the patient's left lies at larger x; the middle of the body at x = 12.
    for label, sign in ((LEFT_LUNG, 1), (RIGHT_LUNG, -1)):
        x_mm = image.geometry.to_world(np.argwhere(sides == label)[:, ::-1])[:, 0] - 12.0
        assert len(x_mm) > 1000
        assert (np.sign(x_mm) == sign).mean() > 0.99


@pytest.mark.usefixtures("small_pictures")
def test_what_is_not_wanted_is_not_written(tmp_path: Path) -> None:
    write_chest(tmp_path / "chest.nii.gz")
    predictor = Predictor(constant_model(0.9), device="cpu")
    segment_image(predictor, tmp_path / "chest.nii.gz", tmp_path / "out", probability=False)
    assert not (tmp_path / "out" / "chest_probability.nii.gz").exists()
    with pytest.raises(UsageError, match="needs a DICOM folder"):
        segment_image(predictor, tmp_path / "chest.nii.gz", tmp_path / "o", dicom_seg=True)


@pytest.mark.usefixtures("small_pictures")
def test_lobes_are_scored(tmp_path: Path) -> None:
    where, lungs, _ = write_chest(tmp_path / "chest.nii.gz")
    lobes = np.zeros(where.shape, np.uint8)
    for label, rows in enumerate(np.array_split(np.arange(where.shape[0]), 5), start=1):
        lobes[rows] = label
    lobes[~lungs] = 0
    write_volume(tmp_path / "lobes.nii.gz", lobes, where)
    model, path = constant_model(0.9), tmp_path / "chest.nii.gz"
    report = segment_image(
        model, path, tmp_path / "o", lungs=lungs, lobes=tmp_path / "lobes.nii.gz", device="cpu"
    )
    assert report["severity"]["scores"] == dict.fromkeys("12345", 5)
    assert report["severity"]["total"] == 25
    assert not report["quantification_notes"]
    assert report["lobes"]["3"]["lobe_ml"] == pytest.approx((lobes == 3).sum() * where.voxel_volume_ml)
    lobes[lobes == 5] = 4
    lobes[0:20] = 1
    write_volume(tmp_path / "four.nii.gz", lobes, where)
    report = segment_image(
        model, path, tmp_path / "o", lungs=lungs, lobes=tmp_path / "four.nii.gz", device="cpu"
    )
    assert report["severity"]["total"] is None
    notes = " ".join(report["quantification_notes"])
    assert "4 lobes given, not five" in notes
    assert "of the lobes lie outside the lungs" in notes
    write_volume(tmp_path / "empty.nii.gz", np.zeros_like(lobes), where)
    with pytest.raises(DataError, match="lobes are empty"):
        segment_image(model, path, tmp_path / "o2", lobes=tmp_path / "empty.nii.gz", device="cpu")


def test_a_model_of_the_lungs_writes_lungs(tmp_path: Path) -> None:
    where, lungs, _ = write_chest(tmp_path / "chest.nii.gz")
    model = lively_model(target="lungs")
    report = segment_image(model, tmp_path / "chest.nii.gz", tmp_path / "out", device="cpu", threshold=1.6)
    names = ["chest_lungs.nii.gz", "chest_overlay.png", "chest_probability.nii.gz", "quantification.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    found, at = read(tmp_path / "out" / names[0])
    assert at.same_as(where)
    assert set(np.unique(found)) == {0, 1}
    assert report["lungs_ml"] == pytest.approx(found.sum() * where.voxel_volume_ml)
    assert "infection_ml" not in report
    small = np.zeros_like(lungs)
    small[12:16] = lungs[12:16]
    seen = segment_image(
        constant_model(0.9), tmp_path / "chest.nii.gz", tmp_path / "s", lungs=small, device="cpu"
    )
    assert "no whole lungs of an adult" in seen["quantification_notes"][0]
    with pytest.raises(UsageError, match="finds the lungs"):
        segment_image(model, tmp_path / "chest.nii.gz", tmp_path / "o", lungs=lungs, device="cpu")
    write_air(tmp_path / "air.nii.gz")
    report = segment_image(model, tmp_path / "air.nii.gz", tmp_path / "air", device="cpu")
    assert "no lungs were found: centred on the image" in report["notes"]


def test_an_8_bit_image_says_what_its_hu_are(tmp_path: Path) -> None:
    where, lungs, _ = write_chest(tmp_path / "chest.nii.gz")
    hu = read_image(tmp_path / "chest.nii.gz").array
    grey = np.clip(np.rint((hu + 1350.0) / 1500.0 * 255.0), 0, 255).astype(np.uint8)
    write_volume(tmp_path / "grey.nii.gz", grey, where)
    report = segment_image(
        constant_model(0.9),
        tmp_path / "grey.nii.gz",
        tmp_path / "out",
        lungs=lungs,
        window=Window(-600.0, 1500.0, "caller"),
        device="cpu",
    )
    assert report["mean_lesion_hu"] == pytest.approx(hu[lungs].mean(), abs=5.0)
    assert "8-bit windowed input" in report["notes"][0]


def test_a_tiny_scan_with_its_lungs_is_segmented(tmp_path: Path) -> None:
    hu = np.full((4, 5, 6), 40, np.int16)
    hu[1:3, 1:4, 1:5] = -850
    where = Geometry((6, 5, 4), (40.0, 40.0, 60.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    write_volume(tmp_path / "tiny.nii.gz", hu, where)
    report = segment_image(
        constant_model(0.9), tmp_path / "tiny.nii.gz", tmp_path / "out", lungs=hu < 0, device="cpu"
    )
    assert report["infected_share"] == 1.0
    write_volume(tmp_path / "slices.nii.gz", hu[:3], Geometry((6, 5, 3), *list(vars(where).values())[1:]))
    with pytest.raises(DataError, match="too few voxels"):
        segment_image(constant_model(0.9), tmp_path / "slices.nii.gz", tmp_path / "o", device="cpu")


def test_bad_scans_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = constant_model(0.5)
    where, lungs, _ = write_chest(tmp_path / "chest.nii.gz")
    write_air(tmp_path / "air.nii.gz")
    with pytest.raises(NoLungsError, match="no lungs"):
        segment_image(model, tmp_path / "air.nii.gz", tmp_path / "out", device="cpu")
    write_volume(
        tmp_path / "lungs.nii.gz", lungs[:30], Geometry((72, 64, 30), *list(vars(where).values())[1:])
    )
    for masks in ({"lungs": tmp_path / "lungs.nii.gz"}, {"lobes": tmp_path / "lungs.nii.gz"}):
        with pytest.raises(GeometryError, match="another grid"):
            segment_image(model, tmp_path / "chest.nii.gz", tmp_path / "out", device="cpu", **masks)
    with pytest.raises(DataError, match="lung mask is empty"):
        segment_image(
            model, tmp_path / "chest.nii.gz", tmp_path / "out", lungs=np.zeros_like(lungs), device="cpu"
        )
    with pytest.raises(UsageError, match="threshold"):
        segment_image(model, tmp_path / "chest.nii.gz", tmp_path / "out", threshold=4.0, device="cpu")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_told_before_the_networks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_chest(tmp_path / "chest.nii.gz")
    (tmp_path / "file").write_text("x")

    def never(*_: object, **__: object) -> None:
        pytest.fail("the networks ran")

    monkeypatch.setattr(Predictor, "views", never)
    with pytest.raises(DataError, match="results cannot be written"):
        segment_image(constant_model(0.9), tmp_path / "chest.nii.gz", tmp_path / "file" / "o", device="cpu")


def test_image_stems(tmp_path: Path) -> None:
    (tmp_path / "series.1").mkdir()
    assert image_stem(tmp_path / "series.1") == "series.1"
    assert image_stem("a/scan.NII.gz") == "scan"
    assert image_stem("a/scan.v2.nrrd") == "scan.v2"


def test_lungs_read_back_as_labels(tmp_path: Path) -> None:
    where, _, _ = write_chest(tmp_path / "chest.nii.gz", TURNED)
    segment_image(constant_model(0.9), tmp_path / "chest.nii.gz", tmp_path / "out", device="cpu")
    labels = read_labels(tmp_path / "out" / "chest_lungs.nii.gz", where)
    assert np.array_equal(labels, read(tmp_path / "out" / "chest_lungs.nii.gz")[0])
