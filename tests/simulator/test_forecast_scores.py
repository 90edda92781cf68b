"""Scores of forecasts against plain twins, and the two rivals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from simulator.dynamics.bins import N_BINS
from simulator.forecast_scores import Comparison, grown_to, signal_distance, volume_error
from standard_space.errors import DataError

SHAPE = (9, 10, 11)


def random_masks(seed: int, number: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.0)
    return [field + rng.normal(0, 0.1, SHAPE) > 0.1 for _ in range(number)]


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_a_plain_twin(seed: int) -> None:
    start, observed, forecast = random_masks(seed)
    rng = np.random.default_rng(seed)
    observed_above, forecast_above = (
        observed & (rng.random(SHAPE) < 0.5),
        forecast & (rng.random(SHAPE) < 0.5),
    )
    index = rng.permutation(np.flatnonzero(forecast))  # the engine's order is not sorted
    scores = Comparison(start, observed, observed_above).score(index, forecast_above.ravel()[index])
    changed, said = observed != start, forecast != start
    hits, misses, false_alarms = (changed & said).sum(), (changed & ~said).sum(), (said & ~changed).sum()
    assert (scores.hits, scores.misses, scores.false_alarms) == (hits, misses, false_alarms)
    assert scores.figure_of_merit == pytest.approx(hits / (hits + misses + false_alarms))
    assert scores.dice == pytest.approx(2 * (forecast & observed).sum() / (forecast.sum() + observed.sum()))
    above = 2 * (forecast_above & observed_above).sum() / (forecast_above.sum() + observed_above.sum())
    assert scores.dice_above == pytest.approx(above)


def test_extremes() -> None:
    start, observed, _ = random_masks(1)
    nothing = np.zeros(SHAPE, bool)
    comparison = Comparison(start, observed, nothing)
    perfect = comparison.score_mask(observed, nothing)
    assert (perfect.dice, perfect.figure_of_merit, perfect.dice_above) == (1.0, 1.0, None)
    assert comparison.score_mask(start, nothing).figure_of_merit == 0.0  # persistence, by definition
    unchanged = Comparison(start, start, nothing).score_mask(start, nothing)
    assert (unchanged.dice, unchanged.figure_of_merit) == (1.0, None)
    healed = Comparison(start, nothing, nothing)
    assert healed.score_mask(start, nothing).dice == 0.0
    gone = healed.score(np.zeros(0, np.int64), np.zeros(0, bool))
    assert (gone.dice, gone.figure_of_merit) == (1.0, 1.0)
    with pytest.raises(DataError, match="differ in shape"):
        Comparison(start, observed[1:], nothing)


def test_occurrence_against_a_plain_twin() -> None:
    start, observed, *runs = random_masks(2, 6)
    times = np.sum(runs, axis=0).astype(np.uint16)
    found = Comparison(start, observed, np.zeros(SHAPE, bool)).score_occurrence(times, 4)
    share = times / 4
    assert found["brier_skill"] == pytest.approx(
        1 - ((share - observed) ** 2).sum() / ((start * 1.0 - observed) ** 2).sum()
    )
    often = share >= 0.5
    assert found["dice_at_half"] == pytest.approx(
        2 * (often & observed).sum() / (often.sum() + observed.sum())
    )
    met = [(a & b).sum() for i, a in enumerate(runs) for j, b in enumerate(runs) if i != j]
    assert found["agreement"] == pytest.approx(np.mean(met) / np.mean([run.sum() for run in runs]))
    alone = Comparison(start, observed, start).score_occurrence(runs[0].astype(np.uint16), 1)
    assert alone["agreement"] is None


def test_signal_distance_is_in_units_of_signal() -> None:
    first, second = np.zeros(N_BINS), np.zeros(N_BINS)
    first[10:20], second[30:40] = 7.0, 3.0  # the same shape 20 bins of 0.005 away; sizes do not matter
    assert signal_distance(first, second) == pytest.approx(0.1)
    assert signal_distance(first, 5 * first) == pytest.approx(0.0, abs=1e-12)
    assert signal_distance(first, np.zeros(N_BINS)) is None
    assert volume_error(12.0, 10.0) == pytest.approx((2.0, 20.0))
    assert volume_error(12.0, 0.0) == (12.0, None)


def test_dilation_has_the_asked_size_and_grows_by_millimetres() -> None:
    start = np.zeros((20, 20, 20), bool)
    start[9:11, 9:11, 9:11] = True
    susceptible = np.ones_like(start)
    susceptible[:, :, :9] = False
    spacing = (3.0, 1.0, 1.0)
    for voxels in (1, 8, 60, 400):
        grown, note = grown_to(start, susceptible, voxels, spacing, seed=1)
        assert note is None
        assert grown.sum() == voxels
        assert not (grown & ~susceptible & ~start).any()
        np.testing.assert_array_equal(grown, grown_to(start, susceptible, voxels, spacing, seed=1)[0])
    distance = ndimage.distance_transform_edt(~start, sampling=spacing)
    assert distance[grown].max() <= distance[susceptible & ~grown].min() + 1e-6
    shrunk, _ = grown_to(grown, susceptible, 100, spacing)
    depth = ndimage.distance_transform_edt(grown, sampling=spacing)
    assert not (shrunk & ~grown).any()
    assert depth[shrunk].min() >= depth[grown & ~shrunk].max() - 1e-6
    assert not grown_to(start, susceptible, 0, spacing)[0].any()
    full, note = grown_to(start, susceptible, 10**6, spacing)
    assert full.sum() == susceptible.sum()
    assert note is not None
    assert "no room" in note
    with pytest.raises(DataError, match="no lesion"):
        grown_to(np.zeros_like(start), susceptible, 5, spacing)
