"""Lesions drawn by rules: their volumes, densities and places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from simulator.generators.ellipsoids import Ellipsoid, EllipsoidsDraw, apply, draw
from standard_space.errors import DataError
from standard_space.window import Window
from tests.simulator.generators.scans import GRID, hand_made

BALL = Ellipsoid(
    ml=40.0,
    place=0.25,
    half_axes_mm=(21.2, 21.2, 21.2),
    turn=(0.0, 0.0, 0.0, 1.0),
    edge_mm=0.0,
    mean_hu=-300.0,
    texture_hu=30.0,
    texture_mm=2.0,
    blur_mm=2.0,
    seed=4,
)


def lungs_ml() -> float:
    return float(hand_made("t").lungs.sum()) * GRID.voxel_volume_ml


def test_volumes_and_numbers_are_those_of_annotated_scans() -> None:
    rng = np.random.default_rng(0)
    draws = [draw(rng, 4000.0) for _ in range(600)]
    total = np.array([sum(lesion.ml for lesion in drawn.lesions) for drawn in draws])
    assert np.median(total) == pytest.approx(66.0, rel=0.15)
    assert 10.0 < np.percentile(total, 10) < 30.0
    assert 150.0 < np.percentile(total, 90) < 230.0
    assert np.median([len(drawn.lesions) for drawn in draws]) == pytest.approx(11.5, abs=2.0)
    largest = np.median([drawn.lesions[0].ml for drawn in draws] / total)
    assert largest == pytest.approx(0.55, abs=0.1)
    axes = np.array([lesion.half_axes_mm for drawn in draws for lesion in drawn.lesions])
    volumes = np.array([lesion.ml for drawn in draws for lesion in drawn.lesions])
    np.testing.assert_allclose(4.0 / 3.0 * np.pi * axes.prod(axis=1) / 1000.0, volumes, rtol=1e-6)
    assert max(sum(lesion.ml for lesion in draw(rng, 50.0).lesions) for _ in range(50)) <= 20.0 + 1e-6


def test_densities_spread_as_published() -> None:
    rng = np.random.default_rng(1)
    lesions = [lesion for _ in range(400) for lesion in draw(rng, 4000.0).lesions]
    hu = np.array([lesion.mean_hu for lesion in lesions])
    assert hu.mean() == pytest.approx(-446.0, abs=20.0)
    assert np.hypot(hu.std(), lesions[0].texture_hu) == pytest.approx(np.hypot(90.0, 211.0), rel=0.06)
    assert hu.min() >= -780.0
    assert hu.max() <= 60.0


@pytest.mark.parametrize("window", [Window(), Window(-450.0, 1400.0, "manifest")])
def test_one_lesion_has_its_volume_and_its_density_in_any_window(window: Window) -> None:
    target = hand_made("t", window=window)
    made = apply(target, EllipsoidsDraw((BALL,)), seed=5)
    label = made.infection
    assert label.sum() * GRID.voxel_volume_ml == pytest.approx(40.0, abs=2 * GRID.voxel_volume_ml)
    hu = window.to_hu(made.signal)
    inside = distance_transform_edt(label, sampling=GRID.spacing_mm) > 11.0
    assert inside.any()
    assert hu[inside].mean() == pytest.approx(-300.0, abs=20.0)
    assert 8.0 < hu[inside].std() < 45.0


def test_the_label_is_where_the_signal_changed_but_for_the_blurred_boundary() -> None:
    target = hand_made("t")
    made = apply(target, EllipsoidsDraw((BALL,)), seed=5)
    changed = made.signal != target.signal
    assert not (made.infection & ~changed).any()
    beyond = changed & ~made.infection
    reach_mm = distance_transform_edt(~made.infection, sampling=GRID.spacing_mm)
    assert reach_mm[beyond].max() <= 2.0 * max(GRID.spacing_mm)


def test_only_healthy_lung_is_touched_and_what_was_annotated_stays() -> None:
    lesion = (slice(16, 24), slice(16, 26), slice(8, 18))
    target = hand_made("t", lesion=lesion)
    for seed in range(3):
        made = apply(target, draw(np.random.default_rng(seed), lungs_ml()), seed=seed)
        changed = made.signal != target.signal
        closed = ~target.lungs | target.airways | target.vessels | target.infection
        assert changed.any()
        assert not (changed & closed).any()
        assert not (made.infection & ~target.lungs).any()
        assert not (target.infection & ~made.infection).any()


def test_all_lesions_together_have_the_drawn_volume() -> None:
    target, voxel_ml = hand_made("t"), GRID.voxel_volume_ml
    shares = []
    for seed in range(12):
        drawn = draw(np.random.default_rng(seed), lungs_ml())
        wanted = sum(max(lesion.ml, voxel_ml) for lesion in drawn.lesions)
        shares.append(apply(target, drawn, seed).infection.sum() * voxel_ml / wanted)
    assert np.median(shares) == pytest.approx(1.0, abs=0.05)
    assert min(shares) > 0.7


def test_it_is_a_pure_function_of_its_draw() -> None:
    target = hand_made("t")
    kept = target.signal.copy(), target.infection.copy()
    drawn = draw(np.random.default_rng(9), lungs_ml())
    assert drawn == draw(np.random.default_rng(9), lungs_ml())
    first, second = apply(target, drawn, seed=9), apply(target, drawn, seed=9)
    np.testing.assert_array_equal(first.signal, second.signal)
    np.testing.assert_array_equal(first.infection, second.infection)
    np.testing.assert_array_equal(target.signal, kept[0])
    np.testing.assert_array_equal(target.infection, kept[1])
    other = apply(target, draw(np.random.default_rng(10), lungs_ml()), seed=10)
    assert (other.infection != first.infection).any()
    assert (first.provenance["generator"], first.provenance["seed"]) == ("ellipsoids", 9)
    assert len(first.provenance["draw"]["lesions"]) == len(drawn.lesions)
    assert first.native_infection is None


def test_edges_are_deformed() -> None:
    target = hand_made("t")
    smooth = apply(target, EllipsoidsDraw((BALL,)), seed=5).infection
    rough = apply(target, EllipsoidsDraw((replace(BALL, edge_mm=5.0),)), seed=5).infection
    assert 0.05 < np.mean(smooth[smooth | rough] != rough[smooth | rough]) < 0.7


def test_a_scan_without_healthy_lung_is_refused() -> None:
    target = hand_made("t")
    with pytest.raises(DataError, match="no healthy lung"):
        apply(replace(target, airways=target.lungs), EllipsoidsDraw((BALL,)), seed=1)
