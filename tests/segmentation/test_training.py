from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from segmentation.model import ThreeWaySegmenter, patient_sha256
from segmentation.sampling import TrainingItem
from segmentation.training import TrainingOptions, learning_rate_at, loss_and_dice, train
from segmentation.views import VIEWS
from standard_space.errors import DataError, UsageError

from .toys import toy_items, toy_scan

TINY = TrainingOptions(steps=3, batch_size=2, width=2, patch=16)


def weights_of(model: ThreeWaySegmenter) -> dict[str, torch.Tensor]:
    return {f"{view}.{k}": v for view in VIEWS for k, v in model.networks[view].state_dict().items()}


def same(a: ThreeWaySegmenter, b: ThreeWaySegmenter, views: Sequence[str] = VIEWS) -> bool:
    others = weights_of(b)
    return all(torch.equal(v, others[k]) for k, v in weights_of(a).items() if k.split(".")[0] in views)


def test_same_seed_same_weights_bit_for_bit() -> None:
    first = train(toy_items(2), toy_items(1, synthetic=True, seed=9), options=TINY, device="cpu")
    torch.rand(5)  # the state of torch's own generator does not matter
    again = train(toy_items(2), toy_items(1, synthetic=True, seed=9), options=TINY, device="cpu")
    other = train(toy_items(2), options=replace(TINY, seed=1), device="cpu")
    assert same(first, again)
    assert not same(first, other)


def test_what_the_model_remembers_of_its_training() -> None:
    items = [*toy_items(2), TrainingItem("P9/S1", False, toy_scan, annotated=False)]
    steps: list[tuple[str, int, int]] = []
    notes: list[str] = []
    model = train(
        items,
        options=TINY,
        device="cpu",
        progress=lambda item, done, total: steps.append((item, done, total)),
        note=notes.append,
    )
    assert steps == [(f"view {view}", k, 3) for view in VIEWS for k in (1, 2, 3)]
    assert notes == ["P9/S1: left out of training, it has no infection annotation"]
    training = model.training
    known = {entry["patient_sha256"]: entry["image_sha256"] for entry in training["patients"]}
    assert known == {patient_sha256("P0"): ["P0-S1-0"], patient_sha256("P1"): ["P1-S1-1"]}
    assert training["steps_per_view"] == {"xy": 3, "yz": 3, "xz": 3}
    assert (training["options"]["seed"], training["originals"], training["notes"]) == (0, 2, notes)
    assert [entry["step"] for entry in training["history"]["xz"]] == [1, 2, 3]


def test_training_length_does_not_depend_on_the_augmentation() -> None:
    options = replace(TINY, steps=None, epochs=0.05, batch_size=4)
    plain = train(toy_items(2), options=options, device="cpu")
    augmented = train(toy_items(2), toy_items(5, synthetic=True, seed=20), options=options, device="cpu")
    assert plain.training["steps_per_view"] == augmented.training["steps_per_view"]
    assert plain.training["steps_per_view"]["xy"] == math.ceil(0.05 * 2 * 64 / 4)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 60), (1.0, 240)])
def test_synthetic_scans_are_drawn_at_the_stated_share(share: float, expected: int) -> None:
    from segmentation.training import _Pools

    options = replace(TINY, synthetic_share=share, batch_size=240, vary=False, positive_share=0.0)

    def constant(value: float) -> TrainingItem:
        scan = toy_scan()
        return TrainingItem("x", value > 0, lambda: replace(scan, signal=np.full_like(scan.signal, value)))

    pools = _Pools([constant(-1.0)], [constant(1.0)] * 3, options, lambda text: None)
    stacks, _, _ = pools.batch("xy", np.random.default_rng(0), options, 16)
    drawn = int((stacks[:, 2].amax(dim=(1, 2)) > 0.5).sum())
    assert abs(drawn - expected) <= 4 * math.sqrt(240 * share * (1 - share))


def test_a_tiny_network_learns_bright_lesions() -> None:
    options = TrainingOptions(steps=30, batch_size=4, width=4, patch=32, learning_rate=1e-2)
    model = train(toy_items(3), options=options, device="cpu")
    for view in VIEWS:
        history = model.training["history"][view]
        assert history[-1]["loss"] < 0.75 * history[0]["loss"]


def test_loss_by_hand_and_only_where_counted() -> None:
    logits = torch.tensor([[[[0.0, 2.0], [-1.0, 50.0]]]])
    truth = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    counted = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    p = [0.5, 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))]
    entropy = -(math.log(0.5) + math.log(p[1]) + math.log(p[2])) / 3
    soft_dice = (2 * (p[1] + p[2]) + 1) / (sum(p) + 2 + 1)
    loss, found = loss_and_dice(logits, truth, counted)
    assert float(found) == pytest.approx(soft_dice, rel=1e-5)
    assert float(loss) == pytest.approx(entropy + 1 - soft_dice, rel=1e-5)
    weighted, _ = loss_and_dice(logits, truth, counted, 3.0)
    entropy = -(math.log(0.5) + 3 * math.log(p[1]) + 3 * math.log(p[2])) / 3
    assert float(weighted) == pytest.approx(entropy + 1 - soft_dice, rel=1e-5)


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    rates = [learning_rate_at(step, 100, 1.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert all(a >= b for a, b in pairwise(rates[9:]))
    assert rates[100] == pytest.approx(0.0)
    assert learning_rate_at(0, 1, 0.5) == 0.5


def test_cohorts_that_cannot_be_trained_on() -> None:
    bare = [TrainingItem("P1/S1", False, lambda: toy_scan(annotated=False))]
    with pytest.raises(DataError, match="infection annotation"):
        train(bare, options=TINY)
    with pytest.raises(DataError, match="infection annotation"):
        train([], options=TINY)
    with pytest.raises(DataError, match="different grids"):
        train(toy_items(1), toy_items(1, size=16, synthetic=True), options=TINY)
    nan = replace(toy_scan(), signal=np.full((32, 32, 32), np.nan, np.float32))
    with pytest.raises(DataError, match="diverged"):
        train([TrainingItem("P1/S1", False, lambda: nan)], options=TINY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 2, "epochs": 1},
        {"steps": 0},
        {"epochs": -1.0},
        {"batch_size": 0},
        {"learning_rate": float("nan")},
        {"positive_share": 1.2},
        {"synthetic_share": -0.1},
        {"patch": 20},
        {"threshold": 3.5},
        {"weight_decay": -1.0},
        {"positive_weight": 0.0},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        TrainingOptions(**wrong)  # type: ignore[arg-type]


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown device"):
        train(toy_items(1), options=TINY, device="abacus")
    with pytest.raises(UsageError, match="no such GPU"):
        train(toy_items(1), options=TINY, device="cuda:99")
