from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segmentation.evaluation.cohort_scores import evaluate, masks_of, score_cohort
from segmentation.evaluation.metrics import dice
from segmentation.evaluation.scan_scores import METRICS, ScoringOptions, no_truth, score_scan, truth_of
from segmentation.evaluation.surface_dice import surface_dice
from segmentation.evaluation.tables import format_scores, scores_csv
from segmentation.model import ThreeWaySegmenter
from segmentation.predict import predict_scan
from segmentation.results.native import to_native
from segmentation.segmenter import patient_sha256
from standard_space.cohort import Cohort
from standard_space.errors import DataError, UsageError
from standard_space.restore import restore_mask
from standard_space.scan import Scan
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.toys import toy_scan


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return toy_cohort(
        tmp_path / "cohort",
        toy_scan("A", "1", seed=1),
        toy_scan("B", "1", seed=2),
        toy_scan("C", "1", seed=3),
        toy_scan("D", "1", seed=4, annotated=False),
    )


def model_that_knows(
    *, patient: str = "none", image: str = "none", validation: str = "none"
) -> ThreeWaySegmenter:
    model = ThreeWaySegmenter.untrained(32, width=2)
    model.training = {
        "patients": [
            {"patient_sha256": patient_sha256(patient), "image_sha256": []},
            {"patient_sha256": patient_sha256("elsewhere"), "image_sha256": [image]},
        ],
        "validation_patients": [{"patient_sha256": patient_sha256(validation), "image_sha256": []}],
    }
    return model


def native_truth(scan: Scan) -> NDArray[np.bool_]:
    assert scan.native_infection is not None
    return scan.native_infection


def test_training_scans_stand_apart_with_the_reason(cohort: Cohort) -> None:
    model = model_that_knows(patient="A", image="B-1-2")
    scores = evaluate(model, cohort, device="cpu", threshold=1.0)
    assert json.loads(json.dumps(scores)) == scores
    assert (scores["space"], scores["aggregation"]["threshold"]) == ("native", 1.0)
    rows = {row["patient"]: row for row in scores["scans"]}
    assert rows["A"]["reason"] == "the patient was in the model's training set"
    assert rows["B"]["reason"] == "the image was in the model's training set"
    assert (rows["C"]["group"], rows["C"]["reason"]) == ("held_out", None)
    assert scores["left_out"] == ["D/1: no infection annotation"]
    held, training = scores["groups"]["held_out"], scores["groups"]["training"]
    assert (held["scans"], training["scans"]) == (1, 2)
    assert held["metrics"]["dice"]["median"] == rows["C"]["dice"]
    assert training["metrics"]["dice"]["worst"] == min(rows["A"]["dice"], rows["B"]["dice"])
    assert "mean_interval" not in training["metrics"]["dice"]
    scan = toy_scan("C", "1", seed=3)
    native = to_native(predict_scan(model, scan, device="cpu", threshold=1.0), scan)
    assert rows["C"]["dice"] == pytest.approx(dice(native.mask, native_truth(scan)), abs=0.01)


def test_scans_of_validation_patients_are_never_held_out(cohort: Cohort) -> None:
    scores = score_cohort(model_that_knows(patient="A", validation="B"), cohort, native_truth)
    groups = {row["patient"]: row["group"] for row in scores["scans"]}
    assert groups == {"A": "training", "B": "validation", "C": "held_out"}
    counts = {name: summary["scans"] for name, summary in scores["groups"].items()}
    assert counts == {"held_out": 1, "validation": 1, "training": 1}
    reasons = {row["patient"]: row["reason"] for row in scores["scans"]}
    assert reasons["B"] == "the patient was in the model's validation set"
    assert "Validation patients, which the model was tuned on: 1 scans" in format_scores(scores)


def test_one_bad_scan_is_named_and_the_rest_is_scored(cohort: Cohort) -> None:
    bad = next(entry for entry in cohort.entries if entry.patient == "B")
    cohort.path(bad).write_bytes(b"no scan")
    scores = score_cohort(model_that_knows(), cohort, native_truth)
    assert [row["patient"] for row in scores["scans"]] == ["A", "C"]
    assert list(scores["failures"]) == ["B/1"]
    assert str(cohort.folder) not in json.dumps(scores)

    def weak(scan: Scan) -> NDArray[np.bool_]:
        if scan.patient == "A":
            raise RuntimeError("a defect")
        return native_truth(scan)

    again = score_cohort(model_that_knows(), cohort, weak)
    assert sorted(again["failures"]) == ["A/1", "B/1"]
    assert "RuntimeError" in again["failures"]["A/1"]


def test_a_cohort_of_another_grid_is_an_error_that_names_both(tmp_path: Path) -> None:
    other = toy_cohort(tmp_path / "other", toy_scan("A", "1", size=48))
    with pytest.raises(DataError, match=r"no scan could be scored.*scan grid 48.*model grid 32"):
        evaluate(model_that_knows(), other, device="cpu")


