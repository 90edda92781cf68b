from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segmentation.model import ThreeWaySegmenter
from segmentation.segmenter import patient_sha256
from segmentation.training import TrainingItem, TrainingOptions, items_of, train
from segmentation.training.coverage import drawn_said
from segmentation.training.losses import learning_rate_at, loss_and_dice
from segmentation.training.material import material_of
from segmentation.training.throughput import measure_throughput
from segmentation.views import VIEWS
from standard_space.errors import DataError, UsageError
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.toys import toy_items, toy_scan

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
    assert [(item[:2], done, total) for item, done, total in steps] == [
        (view, k, 3) for view in VIEWS for k in (1, 2, 3)
    ]
    assert re.fullmatch(r"xy loss \d\.\d{3} Dice 0\.\d\d", steps[0][0])
    assert sorted(notes) == [
        "3 steps do not draw from all 2 original scans; a run begun with 8 steps would",
        "P9/S1: left out of training, it has no infection annotation",
    ]
    training = model.training
    known = {entry["patient_sha256"]: entry["image_sha256"] for entry in training["patients"]}
    assert known == {patient_sha256("P0"): ["P0-S1-0"], patient_sha256("P1"): ["P1-S1-1"]}
    assert training["steps_per_view"] == {"xy": 3, "yz": 3, "xz": 3}
    assert (training["options"]["seed"], training["originals"], training["notes"]) == (
        0,
        2,
        sorted(notes),
    )
    assert training["drawn"].keys() == {"originals"}
    assert min(training["drawn"]["originals"].values()) == 1
    assert drawn_said(training) == "1 of 2 scans and 0 synthetic ones (each view at least)"
    assert [entry["step"] for entry in training["history"]["xz"]] == [1, 2, 3]


def test_training_length_does_not_depend_on_the_augmentation() -> None:
    options = replace(TINY, steps=None, epochs=0.05, batch_size=4)
    plain = train(toy_items(2), options=options, device="cpu")
    augmented = train(toy_items(2), toy_items(5, synthetic=True, seed=20), options=options, device="cpu")
    assert plain.training["steps_per_view"] == augmented.training["steps_per_view"]
    assert plain.training["steps_per_view"]["xy"] == math.ceil(0.05 * 2 * 64 / 4)


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
    with pytest.raises(DataError, match="no scan to train on can be used"):
        train(bare, options=TINY)
    with pytest.raises(DataError, match="infection annotation"):
        train([], options=TINY)
    with pytest.raises(DataError, match="different grids"):
        train(toy_items(1), toy_items(1, size=16, synthetic=True), options=TINY)
    with pytest.raises(UsageError, match="more than one value"):
        train(toy_items(1), options=replace(TINY, batch_size=1), device="cpu")
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
        {"target": "airways"},
        {"optimiser": "lion"},
        {"rule": "vote"},
        {"method": "oracle"},
        {"slice_offsets_mm": (0.0, float("nan"))},
        {"rule": "product", "threshold": 2.0},
        {"on_the_fly_share": 2.0},
        {"checkpoint_minutes": -1.0},
        {"patience": 0},
        {"positive_weight": 0.0},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TrainingOptions(**wrong)


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown device"):
        train(toy_items(1), options=TINY, device="abacus")
    with pytest.raises(UsageError, match="no such GPU"):
        train(toy_items(1), options=TINY, device="cuda:99")


def test_lungs_are_learned_with_or_without_an_infection_annotation() -> None:
    options = TrainingOptions(target="lungs", steps=25, batch_size=4, width=4, patch=32, learning_rate=1e-2)
    items = [
        replace(
            item, load=lambda k=k: toy_scan(f"P{k}", seed=k, annotated=False, own_lungs=True), annotated=False
        )
        for k, item in enumerate(toy_items(3))
    ]
    model = train(items[:2], validation=items[2:], options=options, device="cpu")
    assert model.target == "lungs"
    assert model.scores["validation"]["median_dice"] > 0.8
    assert model.training["history"]["xy"][0]["kind"] == "training"


def test_lungs_that_a_program_found_are_not_learned() -> None:
    options = replace(TINY, target="lungs")
    own = [
        replace(item, load=lambda k=k: toy_scan(f"P{k}", own_lungs=True))
        for k, item in enumerate(toy_items(4))
    ]
    found = [replace(item, own_lungs=False) for item in toy_items(9)[4:]]
    notes: list[str] = []
    made = material_of([*own[:2], *found], (), own[2:], None, options, notes.append)
    assert [item.name for item in made.training] == ["P0/S1", "P1/S1"]
    assert notes == ["5 scans are left out of training: their lungs were found by a program, not annotated"]
    with pytest.raises(DataError, match=r"train on .*lung mask of the user's own.*column `lungs`"):
        material_of(found, (), (), None, options, print)
    with pytest.raises(DataError, match=r"validate on .*lung mask of the user's own"):
        material_of(own, (), found, None, options, print)
    # Not known beforehand: seen when they are loaded.
    with pytest.raises(DataError, match="no scan to train on can be used"):
        train(toy_items(2), options=options, device="cpu", note=notes.append)
    assert "P0/S1: left out of training, its lungs were found by a program, not annotated" in notes
    notes.clear()
    model = train(
        [*own[:1], *toy_items(3)[1:]], validation=own[2:], options=options, device="cpu", note=notes.append
    )
    assert model.scores["validation"]["scans"] == 2
    assert sum("left out of training" in text for text in notes) == 1
    assert set(model.training["drawn"]["originals"].values()) == {1}


def test_whose_lungs_they_are_is_known_before_they_are_read(tmp_path: Path) -> None:
    cohort = toy_cohort(tmp_path / "c", toy_scan("A", own_lungs=True), toy_scan("B", annotated=False))
    assert [(item.own_lungs, item.annotated) for item in items_of(cohort)] == [(True, True), (False, False)]


def test_sgd_learns_as_well() -> None:
    options = TrainingOptions(optimiser="sgd", steps=30, batch_size=4, width=4, patch=32)
    model = train(toy_items(3), options=options, device="cpu")
    assert model.training["options"]["optimiser"] == "sgd"
    for view in VIEWS:
        history = model.training["history"][view]
        assert history[-1]["loss"] < 0.85 * history[0]["loss"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_names_the_options_to_change(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: object, batch: object) -> None:
        raise error

    monkeypatch.setattr("segmentation.training.loop.ViewTrainer.step", fails)
    with pytest.raises(DataError, match=r"memory.*--batch, --patch or --width.*--memory-mb"):
        train(toy_items(1), options=TINY, device="cpu")


def test_other_defects_are_not_taken_for_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object, batch: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("segmentation.training.loop.ViewTrainer.step", fails)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(toy_items(1), options=TINY, device="cpu")


def test_an_allocation_that_really_fails_is_told() -> None:
    with pytest.raises(DataError, match="--batch"):
        train(toy_items(1), options=replace(TINY, patch=2**20), device="cpu")


def test_a_compiled_run_calls_the_compiled_network(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    plain = train(toy_items(1), options=TINY, device="cpu")
    assert not compiled
    assert same(plain, train(toy_items(1), options=replace(TINY, compiled=True), device="cpu"))
    assert len(compiled) == 3


def test_throughput_is_measured_on_real_steps() -> None:
    assert measure_throughput(toy_items(1), TINY, device="cpu", seconds=0.05) > 1.0
