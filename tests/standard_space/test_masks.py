"""Masks between grids: the cropped, slab-wise way is the whole-volume way."""

from __future__ import annotations

import numpy as np
import pytest

from standard_space.lanczos import resample
from standard_space.masks import bounding_box, resample_labels, resample_mask

CASES = [
    ((9, 40, 35), (0.0, -0.4, 0.3), (2.3, 0.6, 1.0)),
    ((150, 8, 36), (-3.0, 0.5, -1.2), (0.21, 3.9, 0.77)),
    ((20, 20, 20), (100.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
]


def blobs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros((24, 30, 28), bool)
    for z, y, x in rng.integers(2, 20, (4, 3)):
        mask[z : z + 4, y : y + 6, x : x + 3] = True
    return mask


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("shape", "start", "step"), CASES)
def test_the_same_as_the_whole_volume_at_once(seed: int, shape, start, step) -> None:
    mask = blobs(seed)
    whole = resample(mask.astype(np.float32), shape, start, step, fill=0.0) >= 0.5
    np.testing.assert_array_equal(resample_mask(mask, shape, start, step), whole)


def test_a_mask_that_touches_every_border() -> None:
    mask = np.ones((12, 10, 11), bool)
    args = ((30, 25, 28), (-1.0, -0.3, -2.0), (0.45, 0.45, 0.5))
    whole = resample(mask.astype(np.float32), *args, fill=0.0) >= 0.5
    np.testing.assert_array_equal(resample_mask(mask, *args), whole)
    assert not whole[0].any()
    assert whole.any()


def test_an_empty_mask_stays_empty() -> None:
    assert not resample_mask(np.zeros((5, 5, 5), bool), (9, 9, 9), (0, 0, 0), (0.5, 0.5, 0.5)).any()
    assert bounding_box(np.zeros((5, 5, 5), bool)) is None


def test_labels_are_never_mixed() -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[:3], labels[3:] = 10, 14
    out = resample_labels(labels, (14, 6, 6), (-1.0, 0, 0), (0.5, 1, 1))
    assert set(np.unique(out)) == {0, 10, 14}
    np.testing.assert_array_equal(out[:, 0, 0], [0, 10, 10, 10, 10, 10, 10, 14, 14, 14, 14, 14, 14, 0])


def test_the_box_is_the_smallest() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[1:3, 2:5, 4:6] = True
    assert bounding_box(mask) == (slice(1, 3), slice(2, 5), slice(4, 6))
