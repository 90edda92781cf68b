import numpy as np
import pytest
from scipy import stats

from simulator.dynamics.controls import Controls
from simulator.dynamics.field import FIELD_LEVELS
from simulator.dynamics.hashing import as_seed, stream_key
from simulator.dynamics.neighbours import WEIGHT_BITS
from simulator.dynamics.ranking import (
    FIELD_SPEED,
    LEVELS_PER_BIN,
    LONGEST_PUSH,
    Pushes,
    destination_of,
    one_level_per_bin,
    plan_moves,
    score_voxels,
    shared_entries,
)

LEVELS = 300


def assign(rows: np.ndarray, scores: np.ndarray, moves: np.ndarray, seed: int = 0) -> np.ndarray:
    """Run the kernels on given scores."""
    levels = np.zeros((130, LEVELS), np.int32)
    np.add.at(levels, (rows, scores), 1)
    destination = np.zeros(shared_entries(130, rows.size), np.int16)
    left = np.zeros(destination.size, np.int32)
    plan_moves(levels, moves, levels.sum(axis=1), destination, left)
    key = np.uint64(stream_key(as_seed(seed), 4, 0))
    return np.array(
        [destination_of(int(code), i, key, destination, left) for i, code in enumerate(levels[rows, scores])]
    )


def random_moves(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    moves = np.zeros((130, 131), np.int64)
    for k, number in enumerate(np.bincount(rows, minlength=130)):
        moves[k] = rng.multinomial(number, rng.dirichlet(np.full(131, 0.05)))
    return moves


def test_distinct_scores_equal_a_plain_sort() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 130, 3000)
    scores = np.zeros(3000, np.int64)
    for k in range(130):
        mine = np.flatnonzero(rows == k)
        scores[mine] = rng.permutation(LEVELS)[: mine.size]
    moves = random_moves(rng, rows)
    got = assign(rows, scores, moves)
    for k in range(130):
        mine = np.flatnonzero(rows == k)
        expected = np.repeat(np.arange(131), moves[k])
        assert np.array_equal(got[mine[np.argsort(scores[mine])]], expected)


def test_ties_keep_counts_exact_and_order_between_levels() -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 4, 5000)
    scores = rng.integers(0, 12, 5000)  # many ties
    moves = random_moves(rng, rows)
    got = assign(rows, scores, moves)
    for k in range(4):
        mine = rows == k
        assert np.array_equal(np.bincount(got[mine], minlength=131), moves[k])
        for score in range(11):
            lower, higher = got[mine & (scores == score)], got[mine & (scores == score + 1)]
            assert lower.max() <= higher.min()


def test_every_tied_voxel_has_the_same_chance() -> None:
    rows, scores = np.zeros(10, int), np.full(10, 7)
    moves = np.zeros((130, 131), np.int64)
    moves[0, [0, 1, 2]] = [2, 5, 3]
    chosen = np.zeros(10)
    for seed in range(2000):
        chosen += assign(rows, scores, moves, seed) == 0
    assert stats.chisquare(chosen).pvalue > 1e-3


def scored(pushes: Pushes, field: np.ndarray, above: np.ndarray, bins: np.ndarray) -> np.ndarray:
    n = field.size
    near = np.uint16(77) + (above.astype(np.uint16) << WEIGHT_BITS)  # the weight below 0 must not matter
    region = (np.arange(n) % 3).astype(np.uint8)
    counts = np.bincount(region, minlength=4)
    scores, levels = np.zeros(n, np.uint16), np.ones((4, pushes.levels), np.int32)
    score_voxels(
        np.arange(n, dtype=np.int32), bins.astype(np.uint8), region, field.astype(np.uint8), near, 0, n,
        pushes.field, pushes.neighbours, pushes.noise, pushes.zero,
        np.uint64(stream_key(as_seed(0), 3, 0)), counts, scores, levels,
    )  # fmt: skip
    used = counts > 0
    assert np.array_equal(levels[used].sum(axis=1), counts[used])
    assert (levels[~used] == 1).all()  # rows without voxels are left alone
    return scores.astype(int)


@pytest.mark.parametrize("steps", [1, 10, 100, 5000])
def test_scores_are_bin_field_neighbours_and_noise(steps: int) -> None:
    pushes = Pushes(Controls(consolidation_clustering=1.0, correlation_mm=4.0), steps)
    n = 6000
    rng = np.random.default_rng(steps)
    field, above = rng.integers(0, FIELD_LEVELS, n), rng.integers(0, 27, n)
    bins = rng.integers(0, 130, n)
    expected = pushes.zero + LEVELS_PER_BIN * bins + pushes.field[field] + pushes.neighbours[above]
    noise = scored(pushes, field, above, bins) - expected
    assert (noise.min(), noise.max()) == (-pushes.noise, pushes.noise)
    assert stats.chisquare(np.bincount(noise + pushes.noise)).pvalue > 1e-3
    extremes = np.array([0, FIELD_LEVELS - 1]), np.array([0, 26])
    ends = scored(pushes, extremes[0], extremes[1], np.array([0, 129]))
    assert ends[0] >= 0
    assert ends[1] < pushes.levels < 2**16  # scores are uint16
    assert pushes.field[-1] == round(LEVELS_PER_BIN * min(FIELD_SPEED * steps, LONGEST_PUSH))
    assert pushes.field[0] == -pushes.field[-1]


def test_controls_that_are_off_do_not_push() -> None:
    field_only = Pushes(Controls(consolidation_clustering=0.0, correlation_mm=4.0), 10)
    assert not field_only.neighbours.any()
    assert field_only.field.any()
    clustering_only = Pushes(Controls(consolidation_clustering=1.0, correlation_mm=0.0), 10)
    assert not clustering_only.field.any()
    assert (np.diff(clustering_only.neighbours) > 0).all()
    off = Pushes(Controls(consolidation_clustering=0.0, correlation_mm=0.0), 10)
    assert (off.ordered, off.levels, off.rows_per_region) == (False, 1, 130)


def test_independent_voxels_share_one_level() -> None:
    counts = np.array([3, 0, 5], np.int64)
    scores, levels = np.full(8, 9, np.uint16), np.full((3, 1), 7, np.int32)
    one_level_per_bin(0, 8, counts, scores, levels)
    assert levels[:, 0].tolist() == [3, 0, 5]
    assert not scores.any()
