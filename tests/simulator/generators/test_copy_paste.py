"""Lesions pasted from one scan into another: where, with which HU, under which label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.generators.copy_paste import CopyPasteDraw, apply, carve, draw
from standard_space.errors import DataError, UsageError
from standard_space.grid import StandardGrid
from standard_space.window import Window
from tests.simulator.generators.scans import hand_made, lungs_at

LESION = (slice(16, 24), slice(16, 26), slice(8, 18))
MILLIMETRE = (1.0, 1.0, 1.0)


def test_margins_are_grown_or_shrunk_with_equal_odds_and_uniform() -> None:
    rng = np.random.default_rng(3)
    shares = np.array([draw(rng).margin_share for _ in range(4000)])
    assert -0.5 <= shares.min() < -0.49
    assert 0.99 < shares.max() <= 1.0
    assert np.mean(shares > 0) == pytest.approx(0.5, abs=0.03)
    assert np.median(shares[shares > 0]) == pytest.approx(0.5, abs=0.03)
    assert np.median(shares[shares < 0]) == pytest.approx(-0.25, abs=0.02)


def test_the_region_is_the_lesion_grown_or_shrunk_by_a_share_of_its_depth() -> None:
    ball = sum(np.square(g - 20.0) for g in np.meshgrid(*[np.arange(41.0)] * 3, indexing="ij")) < 8.0**2
    for share in (-0.5, -0.2, 0.4, 1.0):
        region = carve(ball, MILLIMETRE, share)
        radius = (3.0 * region.sum() / (4.0 * np.pi)) ** (1.0 / 3.0)
        assert radius == pytest.approx(8.0 * (1.0 + share), abs=0.8), share
    thick = carve(ball[::4], (4.0, 1.0, 1.0), 0.7)
    slices, rows = (np.flatnonzero(thick.any(axis=others)) for others in ((1, 2), (0, 2)))
    assert np.ptp(slices) * 4.0 == 16.0, "the margin is in millimetres: one slice more on each side"
    assert np.ptp(rows) == pytest.approx(2 * 7.5 * 1.7, abs=2.0)


def test_lesions_of_one_voxel_and_at_the_volume_s_edge_are_carved() -> None:
    point = np.zeros((9, 9, 9), bool)
    point[0, 4, 4] = True
    for share in (-0.5, 0.0, 0.99):
        assert carve(point, MILLIMETRE, share).sum() == 1
    assert carve(np.ones((4, 4, 4), bool), MILLIMETRE, 0.5).all()
    assert not carve(np.zeros((4, 4, 4), bool), MILLIMETRE, 0.5).any()


def test_hu_and_label_of_the_region_are_the_donor_s_whatever_the_windows() -> None:
    donor = hand_made("donor", lesion=LESION, window=Window(-500.0, 1500.0, "manifest"))
    target = hand_made("t", lesion=(slice(26, 30), slice(16, 20), slice(30, 34)))
    made = apply(target, donor, CopyPasteDraw(0.4), seed=7)
    region = carve(donor.infection, donor.grid.spacing_mm, 0.4) & target.lungs
    before, after = target.window.to_hu(target.signal), made.window.to_hu(made.signal)
    np.testing.assert_allclose(after[region], donor.window.to_hu(donor.signal)[region], atol=0.01)
    np.testing.assert_array_equal(after[~region], before[~region])
    assert region.sum() > donor.infection.sum(), "a grown margin brings healthy lung along"
    np.testing.assert_array_equal(made.infection, target.infection | donor.infection)
    assert made.window == target.window


def test_a_lesion_of_the_target_under_the_region_is_replaced() -> None:
    donor = hand_made("donor", lesion=LESION)
    target = hand_made("t", lesion=(slice(14, 26), slice(14, 28), slice(7, 19)))
    made = apply(target, donor, CopyPasteDraw(1.0), seed=7)
    region = carve(donor.infection, donor.grid.spacing_mm, 1.0)
    np.testing.assert_array_equal(
        made.infection[region & target.lungs], donor.infection[region & target.lungs]
    )
    assert made.infection.sum() < target.infection.sum()


def test_nothing_is_pasted_outside_the_lungs_of_either() -> None:
    donor = hand_made("donor", lesion=(slice(10, 24), slice(10, 26), slice(4, 18)), rows=slice(12, 36))
    target = hand_made("t", rows=slice(16, 40))
    made = apply(target, donor, CopyPasteDraw(0.9), seed=7)
    changed = made.signal != target.signal
    assert not (made.infection & ~target.lungs).any()
    assert not (changed & ~target.lungs).any()
    assert not (changed & ~donor.lungs & ~donor.infection).any()
    assert made.infection.any()


def test_it_is_a_pure_function_that_tells_where_it_comes_from() -> None:
    donor, target = hand_made("donor", lesion=LESION), hand_made("t")
    kept = target.signal.copy(), target.infection.copy(), donor.signal.copy()
    drawn = draw(np.random.default_rng(11))
    first, second = apply(target, donor, drawn, seed=11), apply(target, donor, drawn, seed=11)
    np.testing.assert_array_equal(first.signal, second.signal)
    np.testing.assert_array_equal(first.infection, second.infection)
    for before, now in zip(kept, (target.signal, target.infection, donor.signal), strict=True):
        np.testing.assert_array_equal(before, now)
    assert first.native_infection is None
    assert target.provenance == {"notes": []}
    assert first.provenance["generator"] == "copy-paste"
    assert first.provenance["seed"] == 11
    assert first.provenance["draw"] == {"margin_share": drawn.margin_share, "donor": "donor/a"}


def test_what_cannot_be_pasted_is_said() -> None:
    donor, target = hand_made("donor", lesion=LESION), hand_made("t")
    drawn = CopyPasteDraw(0.0)
    with pytest.raises(DataError, match="no lesion to paste"):
        apply(target, hand_made("donor"), drawn, seed=1)
    with pytest.raises(DataError, match="no lesion of donor/a lies within the lungs"):
        apply(replace(target, lungs=lungs_at(slice(30, 36))), donor, drawn, seed=1)
    with pytest.raises(UsageError, match="one grid only"):
        apply(target, replace(donor, grid=StandardGrid(64)), drawn, seed=1)
