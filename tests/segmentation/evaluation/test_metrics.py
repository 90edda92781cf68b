from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from segmentation.evaluation.metrics import dice, overlap, share_errors, tolerant_dice
from standard_space.errors import UsageError

Mask = NDArray[np.bool_]


def masks(seed: int) -> tuple[Mask, Mask, Mask]:
    rng = np.random.default_rng(seed)
    prediction, truth, region = (rng.random((6, 7, 8)) < share for share in (0.1, 0.05, 0.6))
    return prediction, truth, region


def tolerant_twin(prediction: Mask, truth: Mask, tolerance: float) -> float:
    """Every voxel against every other."""
    p, t = np.argwhere(prediction), np.argwhere(truth)
    near = sum(min(math.dist(a, b) for b in t) <= tolerance for a in p)
    near += sum(min(math.dist(a, b) for b in p) <= tolerance for a in t)
    return near / (len(p) + len(t))


@pytest.mark.parametrize("seed", range(4))
def test_overlap_by_counting(seed: int) -> None:
    prediction, truth, region = masks(seed)
    tp = fp = fn = region_fp = region_tn = 0
    for p, t, r in zip(prediction.flat, truth.flat, region.flat, strict=True):
        tp, fp, fn = tp + (p and t), fp + (p and not t), fn + (t and not p)
        region_fp, region_tn = region_fp + (r and p and not t), region_tn + (r and not p and not t)
    found = overlap(prediction, truth, region=region)
    assert found.dice == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert found.dice == dice(prediction, truth)
    assert found.recall == pytest.approx(tp / (tp + fn))
    assert found.precision == pytest.approx(tp / (tp + fp))
    assert found.specificity == pytest.approx(region_tn / (region_tn + region_fp))
    assert found.iou == pytest.approx(tp / (tp + fp + fn))


@pytest.mark.parametrize(("seed", "tolerance"), [*itertools.product(range(3), (0.0, 1.0, 1.5, 2.0))])
def test_tolerant_dice_equals_its_definition(seed: int, tolerance: float) -> None:
    prediction, truth, _ = masks(seed)
    found = tolerant_dice(prediction, truth, tolerance_voxels=tolerance)
    assert found == pytest.approx(tolerant_twin(prediction, truth, tolerance))
    if tolerance == 0.0:
        assert found == pytest.approx(dice(prediction, truth))


def test_tolerance_forgives_two_voxels_and_no_more() -> None:
    truth = np.zeros((20, 20, 20), np.bool_)
    truth[10, 5:15, 5:15] = True
    for shift, expected in ((2, 1.0), (3, 0.0)):
        assert tolerant_dice(np.roll(truth, shift, axis=0), truth) == expected
    # Painting the neighbourhood is not rewarded: voxels further than two away count as wrong.
    assert tolerant_dice(np.ones_like(truth), truth) < 0.3


def test_empty_masks() -> None:
    empty, full = np.zeros((3, 3, 3), np.bool_), np.ones((3, 3, 3), np.bool_)
    both = overlap(empty, empty)
    assert (both.dice, both.iou, both.dice_2voxel) == (1.0, 1.0, 1.0)
    assert (both.recall, both.precision, both.specificity) == (None, None, 1.0)
    missed = overlap(empty, full)
    assert (missed.dice, missed.iou, missed.dice_2voxel, missed.recall) == (0.0, 0.0, 0.0, 0.0)
    assert (missed.precision, missed.specificity) == (None, None)
    invented = overlap(full, empty)
    assert (invented.dice, invented.recall, invented.precision, invented.specificity) == (0.0, None, 0.0, 0.0)


def test_share_errors() -> None:
    found = share_errors([0.1, 0.2, 0.4], [0.1, 0.3, 0.2])
    assert found.rmse == pytest.approx(math.sqrt((0.1**2 + 0.2**2) / 3))
    assert found.worst == pytest.approx(0.2)
    assert found.pearson == pytest.approx(np.corrcoef([0.1, 0.2, 0.4], [0.1, 0.3, 0.2])[0, 1])
    assert share_errors([0.1, 0.1], [0.1, 0.3]).pearson is None
    assert share_errors([0.1, 0.2], [0.1, 0.3]).pearson is None  # two scans always lie on a line
    assert share_errors([], []).rmse is None
    with pytest.raises(UsageError, match="differ in length"):
        share_errors([0.1], [])


@pytest.mark.parametrize("value", [0.1, 1.1, 1234.567])
def test_a_constant_prediction_has_no_correlation_whatever_its_last_digits(value: float) -> None:
    constant, true = [value] * 7, [0.1, 0.3, 0.2, 0.7, 0.15, 0.4, 0.25]
    assert share_errors(constant, true).pearson is None
    assert share_errors([*constant[1:], float(np.nextafter(value, 1e9))], true).pearson is None
    assert share_errors(true, constant).pearson is None
    assert share_errors([value + 1e-6 * x for x in true], true).pearson == pytest.approx(1.0)


def test_masks_that_do_not_match_are_refused() -> None:
    mask = np.zeros((3, 3, 3), np.bool_)
    with pytest.raises(UsageError, match="differ in shape"):
        overlap(mask, mask[:2])
    with pytest.raises(UsageError, match="boolean"):
        overlap(mask.astype(np.uint8), mask)  # type: ignore[arg-type]
