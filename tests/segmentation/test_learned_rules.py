from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special

from segmentation.aggregation import LOG_ODDS_EPSILON, Aggregation
from segmentation.learned_rules import RIDGE, fit_rule
from standard_space.errors import DataError, UsageError

Floats = NDArray[np.float64]


def voxels(seed: int = 0, count: int = 600) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Views that know the truth well, less well and not at all; some certain to the limit of float32."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.3
    sign = np.where(truth, 1.0, -1.0)
    odds = np.stack([sign * scale + rng.normal(0, 2.0, count) for scale in (2.5, 1.0, 0.0)], axis=1)
    odds[:5] *= 20
    return special.expit(odds), truth, rng.uniform(0.5, 2.0, count)


def score(rule: str, probabilities: Floats, weights: tuple[float, float, float], bias: float) -> Floats:
    """What `Aggregation.combine` gives for the numbers."""
    views = torch.from_numpy(probabilities.T.copy())
    return Aggregation(rule, 0.5, weights, bias).combine(views).numpy()


def test_the_weighted_rule_is_the_best_of_a_fine_grid() -> None:
    probabilities, truth, importance = voxels()
    weights, bias = fit_rule("weighted", probabilities, truth, importance)
    assert bias == 0.0
    assert sum(weights) == pytest.approx(1.0, abs=1e-12)
    assert min(weights) >= 0.0

    def brier(candidate: tuple[float, float, float]) -> float:
        return float(
            np.average((score("weighted", probabilities, candidate, 0.0) - truth) ** 2, weights=importance)
        )

    grid = [
        (a / 50, b / 50, (50 - a - b) / 50) for a, b in itertools.product(range(51), repeat=2) if a + b <= 50
    ]
    assert brier(weights) <= min(map(brier, grid)) + 1e-12
    assert weights[0] > weights[1] > weights[2]


def test_a_view_that_harms_gets_no_weight() -> None:
    probabilities, truth, importance = voxels(2)
    probabilities[:, 2] = 1.0 - truth
    weights, _ = fit_rule("weighted", probabilities, truth, importance)
    assert weights[2] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("rule", ["logistic", "svm"])
def test_the_numbers_minimise_the_loss_of_the_score_that_combine_computes(rule: str) -> None:
    probabilities, truth, importance = voxels(1)
    weights, bias = fit_rule(rule, probabilities, truth, importance)
    sign = np.where(truth, 1.0, -1.0)

    def loss(numbers: Floats) -> float:
        one, two, three, last = (float(number) for number in numbers)
        margin = sign * special.logit(score(rule, probabilities, (one, two, three), last))
        each = np.logaddexp(0.0, -margin) if rule == "logistic" else np.maximum(1.0 - margin, 0.0) ** 2
        return float(np.average(each, weights=importance)) + 0.5 * RIDGE * float(numbers[:3] @ numbers[:3])

    found = np.array([*weights, bias])
    best = loss(found)
    for place, step in itertools.product(range(4), (-1e-2, 1e-2)):
        moved = found.copy()
        moved[place] += step
        assert loss(moved) > best
    assert abs(weights[2]) < 0.2 * weights[0]


def test_voxels_of_one_kind_teach_nothing() -> None:
    probabilities, truth, importance = voxels()
    for kind in (np.ones_like(truth), np.zeros_like(truth)):
        with pytest.raises(DataError, match="only one kind"):
            fit_rule("logistic", probabilities, kind, importance)
    with pytest.raises(UsageError, match="no weights to learn"):
        fit_rule("product", probabilities, truth, importance)


def test_perfectly_separable_voxels_still_give_finite_numbers() -> None:
    truth = np.arange(200) % 2 == 0
    probabilities = np.repeat(truth[:, None], 3, axis=1).astype(np.float64)
    for rule in ("weighted", "logistic", "svm"):
        weights, bias = fit_rule(rule, probabilities, truth, np.ones(200))
        assert np.array_equal(score(rule, probabilities, weights, bias) > 0.5, truth)


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
def test_logistic_is_that_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    probabilities, truth, importance = voxels(4)
    weights, bias = fit_rule("logistic", probabilities, truth, importance)
    features = special.logit(np.clip(probabilities, LOG_ODDS_EPSILON, 1 - LOG_ODDS_EPSILON))
    twin = linear_model.LogisticRegression(C=1.0 / RIDGE, tol=1e-12, max_iter=20_000)
    twin.fit(features, truth, sample_weight=importance / importance.sum())
    assert weights == pytest.approx(twin.coef_[0], rel=1e-3, abs=1e-4)
    assert bias == pytest.approx(twin.intercept_[0], rel=1e-3, abs=1e-4)


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
def test_svm_is_that_of_scikit_learn() -> None:
    svm = pytest.importorskip("sklearn.svm")
    probabilities, truth, importance = voxels(5)
    weights, bias = fit_rule("svm", probabilities, truth, importance)
    # LinearSVC shrinks the bias too, the less so the larger the constant feature it belongs to.
    twin = svm.LinearSVC(
        C=1.0 / RIDGE, loss="squared_hinge", dual=False, tol=1e-12, max_iter=100_000, intercept_scaling=100.0
    )
    twin.fit(probabilities, truth, sample_weight=importance / importance.sum())
    assert weights == pytest.approx(twin.coef_[0], rel=2e-3, abs=1e-3)
    assert bias == pytest.approx(twin.intercept_[0], rel=2e-3, abs=1e-3)
