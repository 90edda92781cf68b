"""Overlap and quantification scores of a predicted mask [paper III-E].

Masks are boolean arrays of one shape, (z, y, x), on the native grid unless the caller says otherwise.
A score that is not defined is None: recall without truth, precision without prediction, and so on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from standard_space.errors import UsageError

FAILURE_DICE = 0.2
"""A scan whose Dice is below this counts as a failure [paper III-E]."""

TOLERANCE_VOXELS = 2.0

ROUNDING = 1e-12
"""Of the size of numbers: below it they do not differ, float64 gave them another last digit."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """Scores of one predicted mask, each 0 to 1 or None where not defined.

    Attributes
    ----------
    dice : float
        2 TP / (|P| + |T|); 1 when prediction and truth are both empty, 0 when only one is.
    recall, precision : float or None
        TP / |T| and TP / |P|; None when the divisor is empty.
    specificity : float or None
        TN / (TN + FP) over the region; None when the truth fills it.
    iou : float
        TP / |P or T|; 1 when both are empty.
    dice_2voxel : float
        See `tolerant_dice`.
    """

    dice: float
    recall: float | None
    precision: float | None
    specificity: float | None
    iou: float
    dice_2voxel: float

    def to_dict(self) -> dict[str, float | None]:
        """Return the scores by name."""
        return asdict(self)


def overlap(prediction: Mask, truth: Mask, *, region: Mask | None = None) -> Overlap:
    """Score a predicted mask against the truth.

    Parameters
    ----------
    prediction, truth : bool (z, y, x)
    region : bool (z, y, x), optional
        Voxels over which specificity counts (the lungs); the whole volume when absent. The other scores do
        not use it.

    Raises
    ------
    UsageError
        The masks differ in shape or are not boolean.
    """
    _check(prediction, truth)
    hits = int(np.count_nonzero(prediction & truth))
    predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    if region is None:
        false_alarms, negatives = predicted - hits, truth.size - true
    else:
        _check(region, truth)
        healthy = region & ~truth
        false_alarms, negatives = int(np.count_nonzero(healthy & prediction)), int(np.count_nonzero(healthy))
    return Overlap(
        dice=2 * hits / (predicted + true) if predicted + true else 1.0,
        recall=hits / true if true else None,
        precision=hits / predicted if predicted else None,
        specificity=1 - false_alarms / negatives if negatives else None,
        iou=hits / (predicted + true - hits) if predicted + true else 1.0,
        dice_2voxel=tolerant_dice(prediction, truth),
    )


def dice(prediction: Mask, truth: Mask) -> float:
    """2 TP / (|P| + |T|); 1 when both masks are empty, 0 when only one is.

    Raises
    ------
    UsageError
        The masks differ in shape or are not boolean.
    """
    _check(prediction, truth)
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth))
    return 2 * int(np.count_nonzero(prediction & truth)) / total if total else 1.0


def tolerant_dice(prediction: Mask, truth: Mask, *, tolerance_voxels: float = TOLERANCE_VOXELS) -> float:
    """Dice with a tolerance: (P near T + T near P) / (|P| + |T|).

    "P near T" counts the predicted voxels whose centre lies within `tolerance_voxels` (Euclidean, in voxels)
    of a true voxel's; "T near P" likewise. With tolerance 0 this is the Dice score. Masks are not dilated
    before scoring, which would reward a prediction for its size. 1 when both are empty, 0 when only one is.

    Raises
    ------
    UsageError
        The masks differ in shape or are not boolean.
    """
    _check(prediction, truth)
    predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    if predicted == 0 or true == 0:
        return 1.0 if predicted == true else 0.0
    margin = int(tolerance_voxels)
    box = _bounding_box(prediction | truth)
    prediction, truth = (np.pad(mask[box], margin) for mask in (prediction, truth))
    right = _near(prediction, truth, tolerance_voxels) + _near(truth, prediction, tolerance_voxels)
    return right / (predicted + true)


def _near(mask: Mask, other: Mask, tolerance_voxels: float) -> int:
    """Count the voxels of a mask that lie near another one; both are padded by the whole tolerance.

    Only the voxels of the difference are looked at, which two distance transforms of the box could not spare.
    """
    reach = range(-int(tolerance_voxels), int(tolerance_voxels) + 1)
    steps = [step for step in itertools.product(reach, repeat=3) if math.hypot(*step) <= tolerance_voxels]
    strides = np.array(other.strides) // other.itemsize
    lone = np.flatnonzero(mask & ~other)
    flat = other.ravel()
    for step in sorted(steps, key=lambda step: math.hypot(*step)):
        lone = lone[~flat[lone + int(strides @ step)]]
    return int(np.count_nonzero(mask)) - lone.size


@dataclass(frozen=True)
class ShareErrors:
    """Agreement of predicted and true infected shares of the lungs (0 to 1 each) [paper III-E].

    Attributes
    ----------
    rmse, worst : float or None
        Root of the mean squared error, and the largest absolute error; None without scans.
    pearson : float or None
        Correlation, -1 to 1; None with fewer than three scans, two of which always lie on a line, or when either
        side does not vary by more than rounding.
    """

    rmse: float | None
    pearson: float | None
    worst: float | None


def share_errors(predicted: Sequence[float], true: Sequence[float]) -> ShareErrors:
    """Compare predicted infected shares of the lungs with the true ones.

    Raises
    ------
    UsageError
        The two lists differ in length.
    """
    if len(predicted) != len(true):
        raise UsageError("the two lists of shares differ in length", got=len(predicted), expected=len(true))
    if not predicted:
        return ShareErrors(None, None, None)
    a, b = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    errors = a - b
    return ShareErrors(
        rmse=math.sqrt(float(errors @ errors) / errors.size),
        pearson=_pearson(a, b),
        worst=float(np.abs(errors).max()),
    )


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    if a.size < 3:
        return None
    deviations = a - a.mean(), b - b.mean()
    norms = [float(np.linalg.norm(deviation)) for deviation in deviations]
    if any(norm <= ROUNDING * float(np.linalg.norm(x)) for norm, x in zip(norms, (a, b), strict=True)):
        return None
    return float(np.clip((deviations[0] / norms[0]) @ (deviations[1] / norms[1]), -1.0, 1.0))


def _check(mask: Mask, truth: Mask) -> None:
    if mask.dtype != np.bool_ or truth.dtype != np.bool_:
        raise UsageError("scores need boolean masks", got=f"{mask.dtype} and {truth.dtype}")
    if mask.shape != truth.shape:
        raise UsageError("the masks differ in shape", got=mask.shape, expected=truth.shape)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    box = ndimage.find_objects(mask.view(np.uint8), max_label=1)[0]
    if box is None:
        raise UsageError("an empty mask has no bounding box")
    return box
