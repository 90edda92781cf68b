"""The threshold on the sum of the three probabilities, tuned on validation scans (DESIGN 5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from segmentation.model import ThreeWaySegmenter
from segmentation.predict import Predictor
from standard_space.errors import DataError
from standard_space.scan import Scan

THRESHOLDS = np.round(np.arange(0.3, 2.96, 0.05), 2)
"""On the sum of the three probabilities: what is tried."""


@dataclass(frozen=True)
class TunedThreshold:
    """The best threshold and the scores of all.

    Attributes
    ----------
    threshold : float
        On the sum, 0 to 3.
    median_dice : float
        At that threshold, standard grid.
    thresholds, scores : list of float
        Every threshold tried and its median Dice.
    """

    threshold: float
    median_dice: float
    thresholds: list[float]
    scores: list[float]


def tune_threshold(
    model: ThreeWaySegmenter, validation: Iterable[Scan], *, device: str | torch.device = "auto"
) -> TunedThreshold:
    """Find the threshold with the best median Dice on validation scans, on the standard grid.

    The model is not changed; set ``model.aggregation`` to keep the result. Scans without infected voxels are
    skipped. Among equals the threshold nearest to 2 wins, the paper's.

    Raises
    ------
    DataError
        No validation scan has infected voxels, or a scan lies on another grid.
    """
    predictor = Predictor(model, device=device)
    per_scan = []
    for scan in validation:
        if scan.infection is None or not scan.infection.any():
            continue
        total = predictor.predict(scan).probability[scan.lungs] * 3.0
        truth = scan.infection[scan.lungs]
        true = int(np.count_nonzero(scan.infection))
        row = []
        for threshold in THRESHOLDS:
            predicted = total > threshold
            row.append(2 * np.count_nonzero(predicted & truth) / (np.count_nonzero(predicted) + true))
        per_scan.append(row)
    if not per_scan:
        raise DataError("no validation scan has infected voxels")
    median = np.median(per_scan, axis=0)
    best = np.flatnonzero(median == median.max())
    chosen = int(best[np.argmin(np.abs(THRESHOLDS[best] - 2.0))])
    return TunedThreshold(
        float(THRESHOLDS[chosen]), float(median[chosen]), THRESHOLDS.tolist(), median.tolist()
    )
