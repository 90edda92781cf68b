from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segmentation.evaluation.cohort_scores import evaluate
from segmentation.model import ThreeWaySegmenter
from segmentation.rule_in_folder import merged_patients, tune_folder
from segmentation.segmenter import patient_sha256
from standard_space.cohort import Cohort
from standard_space.errors import DataError, UsageError

from .cohorts import toy_cohort
from .toys import toy_scan


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    scans = [toy_scan("A", "1", seed=1), toy_scan("B", "1", seed=2), toy_scan("C", "1", annotated=False)]
    return toy_cohort(tmp_path / "cohort", *scans)


def model_folder(folder: Path, *, patient: str = "elsewhere", image: str = "none") -> Path:
    model = ThreeWaySegmenter.untrained(32, width=2, seed=8)
    model.training = {"patients": [{"patient_sha256": patient_sha256(patient), "image_sha256": [image]}]}
    model.save(folder)
    return folder


def test_the_rule_and_whose_scans_taught_it_are_kept(tmp_path: Path, cohort: Cohort) -> None:
    folder = model_folder(tmp_path / "model")
    weights = {path.name: path.read_bytes() for path in folder.glob("*.pt")}
    found = tune_folder(folder, cohort, rule="logistic", device="cpu")
    assert (found.scans, found.failures) == (["A/1", "B/1"], {})
    assert found.left_out == ["C/1: no infection annotation"]
    loaded = ThreeWaySegmenter.load(folder)
    assert loaded.aggregation == found.tuned.aggregation
    assert loaded.aggregation.rule == "logistic"
    assert {path.name: path.read_bytes() for path in folder.glob("*.pt")} == weights
    kept = loaded.training["validation_patients"]
    assert {record["patient_sha256"] for record in kept} == {patient_sha256("A"), patient_sha256("B")}
    assert [record["image_sha256"] for record in kept if record["patient_sha256"] == patient_sha256("A")] == [
        ["A-1-1"]
    ]
    assert loaded.scores["tuning"]["median_dice"] == found.tuned.median_dice
    groups = {row["patient"]: row["group"] for row in evaluate(loaded, cohort, device="cpu")["scans"]}
    assert groups == {"A": "validation", "B": "validation"}


@pytest.mark.parametrize("rule", ["sum>t", "logistic"])
def test_a_scan_without_infection_teaches_nothing_and_is_named(
    tmp_path: Path, cohort: Cohort, rule: str
) -> None:
    healthy = toy_scan("D", "1", seed=4)
    assert healthy.infection is not None
    healthy = replace(healthy, infection=np.zeros_like(healthy.infection))
    more = toy_cohort(tmp_path / "more", healthy, *(cohort.read(entry) for entry in cohort.entries))
    folder = model_folder(tmp_path / "model")
    found = tune_folder(folder, more, rule=rule, device="cpu")
    assert (found.scans, found.tuned.scans) == (["A/1", "B/1"], 2)
    assert found.left_out == ["C/1: no infection annotation", "D/1: its annotation is empty"]
    loaded = ThreeWaySegmenter.load(folder)
    assert loaded.scores["tuning"]["scans"] == 2
    assert len(loaded.training["validation_patients"]) == 2


@pytest.mark.parametrize(("rule", "passes"), [("majority", 1), ("weighted", 2)])
def test_progress_reaches_its_total_once(tmp_path: Path, cohort: Cohort, rule: str, passes: int) -> None:
    (cohort.folder / "A_1.h5").write_bytes(b"no scan")
    told: list[tuple[str, int, int]] = []
    found = tune_folder(
        model_folder(tmp_path / "model"),
        cohort,
        rule=rule,
        device="cpu",
        progress=lambda *event: told.append(event),
    )
    assert [(done, total) for _, done, total in told] == [
        (done, 3 * passes) for done in range(1, 3 * passes + 1)
    ]
    assert [name for name, _, _ in told] == ["A/1", "B/1", "C/1"] * passes
    # A second look tells nothing twice.
    assert (found.scans, list(found.failures), len(found.left_out)) == (["B/1"], ["A/1"], 1)


def test_patients_of_earlier_tunings_stay_known(tmp_path: Path, cohort: Cohort) -> None:
    folder = model_folder(tmp_path / "model")
    tune_folder(folder, cohort, device="cpu")
    tune_folder(
        folder, toy_cohort(tmp_path / "other", toy_scan("E", "1", seed=5)), rule="majority", device="cpu"
    )
    loaded = ThreeWaySegmenter.load(folder)
    assert loaded.aggregation.rule == "majority"
    assert len(loaded.training["validation_patients"]) == 3
    assert merged_patients([{"patient_sha256": "p", "image_sha256": ["x"]}], [("p", "w"), ("q", None)]) == [
        {"patient_sha256": "p", "image_sha256": ["w", "x"]},
        {"patient_sha256": "q", "image_sha256": []},
    ]


@pytest.mark.parametrize(("patient", "image"), [("B", "none"), ("elsewhere", "B-1-2")])
def test_training_patients_and_images_are_refused_by_name(
    tmp_path: Path, cohort: Cohort, patient: str, image: str
) -> None:
    folder = model_folder(tmp_path / "model", patient=patient, image=image)
    before = (folder / "model.json").read_bytes()
    with pytest.raises(UsageError, match=r"trained on patients of this cohort.*got B/1"):
        tune_folder(folder, cohort, device="cpu")
    assert (folder / "model.json").read_bytes() == before


def test_a_damaged_scan_is_named_and_does_not_teach(tmp_path: Path, cohort: Cohort) -> None:
    folder = model_folder(tmp_path / "model")
    (cohort.folder / "A_1.h5").write_bytes(b"no scan")
    found = tune_folder(folder, cohort, device="cpu")
    assert (found.scans, list(found.failures)) == (["B/1"], ["A/1"])
    content = json.loads((folder / "model.json").read_text())
    known = [record["patient_sha256"] for record in content["training"]["validation_patients"]]
    assert known == [patient_sha256("B")]


def test_what_cannot_be_tuned_stays_as_it_was(tmp_path: Path, cohort: Cohort) -> None:
    with pytest.raises(DataError, match="no such model folder"):
        tune_folder(tmp_path / "nowhere", cohort, device="cpu")
    assert not (tmp_path / "nowhere").exists()
    folder = model_folder(tmp_path / "model")
    before = (folder / "model.json").read_bytes()
    for bad, message in (
        (toy_cohort(tmp_path / "bare", toy_scan(annotated=False)), "no validation scan"),
        (toy_cohort(tmp_path / "large", toy_scan(size=48)), "different grids"),
    ):
        with pytest.raises(DataError, match=message):
            tune_folder(folder, bad, device="cpu")
    assert (folder / "model.json").read_bytes() == before
