"""The classifier finds what is there, finds nothing where nothing is, and says when it cannot be asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from segmentation import realism
from segmentation.realism import auc, tell_apart
from simulator.audit_patches import Patches

Change = Callable[[np.ndarray], np.ndarray]


def patches(change: Change, patients: int = 6, number: int = 30, side: int = 7) -> list[Patches]:
    rng = np.random.default_rng(0)
    made = []
    for name in range(patients):
        real, synthetic = rng.normal(0.0, 0.1, (2, number, 3, side, side)) + 0.05 * name
        made.append(
            Patches(f"p{name}", f"p{name}/v", real.astype(np.float16), change(synthetic).astype(np.float16))
        )
    return made


def smoothed(x: np.ndarray) -> np.ndarray:
    return (x + np.roll(x, 1, -1)) / np.sqrt(2.0) + (1 - np.sqrt(2.0)) * x.mean((1, 2, 3), keepdims=True)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realism, "STEPS", 20)


@pytest.fixture
def some_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realism, "STEPS", 80)


@pytest.mark.usefixtures("some_steps")
def test_patches_of_one_kind_cannot_be_told_apart() -> None:
    found = tell_apart(patches(lambda x: x))
    assert found.network.low < 0.5 < found.network.high
    assert 0.4 < found.baseline.mean < 0.6
    assert (found.patients, found.folds, found.patches_per_kind) == (6, 5, 180)


@pytest.mark.usefixtures("some_steps")
def test_texture_is_found_by_the_network_and_not_by_the_baseline() -> None:
    found = tell_apart(patches(smoothed))
    assert found.network.mean > 0.9
    assert found.baseline.mean < 0.65


@pytest.mark.usefixtures("few_steps")
def test_brightness_is_found_by_the_baseline() -> None:
    assert tell_apart(patches(lambda x: x + 0.05)).baseline.mean > 0.95


@pytest.mark.usefixtures("few_steps")
def test_a_seed_gives_the_same_numbers() -> None:
    some = patches(smoothed, patients=3, number=10, side=5)
    assert tell_apart(some, seed=4).to_json() == tell_apart(some, seed=4).to_json()
    assert tell_apart(some, seed=4).network.per_patient != tell_apart(some, seed=5).network.per_patient


@pytest.mark.usefixtures("few_steps")
def test_one_patient_is_not_enough_and_few_are_said_to_be() -> None:
    alone = tell_apart(patches(smoothed, patients=1))
    assert alone.network is None
    assert "cannot be compared" in alone.notes[0]
    assert tell_apart([]).network is None
    pair = tell_apart(patches(smoothed, patients=2, number=10, side=5))
    assert pair.network.low is None
    assert "few" in pair.notes[0]


def test_auc_is_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(1)
    scores, positive = np.round(rng.normal(size=200), 1), rng.random(200) < 0.4
    expected = mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert auc(scores, positive) == pytest.approx(expected / (positive.sum() * (~positive).sum()))
