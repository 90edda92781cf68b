from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segmentation.model import ThreeWaySegmenter
from segmentation.native import to_native
from segmentation.predict import Prediction, Predictor, predict_scan
from segmentation.segment_image import image_stem, segment_image
from segmentation.views import VIEWS, as_planes, stacks
from standard_space.errors import DataError, NoLungsError, UsageError
from standard_space.geometry import Geometry
from standard_space.image import read_image, write_volume
from standard_space.restore import restore_mask
from standard_space.scan import Scan
from standard_space.window import Window

from .toys import toy_scan


def constant_model(**probability: float) -> ThreeWaySegmenter:
    """A model whose views each answer one probability everywhere."""
    model = ThreeWaySegmenter.untrained(32, width=2)
    with torch.no_grad():
        for view, value in probability.items():
            model.networks[view].head.weight.zero_()
            model.networks[view].head.bias.fill_(float(np.log(value / (1 - value))))
    return model


def twin(model: ThreeWaySegmenter, scan: Scan) -> np.ndarray:
    """Sum of the three networks, unfused, over whole slices, one at a time."""
    total = torch.zeros(scan.grid.shape)
    volume = torch.from_numpy(scan.signal)
    for view in VIEWS:
        network = model.networks[view].eval()
        for k in range(scan.grid.size):
            with torch.no_grad():
                logits = network(stacks(volume, view, [k], scan.grid.spacing_mm, scan.air_signal))
            as_planes(total, view)[k] += torch.sigmoid(logits[0, 0])
    return total.numpy()


def lively(size: int = 32) -> ThreeWaySegmenter:
    """A random model whose probabilities vary from voxel to voxel."""
    model = ThreeWaySegmenter.untrained(size, width=2, seed=4)
    with torch.no_grad():
        for network in model.networks.values():
            for block in [*network.down, *network.merge]:
                block.conv1.weight.mul_(3.0)
                block.conv2.weight.mul_(3.0)
    return model


@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-6), ("bfloat16", 2e-3)])
def test_each_view_uses_its_own_network(precision: str, within: float) -> None:
    model = constant_model(xy=0.9, yz=0.6, xz=0.2)
    predictor, scan = Predictor(model, device="cpu", precision=precision), toy_scan()
    for view, expected in (("xy", 0.9), ("yz", 0.6), ("xz", 0.2)):
        found = predictor.view_probabilities(scan, view).numpy()[scan.lungs]
        np.testing.assert_allclose(found, expected, atol=within)


def test_swapping_two_networks_changes_the_result() -> None:
    model, scan = lively(), toy_scan()
    swapped = ThreeWaySegmenter(
        {"xy": model.networks["yz"], "yz": model.networks["xy"], "xz": model.networks["xz"]}, 32
    )
    a, b = predict_scan(model, scan, device="cpu"), predict_scan(swapped, scan, device="cpu")
    assert float(np.abs(a.probability - b.probability).max()) > 0.01


@pytest.mark.parametrize("batch", [1, 5, None])
def test_prediction_equals_three_networks_over_whole_slices(batch: int | None) -> None:
    model, scan = lively(), toy_scan(seed=1)
    total = twin(model, scan)
    found = predict_scan(model, scan, device="cpu", batch=batch, threshold=1.5, precision="float32")
    np.testing.assert_allclose(found.probability, total / 3 * scan.lungs, atol=1e-5)
    clear = np.abs(total - 1.5) > 1e-4
    assert np.array_equal(found.mask[clear], ((total > 1.5) & scan.lungs)[clear])
    assert 0 < found.mask.sum() < scan.lungs.sum()


