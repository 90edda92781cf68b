from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from cli.console import LungcastGroup
from cli.crossvalidate import crossvalidate
from cli.evaluate import evaluate
from cli.scoring_options import RULE_NAMES
from cli.tune import tune
from segmentation.aggregation import RULES
from segmentation.crossvalidation.run import Crossvalidation
from segmentation.evaluation import cohort_scores
from segmentation.model import ThreeWaySegmenter
from segmentation.segmenter import patient_sha256
from segmentation.training import TrainingOptions
from segmentation.training.memory import REMEDY
from standard_space.cohort import Cohort
from standard_space.errors import DataError
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.toys import toy_scan


@click.group(cls=LungcastGroup)
def group() -> None:
    """Only the commands of this file."""


for command in (evaluate, tune, crossvalidate):
    group.add_command(command)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, [str(argument) for argument in arguments])


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return toy_cohort(tmp_path / "cohort", toy_scan("A", "1", seed=1), toy_scan("B", "1", seed=2))


def model_folder(folder: Path, *patients: str, seed: int = 8, target: str = "infection") -> Path:
    model = ThreeWaySegmenter.untrained(32, width=2, seed=seed, target=target)
    model.training = {
        "patients": [{"patient_sha256": patient_sha256(name), "image_sha256": []} for name in patients]
    }
    model.save(folder)
    return folder


def test_a_cohort_the_model_was_trained_on_is_scored_drawn_and_said(tmp_path: Path, cohort: Cohort) -> None:
    model = model_folder(tmp_path / "model", "A", "B")
    result = run(
        "evaluate", model, cohort.folder, "--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv",
        "--figures", tmp_path / "figures", "--nsd-tolerance-mm", 3,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Held-out patients: no scans" in result.output
    assert "say nothing of new ones" in result.output
    scores = json.loads((tmp_path / "s.json").read_text())
    assert (scores["groups"]["held_out"]["scans"], scores["nsd_tolerance_mm"]) == (0, 3.0)
    assert len(list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))) == 2
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"training_metrics.png", "training_agreement.png", "training_worst_1.png"} <= names
    assert not any(name.startswith("held_out") for name in names)
    assert str(tmp_path) not in (tmp_path / "s.json").read_text()


def test_a_bad_scan_gives_exit_code_1_and_the_scores_of_the_others(tmp_path: Path, cohort: Cohort) -> None:
    cohort.path(cohort.find("A", "1")).write_bytes(b"no scan")
    result = run("evaluate", model_folder(tmp_path / "model"), cohort.folder, "--json", tmp_path / "s.json")
    assert result.exit_code == 1
    assert "1 failed; the rest was completed" in result.output
    scores = json.loads((tmp_path / "s.json").read_text())
    assert [row["patient"] for row in scores["scans"]] == ["B"]
    assert list(scores["failures"]) == ["A/1"]


def test_two_models_are_compared_and_few_patients_are_said(tmp_path: Path, cohort: Cohort) -> None:
    one, other = model_folder(tmp_path / "one"), model_folder(tmp_path / "other", seed=3)
    result = run(
        "evaluate",
        one,
        cohort.folder,
        "--against",
        other,
        "--json",
        tmp_path / "s.json",
        "--grid",
        "standard",
    )
    assert result.exit_code == 0, result.output
    assert "standard grid" in result.output
    assert "warning: too few patients differ" in " ".join(result.output.split())
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["comparison"]["patients"] == 2
    assert scores["against"]["model_id"] != scores["model_id"]
    lungs = model_folder(tmp_path / "lungs", target="lungs")
    refused = run("evaluate", one, cohort.folder, "--against", lungs)
    assert (refused.exit_code, "different things" in refused.output) == (2, True)


