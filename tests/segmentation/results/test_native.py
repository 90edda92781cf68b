from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segmentation.aggregation import Aggregation
from segmentation.results.native import LEFT_LUNG, LUNG, RIGHT_LUNG, box_to_native, to_native
from segmentation.results.orientation import lps_spacing_mm, lps_view
from segmentation.scan_predictor import Prediction
from standard_space.errors import DataError
from standard_space.geometry import Geometry, Placement, orient_array
from standard_space.masks import bounding_box
from standard_space.restore import restore_mask, restore_volume
from standard_space.scan import Scan
from tests.segmentation.toys import toy_scan
from tests.standard_space.bodies import rotation

CODES = {
    "LPS": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "RAS": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "LPI": (1, 0, 0, 0, 1, 0, 0, 0, -1),
    "PIR": (0, 0, -1, 1, 0, 0, 0, -1, 0),
}


def turned(scan: Scan, direction: tuple[float, ...]) -> Scan:
    """The same scan, its image stored in other axes."""
    oriented = scan.placement.oriented
    order = np.abs(np.reshape(direction, (3, 3))).argmax(axis=0)
    native = Geometry(
        tuple(oriented.size[k] for k in order),
        tuple(oriented.spacing_mm[k] for k in order),
        (0.0, 0.0, 0.0),
        direction,
    )
    _, oriented = orient_array(np.zeros(native.shape, np.uint8), native)
    return replace(scan, placement=Placement(native, oriented, scan.placement.offset_mm))


def everywhere(scan: Scan, probability: float) -> Prediction:
    found = np.full(scan.grid.shape, probability, np.float32)
    return Prediction(found * scan.lungs, scan.lungs, found, Aggregation())


@pytest.mark.parametrize("code", CODES)
def test_an_lps_view_holds_what_itk_s_orientation_gives(code: str) -> None:
    direction = tuple((rotation(11, 0) @ rotation(7, 2) @ np.reshape(CODES[code], (3, 3))).ravel())
    where = Geometry((4, 5, 6), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0), direction)
    array = np.arange(120).reshape(where.shape)
    expected, geometry = orient_array(array, where)
    assert np.array_equal(lps_view(array, where), expected)
    assert lps_spacing_mm(where) == geometry.spacing_mm[::-1]
    assert np.shares_memory(lps_view(array, where), array)


@pytest.mark.parametrize("code", CODES)
def test_the_box_of_the_lungs_returns_as_the_whole_grid_would(code: str) -> None:
    scan = turned(toy_scan(), CODES[code])
    smooth = np.random.default_rng(0).random(scan.grid.shape).astype(np.float32)
    native = to_native(Prediction(smooth * scan.lungs, scan.lungs, smooth, Aggregation()), scan)
    lungs = restore_mask(scan.lungs, scan.placement)
    expected = np.clip(restore_volume(smooth, scan.placement), 0.0, 1.0) * lungs
    assert native.probability.shape == scan.placement.native.shape
    assert float(np.abs(native.probability - expected).max()) <= 0.5 / 1024 + 1e-6
    assert np.array_equal(native.lungs, lungs)
    assert np.array_equal(native.mask, native.probability > np.float32(2 / 3))
    box = bounding_box(scan.lungs)
    wide = tuple(slice(side.start - 3, side.stop + 3) for side in box)
    boxed = box_to_native(smooth[wide], wide, scan, Aggregation())
    assert np.array_equal(boxed.probability, native.probability)
    assert np.array_equal(boxed.sides, native.sides)


def test_probabilities_are_binary_fractions_that_a_file_keeps() -> None:
    scan = toy_scan()
    native = to_native(everywhere(scan, 0.7003), scan)
    assert set(np.unique(native.probability).tolist()) == {0.0, 717 / 1024}


def test_lungs_are_not_eroded_on_the_way_back() -> None:
    scan = toy_scan()
    prediction = everywhere(scan, 0.9)
    native = to_native(prediction, scan)
    lungs = restore_mask(scan.lungs, scan.placement)
    assert np.array_equal(native.lungs, lungs)
    assert np.array_equal(native.mask, lungs)
    soft = np.clip(restore_volume(prediction.probability, scan.placement), 0.0, 1.0) * lungs
    assert (soft > prediction.aggregation.cut).sum() < native.mask.sum()
    own = np.zeros_like(lungs)
    own[4:6] = lungs[4:6]
    assert np.array_equal(to_native(prediction, scan, lungs=own).mask, own)
    assert np.array_equal(to_native(prediction, replace(scan, native_lungs=own)).mask, own)


def test_native_mask_follows_the_threshold_of_the_prediction() -> None:
    scan = toy_scan()
    unmasked = np.full(scan.grid.shape, 0.5, np.float32)
    for threshold, expected in ((1.4, True), (1.6, False)):
        prediction = Prediction(unmasked * scan.lungs, scan.lungs, unmasked, Aggregation(threshold=threshold))
        assert to_native(prediction, scan).mask.any() == expected


def test_every_voxel_of_the_lungs_gets_its_side() -> None:
    scan = toy_scan()
    left = scan.lungs.copy()
    left[:, :, : scan.grid.size // 2] = False
    native = to_native(everywhere(scan, 0.9), replace(scan, left_lung=left))
    middle = native.lungs.shape[2] // 2
    assert np.array_equal(native.sides > 0, native.lungs)
    assert set(np.unique(native.sides[:, :, :middle])) == {0, RIGHT_LUNG}
    assert set(np.unique(native.sides[:, :, middle:])) == {0, LEFT_LUNG}
    assert set(np.unique(to_native(everywhere(scan, 0.9), scan).sides)) == {0, LUNG}


def test_a_model_of_the_lungs_is_not_cut_to_any_lungs() -> None:
    scan = replace(toy_scan(), lungs=np.zeros((32, 32, 32), np.bool_))
    found = np.zeros(scan.grid.shape, np.float32)
    found[8:20, 4:20, 10:30] = 0.9
    native = to_native(Prediction(found, found > 0.5, found, Aggregation()), scan, target="lungs")
    assert np.array_equal(native.mask, native.probability > np.float32(2 / 3))
    assert np.array_equal(native.lungs, native.mask)
    assert native.mask.sum() == pytest.approx(found.astype(bool).sum() / 2, rel=0.1)


def test_a_scan_without_lungs_returns_nothing() -> None:
    scan = replace(toy_scan(), lungs=np.zeros((32, 32, 32), np.bool_))
    nothing = np.zeros(scan.grid.shape, np.float32)
    native = to_native(Prediction(nothing, nothing > 0, nothing, Aggregation()), scan)
    assert not native.mask.any()
    assert not native.probability.any()


def test_probabilities_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        to_native(everywhere(toy_scan(), float("nan")), toy_scan())
