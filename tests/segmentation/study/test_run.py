"""A whole study: cut short, shared out or damaged, it ends with the same results."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from segmentation.study import one_run
from segmentation.study import run as study_run
from segmentation.study.material import Inputs
from segmentation.study.one_run import RESULT, RUNS, RunTask
from segmentation.study.results_file import read_costs, read_results
from segmentation.study.run import ABOUT, COSTS, RESULTS
from segmentation.training import run as training_run
from standard_space.errors import DataError, OutOfSpaceError, UsageError
from standard_space.files import read_mark
from standard_space.folders import folder_lock
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.study.studies import cohort_in, plan_of, study, without_curves
from tests.segmentation.toys import toy_scan


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort_in(tmp_path_factory.mktemp("studies") / "c")


@pytest.fixture(scope="module")
def whole(cohort: Path) -> Path:
    """A study that nothing befell, of four runs, with its report."""
    outcome = study(cohort, cohort.parent / "whole")
    assert (outcome.done, outcome.planned, outcome.kept, outcome.failures) == (4, 4, 0, {})
    return cohort.parent / "whole"


@pytest.fixture(autouse=True)
def without_a_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else at this size; `whole` has one."""
    request.getfixturevalue("whole")
    monkeypatch.setattr(study_run, "write_report", lambda out: [])
    without_curves(monkeypatch)


def timeless(folder: Path) -> list[dict[str, str]]:
    """The costs but for what the clock and the memory say."""
    measured = ("train_s", "predict_s", "peak_memory_mb")
    with open(folder / COSTS, newline="") as file:
        return [{key: row[key] for key in row if key not in measured} for row in csv.DictReader(file)]


def assert_same(folder: Path, other: Path) -> None:
    assert (folder / RESULTS).read_bytes() == (other / RESULTS).read_bytes()
    assert timeless(folder) == timeless(other)


def test_every_patient_is_scored_once_by_every_arm(cohort: Path, whole: Path) -> None:
    rows = read_results(whole / RESULTS)
    for ratio in (0.0, 100.0):
        own = [row for row in rows if row.ratio == ratio]
        assert sorted(row.patient for row in own) == [f"P{k}" for k in range(4)]
    for patient in (f"P{k}" for k in range(4)):
        assert len({row.fold for row in rows if row.patient == patient}) == 1
    assert {(cost.ratio, cost.fold, cost.steps) for cost in read_costs(whole / COSTS)} == {
        (ratio, fold, 2) for ratio in (0.0, 100.0) for fold in (1, 2)
    }
    assert (whole / "report.md").is_file()
    mark = read_mark(whole)
    assert mark is not None
    assert (mark["lungcast"], mark["provenance"]["complete"]) == ("study", True)


def test_what_was_done_is_told_without_a_path(cohort: Path, whole: Path) -> None:
    text = (whole / ABOUT).read_text()
    about = json.loads(text)
    assert (about["patients"], about["scans"], about["runs_done"], about["runs_planned"]) == (4, 4, 4, 4)
    assert about["failures"] == []
    assert str(cohort.parent) not in text
    assert str(Path.home()) not in text
    for name in (f"P{k}" for k in range(4)):
        assert name not in text
    for path in (*whole.glob("*.csv"), *whole.glob("*.md"), *whole.glob("*.json")):
        assert str(cohort.parent) not in path.read_text()


def test_done_again_nothing_is_trained(cohort: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in (whole / RESULTS, whole / COSTS)}
    monkeypatch.setattr(one_run, "train", None)
    outcome = study(cohort, whole)
    assert (outcome.done, outcome.kept, outcome.failures) == (4, 4, {})
    assert {path: path.read_bytes() for path in before} == before


