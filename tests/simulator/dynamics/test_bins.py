import numpy as np
import pytest

from simulator.dynamics.bins import (
    BIN_WIDTH,
    N_BELOW,
    N_BINS,
    SIGNAL_MIN,
    bin_centres,
    check_counts,
    clamped_counts,
    histogram,
    to_signal,
    to_state,
)
from simulator.dynamics.errors import DynamicsError


def test_constants_are_the_design() -> None:
    assert (N_BINS, N_BELOW, BIN_WIDTH, SIGNAL_MIN) == (130, 30, 0.005, -0.15)
    assert pytest.approx(0.5) == SIGNAL_MIN + N_BINS * BIN_WIDTH
    assert bin_centres()[[0, 29, 30, 129]] == pytest.approx([-0.1475, -0.0025, 0.0025, 0.4975])


def test_edges_belong_to_the_upper_bin_even_in_float32() -> None:
    edges = np.arange(-150, 500, 5).astype(np.float32) / np.float32(1000)
    bins, offsets = to_state(edges)
    assert np.array_equal(bins, np.arange(130))
    assert (offsets < 1e-3).all()
    # whole HU at the usual window: (HU + 600) / 1600, an edge every 8 HU
    hu = np.arange(-840, 200, dtype=np.float32)
    bins, _ = to_state((hu + 600) / np.float32(1600))
    assert np.array_equal(bins, (np.arange(-840, 200) + 840) // 8)


def test_round_trip_within_float_precision() -> None:
    signal = np.random.default_rng(0).uniform(-0.1499, 0.4999, (7, 5, 900)).astype(np.float32)
    bins, offset = to_state(signal)
    assert bins.dtype == np.int16
    assert offset.dtype == np.float32
    assert offset.min() >= 0
    assert offset.max() < 1
    assert np.abs(to_signal(bins, offset) - signal).max() < 4e-7
    place = (signal.astype(float) + 0.15) / 0.005
    assert (bins <= place + 1e-4).all()
    assert (place < bins + 1).all()


def test_signals_outside_are_clamped_and_counted() -> None:
    signal = np.array([-3.0, -0.1501, -0.15, 0.4999, 0.5, 7.0])
    bins, offset = to_state(signal)
    assert bins.tolist() == [0, 0, 0, 129, 129, 129]
    assert offset[0] == 0
    assert 0.99 < offset[-1] < 1
    assert clamped_counts(signal) == (2, 2)
    assert to_signal(bins, offset).max() < 0.5 + 1e-6


def test_recovered_signals_lie_below_the_limit() -> None:
    assert (to_signal(np.full(3, -1), [0.0, 0.5, 0.999]) < -0.15).all()


def test_histogram_and_its_errors() -> None:
    counts = histogram(np.array([0, 0, 129, 30], np.uint8))
    assert counts.dtype == np.float64
    assert counts[[0, 30, 129]].tolist() == [2, 1, 1]
    assert counts.sum() == 4
    with pytest.raises(DynamicsError, match="outside the model's range"):
        histogram(np.array([130]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_signal_that_is_not_finite(bad: float) -> None:
    with pytest.raises(DynamicsError, match="NaN or infinite"):
        to_state(np.array([0.0, bad]))


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (np.zeros(129), "wrong shape"),
        (np.zeros((130, 1)), "wrong shape"),
        (np.full(130, np.nan), "NaN"),
        (np.full(130, -1.0), "negative"),
    ],
)
def test_bad_histograms(counts: np.ndarray, words: str) -> None:
    with pytest.raises(DynamicsError, match=words):
        check_counts(counts, "before")
