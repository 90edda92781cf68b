from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segmentation.evaluation.metrics import dice
from segmentation.threshold_baseline import tune_threshold_baseline
from standard_space.errors import DataError
from standard_space.restore import restore_mask
from standard_space.scan import Scan

from .toys import toy_scan


def test_the_baseline_finds_the_band_that_was_painted() -> None:
    scans = []
    for seed in range(3):
        scan = toy_scan(seed=seed)
        hu = np.full(scan.grid.shape, -850.0, np.float32)
        hu[~scan.lungs] = 40.0
        assert scan.infection is not None
        hu[scan.infection] = -350.0
        # Bright tubes that only the variant without them, or an upper end of the band, can leave out.
        vessels = scan.lungs & ~scan.infection & (np.arange(32)[None, None, :] % 7 == 0)
        hu[vessels] = -350.0
        scans.append(replace(scan, signal=scan.window.to_signal(hu), vessels=vessels))
    found = tune_threshold_baseline(scans)
    assert found.without_tubes
    assert found.smoothing_mm == 0.0
    assert found.training_dice == 1.0
    assert -850.0 < found.low_hu <= -350.0 < found.high_hu
    assert scans[0].infection is not None
    assert np.array_equal(found.mask(scans[0]), scans[0].infection)
    assert not (found.native_mask(scans[0]) & ~to_native_lungs(scans[0])).any()
    with pytest.raises(DataError, match="no scan to tune"):
        tune_threshold_baseline([toy_scan(annotated=False)])


def to_native_lungs(scan: Scan) -> np.ndarray:
    return restore_mask(scan.lungs, scan.placement)


def test_every_band_is_scored_as_a_loop_would() -> None:
    scan = toy_scan(seed=8)
    assert scan.infection is not None
    found = tune_threshold_baseline([scan])
    best = 0.0
    hu = scan.window.to_hu(scan.signal)
    for low in range(-1000, 201, 20):
        for high in [*range(low + 20, 201, 20), np.inf]:
            best = max(best, dice(scan.lungs & (hu >= low) & (hu < high), scan.infection))
    assert found.training_dice >= best
    assert dice(found.mask(scan), scan.infection) == pytest.approx(found.training_dice)
