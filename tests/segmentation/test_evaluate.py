from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segmentation.evaluate import describe, evaluate, format_scores, score_cohort, score_scan
from segmentation.metrics import dice
from segmentation.model import ThreeWaySegmenter, patient_sha256
from segmentation.native import to_native
from segmentation.predict import predict_scan
from segmentation.quantification import quantify
from segmentation.threshold_baseline import tune_threshold_baseline
from segmentation.tuning import tune_threshold
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, UsageError
from standard_space.files import write_mark
from standard_space.scan import Scan
from standard_space.scanfile import write_scan

from .toys import toy_scan


def make_cohort(folder: Path, scans: list[Scan]) -> Cohort:
    entries = []
    for scan in scans:
        name = f"{scan.patient}_{scan.scan}.h5"
        entries.append(Entry.of(scan, "observed", name, write_scan(folder / name, scan)))
    Cohort.write_manifest(folder, entries)
    write_mark(folder, "cohort", {})
    return Cohort.open(folder)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return make_cohort(
        tmp_path,
        [
            toy_scan("A", "1", seed=1),
            toy_scan("B", "1", seed=2),
            toy_scan("C", "1", seed=3),
            toy_scan("D", "1", seed=4, annotated=False),
        ],
    )


def model_that_knows(*, patient: str, image: str) -> ThreeWaySegmenter:
    model = ThreeWaySegmenter.untrained(32, width=2)
    model.training = {
        "patients": [
            {"patient_sha256": patient_sha256(patient), "image_sha256": []},
            {"patient_sha256": patient_sha256("elsewhere"), "image_sha256": [image]},
        ]
    }
    return model


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
    scan = toy_scan("C", "1", seed=3)
    assert scan.native_infection is not None
    native = to_native(predict_scan(model, scan, device="cpu", threshold=1.0), scan)
    assert rows["C"]["dice"] == pytest.approx(dice(native.mask, scan.native_infection), abs=0.01)


def test_scores_of_the_truth_itself_are_perfect_and_counted_by_stage(cohort: Cohort) -> None:
    model = model_that_knows(patient="A", image="none")

    def truth(scan: Scan) -> np.ndarray:
        assert scan.native_infection is not None
        return scan.native_infection

    scores = score_cohort(model, cohort, truth)
    held = scores["groups"]["held_out"]
    assert held["metrics"]["dice"] == {"n": 2, "median": 1.0, "mean": 1.0, "sd": 0.0, "worst": 1.0}
    assert held["failures"] == {"below_dice": 0.2, "count": 0, "scans": []}
    assert {stage: value["n"] for stage, value in held["dice_per_stage"].items()} == {"early": 1, "late": 1}
    assert held["infected_share"]["rmse"] == 0.0
    nothing = score_cohort(model, cohort, lambda scan: np.zeros_like(truth(scan)))
    assert nothing["groups"]["held_out"]["failures"]["scans"] == ["B/1", "C/1"]
    assert nothing["groups"]["held_out"]["metrics"]["precision"]["median"] is None


def test_the_table_is_aligned_and_names_both_groups(cohort: Cohort) -> None:
    text = format_scores(evaluate(model_that_knows(patient="A", image="none"), cohort, device="cpu"))
    lines = text.splitlines()
    assert "native grid" in lines[0]
    assert any(line.startswith("Held-out: 2 scans") for line in lines)
    assert any(line.startswith("Training: 1 scans") for line in lines)
    table = [line for line in lines if line.startswith(("  scan", "  B/1", "  C/1", "  median"))]
    assert len({line.index(line.split()[1]) + len(line.split()[1]) for line in table[:3]}) == 1
    assert lines[-1] == "left out: D/1: no infection annotation"


def test_nothing_to_score_is_an_error(tmp_path: Path) -> None:
    bare = make_cohort(tmp_path, [toy_scan(annotated=False)])
    with pytest.raises(DataError, match="to score against"):
        evaluate(ThreeWaySegmenter.untrained(32, width=2), bare, device="cpu")
    with pytest.raises(DataError, match="no annotation"):
        score_scan(ThreeWaySegmenter.untrained(32, width=2), toy_scan(annotated=False), np.zeros(1, np.bool_))


