"""Statistics, ranges and limits, each against the plain way to say it."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.audit_checks import (
    GROWTH,
    Limits,
    allowed_ranges,
    chain_flags,
    distribution_flags,
    foretell,
    growth_flags,
    growth_per_day,
    quantile,
    statistics,
    z_score,
)
from simulator.dynamics.bins import histogram, to_state
from simulator.dynamics.parameters import TransitionParameters

W = TransitionParameters(0.04, 0.5, 0.05, 0.3, 0.6, 0.5, 0.5, 0.1, 3000.0)


def counts_of(mean: float, n: int = 20_000, seed: int = 0) -> np.ndarray:
    signal = np.clip(np.random.default_rng(seed).normal(mean, 0.05, n), -0.149, 0.49)
    return histogram(to_state(signal)[0])


def test_statistics_are_those_of_the_signals() -> None:
    signal = np.clip(np.random.default_rng(0).normal(0.02, 0.05, 20_000), -0.149, 0.49)
    found = statistics(histogram(to_state(signal)[0]))
    assert found["mean"] == pytest.approx(signal.mean(), abs=1e-3)
    assert found["share_above"] == pytest.approx((signal >= 0).mean(), abs=1e-3)
    for percent in (5, 25, 50, 75, 95):
        assert found[f"p{percent:02d}"] == pytest.approx(np.percentile(signal, percent), abs=2e-3)
    assert statistics(np.zeros(130)) is None


def test_a_quantile_beyond_the_ends_is_the_end() -> None:
    counts = np.zeros(130)
    counts[[10, 20]] = 5.0
    assert quantile(counts, -0.2) == pytest.approx(-0.1)
    assert quantile(counts, 1.2) == pytest.approx(-0.045)


def test_the_range_reaches_from_state_to_state_and_not_far_beyond() -> None:
    low, high = counts_of(-0.05), counts_of(0.10)
    ranges = allowed_ranges([low, high], Limits())
    for between in (-0.05, 0.0, 0.05, 0.10):
        assert distribution_flags(statistics(counts_of(between, seed=1)), ranges) == []
    assert {flag.what for flag in distribution_flags(statistics(counts_of(-0.08)), ranges)} >= {"mean", "p50"}
    assert {flag.what for flag in distribution_flags(statistics(counts_of(0.13)), ranges)} >= {"mean", "p50"}


def test_few_voxels_get_a_wider_range_than_many() -> None:
    few, many = (allowed_ranges([counts_of(0.0, n)], Limits())["p50"] for n in (30, 30_000))
    assert few[1] - few[0] > 2 * (many[1] - many[0])
    assert allowed_ranges([np.zeros(130)], Limits()) == {}


def test_the_chains_band_holds_what_chance_makes_and_no_more() -> None:
    foretold = foretell(counts_of(0.0), W, 100)
    spread = foretold.standard_deviation
    for shift, flagged in ((0.0, 0), (4.5, 0), (-4.5, 0), (6.0, 1), (-6.0, 1)):
        voxels = round(foretold.voxels + shift * spread)
        assert z_score(voxels, foretold) == pytest.approx(shift, abs=0.05)
        assert len(chain_flags(voxels, foretold, 0.1, Limits(), clipped=False)) == flagged


def test_births_without_a_place_excuse_too_little_but_not_too_much() -> None:
    foretold = foretell(counts_of(0.0), W, 100)
    wide = 6.0 * foretold.standard_deviation
    assert chain_flags(round(foretold.voxels - wide), foretold, 0.1, Limits(), clipped=True) == []
    (flag,) = chain_flags(round(foretold.voxels + wide), foretold, 0.1, Limits(), clipped=True)
    assert flag.low == 0.0
    assert flag.value > flag.high


def test_growth_is_per_day_and_forgives_short_times_and_specks() -> None:
    assert growth_per_day(40.0, 10.0, 2.0) == pytest.approx(2.0)
    assert growth_per_day(40.0, 10.0, 0.01) == pytest.approx(4.0)
    assert growth_per_day(0.0, 0.05, 1.0) == pytest.approx(1.0)
    assert growth_flags(25.0, 10.0, 0.5, Limits()) == []
    (up,), (down,) = growth_flags(35.0, 10.0, 1.0, Limits()), growth_flags(1.0, 10.0, 2.0, Limits())
    assert (up.reason, down.reason) == (GROWTH, GROWTH)
    assert down.value < down.low < 1.0 < up.high < up.value
