import numpy as np
import pytest
from scipy import stats

from simulator.dynamics.hashing import as_seed, stream_key
from simulator.dynamics.neighbours import FREE, IN_FRONTIER, INFECTED, WEIGHT_BITS, neighbour_table
from simulator.dynamics.placement import choose_from_frontier, choose_seeds, gather_frontier, weight_table
from tests.simulator.dynamics import twins

ZERO = np.uint64(0)


def key(seed: int) -> np.uint64:
    return np.uint64(stream_key(as_seed(seed), 5, 0))


def frontier_of(weights: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = len(weights)
    status = np.full(n, FREE | IN_FRONTIER, np.uint8)
    return np.arange(n, dtype=np.int32), status, np.array(weights, np.uint16)


def choose(weights: list[int], wanted: int, seed: int) -> np.ndarray:
    frontier, status, ggo = frontier_of(weights)
    cumulative, chosen = np.zeros(len(weights), np.int64), np.zeros(max(wanted, 1), np.int32)
    table = np.arange(2000, dtype=np.int64)
    n = gather_frontier(frontier, len(weights), status, ggo, table, cumulative)
    found, _ = choose_from_frontier(frontier, n, cumulative, wanted, status, chosen, key(seed), ZERO)
    assert (status[chosen[:found]] & INFECTED != 0).all()
    assert (status[chosen[:found]] & FREE == 0).all()
    return chosen[:found]


def choose_twin(weights: list[int], wanted: int, seed: int) -> list[int]:
    """Draw, look up in the running sum, reject repeats."""
    sums, chosen = np.cumsum(weights), []
    k = int(key(seed))
    for counter in range(4 * wanted + 64):
        if len(chosen) == wanted:
            break
        v = int(np.searchsorted(sums, twins.draw64(k, counter) % int(sums[-1]), side="right"))
        if v not in chosen:
            chosen.append(v)
    return chosen


@pytest.mark.parametrize("seed", range(20))
def test_choice_equals_the_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 300, 60).tolist()
    wanted = int(rng.integers(1, 40))
    assert choose(weights, wanted, seed).tolist() == choose_twin(weights, wanted, seed)


def test_first_choice_is_proportional_to_weight() -> None:
    weights = [1, 2, 4, 8, 16]
    first = np.bincount([choose(weights, 1, s)[0] for s in range(6000)], minlength=5)
    assert stats.chisquare(first, 6000 * np.array(weights) / 31).pvalue > 1e-3


def test_second_choice_is_without_replacement() -> None:
    weights = np.array([5.0, 3.0, 2.0])
    pairs = [tuple(choose([5, 3, 2], 2, s)) for s in range(6000)]
    assert all(a != b for a, b in pairs)
    names = [(a, b) for a in range(3) for b in range(3) if a != b]
    expected = [weights[a] / 10 * weights[b] / (10 - weights[a]) for a, b in names]
    assert stats.chisquare([pairs.count(p) for p in names], 6000 * np.array(expected)).pvalue > 1e-3


def test_round_ends_when_everyone_is_chosen() -> None:
    assert sorted(choose([1, 1, 1], 10, 0)) == [0, 1, 2]


def test_gather_drops_what_is_no_longer_frontier() -> None:
    frontier, status, ggo = frontier_of([3, 0, 7, 5])
    status[2] = INFECTED | IN_FRONTIER
    cumulative = np.zeros(4, np.int64)
    table = np.arange(100, dtype=np.int64) * 10
    n = gather_frontier(frontier, 4, status, ggo, table, cumulative)
    assert frontier[:n].tolist() == [0, 3]
    assert cumulative[:n].tolist() == [30, 80]
    assert status.tolist() == [FREE | IN_FRONTIER, FREE, INFECTED, FREE | IN_FRONTIER]


def test_seeds_stay_away_from_lesions_and_run_out_cleanly() -> None:
    status = np.zeros(50000, np.uint8)
    status[[10, 20, 30, 40]] = FREE
    near = np.zeros(50000, np.uint16)
    near[10], near[20] = 5, 1 << WEIGHT_BITS  # beside a voxel below 0, beside one above 0
    chosen = np.zeros(10, np.int32)
    found, _ = choose_seeds(10, True, status.copy(), near, chosen, 0, key(0), ZERO)
    assert sorted(chosen[:found]) == [30, 40]
    found, _ = choose_seeds(10, False, status, near, chosen, 0, key(0), ZERO)
    assert sorted(chosen[:found]) == [10, 20, 30, 40]


def test_neighbour_weights_follow_distance_in_mm() -> None:
    steps, weights = neighbour_table((9, 9, 9), (1.0, 0.5, 0.5))
    assert steps.shape == (26, 4)
    by_step = {tuple(s[:3]): int(w) for s, w in zip(steps, weights, strict=True)}
    assert by_step[(0, 0, 1)] == by_step[(0, 1, 0)] == 64
    assert by_step[(1, 0, 0)] == 32
    assert by_step[(0, 1, 1)] == round(64 / np.sqrt(2))
    assert (steps[:, 3] == steps[:, 0] * 81 + steps[:, 1] * 9 + steps[:, 2]).all()


def test_weight_table() -> None:
    np.testing.assert_allclose(weight_table(100, 2.0), 2**20 * (np.arange(101) / 100) ** 2, atol=1)
    assert set(weight_table(100, 0.0)[1:]) == {2**20}
    assert weight_table(1664, 8.0)[:2].tolist() == [0, 1]
