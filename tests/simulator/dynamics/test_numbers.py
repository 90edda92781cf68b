"""Numbers of a jump: exact in sum, and scattering as V says however long the jump."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.dynamics.chain import propagate, propagate_covariance
from simulator.dynamics.numbers import LARGEST_FEEDBACK, part_length
from tests.simulator.dynamics import twins
from tests.simulator.dynamics.twins import GROWING, SHRINKING


def counts_of(regions: int) -> np.ndarray:
    rng = np.random.default_rng(regions)
    counts = np.zeros((regions, 130), np.int64)
    counts[:, 5:60] = rng.integers(0, 30, (regions, 55))
    return counts


@pytest.mark.parametrize("parts", [1, 4])
def test_every_voxel_is_somewhere(parts: int) -> None:
    counts = counts_of(3)
    drawn = twins.numbers(counts, GROWING, 5, parts, seed=1, rows_kept=parts == 1)
    assert np.array_equal(drawn.region_moves.sum(axis=1), counts.sum(axis=1))
    assert (drawn.region_moves >= 0).all()
    assert (drawn.births >= 0).all()
    if parts == 1:
        assert np.array_equal(drawn.moves.sum(axis=1), counts.ravel())
        assert np.array_equal(drawn.moves.reshape(3, 130, 131).sum(axis=1), drawn.region_moves)


@pytest.mark.parametrize("linked_share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("birth_rate", [0.005, 0.02])
def test_a_jump_of_100_scatters_as_single_transitions_do(birth_rate: float, linked_share: float) -> None:
    w = replace(GROWING, birth_rate=birth_rate, linked_share=linked_share)
    counts, runs = counts_of(2), 1500
    part = part_length(100, birth_rate, linked_share)
    drawn = [twins.numbers(counts, w, part, 100 // part, seed, rows_kept=False) for seed in range(runs)]
    totals = np.array([d.region_moves[:, 1:].sum(axis=0) + d.births[1:] for d in drawn])
    start = counts.sum(axis=0)
    mean, v = propagate_covariance(start, w, 100)
    np.testing.assert_allclose(mean, propagate(start, w, 100))
    for group in (slice(0, 30), slice(30, 130), slice(0, 130)):
        found = totals[:, group].sum(axis=1)
        assert abs(found.mean() - mean[group].sum()) < 3.5 * np.sqrt(v[group, group].sum() / runs)
        ratio = found.var(ddof=1) / v[group, group].sum()
        assert abs(ratio - 1) < LARGEST_FEEDBACK + 3.5 * np.sqrt(2 / runs)


def test_parts_divide_the_jump_and_keep_feedback_small() -> None:
    assert part_length(100, 0.004, 0.0) == 100
    assert part_length(100, 0.004, 0.5) == 10
    assert part_length(37, 0.004, 0.5) == 1  # a prime beyond 10
    assert part_length(10, 0.0038, 0.5) == 10
    assert part_length(1, 0.5, 1.0) == 1
    for steps in range(1, 60):
        part = part_length(steps, 0.003, 1.0)
        assert steps % part == 0
        assert part == 1 or part * 0.003 <= LARGEST_FEEDBACK + 1e-12


def test_no_more_births_are_drawn_than_could_ever_be_placed() -> None:
    w = replace(SHRINKING, birth_rate=1e6, linked_share=1.0)
    drawn = twins.numbers(counts_of(1), w, 1, 50, seed=0, most_births=50_000.0)
    assert 45_000 < drawn.births.sum() < 55_000
