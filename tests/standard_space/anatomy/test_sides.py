from __future__ import annotations

import numpy as np
import pytest

from standard_space.anatomy.sides import find_left_lung, midline_x

SPACING = (3.0, 2.0, 2.0)


def lungs(gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Two lungs; with a gap below 0 they overlap along an anterior junction."""
    z, y, x = np.meshgrid(
        (np.arange(60) - 30) * 3.0, (np.arange(90) - 45) * 2.0, (np.arange(130) - 65) * 2.0, indexing="ij"
    )
    right, left = (
        ((x - side * (52 + gap)) / 50) ** 2 + (y / 72) ** 2 + (z / 80) ** 2 < 1 for side in (-1, 1)
    )
    tongue = (np.abs(y + 30) < 6) & (np.abs(z) < 40)
    right |= tongue & (x < 0) & (x > -40)
    left |= tongue & (x >= 0) & (x < 40)
    return right & ~left, left


@pytest.mark.parametrize("gap", [4.0, 0.0, -2.0])
@pytest.mark.parametrize("error", [-4.0, 0.0, 4.0])
def test_lungs_that_touch_are_split_at_the_junction(gap: float, error: float) -> None:
    right, left = lungs(gap)
    found = find_left_lung(right | left, 65.0 + error, SPACING)
    assert not (found & ~(right | left)).any()
    assert (found != left)[right | left].mean() <= 0.01


def test_a_tongue_across_the_midline_stays_with_its_lung() -> None:
    right, left = lungs(6.0)
    tongue = np.zeros_like(right)
    right[:, :, 60:] = left[:, :, :70] = False
    tongue[25:35, 20:30, 40:68] = True
    right |= tongue
    left &= ~np.roll(tongue, 3, axis=2) & ~tongue
    found = find_left_lung(right | left, 65.0, SPACING)
    np.testing.assert_array_equal(found, left)


def test_one_lung_is_on_its_side_of_the_spine() -> None:
    right, left = lungs(4.0)
    hu = np.full(right.shape, 40.0, np.float32)
    hu[right] = -850.0
    hu[:, 70:82, 48:58] = 300.0  # the picture is cropped: the spine lies right of its middle
    body = np.ones_like(right)
    middle = midline_x(hu, right, body, SPACING)
    assert 48 <= middle <= 57
    assert not find_left_lung(right, middle, SPACING).any()
    assert find_left_lung(left, middle, SPACING)[left].all()
    assert not find_left_lung(np.zeros_like(left), middle, SPACING).any()


def test_without_bone_the_body_gives_the_midline() -> None:
    right, left = lungs(4.0)
    hu = np.where(right | left, -850.0, 40.0).astype(np.float32)
    body = np.zeros_like(right)
    body[:, :, 20:100] = True
    assert midline_x(hu, right | left, body, SPACING) == pytest.approx(59.5)
