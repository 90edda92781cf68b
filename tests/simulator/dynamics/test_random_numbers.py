import math

import numpy as np
import pytest
from scipy import stats

from simulator.dynamics.exactmath import exact_exp, exact_log, exact_power
from simulator.dynamics.hashing import as_seed, draw64, draw_below, draw_fraction, popcount64, stream_key
from simulator.dynamics.multinomial import draw_binomial, draw_multinomial, draw_poisson
from tests.simulator.dynamics import twins

ZERO = np.uint64(0)


def key(seed: int, purpose: int = 1, transition: int = 0) -> np.uint64:
    return np.uint64(stream_key(as_seed(seed), purpose, transition))


def test_exact_functions_agree_with_the_library() -> None:
    x = np.concatenate([np.linspace(-50, 50, 2001), [-700.0, -0.0, 1e-9]])
    ours = np.array([exact_exp(v) for v in x])
    np.testing.assert_allclose(ours, np.exp(x), rtol=2e-14)
    y = np.geomspace(1e-300, 1e300, 2001)
    np.testing.assert_allclose([exact_log(v) for v in y], np.log(y), rtol=1e-14, atol=1e-15)
    assert exact_exp(-800.0) == 0
    assert exact_power(0.0, 0.0) == 1
    assert exact_power(0.0, 2.0) == 0
    assert exact_power(0.3, 2.5) == pytest.approx(0.3**2.5, rel=1e-13)


def test_hash_equals_the_python_twin_and_separates_its_arguments() -> None:
    k = key(5, 3, 7)
    assert [int(draw64(k, np.uint64(i))) for i in range(50)] == [twins.draw64(int(k), i) for i in range(50)]
    keys = {int(key(s, p, t)) for s in range(8) for p in range(8) for t in range(8)}
    assert len(keys) == 512
    assert as_seed(-1) == np.uint64(2**64 - 1)


def test_draws_are_uniform() -> None:
    k = key(1)
    values = np.array([draw_below(k, np.uint64(i), 10) for i in range(20000)])
    assert stats.chisquare(np.bincount(values, minlength=10)).pvalue > 1e-3
    fractions = np.array([draw_fraction(k, np.uint64(i)) for i in range(5000)])
    assert np.array_equal(fractions * 2**24, np.round(fractions * 2**24))
    assert fractions.min() >= 0
    assert fractions.max() < 1
    assert stats.kstest(fractions, "uniform").pvalue > 1e-3


def test_popcount() -> None:
    for value in (0, 1, 0xFFFFFFFFFFFFFFFF, 0x8000000000000001, 0x123456789ABCDEF0):
        assert popcount64(np.uint64(value)) == value.bit_count()


def binomial_twin(n: int, probability: float, k: int) -> int:
    """Lane by lane: a 53-bit integer, digits drawn only as long as some lane is undecided."""
    threshold = int(probability * 2**53)
    successes, counter = 0, 0
    for first in range(0, n, 64):
        lanes = min(64, n - first)
        open_lanes, bit = set(range(lanes)), 52
        while open_lanes and threshold & ((1 << (bit + 1)) - 1):
            word = twins.draw64(k, counter)
            counter += 1
            digit = threshold >> bit & 1
            for lane in list(open_lanes):
                if (word >> lane & 1) != digit:
                    successes += digit  # 0 where the threshold has 1: smaller, a success
                    open_lanes.remove(lane)
            bit -= 1
    return successes


@pytest.mark.parametrize("probability", [0.5, 0.1, 0.3333, 0.999, 1e-3, 2**-53])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 500])
def test_binomial_equals_the_twin(n: int, probability: float) -> None:
    k = key(n)
    assert draw_binomial(n, probability, k, ZERO)[0] == binomial_twin(n, probability, int(k))


def test_binomial_limits() -> None:
    assert draw_binomial(100, 0.0, key(0), ZERO)[0] == 0
    assert draw_binomial(100, 1.0, key(0), ZERO)[0] == 100
    assert draw_binomial(0, 0.5, key(0), ZERO)[0] == 0


@pytest.mark.parametrize(("n", "probability"), [(40, 0.17), (130, 0.6)])
def test_binomial_has_the_law(n: int, probability: float) -> None:
    draws = np.array([draw_binomial(n, probability, key(s, 2), ZERO)[0] for s in range(4000)])
    edges = np.unique(stats.binom.ppf(np.linspace(0.05, 0.95, 10), n, probability))
    observed = np.bincount(np.searchsorted(edges, draws, side="left"), minlength=edges.size + 1)
    cumulative = np.concatenate([[0], stats.binom.cdf(edges, n, probability), [1]])
    assert stats.chisquare(observed, 4000 * np.diff(cumulative)).pvalue > 1e-3


@pytest.mark.parametrize("mean", [0.02, 1.7, 15.9, 16.0, 250.0])
def test_poisson_has_the_law(mean: float) -> None:
    draws = np.array([draw_poisson(mean, key(s, 3), ZERO)[0] for s in range(4000)])
    assert abs(draws.mean() - mean) < 4 * math.sqrt(mean / 4000)
    fourth = mean + 3 * mean**2  # fourth central moment
    assert abs(draws.var() - mean) < 4 * math.sqrt((fourth - mean**2) / 4000)
    assert abs((draws == 0).mean() - math.exp(-mean)) < 4 * math.sqrt(math.exp(-mean) / 4000) + 1e-9


def test_multinomial_is_exact_in_sum_mean_and_covariance() -> None:
    weights = np.array([0.0, 0.1, 0.0, 0.4, 0.25, 0.05, 0.2, 0.0])
    draws = np.zeros((4000, 8), np.int64)
    scratch = np.zeros(9), np.zeros((32, 3), np.int64)
    for s in range(4000):
        draw_multinomial(50, weights, draws[s], key(s, 4), *scratch)
    assert (draws.sum(axis=1) == 50).all()
    assert (draws[:, weights == 0] == 0).all()
    expected = 50 * (np.diag(weights) - np.outer(weights, weights))
    keep = weights > 0
    z = (draws.mean(axis=0) - 50 * weights)[keep] / np.sqrt(np.diag(expected)[keep] / 4000)
    assert np.abs(z).max() < 4
    assert np.abs(np.cov(draws.T) - expected).max() < 0.08 * expected.max()


def test_multinomial_of_nothing_and_of_certainty() -> None:
    result = np.ones(3, np.int64)
    scratch = np.zeros(4), np.zeros((32, 3), np.int64)
    draw_multinomial(0, np.array([0.2, 0.3, 0.5]), result, key(0), *scratch)
    assert result.tolist() == [0, 0, 0]
    draw_multinomial(9, np.array([0.0, 1.0, 0.0]), result, key(0), *scratch)
    assert result.tolist() == [0, 9, 0]