def test_a_threshold_or_option_out_of_range_is_refused_before_any_scan(cohort: Cohort) -> None:
    with pytest.raises(UsageError, match="out of range"):
        evaluate(model_that_knows(), cohort, device="cpu", threshold=3.5)
    with pytest.raises(UsageError, match="no such grid"):
        ScoringOptions(space="coarse")
    for tolerance in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="above zero"):
            ScoringOptions(nsd_tolerance_mm=tolerance)


def test_the_standard_grid_is_scored_on_request_and_named(cohort: Cohort) -> None:
    model = model_that_knows()
    options = ScoringOptions("standard", 3.0)
    scores = evaluate(model, cohort, device="cpu", threshold=1.0, options=options)
    assert scores["space"] == "standard"
    assert "standard grid" in format_scores(scores).splitlines()[0]
    scan = toy_scan("C", "1", seed=3)
    assert scan.infection is not None
    mask = predict_scan(model, scan, device="cpu", threshold=1.0).mask
    row = scores["scans"][2]
    assert row["dice"] == pytest.approx(dice(mask, scan.infection), abs=0.01)
    assert row["true_ml"] == pytest.approx(scan.infection.sum() * scan.grid.voxel_volume_ml)
    assert row["true_share"] == pytest.approx(scan.infection.sum() / scan.lungs.sum())
    assert np.array_equal(masks_of(model, device="cpu", threshold=1.0, space="standard")(scan), mask)


def test_spacing_goes_with_the_axes_of_the_array() -> None:
    scan = toy_scan()
    x, y, z = scan.placement.native.spacing_mm
    assert len({x, z}) == 2
    assert tuple(truth_of(scan, "infection").spacing_mm) == (z, y, x)
    assert tuple(truth_of(scan, "infection", "standard").spacing_mm) == scan.grid.spacing_mm
    shifted = np.roll(native_truth(scan), 1, axis=0)
    row = score_scan(model_that_knows(), scan, shifted, ScoringOptions(nsd_tolerance_mm=1.5))
    assert row["nsd"] == surface_dice(shifted, native_truth(scan), (z, y, x), tolerance_mm=1.5)
    assert row["nsd"] != surface_dice(shifted, native_truth(scan), (x, y, z), tolerance_mm=1.5)


def test_a_model_of_the_lungs_is_scored_on_the_users_own_lungs_only(tmp_path: Path) -> None:
    scans = [
        toy_scan("A", "1", seed=1, annotated=False),
        toy_scan("B", "1", seed=2),
        toy_scan("C", "1", seed=1),
    ]
    own = restore_mask(scans[0].lungs, scans[0].placement)
    for place, source in ((0, "user"), (2, "lungmask")):
        provenance = {**scans[place].provenance, "lungs": source}
        scans[place] = replace(scans[place], native_lungs=own, provenance=provenance)
    cohort = toy_cohort(tmp_path / "cohort", *scans)
    model = ThreeWaySegmenter.untrained(32, width=2, target="lungs")
    scores = evaluate(model, cohort, device="cpu", threshold=1.5)
    assert [row["patient"] for row in scores["scans"]] == ["A"]
    assert scores["left_out"] == [
        "B/1: its lungs were found by lungcast, not annotated",
        "C/1: its lungs were found by lungmask, not annotated",
    ]
    row = scores["scans"][0]
    assert (row["true_share"], row["predicted_share"]) == (None, None)
    assert row["true_ml"] == pytest.approx(own.sum() * scans[0].placement.native.voxel_volume_ml)
    assert scores["groups"]["held_out"]["infected_share"]["n"] == 0
    # Nothing is cut to the lungs that are known: whatever the model takes for lung counts.
    flooded = evaluate(model, cohort, device="cpu", threshold=0.0)["scans"][0]
    assert flooded["predicted_ml"] > 2 * flooded["true_ml"]
    perfect = score_cohort(model, cohort, lambda scan: np.asarray(scan.native_lungs))
    assert perfect["scans"][0]["dice"] == 1.0
    # The whole grid is the region: a mask of everything has no specificity left, though the lungs hold no mistake.
    full = score_cohort(model, cohort, lambda scan: np.ones_like(scan.native_lungs))
    assert full["scans"][0]["specificity"] == 0.0


