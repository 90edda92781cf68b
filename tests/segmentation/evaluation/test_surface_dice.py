from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from segmentation.evaluation.surface_dice import surface_dice
from standard_space.errors import UsageError

Mask = NDArray[np.bool_]


def slab(start: int) -> Mask:
    mask = np.zeros((24, 30, 30), np.bool_)
    mask[start : start + 6, 2:28, 2:28] = True
    return mask


def test_a_shift_within_the_tolerance_is_forgiven_in_mm() -> None:
    truth, shifted = slab(6), slab(8)  # two slices
    assert surface_dice(truth, truth, (1, 1, 1), tolerance_mm=0.5) == 1.0
    assert surface_dice(shifted, truth, (1, 1, 1), tolerance_mm=2.0) == 1.0
    apart = surface_dice(shifted, truth, (1, 1, 1), tolerance_mm=1.0)
    assert 0.0 < apart < 0.5  # the rims still meet, the two faces do not
    # The same voxels are twice as far apart where slices are twice as thick.
    assert surface_dice(shifted, truth, (2, 1, 1), tolerance_mm=2.0) < 0.7
    assert surface_dice(shifted, truth, (2, 1, 1), tolerance_mm=4.0) == 1.0


def test_areas_count_and_not_border_voxels() -> None:
    """Two plates of one size, one of them found: half of the truth's area, all of the found one's."""
    truth = np.zeros((40, 20, 20), np.bool_)
    truth[5:8, 4:16, 4:16] = truth[30:33, 4:16, 4:16] = True
    found = truth.copy()
    found[20:] = False
    assert surface_dice(found, truth, (1, 1, 1), tolerance_mm=1.0) == pytest.approx(2 / 3)


def test_empty_masks() -> None:
    empty = np.zeros((24, 30, 30), np.bool_)
    assert surface_dice(empty, empty, (1, 1, 1)) == 1.0
    assert surface_dice(slab(3), empty, (1, 1, 1)) == 0.0
    assert surface_dice(empty, slab(3), (1, 1, 1)) == 0.0
    full = np.ones((4, 4, 4), np.bool_)
    assert surface_dice(full, full, (1, 1, 1)) == 1.0


def test_what_cannot_be_scored_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = slab(3)
    with pytest.raises(UsageError, match="differ in shape"):
        surface_dice(mask, mask[1:], (1, 1, 1))
    with pytest.raises(UsageError, match="boolean"):
        surface_dice(mask.astype(np.uint8), mask, (1, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="above zero"):
        surface_dice(mask, mask, (1, 1, 1), tolerance_mm=0.0)
    monkeypatch.setitem(sys.modules, "surface_distance", None)
    with pytest.raises(UsageError, match="pip install surface-distance"):
        surface_dice(mask, mask, (1, 1, 1))


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
def test_monai_with_subvoxels_gives_the_same_number_and_without_them_another() -> None:
    monai = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    coarse = rng.random((6, 8, 8)).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    truth, found = coarse > 0.8, np.roll(coarse, 1, 1) > 0.75
    both = [torch.from_numpy(mask)[None, None].float() for mask in (found, truth)]
    options = {"class_thresholds": [2.0], "include_background": True, "spacing": [2.0, 0.7, 0.7]}
    same = float(monai.compute_surface_dice(*both, use_subvoxels=True, **options))
    other = float(monai.compute_surface_dice(*both, use_subvoxels=False, **options))
    ours = surface_dice(found, truth, (2.0, 0.7, 0.7), tolerance_mm=2.0)
    assert ours == pytest.approx(same, abs=1e-6)
    assert abs(ours - other) > 1e-3
