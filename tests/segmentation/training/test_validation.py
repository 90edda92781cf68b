from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from segmentation.model import new_network
from segmentation.segmenter import patient_sha256
from segmentation.training import TrainingItem, TrainingOptions, train
from segmentation.training.checkpoint import ViewState
from segmentation.training.items import validation_patients, without_patients
from segmentation.training.loop import ViewTrainer
from segmentation.training.material import material_of
from segmentation.training.validation import ValidationScore, ValidationSlices
from standard_space.errors import DataError, ScanFileError, UsageError
from tests.segmentation.toys import toy_items, toy_scan

OPTIONS = TrainingOptions(
    steps=4, batch_size=2, width=2, patch=16, validate_every=1, validation_slices=6, learning_rate=1e-2
)


def test_the_patients_of_a_share_are_chosen_by_hash_whatever_their_scans() -> None:
    items = toy_items(10)
    chosen = validation_patients(items, 0.2, seed=0)
    assert len(chosen) == 2
    twice = [dataclasses.replace(item, name=f"{item.patient}/{scan}") for item in items for scan in "ab"]
    assert validation_patients(twice[::-1], 0.2, seed=0) == chosen
    assert any(validation_patients(items, 0.2, seed=seed) != chosen for seed in range(1, 5))
    assert len(validation_patients(items, 0.01, seed=0)) == 1
    assert len(validation_patients(items[:2], 0.9, seed=0)) == 1
    assert {item.patient for item in without_patients(items, chosen)}.isdisjoint(chosen)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            validation_patients(items, share, seed=0)
    with pytest.raises(UsageError, match="cannot both train and validate"):
        validation_patients(toy_items(1), 0.2, seed=0)


def test_who_can_validate_depends_on_the_target() -> None:
    items = [dataclasses.replace(item, annotated=False) for item in toy_items(4)]
    assert len(validation_patients(items, 0.5, 0, "lungs")) == 2
    with pytest.raises(UsageError, match="0 patients with an infection annotation"):
        validation_patients(items, 0.5, 0)
    found = [dataclasses.replace(item, own_lungs=False) for item in items]
    with pytest.raises(UsageError, match="0 patients with a lung mask of the user's own"):
        validation_patients(found, 0.5, 0, "lungs")


def test_an_image_that_validates_never_trains_under_another_name() -> None:
    twin = dataclasses.replace(toy_items(1)[0], name="Q/S1", patient="Q")
    notes: list[str] = []
    made = material_of(
        [*toy_items(2)[1:], twin],
        [dataclasses.replace(twin, synthetic=True)],
        toy_items(1),
        None,
        OPTIONS,
        notes.append,
    )
    assert [item.name for item in made.training] == ["P1/S1"]
    assert notes == [
        f"1 {kind} scans are not trained on: their images are for validation, under another patient's name"
        for kind in ("original", "synthetic")
    ]
    unknown = [dataclasses.replace(item, image_sha256="") for item in toy_items(3)]
    assert len(material_of(unknown[1:], (), unknown[:1], None, OPTIONS, print).training) == 2


def test_synthetic_scans_do_not_validate() -> None:
    notes: list[str] = []
    made = material_of(
        toy_items(3)[1:], (), [*toy_items(1), *toy_items(3, synthetic=True)], None, OPTIONS, notes.append
    )
    assert [item.name for item in made.validation] == ["P0/S1"]
    assert [item.name for item in made.training] == ["P1/S1", "P2/S1"]
    assert notes == ["3 synthetic scans are not validated on: they are not acquired"]
    with pytest.raises(DataError, match="no scan to validate on"):
        material_of(toy_items(1), (), toy_items(3, synthetic=True), None, OPTIONS, print)


def test_while_nothing_is_found_the_newest_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ValidationSlices, "score", lambda *_: ValidationScore(0.0, 0.1))
    notes: list[str] = []
    model = train(
        toy_items(2)[:1], validation=toy_items(2)[1:], options=OPTIONS, device="cpu", note=notes.append
    )
    assert model.training["best_step"] == {"xy": 4, "yz": 4, "xz": 4}
    told = "view xz: no validation found anything, its newest weights are kept"
    assert told in notes
    assert told in model.training["notes"]
    found = train(toy_items(2)[:1], options=dataclasses.replace(OPTIONS, validate_every=None), device="cpu")
    assert model.model_id == found.model_id


def test_the_scans_tuned_on_are_counted_and_the_others_named() -> None:
    healthy = dataclasses.replace(toy_scan("P7"), infection=np.zeros((32, 32, 32), np.bool_))
    notes: list[str] = []
    model = train(
        toy_items(3)[:1],
        validation=[*toy_items(3)[1:], TrainingItem("P7/S1", False, lambda: healthy)],
        options=dataclasses.replace(OPTIONS, rule="logistic"),
        device="cpu",
        note=notes.append,
    )
    assert model.scores["validation"]["scans"] == 2
    assert model.scores["validation"]["rule"] == "logistic"
    assert model.scores["validation"]["threshold"] == model.aggregation.threshold
    assert [text for text in notes if "tuning" in text] == [
        "P7/S1: left out of tuning, its annotation is empty"
    ]


