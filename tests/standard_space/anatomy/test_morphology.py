from __future__ import annotations

import numpy as np
import pytest

from standard_space.anatomy.morphology import (
    box_count,
    box_dilate,
    box_erode,
    close,
    dilate,
    enclosed,
    largest,
    padded_box,
    reach_of,
)

SPACING = (3.0, 1.0, 2.0)


@pytest.fixture
def mask() -> np.ndarray:
    return np.random.default_rng(3).random((9, 40, 23)) < 0.03


def slow_count(mask: np.ndarray, reach: tuple[int, int, int]) -> np.ndarray:
    padded = np.pad(mask.astype(int), [(r, r) for r in reach])
    windows = np.lib.stride_tricks.sliding_window_view(padded, [2 * r + 1 for r in reach])
    return windows.sum(axis=(3, 4, 5))


@pytest.mark.parametrize("reach", [(0, 0, 0), (1, 2, 3), (0, 5, 0), (12, 1, 1), (2, 0, 30)])
def test_counts_in_boxes(mask: np.ndarray, reach: tuple[int, int, int]) -> None:
    expected = slow_count(mask, reach)
    np.testing.assert_array_equal(box_count(mask, reach), expected)
    np.testing.assert_array_equal(box_dilate(mask, reach), expected > 0)
    np.testing.assert_array_equal(box_erode(~mask, reach), expected == 0)


def test_counts_of_a_part_of_an_array(mask: np.ndarray) -> None:
    part = mask[2:7, ::2, 3:]
    np.testing.assert_array_equal(box_count(part, (1, 1, 1)), slow_count(part, (1, 1, 1)))


def test_a_box_too_large_to_count_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="16 bits"):
        box_count(mask, (20, 20, 20))


def test_dilation_is_a_ball_in_millimetres() -> None:
    mask = np.zeros((9, 21, 15), bool)
    mask[4, 10, 7] = True
    k, j, i = np.indices(mask.shape)
    inside = ((k - 4) * 3.0) ** 2 + ((j - 10) * 1.0) ** 2 + ((i - 7) * 2.0) ** 2 <= 6.0**2
    np.testing.assert_array_equal(dilate(mask, 6.0, SPACING), inside)
    assert not dilate(np.zeros_like(mask), 6.0, SPACING).any()


def test_closing_fills_a_gap_and_nothing_wider() -> None:
    mask = np.zeros((7, 60, 20), bool)
    mask[:, 10:20], mask[:, 24:34], mask[:, 54:] = True, True, True
    closed = close(mask, 5.0, SPACING)
    assert closed[3, 20:24, 10].all()
    assert not closed[3, 38:50, 10].any()
    assert (closed & mask).sum() == mask.sum()


def test_boxes_reaches_and_parts() -> None:
    mask = np.zeros((10, 20, 30), bool)
    assert padded_box(mask, 1.0, SPACING) is None
    mask[4, 5:8, 20], mask[0, 0, 0] = True, False
    assert padded_box(mask, 2.0, SPACING) == (slice(3, 6), slice(3, 10), slice(19, 22))
    assert reach_of(4.0, SPACING) == (1, 4, 2)
    assert reach_of(0.4, SPACING, least=1) == (1, 1, 1)
    mask[0, 0, 0] = True
    assert largest(mask).sum() == 3


def test_what_is_surrounded_in_slices() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[2:18, 2:18, 2:18] = True
    mask[6:9, 6:9, 6:9] = False  # a hole
    mask[:12, 12:15, 12:15] = False  # a shaft from below: surrounded in axial slices alone
    mask[14:16, 8:11, :10] = False  # a shaft from the side: open in two planes
    planes, axial = enclosed(mask)
    assert (planes[6:9, 6:9, 6:9] == 3).all()
    assert (planes[3:12, 12:15, 12:15] == 1).all()
    assert axial[3:12, 12:15, 12:15].all()
    assert not axial[14:16, 8:11, 5].any()
    assert (planes[14:16, 8:11, 5] == 1).all()
    assert not planes[mask].any()
    assert not planes[0].any()
