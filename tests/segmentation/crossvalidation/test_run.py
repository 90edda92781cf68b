from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from segmentation.crossvalidation import run as crossvalidation
from segmentation.crossvalidation.run import crossvalidate, pooled
from segmentation.crossvalidation.table import format_crossvalidation
from segmentation.model import ThreeWaySegmenter
from segmentation.segmenter import patient_sha256
from segmentation.training import TrainingItem, TrainingOptions
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, UsageError
from standard_space.files import read_mark, write_mark
from standard_space.restore import restore_mask
from standard_space.scan import Scan
from standard_space.scanfile import write_scan
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.toys import toy_scan

OPTIONS = TrainingOptions(steps=2, width=2, batch_size=2, validation_slices=4)


def scans_of(patients: int) -> list[Scan]:
    return [toy_scan(f"P{number}", "1", seed=number) for number in range(patients)]


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return toy_cohort(tmp_path / "cohort", *scans_of(4))


@dataclass
class FakeTraining:
    """Stands in for training where only who is trained on matters; may fail for a fold."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    fails_for: str = ""
    target: str = "infection"

    def __call__(
        self,
        originals: list[TrainingItem],
        synthetic: list[TrainingItem],
        *,
        validation: list[TrainingItem],
        folder: Path,
        resume: bool,
        **_: Any,
    ) -> ThreeWaySegmenter:
        used = {"originals": originals, "synthetic": synthetic, "validation": validation}
        self.calls.append(
            {"fold": folder.parent.name, "resume": resume}
            | {name: [item.name for item in items] for name, items in used.items()}
        )
        if folder.parent.name == self.fails_for:
            raise DataError("training of view xy diverged")
        model = ThreeWaySegmenter.untrained(32, width=2, seed=8, target=self.target)
        model.training = {
            key: [{"patient_sha256": patient_sha256(item.patient), "image_sha256": []} for item in items]
            for key, items in (("patients", originals), ("validation_patients", validation))
        }
        model.save(folder)
        return model


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    fake = FakeTraining()
    monkeypatch.setattr(crossvalidation, "train", fake)
    monkeypatch.setattr(crossvalidation, "draw_scores", lambda *_, **__: [])
    return fake


def test_every_scan_is_scored_once_by_a_model_that_never_saw_its_patient(
    tmp_path: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cv"
    result = crossvalidate(cohort, out, folds=2, options=OPTIONS, device="cpu")
    assert (result.failures, result.kept) == ({}, 0)
    assert result.scores is not None
    assert [row["patient"] for row in result.scores["scans"]] == ["P0", "P1", "P2", "P3"]
    assert {row["group"] for row in result.scores["scans"]} == {"held_out"}
    assert json.loads((out / "scores.json").read_text()) == result.scores
    lines = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    for line in lines:
        model = ThreeWaySegmenter.load(out / f"fold-{line['fold']}" / "model")
        assert model.trained_on(patient_sha256(line["patient"]), None) is None
        assert len(model.training["validation_patients"]) == 1
    for fold in result.scores["folds"]:
        assert len(fold["validation_patients"]) == 1
        known = {*fold["training_patients"], *fold["validation_patients"]}
        assert known.isdisjoint(fold["test_patients"])
    assert (out / "figures" / "held_out_metrics.png").is_file()
    mark = read_mark(out)
    assert mark is not None
    assert mark["provenance"]["complete"] is True
    text = format_crossvalidation(result.scores, 2)
    assert "All folds together: 4 scans of 4 patients" in text
    assert "incomplete" not in text

    monkeypatch.setattr(crossvalidation, "train", None)
    monkeypatch.setattr(crossvalidation, "draw_scores", lambda *_, **__: [])
    again = crossvalidate(cohort, out, folds=2, options=OPTIONS, device="cpu")
    assert (again.kept, again.scores) == (2, result.scores)


@pytest.mark.slow
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    tmp_path: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = crossvalidate(cohort, tmp_path / "whole", folds=2, options=OPTIONS, device="cpu")

    def cut_short(model: Any, *_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(crossvalidation, "evaluate", cut_short)
        with pytest.raises(KeyboardInterrupt):
            crossvalidate(cohort, tmp_path / "cut", folds=2, options=OPTIONS, device="cpu")
    assert not (tmp_path / "cut" / "scores.json").exists()
    again = crossvalidate(cohort, tmp_path / "cut", folds=2, options=OPTIONS, device="cpu")
    assert (again.kept, again.scores) == (0, whole.scores)
    for name in ("scores.json", "scores.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_synthetic_scans_stay_with_their_patient(
    tmp_path: Path, cohort: Cohort, training: FakeTraining
) -> None:
    folder = tmp_path / "augmented"
    entries = []
    for number in range(4):
        scan = toy_scan(f"P{number}", "1-sim1", seed=number)
        name = f"P{number}_1-sim1.h5"
        entries.append(Entry.of(scan, "synthetic", name, write_scan(folder / name, scan)))
    Cohort.write_manifest(folder, entries)
    write_mark(folder, "augmented", {})
    augmented = Cohort.open(folder, sources=cohort)
    result = crossvalidate(
        cohort, tmp_path / "cv", folds=4, augmented=augmented, options=OPTIONS, device="cpu"
    )
    assert result.failures == {}
    assert len(training.calls) == 4
    for call in training.calls:
        assert call["resume"] is True
        assert len(call["originals"]) == 2
        assert call["synthetic"] == [f"{name}-sim1" for name in call["originals"]]
        assert set(call["validation"]).isdisjoint(call["originals"])
    assert result.scores is not None
    assert len(result.scores["scans"]) == 4


def test_a_failing_fold_is_named_and_made_again_next_time(
    tmp_path: Path, cohort: Cohort, training: FakeTraining
) -> None:
    training.fails_for = "fold-2"
    out = tmp_path / "cv"
    result = crossvalidate(cohort, out, folds=3, options=OPTIONS, device="cpu")
    assert list(result.failures) == ["fold 2"]
    assert "diverged" in result.failures["fold 2"]
    assert result.scores is not None
    assert [fold["fold"] for fold in result.scores["folds"]] == [1, 3]
    assert "incomplete: only fold 1, 3 of 3" in format_crossvalidation(result.scores, 3)
    mark = read_mark(out)
    assert mark is not None
    assert mark["provenance"]["failed"] == ["fold 2"]
    training.fails_for = ""
    again = crossvalidate(cohort, out, folds=3, options=OPTIONS, device="cpu")
    assert (again.kept, again.failures) == (2, {})
    assert [call["fold"] for call in training.calls] == ["fold-1", "fold-2", "fold-3", "fold-2"]
    assert again.scores is not None
    assert len(again.scores["scans"]) == 4


def test_all_folds_failing_leaves_no_scores(
    tmp_path: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> ThreeWaySegmenter:
        raise RuntimeError("a defect")

    monkeypatch.setattr(crossvalidation, "train", broken)
    result = crossvalidate(cohort, tmp_path / "cv", folds=2, options=OPTIONS, device="cpu")
    assert result.scores is None
    assert sorted(result.failures) == ["fold 1", "fold 2"]
    assert not (tmp_path / "cv" / "scores.json").exists()


def test_a_damaged_scan_is_named_and_scored_when_it_is_whole_again(
    tmp_path: Path, cohort: Cohort, training: FakeTraining
) -> None:
    path = cohort.path(cohort.find("P2", "1"))
    whole = path.read_bytes()
    path.write_bytes(b"no scan")
    first = crossvalidate(cohort, tmp_path / "cv", folds=2, options=OPTIONS, device="cpu")
    assert list(first.failures) == ["P2/1"]
    assert first.scores is not None
    assert len(first.scores["scans"]) == 3
    path.write_bytes(whole)
    again = crossvalidate(cohort, tmp_path / "cv", folds=2, options=OPTIONS, device="cpu")
    assert (again.failures, again.kept) == ({}, 1)
    assert again.scores is not None
    assert len(again.scores["scans"]) == 4


def test_only_the_same_request_continues_a_folder(
    tmp_path: Path, cohort: Cohort, training: FakeTraining
) -> None:
    out = tmp_path / "cv"
    crossvalidate(cohort, out, folds=2, options=OPTIONS, device="cpu")
    with pytest.raises(UsageError, match=r"another cross-validation.*other options"):
        crossvalidate(cohort, out, folds=2, options=replace(OPTIONS, steps=3), device="cpu")
    with pytest.raises(UsageError, match="other folds"):
        crossvalidate(cohort, out, folds=4, options=OPTIONS, device="cpu")
    calls = len(training.calls)
    forced = crossvalidate(cohort, out, folds=4, options=OPTIONS, device="cpu", force=True)
    assert (forced.kept, len(training.calls) - calls) == (0, 4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(UsageError, match="not empty"):
        crossvalidate(cohort, tmp_path / "mine", folds=2, options=OPTIONS, device="cpu")
    with pytest.raises(UsageError, match="lies in what is read"):
        crossvalidate(cohort, cohort.folder / "cv", folds=2, options=OPTIONS, device="cpu")


def test_one_patient_to_train_on_keeps_the_papers_threshold_and_says_so(
    tmp_path: Path, training: FakeTraining
) -> None:
    cohort = toy_cohort(tmp_path / "cohort", *scans_of(2))
    result = crossvalidate(cohort, tmp_path / "cv", folds=2, options=OPTIONS, device="cpu")
    assert result.scores is not None
    assert [fold["aggregation"]["threshold"] for fold in result.scores["folds"]] == [2.0, 2.0]
    assert "threshold 2 of the rule sum>t, untuned" in result.notes["fold 1"][0]
    learned = replace(OPTIONS, rule="logistic")
    with pytest.raises(UsageError, match=r"learned on validation patients, and fold 1, 2 has none"):
        crossvalidate(cohort, tmp_path / "cv2", folds=2, options=learned, device="cpu")
    assert not (tmp_path / "cv2").exists()


def test_fewer_patients_than_folds_is_refused_before_anything_is_written(
    tmp_path: Path, cohort: Cohort
) -> None:
    with pytest.raises(UsageError, match="fewer patients"):
        crossvalidate(cohort, tmp_path / "cv", folds=5, options=OPTIONS, device="cpu")
    assert not (tmp_path / "cv").exists()


def test_one_image_under_two_names_is_refused(tmp_path: Path, training: FakeTraining) -> None:
    same = {"image_sha256": "the same image"}
    scans = [replace(scan, provenance=same) for scan in scans_of(2)]
    cohort = toy_cohort(tmp_path / "cohort", *scans, toy_scan("P9", "1", seed=9))
    with pytest.raises(DataError, match=r"one image stands under several patients.*P0 and P1"):
        crossvalidate(cohort, tmp_path / "cv", folds=2, options=OPTIONS, device="cpu")
    assert training.calls == []


def test_folds_for_the_lungs_are_of_the_users_own_lungs(tmp_path: Path, training: FakeTraining) -> None:
    scans = []
    for number, source in enumerate(["user", "classical", "user", "user", "lungmask"]):
        scan = toy_scan(f"P{number}", "1", seed=number, annotated=number == 1)
        own = None if source == "classical" else restore_mask(scan.lungs, scan.placement)
        scans.append(replace(scan, native_lungs=own, provenance={**scan.provenance, "lungs": source}))
    cohort = toy_cohort(tmp_path / "cohort", *scans)
    training.target = "lungs"
    options = replace(OPTIONS, target="lungs")
    result = crossvalidate(cohort, tmp_path / "cv", folds=3, options=options, device="cpu")
    assert result.failures == {}
    assert result.scores is not None
    assert [row["patient"] for row in result.scores["scans"]] == ["P0", "P2", "P3"]
    with pytest.raises(UsageError, match="fewer patients"):
        crossvalidate(cohort, tmp_path / "more", folds=4, options=options, device="cpu")


def test_folds_that_overlap_are_never_pooled(tmp_path: Path, cohort: Cohort, training: FakeTraining) -> None:
    crossvalidate(cohort, tmp_path / "cv", folds=2, options=OPTIONS, device="cpu")
    one = json.loads((tmp_path / "cv" / "fold-1" / "scores.json").read_text())
    with pytest.raises(DataError, match="not apart"):
        pooled([one, one])
    one["scans"][0]["group"] = "training"
    with pytest.raises(DataError, match="not apart"):
        pooled([one])
