from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from segmentation.aggregation import LEARNED_RULES, RULES, Aggregation
from segmentation.model import ThreeWaySegmenter
from segmentation.predict import Predictor, predict_scan
from segmentation.results.native import to_native
from segmentation.views import VIEWS, as_planes, stacks
from standard_space.errors import DataError, UsageError
from standard_space.geometry import Geometry, Placement
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
    views, box = predictor.views(scan)
    for found, expected in zip(views.numpy(), (0.9, 0.6, 0.2), strict=True):
        np.testing.assert_allclose(found[scan.lungs[box]], expected, atol=within)


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
    middle = float(np.median(total[scan.lungs]))
    found = predict_scan(model, scan, device="cpu", batch=batch, threshold=middle, precision="float32")
    np.testing.assert_allclose(found.probability, total / 3 * scan.lungs, atol=1e-5)
    clear = np.abs(total - middle) > 1e-4
    assert np.array_equal(found.mask[clear], ((total > middle) & scan.lungs)[clear])
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


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_decides_voxel_by_voxel(rule: str) -> None:
    weights = (0.5, 0.3, 0.2) if rule in LEARNED_RULES else None
    model, scan = lively(), toy_scan(seed=1)
    model.aggregation = Aggregation(rule, 0.5, weights, -0.1 if rule in ("logistic", "svm") else 0.0)
    predictor = Predictor(model, device="cpu", precision="float32")
    views, box = predictor.views(scan)
    combined = model.aggregation.combine(views)
    model.aggregation = model.aggregation.at(
        3 * float(combined.median()) if rule == "sum>t" else float(combined.median())
    )
    found = predictor.predict(scan)
    expected = (combined > model.aggregation.cut).numpy() & scan.lungs[box]
    assert 0 < expected.sum() < scan.lungs.sum()
    assert np.array_equal(found.mask[box], expected)
    assert found.mask.sum() == expected.sum()
    np.testing.assert_array_equal(found.unmasked[box], combined.numpy())


def test_a_model_of_the_lungs_looks_everywhere() -> None:
    model = constant_model(xy=0.9, yz=0.9, xz=0.9)
    model.target = "lungs"
    scan = replace(toy_scan(), lungs=np.zeros((32, 32, 32), np.bool_))
    assert predict_scan(model, scan, device="cpu").mask.all()


def test_a_thick_sliced_native_grid_is_filled_to_the_lungs_ends() -> None:
    # Interpolation to slices of 5 standard voxels looks 5 voxels beyond the lungs' last one.
    scan = toy_scan()
    z, y, x = scan.grid.spacing_mm
    native = Geometry((32, 32, 7), (x, y, 5 * z), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    scan = replace(scan, placement=Placement(native, native, (0.0, 0.0, 0.0)), native_infection=None)
    prediction = predict_scan(constant_model(xy=0.9, yz=0.9, xz=0.9), scan, device="cpu")
    back = to_native(prediction, scan)
    assert back.lungs.any()
    np.testing.assert_allclose(back.probability[back.lungs], 0.9, atol=5e-3)


def test_offsets_of_the_model_are_the_slices_it_sees() -> None:
    model, scan = lively(), toy_scan(seed=1)
    before = predict_scan(model, scan, device="cpu", precision="float32").probability
    model.offsets_mm = {**model.offsets_mm, "yz": (-12.0, -6.0, 0.0, 6.0, 12.0)}
    views, box = Predictor(model, device="cpu", precision="float32").views(scan)
    volume = torch.from_numpy(scan.signal)
    k = (box[2].start + box[2].stop) // 2
    with torch.no_grad():
        stack = stacks(
            volume, "yz", [k], scan.grid.spacing_mm, scan.air_signal, offsets_mm=model.offsets_mm["yz"]
        )
        expected = torch.sigmoid(model.networks["yz"].eval()(stack)[0, 0])
    inside = scan.lungs[:, :, k][box[0], box[1]]
    found = as_planes(views[1], "yz")[k - box[2].start]
    torch.testing.assert_close(found[inside], expected[box[0], box[1]][inside], atol=1e-4, rtol=0)
    after = predict_scan(model, scan, device="cpu", precision="float32").probability
    assert float(np.abs(after - before).max()) > 0.01


def test_a_full_gpu_is_given_fewer_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    model, scan = lively(), toy_scan(seed=1)
    predictor = Predictor(model, device="cpu", batch=8, precision="float32")
    expected = predictor.views(scan)[0]
    sizes: list[int] = []
    for view, network in list(predictor._networks.items()):

        def small_memory(stack: torch.Tensor, network: Any = network) -> torch.Tensor:
            sizes.append(stack.shape[0])
            if stack.shape[0] > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return network(stack)

        predictor._networks[view] = small_memory
    torch.testing.assert_close(predictor.views(scan)[0], expected, atol=1e-6, rtol=0)
    assert max(sizes) == 8
    assert sizes.count(8) == 1

    def no_memory(stack: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    predictor._networks = dict.fromkeys(VIEWS, no_memory)
    with pytest.raises(DataError, match="memory does not suffice"):
        predictor.predict(scan)


def test_a_scan_without_lungs_has_no_infection() -> None:
    scan = replace(toy_scan(), lungs=np.zeros((32, 32, 32), np.bool_))
    found = predict_scan(constant_model(xy=0.9, yz=0.9, xz=0.9), scan, device="cpu")
    assert not found.mask.any()
    assert not found.probability.any()
