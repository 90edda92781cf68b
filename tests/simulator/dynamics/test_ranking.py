import numpy as np
import pytest
from scipy import stats

from simulator.dynamics.field import FIELD_LEVELS
from simulator.dynamics.hashing import as_seed, stream_key
from simulator.dynamics.neighbours import WEIGHT_BITS
from simulator.dynamics.ranking import (
    BONUS_LEVELS,
    NOISE_LEVELS,
    SCORE_LEVELS,
    bonus_table,
    destination_of,
    noise_width,
    plan_moves,
    score_voxels,
    shared_entries,
)


def assign(bins: np.ndarray, scores: np.ndarray, moves: np.ndarray, seed: int = 0) -> np.ndarray:
    """Run the kernels on given scores."""
    levels = np.zeros((130, SCORE_LEVELS), np.int32)
    np.add.at(levels, (bins, scores), 1)
    destination = np.zeros(shared_entries(130, bins.size), np.int16)
    left = np.zeros(destination.size, np.int32)
    plan_moves(levels, moves, levels.sum(axis=1), destination, left)
    key = np.uint64(stream_key(as_seed(seed), 4, 0))
    return np.array(
        [destination_of(int(code), i, key, destination, left) for i, code in enumerate(levels[bins, scores])]
    )


def random_moves(rng: np.random.Generator, bins: np.ndarray) -> np.ndarray:
    moves = np.zeros((130, 131), np.int64)
    for k, number in enumerate(np.bincount(bins, minlength=130)):
        moves[k] = rng.multinomial(number, rng.dirichlet(np.full(131, 0.05)))
    return moves


def test_distinct_scores_equal_a_plain_sort() -> None:
    rng = np.random.default_rng(0)
    bins = rng.integers(0, 130, 3000)
    scores = np.zeros(3000, np.int64)
    for k in range(130):
        mine = np.flatnonzero(bins == k)
        scores[mine] = rng.permutation(SCORE_LEVELS)[: mine.size]
    moves = random_moves(rng, bins)
    got = assign(bins, scores, moves)
    for k in range(130):
        mine = np.flatnonzero(bins == k)
        expected = np.repeat(np.arange(131), moves[k])
        assert np.array_equal(got[mine[np.argsort(scores[mine])]], expected)


def test_ties_keep_counts_exact_and_order_between_levels() -> None:
    rng = np.random.default_rng(1)
    bins = rng.integers(0, 4, 5000)
    scores = rng.integers(0, 12, 5000)  # many ties
    moves = random_moves(rng, bins)
    got = assign(bins, scores, moves)
    for k in range(4):
        mine = bins == k
        assert np.array_equal(np.bincount(got[mine], minlength=131), moves[k])
        for score in range(11):
            lower, higher = got[mine & (scores == score)], got[mine & (scores == score + 1)]
            assert lower.max() <= higher.min()


def test_every_tied_voxel_has_the_same_chance() -> None:
    bins, scores = np.zeros(10, int), np.full(10, 7)
    moves = np.zeros((130, 131), np.int64)
    moves[0, [0, 1, 2]] = [2, 5, 3]
    chosen = np.zeros(10)
    for seed in range(2000):
        chosen += assign(bins, scores, moves, seed) == 0
    assert stats.chisquare(chosen).pvalue > 1e-3


def test_scores_stay_in_the_table_and_follow_field_and_neighbours() -> None:
    n = 4000
    voxels = np.arange(n, dtype=np.int32)
    bins = np.zeros(n, np.uint8)
    near = np.full(n, 77, np.uint16)  # the weight of neighbours below 0 must not matter
    near[n // 2 :] += 26 << WEIGHT_BITS
    field = np.full(n, FIELD_LEVELS - 1, np.uint8)
    region = (np.arange(n) % 3).astype(np.uint8)
    scores, levels = np.zeros(n, np.uint8), np.ones((3 * 130, SCORE_LEVELS), np.int32)
    key = np.uint64(stream_key(as_seed(0), 3, 0))
    counts = np.bincount(region.astype(int) * 130 + bins, minlength=3 * 130)
    score_voxels(
        voxels, bins, region, field, near, bonus_table(1.0), 0, n, 130, NOISE_LEVELS, key, counts, scores,
        levels,
    )  # fmt: skip
    assert levels.shape[1] == SCORE_LEVELS == 256  # scores are uint8
    assert np.array_equal(levels[[0, 130, 260]].sum(axis=1), counts[[0, 130, 260]])
    assert levels[counts == 0].min() == 1  # rows without voxels are left alone
    assert scores[n // 2 :].mean() - scores[: n // 2].mean() == pytest.approx(BONUS_LEVELS - 1, abs=2)
    assert scores[: n // 2].min() >= FIELD_LEVELS - 1


def test_tables() -> None:
    assert bonus_table(0.0).tolist() == [0] * 27
    assert (np.diff(bonus_table(0.5)) > 0).all()
    assert [noise_width(n) for n in (1, 4, 100, 10**9)] == [32, 16, 3, 1]
