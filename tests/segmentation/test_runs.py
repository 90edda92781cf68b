from __future__ import annotations

import numpy as np
import pytest

from segmentation.runs import Projections, plan_runs
from segmentation.views import VIEWS, normal_axis, plane_axes

SHAPE = (70, 96, 112)


def some_region(seed: int) -> np.ndarray:
    """Two boxes, somewhere, sometimes with slices between them that meet neither."""
    rng = np.random.default_rng(seed)
    region = np.zeros(SHAPE, np.bool_)
    for _ in range(2):
        low = [int(rng.integers(0, size - 6)) for size in SHAPE]
        sides = tuple(slice(at, at + int(rng.integers(2, 20))) for at in low)
        region[sides] = rng.random(region[sides].shape) < 0.3
    return region


def near(region: np.ndarray, reach: tuple[int, int, int]) -> np.ndarray:
    """Voxels within `reach` of the region, one shift at a time."""
    found = np.zeros_like(region)
    for index in np.argwhere(region):
        sides = tuple(slice(max(i - r, 0), i + r + 1) for i, r in zip(index, reach, strict=True))
        found[sides] = True
    return found


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("seed", range(4))
def test_every_voxel_near_the_region_is_kept_once_with_its_margin(view: str, seed: int) -> None:
    region, reach, margin = some_region(seed), (2, 1, 3), 20
    axis, (row_axis, column_axis) = normal_axis(view), plane_axes(view)
    order = (axis, row_axis, column_axis)
    kept = np.zeros(region.shape, np.int64).transpose(order)
    runs = plan_runs(Projections.of(region), view, reach, margin=margin, slices_per_run=8)
    for run in runs:
        assert 0 < run.stop - run.start <= 8
        kept[run.start : run.stop, run.kept_rows, run.kept_columns] += 1
        for crop, side, size in (
            (run.rows, run.kept_rows, region.shape[row_axis]),
            (run.columns, run.kept_columns, region.shape[column_axis]),
        ):
            assert crop.start % 16 == 0
            assert crop.stop % 16 == 0 or crop.stop == size
            assert crop.start <= max(side.start - margin, 0)
            assert crop.stop >= min(side.stop + margin, size)
    wanted = near(region, reach).transpose(order)
    assert np.all(kept[wanted] == 1)
    assert kept.max() == 1
    # Slices that meet nothing are left out.
    assert np.array_equal(kept.any(axis=(1, 2)), wanted.any(axis=(1, 2)))
    assert [run.start for run in runs] == sorted(run.start for run in runs)


def test_the_bounding_box_holds_what_is_near_and_stays_in_the_grid() -> None:
    region = np.zeros(SHAPE, np.bool_)
    region[0, 50, 100:112] = True
    box = Projections.of(region).bounding_box((3, 2, 5))
    assert box == (slice(0, 4), slice(48, 53), slice(95, 112))
    nothing = Projections.of(np.zeros(SHAPE, np.bool_))
    assert nothing.bounding_box((3, 2, 5)) == (slice(0, 0),) * 3
    assert plan_runs(nothing, "xy", (1, 1, 1)) == []