def test_a_view_whose_patience_ends_at_its_last_step_did_not_stop_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = iter([0.1, 0.5, 0.4, 0.3, *[0.5, 0.4, 0.3], *[0.1, 0.2, 0.3, 0.4]])
    monkeypatch.setattr(ValidationSlices, "score", lambda *_: ValidationScore(next(scores), 0.1))
    options = dataclasses.replace(OPTIONS, patience=2)
    model = train(toy_items(2)[:1], validation=toy_items(2)[1:], options=options, device="cpu")
    assert model.training["stopped_early"] == ["yz"]


def test_patients_that_validate_never_train() -> None:
    notes: list[str] = []
    made = material_of(toy_items(3), toy_items(3, synthetic=True), toy_items(1), None, OPTIONS, notes.append)
    assert {item.patient for item in made.training} == {"P1", "P2"}
    assert notes == [
        "1 original scans are not trained on: their patients are for validation",
        "1 synthetic scans are not trained on: their patients are for validation",
    ]
    with pytest.raises(DataError, match="no scan to train on"):
        material_of(toy_items(1), [], toy_items(1), None, OPTIONS, print)
    bare = [dataclasses.replace(item, annotated=False) for item in toy_items(1)]
    with pytest.raises(DataError, match="no scan to validate on"):
        material_of(toy_items(3)[1:], [], bare, None, OPTIONS, print)


def test_scores_are_those_of_the_fixed_slices() -> None:
    network = new_network("xy", 2, 0)
    device = torch.device("cpu")
    first, again = (ValidationSlices(toy_items(2), "xy", OPTIONS, 32, print) for _ in range(2))
    assert len(first._examples) == 6
    assert first.score(network, device) == again.score(network, device)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.fill_(50.0)
    counted = sum(float(e.counted.sum()) for e in first._examples)
    true = sum(float((e.truth * e.counted).sum()) for e in first._examples)
    everything = 2 * true / (counted + true)
    assert first.score(network, device).dice == pytest.approx(everything, rel=1e-5)
    assert first.score(network, device).soft_dice == pytest.approx(everything, rel=1e-5)
    with torch.no_grad():
        network.head.bias.fill_(0.5)  # a probability of 0.62 is below two thirds
    assert first.score(network, device).dice == 0.0
    assert network.training


def test_the_best_weights_are_kept_and_patience_ends_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.0, 0.0, 0.0, 0.4, 0.3, 0.5, 0.4, 0.4, 0.9])
    slices = ValidationSlices(toy_items(1), "xy", OPTIONS, 32, print)
    monkeypatch.setattr(slices, "score", lambda *_: ValidationScore(next(scores), 0.1))
    options = dataclasses.replace(OPTIONS, patience=2)
    trainer = ViewTrainer(ViewState("xy"), options, 9, torch.device("cpu"))
    for step in range(1, 9):
        trainer.state.step = step
        with torch.no_grad():
            trainer.network.head.bias.fill_(float(step))
        trainer.validate(slices)
        assert trainer.state.stopped == (step == 8)
    state = trainer.record()
    assert (state.best_dice, state.best_step) == (0.5, 6)
    assert float(state.final_weights["head.bias"]) == 6.0
    assert [row["dice"] for row in state.rows] == [0.0, 0.0, 0.0, 0.4, 0.3, 0.5, 0.4, 0.4]
    assert state.is_done(9)
    assert not state.is_done(12)


def test_validation_tunes_the_model_and_is_remembered() -> None:
    model = train(toy_items(4)[:2], validation=toy_items(4)[2:], options=OPTIONS, device="cpu")
    assert model.training["validation_patients"] == sorted(
        ({"patient_sha256": patient_sha256(f"P{k}"), "image_sha256": [f"P{k}-S1-{k}"]} for k in (2, 3)),
        key=lambda entry: str(entry["patient_sha256"]),
    )
    assert model.scores["validation"]["scans"] == 2
    assert 0.0 <= model.scores["validation"]["median_dice"] <= 1.0
    learned = train(
        toy_items(4)[:2],
        validation=toy_items(4)[2:],
        options=dataclasses.replace(OPTIONS, rule="logistic"),
        device="cpu",
    )
    assert learned.aggregation.rule == "logistic"
    assert learned.aggregation.weights is not None


def test_what_needs_validation_and_what_does_not_go_with_it() -> None:
    for wrong in ({"rule": "svm"}, {"patience": 2}):
        with pytest.raises(UsageError, match="validation"):
            train(toy_items(1), options=TrainingOptions(steps=1, **wrong), device="cpu")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="tune the threshold"):
        train(
            toy_items(2)[:1],
            validation=toy_items(2)[1:],
            options=TrainingOptions(steps=1, threshold=1.5),
            device="cpu",
        )


def test_validation_scans_that_cannot_be_used() -> None:
    def damaged() -> object:
        raise ScanFileError("not a readable scan file")

    notes: list[str] = []
    items = [TrainingItem("P8/S1", False, damaged), *toy_items(1)]  # type: ignore[arg-type]
    assert len(ValidationSlices(items, "yz", OPTIONS, 32, notes.append)._examples) == 3
    assert notes == ["P8/S1: left out, it cannot be read (not a readable scan file)"]
    healthy = dataclasses.replace(toy_scan(), infection=np.zeros((32, 32, 32), np.bool_))
    with pytest.raises(DataError, match="shows the infection"):
        ValidationSlices([TrainingItem("P", False, lambda: healthy)], "xy", OPTIONS, 32, print)
    with pytest.raises(DataError, match="different grids"):
        ValidationSlices(toy_items(1), "xy", OPTIONS, 64, print)
