"""`lungcast study` as in the issue: two methods, two ratios, two folds, and what it leaves behind."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

pytest.importorskip("monai")

from cli.main import main
from segmentation.study import run as study_run
from segmentation.study.one_run import perform
from standard_space.files import read_mark
from standard_space.jobs import run_isolated
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.study.studies import cohort_in, without_curves
from tests.segmentation.toys import toy_scan

QUICK = [
    "--set", "width=2", "--set", "batch_size=2", "--set", "patch=16", "--set", "validation_slices=2",
    "--device", "cpu",
]  # fmt: skip


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes take seconds to begin."""

    def here(function: Callable[..., Any], tasks: Sequence[Any], **_: Any) -> Iterator[Any]:
        return run_isolated(function, tasks, jobs=1)

    monkeypatch.setattr(study_run, "run_isolated", here)
    without_curves(monkeypatch)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort_in(tmp_path_factory.mktemp("study") / "c")


def lungcast(*words: object) -> Result:
    torch.set_num_threads(1)
    return CliRunner().invoke(main, [str(word) for word in words])


def fails(code: int, text: str, *words: object) -> None:
    result = lungcast(*words)
    assert (result.exit_code, text in result.output) == (code, True), result.output
    assert "Traceback" not in result.output


def test_the_commands_of_the_issue(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "study"
    words = ["study", cohort, out, "--methods", "three-way,unet2d", "--ratios", "0,200", "--folds", 2]
    words += ["--steps", 2, *QUICK]
    result = lungcast(*words)
    assert result.exit_code == 0, result.output
    assert "8 of 8 runs are done" in result.output
    for name in ("results.csv", "costs.csv", "report.md"):
        assert (out / name).stat().st_size > 100
        assert name in result.output
    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 4
    assert {(row["method"], row["generator"], float(row["ratio"])) for row in rows} == {
        (method, *level)
        for method in ("three-way", "unet2d")
        for level in (("none", 0.0), ("offline", 200.0))
    }
    folds = {(row["patient"], row["fold"]) for row in rows}
    assert len(folds) == 4  # the same for every arm
    with open(out / "costs.csv", newline="") as file:
        costs = list(csv.DictReader(file))
    assert len(costs) == 8
    assert {row["steps"] for row in costs} == {"2"}
    report = (out / "report.md").read_text()
    assert "unet2d" in report
    assert str(tmp_path) not in report
    about = json.loads((out / "study.json").read_text())
    assert (about["methods"], about["runs_done"]) == (["three-way", "unet2d"], 8)
    mark = read_mark(out)
    assert mark is not None
    assert mark["lungcast"] == "study"

    monkeypatch.setattr(study_run, "write_report", lambda out: [])
    again = lungcast(*words)
    assert again.exit_code == 0
    assert "8 of 8 runs are done, 8 of them by an earlier call" in again.output
    fails(2, "another study", *words, "--seeds", "1")
    told = lungcast("info", out)
    assert told.exit_code == 0, told.output
    assert "study" in told.output


def test_a_run_that_fails_makes_the_exit_code(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sometimes(task: Any) -> Any:
        if task.run.fold == 2:
            raise RuntimeError("a defect")
        return perform(task)

    monkeypatch.setattr(study_run, "perform", sometimes)
    monkeypatch.setattr(study_run, "write_report", lambda out: [])
    words = ["study", cohort, tmp_path / "s", "--ratios", "0", "--folds", 2, "--steps", 1, *QUICK]
    result = lungcast(*words)
    assert result.exit_code == 1
    assert "three-way_0_k2_fold2_seed0" in result.output
    assert "a defect" in result.output
    assert "1 of 2 runs are done" in result.output
    monkeypatch.setattr(study_run, "perform", perform)
    assert "2 of 2 runs are done" in lungcast(*words).output


def test_ctrl_c_says_that_the_same_command_goes_on(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(task: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(study_run, "perform", interrupted)
    words = ["study", cohort, tmp_path / "s", "--ratios", "0", "--folds", 2, "--steps", 1, *QUICK]
    fails(130, "the same command goes on", *words)


def test_wrong_requests(cohort: Path, tmp_path: Path) -> None:
    words = ("study", cohort, tmp_path / "s")
    for said, *wrong in (
        ("no such method", "--methods", "heart"),
        ("must be named", "--methods", ""),
        ("each once", "--methods", "unet2d,unet2d"),
        ("numbers between commas", "--ratios", "many"),
        ("negative", "--ratios", "-5"),
        ("must be named", "--ratios", ""),
        ("numbers between commas", "--folds", "2.5"),
        ("fewer patients", "--folds", "7"),
        ("at least two folds", "--folds", "1"),
        ("no such fold", "--only-folds", "9"),
        ("negative", "--seeds", "-1"),
        ("no such generator", "--generators", "gan"),
        ("no such removal", "--without", "hope"),
        ("no method of the study", "--without", "preprocess"),
        ("no such choice", "--choices", "wine"),
        ("NAME=COHORT", "--test", "away"),
        ("not named own", "--test", f"own={cohort}"),
        ("a name of its own", "--test", f"a={cohort}", "--test", f"a={cohort}"),
        ("that are trained on", "--test", f"a={cohort}", "--folds", "2"),
        ("not a lungcast cohort", "--test", f"a={tmp_path}"),
        ("not a setting", "--set", "width"),
        ("no such setting", "--set", "heart=2"),
        ("another kind of value", "--set", "width=wide"),
        ("no such method", "--set", "heart.width=2"),
        ("0..1", "--synthetic-share", "2"),
        ("shard is not i/N", "--shard", "1"),
        ("no such shard", "--shard", "3/2"),
        ("--jobs", "--jobs", "0"),
        ("above zero", "--steps", "0"),
        ("device", "--device", "abacus", "--folds", "2"),
    ):
        fails(2, said, *words, *wrong)
    fails(2, "not a lungcast cohort", "study", tmp_path / "none", tmp_path / "s")
    fails(2, "lies in what is read", "study", cohort, cohort / "s", "--folds", 2)
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_shards_and_external_cohorts(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_run, "write_report", lambda out: [])
    away = toy_cohort(tmp_path / "away", toy_scan("Q", "1", seed=8)).folder
    words = ["study", cohort, tmp_path / "s", "--ratios", "0", "--folds", 2, "--steps", 1, *QUICK]
    words += ["--test", f"away={away}"]
    for shard, done in (("1/2", 1), ("2/2", 2)):
        result = lungcast(*words, "--shard", shard)
        assert result.exit_code == 0, result.output
        assert f"{done} of 2 runs are done" in result.output
    with open(tmp_path / "s" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["cohort"], row["patient"]) for row in rows) == [
        ("away", "Q"),
        ("away", "Q"),
        *(("own", f"P{k}") for k in range(4)),
    ]


def test_help_has_an_example() -> None:
    said = lungcast("study", "--help").output
    assert "Example:" in said
    assert "lungcast study cohort study --methods three-way,unet2d" in said
