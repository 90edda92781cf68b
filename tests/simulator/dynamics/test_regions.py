"""Lesions are kept apart, and conserve what independent voxels would (the paper's first finding)."""

import numpy as np
import pytest

from simulator.dynamics.engine import Controls, LesionState, advance, start_state
from simulator.dynamics.regions import MAX_REGIONS, cell_voxels, label_cells
from tests.simulator.dynamics.twins import GROWING, STATIONARY

OFF = Controls(gamma=2.0, consolidation_clustering=0.0, correlation_mm=0.0)


def eight_lesions(seed: int = 0, *, recovery_limit: bool = False) -> LesionState:
    """Eight balls of about 500 voxels, far apart, with the same mixture of signals."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((64, 64, 64))
    infected = np.zeros((64, 64, 64), bool)
    for corner in np.ndindex(2, 2, 2):
        cz, cy, cx = (16 + 32 * c for c in corner)
        infected |= (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 5**2
    signal = rng.normal(-0.2, 0.03, infected.shape).astype(np.float32)
    signal[infected] = np.clip(rng.normal(-0.02, 0.07, int(infected.sum())), -0.14, 0.45)
    return start_state(
        signal, infected, np.ones_like(infected), (1.0, 1.0, 1.0), recovery_limit=recovery_limit
    )


def shares_above(controls: Controls, jump: int) -> np.ndarray:
    """Share above 0 of every lesion in many runs, shape (runs, 8)."""
    start, found = eight_lesions(), []
    for seed in range(24):
        state = advance(start.copy(), STATIONARY, 150, jump=jump, seed=seed, controls=controls)
        counts = state.region_counts()
        assert counts.shape[0] == 8
        found.append(counts[:, 30:].sum(axis=1) / counts.sum(axis=1))
    return np.array(found)


@pytest.mark.parametrize("jump", [1, 10])
@pytest.mark.parametrize(
    "controls",
    [Controls(), Controls(consolidation_clustering=1.0), Controls(correlation_mm=12.0)],
    ids=["default", "clustered", "wide"],
)
def test_no_control_lets_lesions_differ_more_than_independent_voxels(controls: Controls, jump: int) -> None:
    independent, found = shares_above(OFF, jump), shares_above(controls, jump)
    ratio = found.std(axis=1, ddof=1).mean() / independent.std(axis=1, ddof=1).mean()
    assert 0.8 < ratio < 1.25
    p, voxels = independent.mean(), eight_lesions().n / 8
    assert independent.std(axis=1, ddof=1).mean() == pytest.approx(np.sqrt(p * (1 - p) / voxels), rel=0.3)


def spread_of_balls(controls: Controls) -> float:
    """Standard deviation between the eight balls of their share above 0, grown from the recovery limit."""
    start, spread = eight_lesions(recovery_limit=True), []
    for seed in range(6):
        state = advance(start.copy(), GROWING, 250, seed=seed, controls=controls)
        z, y, x = (c // 32 for c in np.unravel_index(state.index, state.shape))
        ball = z * 4 + y * 2 + x
        above = np.bincount(ball, state.bin >= 30, 8) / np.bincount(ball, minlength=8)
        spread.append(above.std(ddof=1))
    return float(np.mean(spread))


def test_one_large_region_would_not_conserve(monkeypatch: pytest.MonkeyPatch) -> None:
    # the test above can fail: put in order all together, lesions differ several times more
    wide = Controls(correlation_mm=12.0)
    apart = spread_of_balls(wide)
    monkeypatch.setattr("simulator.dynamics.regions.CELL_MM", 64.0)
    assert spread_of_balls(wide) > 2 * apart


def test_labels_by_size_and_the_smallest_share_the_last() -> None:
    dims, cell = np.array([400, 16, 16], np.int64), np.array([4, 4, 4], np.int64)
    voxels = np.concatenate([np.arange(z * 256, z * 256 + 1 + z % 3) for z in range(0, 400, 16)])
    labels, cells, number = label_cells(voxels.astype(np.int32), dims, cell)
    assert number == 25
    assert cells.tolist() == [100, 4, 4]
    assert labels.max() == 25
    sizes = np.bincount(labels.reshape(100, 16)[::4, 0] - 1, weights=[1 + z % 3 for z in range(0, 400, 16)])
    assert (np.diff(sizes) <= 0).all()
    many = np.arange(0, 400, 2) * 256  # one voxel in every other plane
    labels, _, number = label_cells(many.astype(np.int32), dims, np.array([1, 1, 1], np.int64))
    assert number == MAX_REGIONS
    assert np.bincount(labels)[1:].tolist() == [1] * 63 + [200 - 63]


def test_scattered_voxels_of_y_t0_hold_together() -> None:
    assert cell_voxels((1.0, 0.65, 0.65)).tolist() == [4, 6, 6]
    assert cell_voxels((8.0, 5.2, 5.2)).tolist() == [1, 1, 1]
    rng = np.random.default_rng(0)
    z, y, x = np.indices((48, 48, 48)) - 24
    ball = z**2 + y**2 + x**2 < 14**2
    scattered = np.flatnonzero(ball & (rng.random(ball.shape) < 0.1)).astype(np.int32)
    _, _, number = label_cells(scattered, np.array([48, 48, 48], np.int64), cell_voxels((1.0, 0.65, 0.65)))
    assert number == 1


def test_newborns_join_the_lesion_they_touch_and_seeds_start_their_own() -> None:
    state = advance(eight_lesions(), GROWING, 60, jump=10, seed=0)
    z, y, x = (c // 32 for c in np.unravel_index(state.index, state.shape))
    ball, region = z * 4 + y * 2 + x, state._region[: state.n]
    assert state.born.any()
    assert len(set(zip(ball.tolist(), region.tolist(), strict=True))) == 8
    seeded = advance(eight_lesions(), GROWING, 60, jump=10, seed=0, controls=Controls(seeded_share=0.3))
    assert seeded.region_counts().shape[0] > 8
    assert seeded.region_counts().shape[0] <= MAX_REGIONS