def test_interrupted_it_goes_on_to_the_same_results(
    cohort: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = training_run.train_view
    calls = [0]

    def dies(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:  # the second network of the second run
            raise KeyboardInterrupt
        return kept(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(training_run, "train_view", dies)
        with pytest.raises(KeyboardInterrupt):
            study(cohort, tmp_path / "s")
    assert not (tmp_path / "s" / RESULTS).exists()
    outcome = study(cohort, tmp_path / "s")
    assert (outcome.done, outcome.kept, outcome.failures) == (4, 1, {})
    assert_same(tmp_path / "s", whole)


def test_shards_make_one_study(cohort: Path, whole: Path, tmp_path: Path) -> None:
    first = study(cohort, tmp_path / "s", shard=(2, 2))
    assert (first.done, first.planned) == (2, 4)
    mark = read_mark(tmp_path / "s")
    assert mark is not None
    assert mark["provenance"]["complete"] is False
    second = study(cohort, tmp_path / "s", shard=(1, 2))
    assert (second.done, second.planned, second.kept) == (4, 4, 0)
    assert_same(tmp_path / "s", whole)
    mark = read_mark(tmp_path / "s")
    assert mark is not None
    assert mark["provenance"]["complete"] is True


def test_a_run_that_fails_is_named_and_the_others_complete(
    cohort: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = plan_of().runs()[1].name
    kept = one_run.train

    def sometimes(*given: Any, folder: Path, **named: Any) -> Any:
        if folder.parent.name == broken:
            raise DataError("training diverged", where=folder / "xy")
        return kept(*given, folder=folder, **named)

    shutil.copytree(whole, tmp_path / "s")
    (tmp_path / "s" / RUNS / broken / RESULT).unlink()
    with monkeypatch.context() as patched:
        patched.setattr(one_run, "train", sometimes)
        outcome = study(cohort, tmp_path / "s")
        assert (outcome.done, outcome.planned) == (3, 4)
        assert list(outcome.failures) == [broken]
        assert "training diverged" in outcome.failures[broken]
        assert len(read_results(tmp_path / "s" / RESULTS)) == 6
        about = (tmp_path / "s" / ABOUT).read_text()
        assert broken in about
        assert str(tmp_path) not in about
        # Another part of the study tells of it as well.
        part = study(cohort, tmp_path / "s", shard=(1, 2))
        assert (part.done, list(part.failures)) == (3, [broken])
    again = study(cohort, tmp_path / "s")
    assert (again.done, again.kept, again.failures) == (4, 3, {})
    assert_same(tmp_path / "s", whole)


def test_a_full_disk_ends_the_study_at_once(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def full(task: RunTask, *_: Any) -> Any:
        done.append(task.run.name)
        raise OutOfSpaceError("the disk is full", where=task.folder)

    monkeypatch.setattr(study_run, "perform", full)
    with pytest.raises(OutOfSpaceError):
        study(cohort, tmp_path / "s")
    assert len(done) == 1


def test_only_the_same_study_continues_a_folder(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def nothing(task: RunTask, *_: Any) -> None:
        done.append(task.run.name)
        raise DataError("not now")

    monkeypatch.setattr(study_run, "perform", nothing)
    study(cohort, tmp_path / "s", plan_of())
    (tmp_path / "s" / RUNS / "trace").mkdir(parents=True)
    for plan, said in (
        (plan_of(seeds=(1,)), "other seeds"),
        (plan_of(ratios=(0.0, 200.0)), "other ratios"),
        (plan_of(settings={"": {"steps": 3}}), "other options"),
        (plan_of(choices=("rules",)), "other choices"),
    ):
        with pytest.raises(UsageError, match=rf"holds another study.*{said}.*--force"):
            study(cohort, tmp_path / "s", plan)
    other = cohort_in(tmp_path / "c2", patients=5)
    with pytest.raises(UsageError, match="other sources"):
        study(other, tmp_path / "s")
    away = toy_cohort(tmp_path / "away", toy_scan("Q", "1", seed=8)).folder
    with pytest.raises(UsageError, match="other tests"):
        study(cohort, tmp_path / "s", tests={"away": away})
    assert (tmp_path / "s" / RUNS / "trace").is_dir()
    done.clear()
    study(cohort, tmp_path / "s", plan_of(seeds=(1,)), force=True)
    assert len(done) == 4
    assert not (tmp_path / "s" / RUNS / "trace").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(UsageError, match=r"not empty|only empties"):
            study(cohort, tmp_path / "mine", force=force)
    with pytest.raises(UsageError, match="lies in what is read"):
        study(cohort, cohort / "s")


def test_inputs_are_refused_before_anything_is_written(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fewer patients"):
        study(cohort, tmp_path / "s", plan_of(folds=(5,)))
    with pytest.raises(UsageError, match="patients or images that are trained on"):
        study(cohort, tmp_path / "s", tests={"same": cohort})
    with pytest.raises(UsageError, match="not a lungcast cohort"):
        study(tmp_path / "none", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_damaged_result_is_named_and_the_rest_is_told(cohort: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "s")
    name = plan_of().runs()[0].name
    path = tmp_path / "s" / RUNS / name / RESULT
    path.write_text("{")
    outcome = study(cohort, tmp_path / "s")
    assert (outcome.done, list(outcome.failures)) == (3, [name])
    assert "the result of a run is damaged" in outcome.failures[name]
    assert len(read_results(tmp_path / "s" / RESULTS)) == 6
    path.unlink()  # the remedy
    outcome = study(cohort, tmp_path / "s")
    assert (outcome.done, outcome.failures) == (4, {})
    assert_same(tmp_path / "s", whole)


def test_a_study_that_a_process_is_at_is_not_replaced(cohort: Path, tmp_path: Path) -> None:
    study(cohort, tmp_path / "s", plan_of(ratios=(0.0,), fold_subset=(1,)))
    name = plan_of().runs()[0].name
    with folder_lock(tmp_path / "s" / RUNS / name), pytest.raises(UsageError, match="another run is writing"):
        study(cohort, tmp_path / "s", plan_of(seeds=(1,)), force=True)
    assert (tmp_path / "s" / RESULTS).is_file()


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_results(cohort: Path, whole: Path, tmp_path: Path) -> None:
    settings = ["steps=2", "width=2", "batch_size=2", "patch=16", "validation_slices=4"]
    words = ["study", str(cohort), str(tmp_path / "s"), "--ratios", "0,100", "--folds", "2"]
    words += ["--generators", "ellipsoids", "--device", "cpu", "--quiet"]
    words += [word for text in settings for word in ("--set", text)]
    command = [sys.executable, "-m", "cli.main", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[3])
    results = tmp_path / "s" / RUNS
    while not list(results.glob(f"*/{RESULT}")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    subprocess.run(command, env=environment, cwd=Path(__file__).parents[3], check=True)
    assert_same(tmp_path / "s", whole)


@pytest.mark.slow
def test_a_run_by_itself_scores_what_it_scores_among_others(
    cohort: Path, whole: Path, tmp_path: Path
) -> None:
    last = plan_of().runs()[-1]
    alone = one_run.perform(RunTask(Inputs(cohort, {}, tmp_path), plan_of(), last, "cpu"))
    rows = [row for row in read_results(whole / RESULTS) if (row.ratio, row.fold) == (100.0, last.fold)]
    assert alone.rows == rows