def test_scans_without_any_infected_voxel_follow_the_convention(tmp_path: Path) -> None:
    scan = toy_scan("A", "1")
    assert scan.infection is not None
    assert scan.native_infection is not None
    healthy = replace(
        scan,
        infection=np.zeros_like(scan.infection),
        native_infection=np.zeros_like(scan.native_infection),
    )
    cohort = toy_cohort(tmp_path / "cohort", healthy, toy_scan("B", "1", seed=2))
    nothing = score_cohort(model_that_knows(), cohort, lambda scan: np.zeros_like(native_truth(scan)))
    rows = {row["patient"]: row for row in nothing["scans"]}
    assert {m: rows["A"][m] for m in ("dice", "iou", "dice_2voxel", "nsd")} == dict.fromkeys(
        ("dice", "iou", "dice_2voxel", "nsd"), 1.0
    )
    assert (rows["A"]["recall"], rows["A"]["precision"], rows["A"]["specificity"]) == (None, None, 1.0)
    assert {rows["B"][m] for m in ("dice", "iou", "dice_2voxel", "nsd", "recall")} == {0.0}
    assert nothing["groups"]["held_out"]["without_truth"] == 1
    assert "1 with an empty annotation" in format_scores(nothing)
    assert nothing["groups"]["held_out"]["metrics"]["recall"]["n"] == 1


def test_scores_of_the_truth_itself_are_perfect_and_counted_by_stage(cohort: Cohort) -> None:
    scores = score_cohort(model_that_knows(patient="A"), cohort, native_truth)
    held = scores["groups"]["held_out"]
    found = held["metrics"]["dice"]
    assert {found[key] for key in ("median", "mean", "worst")} == {1.0}
    assert (found["n"], found["sd"], found["mean_interval"]) == (2, 0.0, [1.0, 1.0])
    assert held["failures"] == {"below_dice": 0.2, "count": 0, "scans": []}
    assert {stage: value["dice"]["n"] for stage, value in held["per_stage"].items()} == {
        "early": 1,
        "late": 1,
    }
    assert held["infected_share"]["rmse"] == 0.0
    assert (held["volume_ml"]["rmse"], held["volume_ml"]["pearson"]) == (0.0, None)  # of two scans only
    nothing = score_cohort(
        model_that_knows(patient="A"), cohort, lambda scan: np.zeros_like(native_truth(scan))
    )
    assert nothing["groups"]["held_out"]["failures"]["scans"] == ["B/1", "C/1"]
    assert nothing["groups"]["held_out"]["metrics"]["precision"]["median"] is None


def test_the_table_is_aligned_and_names_both_groups(cohort: Cohort) -> None:
    text = format_scores(evaluate(model_that_knows(patient="A"), cohort, device="cpu"))
    lines = text.splitlines()
    assert "native grid" in lines[0]
    assert any(line.startswith("Held-out patients: 2 scans of 2 patients") for line in lines)
    assert any(line.startswith("Training patients, which the model has seen: 1 scans") for line in lines)
    table = [line for line in lines if line.startswith(("  scan", "  B/1", "  C/1"))]
    assert len({line.index(line.split()[1]) + len(line.split()[1]) for line in table[:3]}) == 1
    assert "with 2 patients these intervals are too narrow" in lines
    assert any(line.startswith("dice_2voxel = ") for line in lines)
    assert "nsd = area of both surfaces within 2 mm of the other / area of both" in text
    assert lines[-1] == "left out: D/1: no infection annotation"


def test_a_cohort_the_model_was_trained_on_is_said_plainly(tmp_path: Path) -> None:
    cohort = toy_cohort(tmp_path / "cohort", toy_scan("A", "1", seed=1))
    text = format_scores(score_cohort(model_that_knows(patient="A"), cohort, native_truth))
    assert "Held-out patients: no scans" in text
    assert "these figures say nothing of new ones" in text
    assert "intervals" not in text


def test_an_imported_model_is_said_not_to_know_its_patients(cohort: Cohort) -> None:
    model = model_that_knows()
    assert "imported" not in format_scores(evaluate(model, cohort, device="cpu"))
    model.training = {"imported": {}}
    scores = evaluate(model, cohort, device="cpu")
    assert not scores["knows_its_patients"]
    assert "does not know its training patients" in format_scores(scores)


def test_the_csv_has_a_line_for_every_scan(cohort: Cohort) -> None:
    rows = score_cohort(model_that_knows(patient="A"), cohort, native_truth)["scans"]
    lines = list(csv.DictReader(scores_csv(rows).splitlines()))
    assert [line["patient"] for line in lines] == ["A", "B", "C"]
    assert [line["group"] for line in lines] == ["training", "held_out", "held_out"]
    assert all(float(line[metric]) == 1.0 for line in lines for metric in METRICS)


def test_nothing_to_score_is_an_error(tmp_path: Path) -> None:
    bare = toy_cohort(tmp_path / "bare", toy_scan(annotated=False))
    with pytest.raises(DataError, match="to score against"):
        evaluate(ThreeWaySegmenter.untrained(32, width=2), bare, device="cpu")
    model: Any = ThreeWaySegmenter.untrained(32, width=2)
    with pytest.raises(DataError, match="no infection annotation"):
        score_scan(model, toy_scan(annotated=False), np.zeros((1, 1, 1), np.bool_))
    only_standard = replace(toy_scan(), native_infection=None)
    assert no_truth(only_standard, "infection") == "no annotation on the native grid"
    assert no_truth(only_standard, "infection", "standard") is None