def test_describe() -> None:
    assert describe([0.2, 0.9, 0.4]) == pytest.approx(
        {"n": 3, "median": 0.4, "mean": 0.5, "sd": np.std([0.2, 0.9, 0.4], ddof=1), "worst": 0.2}
    )
    assert describe([])["median"] is None


def test_quantification_by_hand() -> None:
    hu = np.full((2, 5, 5), -850.0)
    lungs, infection = np.zeros((2, 2, 5, 5), np.bool_)
    lungs[0, :4] = True
    infection[0, 3:] = True  # five voxels inside, five outside
    hu[0, 3] = [-600.0, -200.0, -201.0, 0.0, -500.0]
    found = quantify(infection, lungs, hu, 0.5)
    assert found == {
        "space": "native",
        "lungs_ml": 10.0,
        "infection_ml": 2.5,
        "infected_share": 0.25,
        "ggo_ml": 1.5,
        "consolidation_ml": 1.0,
        "consolidation_hu": -200.0,
        "mean_lesion_hu": pytest.approx(-300.2),
        "mean_healthy_lung_hu": -850.0,
    }
    empty = quantify(np.zeros_like(lungs), np.zeros_like(lungs), hu, 0.5)
    assert (empty["infected_share"], empty["mean_lesion_hu"]) == (None, None)
    with pytest.raises(UsageError, match="differ in shape"):
        quantify(infection[:1], lungs, hu, 0.5)


def test_the_baseline_finds_the_band_that_was_painted() -> None:
    scans = []
    for seed in range(3):
        scan = toy_scan(seed=seed)
        hu = np.full(scan.grid.shape, -850.0, np.float32)
        hu[~scan.lungs] = 40.0
        assert scan.infection is not None
        hu[scan.infection] = -350.0
        # Bright tubes that only the variant without them, or an upper end of the band, can leave out.
        vessels = scan.lungs & ~scan.infection & (np.arange(32)[None, None, :] % 7 == 0)
        hu[vessels] = -350.0
        scans.append(replace(scan, signal=scan.window.to_signal(hu), vessels=vessels))
    found = tune_threshold_baseline(scans)
    assert found.without_tubes
    assert found.smoothing_mm == 0.0
    assert found.training_dice == 1.0
    assert -850.0 < found.low_hu <= -350.0 < found.high_hu
    assert scans[0].infection is not None
    assert np.array_equal(found.mask(scans[0]), scans[0].infection)
    assert not (found.native_mask(scans[0]) & ~to_native_lungs(scans[0])).any()
    with pytest.raises(DataError, match="no scan to tune"):
        tune_threshold_baseline([toy_scan(annotated=False)])


def to_native_lungs(scan: Scan) -> np.ndarray:
    from standard_space.restore import restore_mask

    return restore_mask(scan.lungs, scan.placement)


def test_every_band_is_scored_as_a_loop_would() -> None:
    scan = toy_scan(seed=8)
    assert scan.infection is not None
    found = tune_threshold_baseline([scan])
    best = 0.0
    hu = scan.window.to_hu(scan.signal)
    for low in range(-1000, 201, 20):
        for high in [*range(low + 20, 201, 20), np.inf]:
            best = max(best, dice(scan.lungs & (hu >= low) & (hu < high), scan.infection))
    assert found.training_dice >= best
    assert dice(found.mask(scan), scan.infection) == pytest.approx(found.training_dice)


def test_tuning_finds_the_threshold_of_the_best_dice() -> None:
    scan = toy_scan(seed=3)
    model = ThreeWaySegmenter.untrained(32, width=2, seed=8)
    found = tune_threshold(model, [scan, toy_scan(annotated=False)], device="cpu")
    assert scan.infection is not None
    for threshold in (found.threshold, 1.0, 1.5, 2.0):
        mask = predict_scan(model, scan, device="cpu", threshold=threshold).mask
        assert dice(mask, scan.infection) <= found.median_dice + 1e-6
    mask = predict_scan(model, scan, device="cpu", threshold=found.threshold).mask
    assert dice(mask, scan.infection) == pytest.approx(found.median_dice, abs=1e-3)
    assert model.aggregation.threshold == 2.0
    with pytest.raises(DataError, match="no validation scan"):
        tune_threshold(model, [toy_scan(annotated=False)], device="cpu")
