"""Shape measures on bodies whose shape is known."""

import math

import numpy as np
import pytest

from simulator.shape import count_components, join_share, nearest_distance_mm, surface_to_volume_per_mm
from standard_space.errors import DataError, UsageError

UNIT = (1.0, 1.0, 1.0)
SPACINGS = [UNIT, (2.0, 0.7, 0.7), (1.0, 0.652, 0.652), (0.5, 0.5, 1.5)]


def ball(radius_mm: float, spacing_mm: tuple[float, float, float], size_mm: float = 60.0) -> np.ndarray:
    counts = [int(size_mm / s) for s in spacing_mm]
    axes = [(np.arange(n) + 0.5) * s - size_mm / 2 for n, s in zip(counts, spacing_mm, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 < radius_mm**2


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("radius_mm", [10.0, 20.0])
def test_surface_of_a_ball_is_three_over_its_radius(
    radius_mm: float, spacing_mm: tuple[float, float, float]
) -> None:
    measured = surface_to_volume_per_mm(ball(radius_mm, spacing_mm), spacing_mm)
    assert measured == pytest.approx(3 / radius_mm, rel=0.06)


def test_surface_scales_with_length_and_does_not_see_the_border() -> None:
    mask = ball(12.0, UNIT)
    assert surface_to_volume_per_mm(mask, (2.0, 2.0, 2.0)) == pytest.approx(
        surface_to_volume_per_mm(mask, UNIT) / 2
    )
    where = np.argwhere(mask)
    cropped = mask[tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))]
    assert surface_to_volume_per_mm(cropped, UNIT) == pytest.approx(surface_to_volume_per_mm(mask, UNIT))


def test_surface_grows_with_raggedness_and_pieces() -> None:
    smooth = ball(15.0, UNIT)
    ragged = smooth & (np.random.default_rng(0).random(smooth.shape) < 0.7)
    assert surface_to_volume_per_mm(ragged, UNIT) > 2 * surface_to_volume_per_mm(smooth, UNIT)
    two = np.zeros((40, 40, 40), bool)
    two[2:12, 2:12, 2:12] = two[20:30, 20:30, 20:30] = True
    one = np.zeros_like(two)
    one[2:12, 2:12, 2:12] = True
    assert surface_to_volume_per_mm(two, UNIT) == pytest.approx(surface_to_volume_per_mm(one, UNIT))


def test_components_hang_together_by_corners_and_may_be_too_small() -> None:
    mask = np.zeros((20, 20, 20), bool)
    assert count_components(mask, UNIT) == 0
    mask[2, 2, 2] = mask[3, 3, 3] = True  # by a corner
    mask[10:14, 10:14, 10:14] = True
    mask[18, 18, 18] = True
    assert count_components(mask, UNIT) == 3
    assert count_components(mask, UNIT, least_ml=0.002) == 2
    assert count_components(mask, UNIT, least_ml=0.01) == 1
    assert count_components(mask, (2.0, 3.0, 1.0), least_ml=0.01) == 2  # 6 mm3 a voxel
    assert count_components(mask, UNIT, least_ml=0.1) == 0


def test_components_of_a_checkerboard() -> None:
    checks = np.indices((6, 6, 6)).sum(axis=0) % 2 == 0
    assert count_components(checks, UNIT) == 1  # edges touch
    far = np.zeros((9, 9, 9), bool)
    far[::2, ::2, ::2] = True
    assert count_components(far, UNIT) == 125


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_distance_is_that_of_the_nearest_pair(spacing_mm: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(1)
    old = rng.random((14, 12, 10)) < 0.01
    new = (rng.random(old.shape) < 0.02) & ~old
    spacing = np.array(spacing_mm)
    a, b = np.argwhere(new) * spacing, np.argwhere(old) * spacing
    expected = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2)).min(axis=1)
    np.testing.assert_allclose(nearest_distance_mm(new, old, spacing_mm), expected, rtol=1e-12)


def test_distance_of_pieces_is_that_of_their_nearest_voxel() -> None:
    old, new = np.zeros((30, 30, 30), bool), np.zeros((30, 30, 30), bool)
    old[5:8, 5:8, 5:8] = True
    new[5, 5, 10:13] = True  # 3 voxels behind x = 7
    new[20:22, 6, 6] = True  # 13 voxels behind z = 7
    new[6, 6, 6] = True  # inside
    spacing_mm = (2.0, 1.0, 0.5)
    found = nearest_distance_mm(new, old, spacing_mm, by_component=True)
    assert sorted(found) == pytest.approx([0.0, 1.5, 26.0])
    assert nearest_distance_mm(np.zeros_like(new), old, spacing_mm).shape == (0,)


def test_join_share_of_known_patterns() -> None:
    lesion = np.ones((5, 40, 40), bool)
    assert join_share(lesion, lesion) == 1.0
    checks = np.indices(lesion.shape).sum(axis=0) % 2 == 0
    assert join_share(checks, lesion) == 0.0
    left = np.zeros_like(lesion)
    left[:, :, :20] = True  # a slice: joined 40 * 19 along x and 39 * 20 along y, 40 cross the front
    assert join_share(left, lesion) == pytest.approx(1540 / 1580)
    # slices do not count: alternating whole slices join in plane only
    slices = np.zeros_like(lesion)
    slices[::2] = True
    assert join_share(slices, lesion) == 1.0
    # edges that leave the lesion do not count
    alone = np.zeros_like(lesion)
    alone[2, 10:14, 10:14] = True
    assert join_share(alone, alone) == 1.0


@pytest.mark.parametrize("share", [0.1, 0.36, 0.8])
def test_random_placement_joins_p_over_2_minus_p(share: float) -> None:
    lesion = ball(20.0, UNIT)
    dense = lesion & (np.random.default_rng(7).random(lesion.shape) < share)
    assert join_share(dense, lesion) == pytest.approx(share / (2 - share), rel=0.04)


def test_nothing_to_measure_is_nan() -> None:
    empty = np.zeros((4, 4, 4), bool)
    assert math.isnan(surface_to_volume_per_mm(empty, UNIT))
    assert math.isnan(join_share(empty, ~empty))
    one = empty.copy()
    one[1, 1, 1] = True
    assert math.isnan(join_share(one, one))


def test_bad_input_is_refused() -> None:
    mask = np.ones((3, 3, 3), bool)
    with pytest.raises(DataError, match="no mask"):
        count_components(mask.astype(int), UNIT)
    with pytest.raises(DataError, match="no mask"):
        surface_to_volume_per_mm(mask[0], UNIT)
    with pytest.raises(UsageError, match="spacing"):
        surface_to_volume_per_mm(mask, (1.0, 0.0, 1.0))
    with pytest.raises(UsageError, match="least volume"):
        count_components(mask, UNIT, least_ml=float("nan"))
    with pytest.raises(DataError, match="differ in shape"):
        nearest_distance_mm(mask, mask[:2], UNIT)
    with pytest.raises(DataError, match="no lesion"):
        nearest_distance_mm(mask, ~mask, UNIT)
    with pytest.raises(DataError, match="outside the lesion"):
        join_share(mask, ~mask)
    with pytest.raises(DataError, match="differ in shape"):
        join_share(mask, mask[:2])
