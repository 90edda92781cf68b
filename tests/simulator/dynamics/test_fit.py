import json
import time
from dataclasses import replace

import numpy as np
import pytest

from simulator.dynamics import fit_space
from simulator.dynamics.chain import propagate, propagate_covariance
from simulator.dynamics.engine import advance, start_state
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.fit import fit_pair
from simulator.dynamics.fit_problem import FitProblem, check_leg, deviance_residuals
from simulator.dynamics.goodness import grouped_chi_square
from simulator.dynamics.pair_fit import PairFit
from simulator.dynamics.parameters import PARAMETER_NAMES, TransitionParameters
from simulator.dynamics.uncertainty import estimate_covariance

TRUTH = TransitionParameters(0.004, 0.4, 0.050, 0.11, 0.65, 0.45, 0.55, 0.070, 9000)


def big_pair(seed: int, w: TransitionParameters = TRUTH, steps: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Two histograms from the voxel engine: about 12,000 voxels growing for three days."""
    rng = np.random.default_rng(seed)
    size = 56
    z, y, x = np.indices((size, size, size)) - size / 2
    infected = z**2 + y**2 + x**2 < 14.2**2
    signal = np.full(infected.shape, -0.2, np.float32)
    signal[infected] = np.clip(rng.normal(-0.03, 0.06, int(infected.sum())), -0.149, 0.49)
    state = start_state(signal, infected, np.ones_like(infected), (1.0, 0.7, 0.7))
    before = state.counts()
    after = advance(state, w, steps, jump=10, seed=seed).counts()
    assert state.report.exact
    return before, after


@pytest.mark.parametrize("loss", ["l2", "poisson"])
def test_recovers_the_engines_parameters(loss: str) -> None:
    for seed in range(3):
        before, after = big_pair(seed)
        fit = fit_pair(before, after, 300, loss=loss)
        g_ref = 0.5 * (before[:30].sum() + after[:30].sum())
        assert fit.parameters.reference_ggo_voxels == g_ref
        # the engine ran with its own G_ref; births over the interval are what both must agree on
        path = [propagate(before, TRUTH, t)[:30].sum() for t in range(0, 301, 50)]
        true_births = TRUTH.birth_rate * (0.6 * 9000 + 0.4 * np.mean(path))
        w = fit.parameters
        fitted_births = w.birth_rate * ((1 - w.linked_share) * g_ref + w.linked_share * np.mean(path))
        assert fitted_births == pytest.approx(true_births, rel=0.08)
        assert fit.goodness["overlap"] > 0.97
        assert fit.goodness["reduced_chi_square"] < 1.7
        assert np.abs(fit.fitted - propagate(before, w, 300)).max() < 1e-6
        for name in PARAMETER_NAMES[2:]:
            error = fit.standard_errors[name]
            assert np.isfinite(error), name
            assert abs(getattr(w, name) - getattr(TRUTH, name)) < 4 * error, name
        assert fit.standard_errors["stiffness"] < 0.1 * w.stiffness
        assert fit.standard_errors["absorption_rate"] < 0.2 * w.absorption_rate


def test_starts_agree_and_fits_repeat() -> None:
    before, after = big_pair(5)
    fit = fit_pair(before, after, 300)
    assert len(fit.costs) == 4
    assert max(fit.costs) < 1.01 * min(fit.costs)
    assert fit_pair(before, after, 300).to_json() == fit.to_json()
    other = fit_pair(before, after, 300, seed=3, starts=2)
    assert other.loss_value == pytest.approx(fit.loss_value, rel=1e-3)


def test_noise_free_histograms_give_the_truth() -> None:
    before, _ = big_pair(0)
    w = replace(TRUTH, reference_ggo_voxels=before[:30].sum())
    for _ in range(100):  # G_ref is the mean of the two counts below 0: find the pair that agrees
        after = propagate(before, w, 300)
        w = replace(w, reference_ggo_voxels=0.5 * (before[:30].sum() + after[:30].sum()))
    fit = fit_pair(before, propagate(before, w, 300), 300)
    assert fit.loss_value < 1.0
    assert fit.parameters.as_array()[[0, 2, 3, 4, 5, 6, 7]] == pytest.approx(
        w.as_array()[[0, 2, 3, 4, 5, 6, 7]], rel=0.02
    )


def test_weakly_determined_share_is_named() -> None:
    before, after = big_pair(1)
    fit = fit_pair(before, after, 300)
    assert "linked_share" in fit.undetermined
    assert any(line.startswith("not determined by these data: linked_share") for line in fit.notes)
    births, error = fit.derived["births_per_transition"], fit.derived["births_per_transition_se"]
    assert error < 0.15 * births


def test_json_round_trip() -> None:
    before, after = big_pair(2)
    after[:30] = 0  # a bound or two, so that NaN and infinity are in it
    for fit in (fit_pair(before, after, 300), fit_pair(before, before, 100, loss="poisson")):
        text = json.dumps(fit.to_json(), allow_nan=False)
        again = PairFit.from_json(json.loads(text))
        assert again.to_json() == fit.to_json()
        assert again.parameters == fit.parameters
        np.testing.assert_array_equal(again.correlations, fit.correlations)
        np.testing.assert_array_equal(again.observed, fit.observed)
    with pytest.raises(DynamicsError, match="another schema"):
        PairFit.from_json({"schema": 0})
    with pytest.raises(DynamicsError, match="incomplete"):
        PairFit.from_json({"schema": 2})


def test_correlations_are_correlations() -> None:
    fit = fit_pair(*big_pair(3), 300)
    usable = np.isfinite(np.diag(fit.correlations))
    part = fit.correlations[np.ix_(usable, usable)]
    np.testing.assert_allclose(np.diag(part), 1)
    np.testing.assert_allclose(part, part.T, atol=1e-12)
    assert np.linalg.eigvalsh(part).min() > -1e-8


def test_space_of_the_fit() -> None:
    w = TRUTH.as_array()
    x = fit_space.from_parameters(w)
    np.testing.assert_allclose(fit_space.to_parameters(x), w, rtol=1e-13)
    numeric = np.array(
        [
            (fit_space.to_parameters(x + h) - fit_space.to_parameters(x - h)) / 2e-6
            for h in 1e-6 * np.eye(8)
        ]
    ).T  # fmt: skip
    np.testing.assert_allclose(fit_space.jacobian(x), numeric, rtol=1e-7, atol=1e-9)
    for edge in (fit_space.LOWER, fit_space.UPPER):
        TransitionParameters.from_array(fit_space.to_parameters(edge), 1.0)  # every corner is valid
    names, free = fit_space.at_bound(np.where(np.arange(8) == 4, fit_space.UPPER, x))
    assert names == ["ggo_growth_rate"]
    assert free.sum() == 7


def test_deviance_residuals() -> None:
    observed = np.array([0.0, 3.0, 5.0, 100.0, 1000.0])
    for fitted in (observed + 0.7, observed * 1.3 + 0.1, observed + 1e-7, observed.copy()):
        root, slope = deviance_residuals(observed, fitted)
        mean, seen = fitted + 0.05, observed + 0.05
        np.testing.assert_allclose(
            root**2, np.maximum(2 * (mean - seen + seen * np.log(seen / mean)), 0), atol=1e-9, rtol=1e-6
        )
        step = 1e-6
        up, _ = deviance_residuals(observed, fitted + step)
        down, _ = deviance_residuals(observed, fitted - step)
        numeric = (up - down) / (2 * step)
        np.testing.assert_allclose(slope, numeric, rtol=2e-3)


def test_grouped_chi_square() -> None:
    mean, v = propagate_covariance(np.full(130, 50.0), TRUTH, 50)
    total, groups = grouped_chi_square(mean, mean, v)
    assert total == 0
    rng = np.random.default_rng(0)
    draws = rng.multivariate_normal(mean, v, size=200)
    values = [grouped_chi_square(draw, mean, v)[0] / groups for draw in draws]
    assert np.mean(values) == pytest.approx(1, abs=0.05)


def start_of_time() -> np.ndarray:
    counts = np.zeros(130)
    counts[0] = 1200
    return counts


def shaped(first: int, last: int, number: float) -> np.ndarray:
    counts = np.zeros(130)
    counts[first:last] = number
    return counts


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (start_of_time(), None, None),
        (None, shaped(30, 60, 200), "second scan has no voxel below 0"),
        (shaped(30, 60, 200), None, "first scan has no voxel below 0"),
        (None, shaped(0, 1, 5000), "second scan has no voxel above 0"),
        (shaped(5, 6, 3), shaped(80, 81, 1), "first scan has only 3 infected voxels"),
        (shaped(20, 40, 2), shaped(20, 40, 3), "second scan has only 60 infected voxels"),
        (shaped(10, 20, 100), shaped(10, 20, 100), None),
    ],
)
@pytest.mark.parametrize("loss", ["l2", "poisson"])
def test_awkward_pairs_are_fitted_and_commented(
    before: np.ndarray | None, after: np.ndarray | None, words: str | None, loss: str
) -> None:
    usual = big_pair(0)
    first = usual[0] if before is None else before
    second = usual[1] if after is None else after
    begun = time.perf_counter()
    fit = fit_pair(first, second, 300, loss=loss)
    assert time.perf_counter() - begun < 10
    assert np.isfinite(fit.fitted).all()
    assert np.isfinite(fit.loss_value)
    json.dumps(fit.to_json(), allow_nan=False)
    if words:
        assert any(words in line for line in fit.notes), fit.notes


def test_poor_fits_are_said_first() -> None:
    fit = fit_pair(shaped(5, 6, 3000), shaped(110, 111, 9000), 50)
    assert fit.notes[0].startswith(("poor fit", "the optimiser stopped"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"before": np.zeros(130)}, "'before' is empty"),
        ({"after": np.zeros(130)}, "'after' is empty"),
        ({"after": np.full(130, np.nan)}, "'after' holds NaN"),
        ({"before": np.full(130, -1.0)}, "'before' holds negative"),
        ({"before": np.ones(129)}, "'before' has the wrong shape"),
        ({"n_transitions": 0}, "at least one transition"),
        ({"n_transitions": -300}, "at least one transition"),
        ({"n_transitions": 1.5}, "at least one transition"),
        ({"n_transitions": float("nan")}, "at least one transition"),
        ({"n_transitions": float("inf")}, "at least one transition"),
        ({"after": np.full(130, np.inf)}, "'after' holds NaN or infinite"),
        ({"loss": "l1"}, "loss is unknown"),
        ({"starts": 0}, "number of starts"),
    ],
)
def test_bad_input(change: dict[str, object], words: str) -> None:
    arguments = {"before": np.ones(130), "after": np.ones(130), "n_transitions": 10}
    with pytest.raises(DynamicsError, match=words):
        fit_pair(**(arguments | change))  # type: ignore[arg-type]


@pytest.mark.slow
def test_three_hundred_days_are_fitted_and_what_they_leave_open_is_said() -> None:
    before, _ = big_pair(0)
    w = replace(TRUTH, birth_rate=0.001, linked_share=0.2)
    after = np.round(propagate(before, w, 30_000))
    begun = time.perf_counter()
    fit = fit_pair(before, after, 30_000)
    assert time.perf_counter() - begun < 60
    assert fit.goodness["overlap"] > 0.99
    assert "linked_share" in fit.undetermined
    assert fit.intervals["stiffness"][0] < w.stiffness < fit.intervals["stiffness"][1]
    assert np.isfinite(fit.fitted).all()


def test_runaway_births_give_finite_answers() -> None:
    problem = FitProblem([check_leg(shaped(5, 30, 100), shaped(5, 30, 120), 30_000)], "l2")
    x = fit_space.from_parameters(np.array([0.5, 1.0, 0.1, 0.01, 0.5, 0.5, 0.5, 0.07]))
    fitted, tangents = problem.model(x)
    assert np.isfinite(fitted).all()
    assert np.isfinite(tangents).all()
    assert fitted.max() == 1e15


def test_an_undetermined_share_does_not_blow_up_the_others() -> None:
    before, after = big_pair(1)
    fit = fit_pair(before, after, 300)
    x = fit_space.from_parameters(fit.parameters.as_array())
    problem = FitProblem([check_leg(before, after, 300)], "l2")
    fitted, tangents = problem.model(x)
    with_range, silent = estimate_covariance(tangents, problem.weights(fitted), problem.covariances(x), 1.0)
    assert not silent.any()
    assert with_range[1, 1] <= 1 / 3
    assert np.linalg.eigvalsh(with_range).min() > 0
    # without the range it is the plain sandwich
    j, k = tangents, problem.weights(fitted)
    bread = np.linalg.inv(j.T @ (k[:, None] * j))
    kj = k[:, None] * j
    sandwich = bread @ (kj.T @ problem.covariances(x)[0] @ kj) @ bread
    range_information = np.diag(3.0 / (fit_space.UPPER - fit_space.LOWER) ** 2)
    by_hand = np.linalg.inv(np.linalg.inv(sandwich) + range_information)
    np.testing.assert_allclose(np.sqrt(np.diag(with_range)), np.sqrt(np.diag(by_hand)), rtol=0.02)


def test_births_and_equilibria_of_a_fit() -> None:
    before, after = big_pair(2)
    fit = fit_pair(before, after, 300, loss="poisson")
    derived, w = fit.derived, fit.parameters
    assert derived["births_per_transition"] == w.birth_rate * w.reference_ggo_voxels
    path = [propagate(before, w, t)[:30].sum() for t in range(300)]
    born = w.birth_rate * ((1 - w.linked_share) * w.reference_ggo_voxels + w.linked_share * np.mean(path))
    assert derived["births_per_day"] == pytest.approx(100 * born, rel=1e-9)
    for name in ("births_per_transition", "births_per_day", "ggo_equilibrium", "consolidation_equilibrium"):
        assert derived[f"{name}_low"] < derived[name] < derived[f"{name}_high"]
        assert derived[f"{name}_se"] > 0
    assert derived["ggo_equilibrium"] == pytest.approx(-0.15 + 0.070 * np.log(0.65 / 0.11), abs=0.02)