def test_a_crop_leaves_probabilities_inside_the_lungs_unchanged() -> None:
    # Small lungs in a corner of a larger grid, so that the crop is truly smaller than the slice.
    scan = toy_scan(size=128, seed=2)
    lungs = np.zeros_like(scan.lungs)
    lungs[5:9, 3:9, 4:10] = True
    scan = replace(scan, lungs=lungs)
    model = lively(128)
    found = predict_scan(model, scan, device="cpu", precision="float32")
    volume = torch.from_numpy(scan.signal)
    total = np.zeros(scan.grid.shape, np.float32)
    for view in VIEWS:
        planes = as_planes(torch.from_numpy(total), view)
        for k in range(3, 10):
            with torch.no_grad():
                stack = stacks(volume, view, [k], scan.grid.spacing_mm, scan.air_signal)
                planes[k] += torch.sigmoid(model.networks[view].eval()(stack)[0, 0])
    assert float(np.abs(found.probability - total / 3)[lungs].max()) < 0.01


def test_more_than_two_of_three_in_sum_and_only_in_the_lungs() -> None:
    scan = toy_scan()
    above = predict_scan(constant_model(xy=0.9, yz=0.9, xz=0.21), scan, device="cpu")
    below = predict_scan(constant_model(xy=0.9, yz=0.9, xz=0.19), scan, device="cpu")
    assert np.array_equal(above.mask, scan.lungs)
    assert not below.mask.any()
    assert np.array_equal(above.probability > 0, scan.lungs)
    assert float(above.probability[scan.lungs].max()) == pytest.approx(2.01 / 3, abs=1e-3)
    freer = predict_scan(constant_model(xy=0.9, yz=0.9, xz=0.19), scan, device="cpu", threshold=1.9)
    assert np.array_equal(freer.mask, scan.lungs)


def test_a_prediction_does_not_depend_on_the_scan_s_window() -> None:
    model, scan = lively(), toy_scan(seed=1)
    other = Window(-500.0, 1500.0, "dicom")
    retaken = replace(scan, window=other, signal=other.to_signal(scan.window.to_hu(scan.signal)))
    expected = predict_scan(model, scan, device="cpu").probability
    np.testing.assert_allclose(predict_scan(model, retaken, device="cpu").probability, expected, atol=1e-3)
    model.input_window = None
    assert float(np.abs(predict_scan(model, retaken, device="cpu").probability - expected).max()) > 0.01


def test_the_model_s_own_threshold_counts() -> None:
    model = constant_model(xy=0.9, yz=0.9, xz=0.19)
    model.aggregation = model.aggregation.at(1.9)
    assert predict_scan(model, toy_scan(), device="cpu").mask.any()


def test_lungs_are_not_eroded_on_the_way_back() -> None:
    scan = toy_scan()
    prediction = predict_scan(constant_model(xy=0.9, yz=0.9, xz=0.9), scan, device="cpu")
    native = to_native(prediction, scan)
    lungs = restore_mask(scan.lungs, scan.placement)
    assert np.array_equal(native.lungs, lungs)
    assert np.array_equal(native.mask, lungs)
    masked_first = replace(prediction, unmasked=prediction.probability)
    assert to_native(masked_first, scan).mask.sum() < native.mask.sum()
    own = np.zeros_like(lungs)
    own[4:6] = lungs[4:6]
    assert np.array_equal(to_native(prediction, scan, lungs=own).mask, own)


def test_native_mask_follows_the_threshold_of_the_prediction() -> None:
    scan = toy_scan()
    unmasked = np.full(scan.grid.shape, 0.5, np.float32)
    for threshold, expected in ((1.4, True), (1.6, False)):
        prediction = Prediction(unmasked * scan.lungs, scan.lungs, unmasked, Aggregation(threshold=threshold))
        assert to_native(prediction, scan).mask.any() == expected


def test_what_cannot_be_predicted_is_refused() -> None:
    model = ThreeWaySegmenter.untrained(32, width=2)
    with pytest.raises(DataError, match=r"scan grid 16.*model grid 32"):
        predict_scan(model, toy_scan(size=16))
    with pytest.raises(UsageError, match="threshold"):
        predict_scan(model, toy_scan(), threshold=4.0)
    with pytest.raises(UsageError, match="at least one slice"):
        predict_scan(model, toy_scan(), batch=0)
    with pytest.raises(UsageError, match="unknown precision"):
        predict_scan(model, toy_scan(), precision="half")
    with pytest.raises(UsageError, match="unknown device"):
        predict_scan(model, toy_scan(), device="abacus")