def test_a_rival_that_fails_costs_no_score_of_the_first(
    tmp_path: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = model_folder(tmp_path / "one"), model_folder(tmp_path / "other", seed=3)
    original = cohort_scores.evaluate

    def failing(model: ThreeWaySegmenter, *arguments: Any, **options: Any) -> Any:
        if model.model_id == ThreeWaySegmenter.load(one).model_id:
            return original(model, *arguments, **options)
        assert (tmp_path / "s.json").is_file()
        raise DataError("the GPU's memory is full")

    monkeypatch.setattr(cohort_scores, "evaluate", failing)
    result = run(
        "evaluate", one, cohort.folder, "--against", other,
        "--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv",
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "problem: against: the GPU's memory is full" in result.output
    assert str(tmp_path / "s.csv") in result.output
    scores = json.loads((tmp_path / "s.json").read_text())
    assert [row["patient"] for row in scores["scans"]] == ["A", "B"]
    assert "against" not in scores


def test_a_rival_on_another_grid_is_refused_before_anything_is_scored(tmp_path: Path, cohort: Cohort) -> None:
    other = ThreeWaySegmenter.untrained(48, width=2)
    other.save(tmp_path / "other")
    result = run("evaluate", model_folder(tmp_path / "one"), cohort.folder, "--against", tmp_path / "other")
    assert result.exit_code == 2
    assert "different grids" in result.output
    assert "Scores on" not in result.output


def test_a_rival_that_was_imported_is_warned_of(tmp_path: Path, cohort: Cohort) -> None:
    other = ThreeWaySegmenter.untrained(32, width=2, seed=3)
    other.save(tmp_path / "other")
    assert not other.knows_its_patients
    result = run(
        "evaluate", model_folder(tmp_path / "one"), cohort.folder, "--against", tmp_path / "other",
        "--json", tmp_path / "s.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert f"warning: AGAINST {other.model_id} was imported" in result.output
    comparison = json.loads((tmp_path / "s.json").read_text())["comparison"]
    assert comparison["knows_its_patients"] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nsd-tolerance-mm", "0"), "above zero"),
        (("--nsd-tolerance-mm", "nan"), "above zero"),
        (("--threshold", "4"), "out of range"),
        (("--json", "."), "output is a folder"),
        (("--grid", "mine"), "native"),
        (("--device", "abacus"), "abacus"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    tmp_path: Path, cohort: Cohort, arguments: tuple[str, str], message: str
) -> None:
    result = run("evaluate", model_folder(tmp_path / "model"), cohort.folder, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output


def test_tune_writes_the_rule_and_refuses_training_patients(tmp_path: Path, cohort: Cohort) -> None:
    model = model_folder(tmp_path / "model")
    result = run("tune", model, cohort.folder, "--rule", "weighted")
    assert result.exit_code == 0, result.output
    assert "weighted: threshold" in result.output
    assert ThreeWaySegmenter.load(model).aggregation.rule == "weighted"
    known = model_folder(tmp_path / "known", "B")
    refused = run("tune", known, cohort.folder)
    assert refused.exit_code == 2
    assert "B/1" in refused.output


def test_crossvalidate_refuses_more_folds_than_patients(tmp_path: Path, cohort: Cohort) -> None:
    result = run("crossvalidate", cohort.folder, tmp_path / "cv", "--folds", 3)
    assert result.exit_code == 2
    assert "2 patients" in result.output
    assert not (tmp_path / "cv").exists()


def test_crossvalidate_passes_every_option_of_training_on(
    tmp_path: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def remember(*_: Any, options: TrainingOptions, **__: Any) -> Crossvalidation:
        asked.append(options)
        return Crossvalidation()

    monkeypatch.setattr("segmentation.crossvalidation.run.crossvalidate", remember)
    result = run(
        "crossvalidate", cohort.folder, tmp_path / "cv", "--folds", 2, "--epochs", 1.5, "--patch", 16,
        "--memory-mb", 100, "--target", "lungs", "--batch", 4, "--width", 2, "--aggregation", "svm", "--seed", 3,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert asked == [
        TrainingOptions(
            epochs=1.5, patch=16, memory_mb=100, target="lungs", batch_size=4, width=2, rule="svm", seed=3
        )
    ]
    named = set(re.findall(r"--[a-z-]+", REMEDY))
    assert named <= {flag for option in crossvalidate.params for flag in option.opts}
    refused = run("crossvalidate", cohort.folder, tmp_path / "cv", "--steps", 5, "--epochs", 1)
    assert (refused.exit_code, "not both" in refused.output) == (2, True)


@pytest.mark.slow
def test_crossvalidate_prints_folds_and_pool(tmp_path: Path, cohort: Cohort) -> None:
    arguments = (
        "crossvalidate",
        cohort.folder,
        tmp_path / "cv",
        "--folds",
        2,
        "--steps",
        1,
        "--width",
        2,
        "--batch",
        2,
    )
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "fold 2" in result.output
    assert "All folds together: 2 scans of 2 patients" in result.output
    assert "untuned" in result.output
    again = run(*arguments)
    assert "2 folds were finished by an earlier run" in again.output


def test_the_rules_named_for_help_are_those_there_are() -> None:
    assert RULE_NAMES == RULES
