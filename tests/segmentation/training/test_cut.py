"""Right and left lung of a cut scan, for the methods that learn them apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segmentation.training.cut import cut_crop, cut_scan
from simulator.synthetic_crop import SyntheticCrop
from standard_space.errors import DataError
from tests.segmentation.toys import toy_scan

RIGHT, LEFT = 1, 2


def test_sides_are_there_only_when_they_are_asked_for() -> None:
    assert cut_scan(toy_scan()).lungs is None
    lungs = cut_scan(toy_scan(), sides=True).lungs
    assert lungs is not None
    assert str(lungs.dtype) == "torch.uint8"


def test_a_scans_own_sides_are_kept_however_its_lungs_lie() -> None:
    scan = toy_scan()
    columns = np.arange(scan.grid.size)
    # A left lung that reaches over the middle, as behind the heart.
    left = scan.lungs & (columns >= 12)
    cut = cut_scan(replace(scan, left_lung=left), sides=True)
    assert cut.lungs is not None
    lungs = cut.lungs.numpy()
    assert lungs.shape == tuple(cut.signal.shape)
    assert int((lungs > 0).sum()) == int(scan.lungs.sum())
    assert int((lungs == LEFT).sum()) == int(left.sum())
    assert int((lungs == RIGHT).sum()) == int((scan.lungs & ~left).sum())
    # Arrays run to the patient's left: the left lung has the larger x.
    assert np.nonzero(lungs == LEFT)[2].mean() > np.nonzero(lungs == RIGHT)[2].max()


def test_sides_not_told_apart_are_those_of_the_middle() -> None:
    scan = replace(toy_scan(), left_lung=None)
    cut = cut_scan(scan, sides=True)
    assert cut.lungs is not None
    lungs = cut.lungs.numpy()
    right, left = np.nonzero(lungs == RIGHT)[2], np.nonzero(lungs == LEFT)[2]
    assert right.max() < left.min()
    assert right.size + left.size == int(scan.lungs.sum())
    assert abs(right.size - left.size) < 0.1 * left.size  # both lungs of the toy are alike


def test_a_volume_made_on_the_fly_has_sides_too() -> None:
    scan = toy_scan()
    assert scan.infection is not None
    crop = SyntheticCrop(
        patient="P1",
        scan="S1",
        day=1.0,
        signal=scan.signal,
        infection=scan.infection,
        lungs=scan.lungs,
        spacing_mm=scan.grid.spacing_mm,
        corner=(0, 0, 0),
        air_signal=scan.air_signal,
        provenance={},
    )
    assert cut_crop(crop, scan.window).lungs is None
    cut = cut_crop(crop, scan.window, sides=True)
    assert cut.lungs is not None
    assert set(np.unique(cut.lungs.numpy()).tolist()) == {0, RIGHT, LEFT}
    assert np.array_equal(cut.lungs.numpy() > 0, scan.lungs)


def test_no_lungs_have_no_sides() -> None:
    scan = toy_scan()
    with pytest.raises(DataError, match="no lungs"):
        cut_scan(replace(scan, lungs=np.zeros_like(scan.lungs)), sides=True)
