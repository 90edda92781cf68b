"""Seeds: in any scan, where they are said to be, unequal, the same for the same seed; and what grows from them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.default_dynamics import (
    LESION_ML,
    PERCENT,
    SEEDED_ML,
    SIGNAL,
    TRANSITIONS,
    VOXEL_ML,
    fit_default,
)
from simulator.dynamics.chain import propagate
from simulator.dynamics.parameters import PARAMETER_NAMES
from simulator.progression import DEFAULT_DYNAMICS, progress, with_reference
from simulator.seeding import BALLS, SUBPLEURAL_MM, seed_infection
from simulator.shape import count_components
from simulator.simulation import start_state
from standard_space.errors import DataError, UsageError
from standard_space.grid import StandardGrid
from standard_space.scan import Scan
from tests.simulator.scans import small_scan


@pytest.fixture(scope="module")
def healthy() -> Scan:
    """Two block lungs with a mediastinum between them and one airway, never annotated."""
    scan = small_scan()
    grid = StandardGrid(64)
    lungs = np.zeros(grid.shape, np.bool_)
    lungs[12:52, 16:50, 8:28] = lungs[12:52, 16:50, 36:56] = True
    airways = np.zeros_like(lungs)
    airways[:, 30:33, 16:18] = True
    signal = np.where(lungs, -0.17, 0.35).astype(np.float32)
    signal += np.random.default_rng(0).normal(0, 0.01, lungs.shape).astype(np.float32)
    return replace(
        scan,
        signal=signal,
        grid=grid,
        lungs=lungs,
        airways=airways & lungs,
        vessels=np.zeros_like(lungs),
        infection=None,
        native_infection=None,
    )


def centres_of(scan: Scan, number: int, **options) -> np.ndarray:
    """With a radius below the spacing a seed is its centre."""
    return np.argwhere(seed_infection(scan, number, radius_mm=0.01, **options))


@pytest.mark.parametrize("seed", range(4))
def test_subpleural_seeds_are_near_the_ribs_and_low(healthy: Scan, seed: int) -> None:
    centres = centres_of(healthy, 200, seed=seed)
    assert len(centres) == 200
    depth_mm = ndimage.distance_transform_edt(healthy.lungs, sampling=healthy.grid.spacing_mm)
    assert depth_mm[tuple(centres.T)].max() <= SUBPLEURAL_MM
    assert centres[:, 0].max() <= 12 + np.ceil(2 / 3 * 39)
    # not at the surfaces that face the mediastinum: those are the nearest for x in 25..38 only
    _, y, x = centres.T
    facing = np.minimum(np.abs(x - 28), np.abs(x - 35))
    ribs = np.minimum.reduce([x - 7, 56 - x, y - 15, 50 - y])
    up_down = np.minimum(centres[:, 0] - 11, 52 - centres[:, 0]) * 8 / (334 / 64)  # 8 mm slices
    assert (np.minimum(ribs, up_down) <= facing + 1e-9).all()


def test_anywhere_goes_deeper(healthy: Scan) -> None:
    depth_mm = ndimage.distance_transform_edt(healthy.lungs, sampling=healthy.grid.spacing_mm)
    centres = centres_of(healthy, 400, where="anywhere", seed=0)
    assert depth_mm[tuple(centres.T)].max() > 1.5 * SUBPLEURAL_MM
    assert centres[:, 0].max() > 45


@pytest.mark.parametrize("where", ["subpleural", "anywhere"])
def test_seeds_stay_in_susceptible_tissue_and_repeat(healthy: Scan, where: str) -> None:
    seeds = seed_infection(healthy, 12, where=where, radius_mm=15.0, seed=5)
    assert not (seeds & (healthy.airways | ~healthy.lungs)).any()
    np.testing.assert_array_equal(seeds, seed_infection(healthy, 12, where=where, radius_mm=15.0, seed=5))
    assert (seeds != seed_infection(healthy, 12, where=where, radius_mm=15.0, seed=6)).any()


def test_seeds_are_unequal_and_as_large_as_said(healthy: Scan) -> None:
    grid = StandardGrid(128)
    lungs = healthy.lungs.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    fine = replace(
        healthy, grid=grid, lungs=lungs, airways=np.zeros_like(lungs), vessels=np.zeros_like(lungs),
        signal=healthy.signal.repeat(2, 0).repeat(2, 1).repeat(2, 2),
    )  # fmt: skip
    volumes = []
    for seed in range(5):
        mask = seed_infection(fine, 12, seed=seed)
        volumes.append(mask.sum() * grid.voxel_volume_ml)
        assert 12 <= count_components(mask, grid.spacing_mm) <= 12 * BALLS
    assert np.median(volumes) == pytest.approx(SEEDED_ML, rel=0.35)
    single = [seed_infection(fine, 1, where="anywhere", seed=seed).sum() for seed in range(30)]
    low, high = np.percentile(single, [10, 90])
    assert high > 4 * low
    assert min(single) >= 1


def test_annotated_lesions_are_left_out() -> None:
    scan = small_scan()
    assert scan.infection is not None
    seeds = seed_infection(scan, 20, where="anywhere", radius_mm=20.0, seed=0)
    assert not (seeds & scan.infection).any()


def test_one_lung_is_enough(healthy: Scan) -> None:
    lungs = healthy.lungs.copy()
    lungs[:, :, 32:] = False
    right = replace(healthy, lungs=lungs, airways=healthy.airways & lungs)
    assert len(centres_of(right, 50)) == 50


def test_no_room_is_said(healthy: Scan) -> None:
    with pytest.raises(DataError, match="no room"):
        seed_infection(healthy, 10**7)
    for where in ("subpleural", "anywhere"):
        with pytest.raises(DataError, match="no room"):
            seed_infection(replace(healthy, lungs=np.zeros_like(healthy.lungs)), 1, where=where)
    with pytest.raises(DataError, match="where anywhere"):
        seed_infection(replace(healthy, airways=healthy.lungs), 1)


def test_bad_options_are_said(healthy: Scan) -> None:
    for number in (0, -1):
        with pytest.raises(UsageError, match="number of seeds"):
            seed_infection(healthy, number)
    for radius in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="radius"):
            seed_infection(healthy, 3, radius_mm=radius)
    with pytest.raises(UsageError, match="place"):
        seed_infection(healthy, 3, where="apical")  # type: ignore[arg-type]


def test_default_dynamics_are_the_fit_they_claim() -> None:
    fitted = fit_default().parameters
    for name in PARAMETER_NAMES:
        assert getattr(DEFAULT_DYNAMICS, name) == pytest.approx(getattr(fitted, name), rel=5e-3), name


def test_default_dynamics_make_the_median_lesion_in_a_week() -> None:
    start = np.zeros(130)
    start[0] = SEEDED_ML / VOXEL_ML
    week = propagate(start, replace(DEFAULT_DYNAMICS, reference_ggo_voxels=start[0]), TRANSITIONS)
    assert week.sum() * VOXEL_ML == pytest.approx(LESION_ML, rel=0.02)
    share = np.concatenate([[0], np.cumsum(week) / week.sum()])
    percentiles = np.interp(np.array(PERCENT[1:-1]) / 100, share, np.linspace(-0.15, 0.5, 131))
    np.testing.assert_allclose(percentiles, SIGNAL[1:-1], atol=0.015)
    assert week[80:].sum() / week.sum() == pytest.approx(0.239, abs=0.03)  # above -200 HU; observed median


def test_a_healthy_scan_grows_a_lesion_clear_of_airways(healthy: Scan) -> None:
    seeds = seed_infection(healthy, 12, seed=1)
    scan = replace(healthy, infection=seeds)
    state = start_state(scan.signal, seeds, scan.susceptible, scan.grid.spacing_mm, recovery_limit=True)
    frames = list(
        progress(scan, with_reference(DEFAULT_DYNAMICS, state), days=7, every=3.5, seed=1, state=state)
    )
    volumes = [frame.infection.sum() for frame in frames]
    assert volumes[0] < volumes[1] < volumes[2]
    assert 4 * volumes[0] < volumes[2] < 40 * volumes[0]
    assert not (frames[-1].infection & (scan.airways | ~scan.lungs)).any()
    assert frames[-1].report.exact
    outside = ~frames[-1].infection & ~frames[1].infection & ~seeds
    np.testing.assert_array_equal(
        frames[-1].signal[~scan.lungs & outside], scan.signal[~scan.lungs & outside]
    )
