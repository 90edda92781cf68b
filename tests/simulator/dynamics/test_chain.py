from dataclasses import replace

import numpy as np
import pytest

from simulator.dynamics.bins import bin_centres
from simulator.dynamics.chain import propagate, propagate_covariance, propagate_tangents
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.parameters import PARAMETER_NAMES, TransitionParameters
from simulator.dynamics.rates import entry_distribution
from simulator.dynamics.transitions import LONGEST_STEPPED, transition_rows
from tests.simulator.dynamics import twins
from tests.simulator.dynamics.twins import GROWING, SHRINKING, STATIONARY

ALL = [GROWING, SHRINKING, STATIONARY]


def some_counts(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60, 130).astype(float)


@pytest.mark.parametrize("w", ALL)
@pytest.mark.parametrize("steps", [0, 1, 7, 120])
def test_mean_equals_the_twin(w: TransitionParameters, steps: int) -> None:
    counts = some_counts()
    expected, _ = twins.chain(counts, w, steps) if steps < 100 else (None, None)
    if expected is None:
        t, e = twins.matrix(w), np.zeros(130)
        e[:30] = twins.entry(w.entry_signal)
        expected = counts
        for _ in range(steps):
            births = w.birth_rate * (
                (1 - w.linked_share) * w.reference_ggo_voxels + w.linked_share * expected[:30].sum()
            )
            expected = t @ expected + births * e
    np.testing.assert_allclose(propagate(counts, w, steps), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("w", ALL)
def test_covariance_equals_the_twin(w: TransitionParameters) -> None:
    counts = some_counts(1)
    mean, v = propagate_covariance(counts, w, 10)
    twin_mean, twin_v = twins.chain(counts, w, 10)
    np.testing.assert_allclose(mean, twin_mean, rtol=1e-11)
    np.testing.assert_allclose(v, twin_v, rtol=1e-9, atol=1e-9)
    assert np.linalg.eigvalsh(v).min() > -1e-8


@pytest.mark.parametrize(
    "w", [*ALL, replace(GROWING, entry_signal=0.101), replace(GROWING, linked_share=0.0)]
)
def test_tangents_equal_finite_differences(w: TransitionParameters) -> None:
    counts = some_counts(2)
    mean, tangents = propagate_tangents(counts, w, 80)
    np.testing.assert_allclose(mean, propagate(counts, w, 80), rtol=1e-12)
    values = w.as_array()
    for i, name in enumerate(PARAMETER_NAMES):
        step = 1e-5 * values[i] if values[i] else 1e-6
        up, down = values.copy(), values.copy()
        up[i] += step
        down[i] -= step if values[i] else 0.0
        difference = (
            propagate(counts, TransitionParameters.from_array(up, w.reference_ggo_voxels), 80)
            - propagate(counts, TransitionParameters.from_array(down, w.reference_ggo_voxels), 80)
        ) / (up[i] - down[i])
        scale = np.abs(difference).max()
        np.testing.assert_allclose(
            tangents[:, i], difference, atol=(2e-6 if values[i] else 1e-4) * scale, err_msg=name
        )


@pytest.mark.parametrize("epsilon", [0.0026, 0.01, 0.05, 0.075, 0.101, 0.14, 0.1474])
def test_entry_distribution_has_the_wanted_mean_and_exact_derivative(epsilon: float) -> None:
    e, d = np.empty(30), np.empty(30)
    entry_distribution(epsilon, e, d)
    height = 0.005 * (np.arange(30) + 0.5)
    assert e.sum() == pytest.approx(1, abs=1e-13)
    assert e @ height == pytest.approx(epsilon, abs=1e-13)
    np.testing.assert_allclose(e, twins.entry(epsilon), atol=1e-11)
    ratios = e[1:] / e[:-1]
    assert np.ptp(ratios) < 1e-9 * ratios.mean()
    assert (ratios.mean() > 1) == (epsilon > 0.07500001) or epsilon == 0.075
    up, down, unused = np.empty(30), np.empty(30), np.empty(30)
    step = 1e-7
    entry_distribution(epsilon + step, up, unused)
    entry_distribution(epsilon - step, down, unused)
    np.testing.assert_allclose(d, (up - down) / (2 * step), atol=2e-5 * np.abs(d).max())


def test_newborns_do_not_move_and_births_precede_moves() -> None:
    w = replace(GROWING, linked_share=1.0)
    counts = np.zeros(130)
    counts[29] = 100  # all of G may leave in this very transition, and still begets
    after = propagate(counts, w, 1)
    born = 100 * w.birth_rate * twins.entry(w.entry_signal)
    np.testing.assert_allclose(after[:28], born[:28], rtol=1e-11)
    assert after[30] == pytest.approx(100 * w.conversion_probability)
    assert after.sum() == pytest.approx(100 * (1 + w.birth_rate))


def test_top_bin_reflects_and_bin_zero_recovers() -> None:
    w = replace(GROWING, birth_rate=1e-12)
    top = np.zeros(130)
    top[129] = 1.0
    assert propagate(top, w, 1)[[128, 129]] == pytest.approx([0.1, 0.9])
    bottom = np.zeros(130)
    bottom[0] = 1.0
    assert propagate(bottom, w, 1).sum() == pytest.approx(0.9)


@pytest.mark.parametrize("steps", [1, 10, LONGEST_STEPPED, LONGEST_STEPPED + 1, 100, 1001])
def test_rows_of_a_jump_and_its_births_give_the_chain(steps: int) -> None:
    rows = transition_rows(GROWING.as_array(), steps)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(
        rows[:, 1:].T, np.linalg.matrix_power(twins.matrix(GROWING), steps), atol=1e-13
    )
    counts = some_counts(3).astype(np.int64)
    births = twins.births(counts, GROWING, steps)
    total = counts @ rows[:, 1:] + births[1:]
    np.testing.assert_allclose(total, propagate(counts, GROWING, steps), rtol=1e-11)
    assert (births >= 0).all()
    assert (births[0] > 0) == (steps > 1)


def test_the_three_findings_of_the_paper() -> None:
    # DESIGN 3's example; nu, phi and the size of Y_t0 are not given there, these are plausible ones
    w = TransitionParameters(345 / 40000, 0.4, 0.101, 0.105, 0.85, 0.559, 0.688, 0.067, 40000)
    start = np.zeros(130)
    start[0] = 5000
    early = propagate(start, w, 300)
    late = propagate(early, w, 200)
    inner = early[1:-1]
    s = bin_centres()[1:-1]
    peaks = s[(inner > early[:-2]) & (inner > early[2:])]
    valleys = s[(inner < early[:-2]) & (inner < early[2:])]
    assert peaks == pytest.approx([-0.0275, 0.0925], abs=0.0101)
    assert valleys == pytest.approx([0.0], abs=0.0051)
    assert inner[np.argmin(np.abs(s - valleys[0]))] < 0.25 * inner[np.argmin(np.abs(s - peaks[1]))]
    below, above = late[:30].sum() / early[:30].sum(), late[30:].sum() / early[30:].sum()
    assert 1.0 < below < 1.5  # linear, slow
    assert 2.2 < above < 3.2  # much faster


@pytest.mark.parametrize("steps", [-1, 1.5])
def test_bad_numbers_of_transitions(steps: float) -> None:
    with pytest.raises(DynamicsError, match="whole number"):
        propagate(np.zeros(130), GROWING, steps)  # type: ignore[arg-type]