def test_a_scan_without_lungs_has_no_infection() -> None:
    scan = replace(toy_scan(), lungs=np.zeros((32, 32, 32), np.bool_))
    found = predict_scan(constant_model(xy=0.9, yz=0.9, xz=0.9), scan, device="cpu")
    assert not found.mask.any()
    assert not found.probability.any()


def write_toy_image(folder: Path) -> tuple[Path, np.ndarray]:
    """The toy as a user's file, tilted and with axes of its own; returns its path and lungs."""
    scan = toy_scan(size=48, seed=6)
    z, y, x = scan.grid.spacing_mm
    hu = scan.window.to_hu(scan.signal)
    tilted = (-1, 0, 0, 0, 0.995, 0.0998, 0, 0.0998, -0.995)
    geometry = Geometry((48, 48, 48), (x, y, z), (12.0, -7.0, 3.0), tilted)
    path = folder / "chest.one.nii.gz"
    write_volume(path, hu, geometry)
    return path, scan.lungs


def test_segment_image_writes_results_on_the_image_s_own_grid(tmp_path: Path) -> None:
    path, lungs = write_toy_image(tmp_path)
    model = constant_model(xy=0.9, yz=0.9, xz=0.9)
    write_volume(tmp_path / "lungs.nii.gz", lungs, read_image(path).geometry)
    mask_path = tmp_path / "lungs.nii.gz"
    report = segment_image(
        model, path, tmp_path / "out", lungs=mask_path, device="cpu", consolidation_hu=-500.0
    )
    image = read_image(path)
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["chest.one_infection.nii.gz", "chest.one_probability.nii.gz", "quantification.json"]
    import SimpleITK as sitk

    mask = sitk.ReadImage(str(tmp_path / "out" / names[0]))
    probability = sitk.ReadImage(str(tmp_path / "out" / names[1]))
    assert Geometry.of(mask).same_as(image.geometry)
    assert Geometry.of(probability).same_as(image.geometry)
    assert mask.GetPixelID() == sitk.sitkUInt8
    assert probability.GetPixelID() == sitk.sitkFloat32
    assert np.array_equal(sitk.GetArrayFromImage(mask) > 0, lungs)
    assert float(sitk.GetArrayFromImage(probability)[lungs].mean()) == pytest.approx(0.9, abs=0.01)
    assert report == json.loads((tmp_path / "out" / "quantification.json").read_text())
    assert report["infected_share"] == 1.0
    assert report["lungs_ml"] == pytest.approx(lungs.sum() * image.geometry.voxel_volume_ml)
    assert report["model_id"] == model.model_id
    assert report["window"] == {"level_hu": -600.0, "width_hu": 1600.0, "source": "default"}
    dense = lungs & (image.array >= -500)
    assert report["consolidation_ml"] == pytest.approx(dense.sum() * image.geometry.voxel_volume_ml)


def test_an_image_without_lungs_is_refused(tmp_path: Path) -> None:
    hu = np.full((40, 40, 40), -1000.0, np.float32)
    hu[10:30, 10:30, 10:30] = 40.0
    path = tmp_path / "box.nii.gz"
    write_volume(path, hu, Geometry((40, 40, 40), (5, 5, 5), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    with pytest.raises(NoLungsError, match="no lungs"):
        segment_image(constant_model(xy=0.5), path, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_image_stems(tmp_path: Path) -> None:
    (tmp_path / "series.1").mkdir()
    assert image_stem(tmp_path / "series.1") == "series.1"
    assert image_stem("a/scan.NII.gz") == "scan"
    assert image_stem("a/scan.v2.nrrd") == "scan.v2"
