"""One run of a study: done once, written down whole, gone on with where it was left."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from segmentation.methods import THREE_WAY, load_segmenter
from segmentation.study import one_run
from segmentation.study.material import Inputs, fold_of
from segmentation.study.one_run import MODEL, RESULT, RunResult, RunTask, peak_memory_mb, perform
from segmentation.study.plan import Arm, Run
from segmentation.training.loop import ViewTrainer
from segmentation.training.run_folder import TRAINING
from standard_space.errors import ReadError, UsageError
from standard_space.folders import folder_lock
from tests.segmentation.study.studies import cohort_in, plan_of, without_curves

RUN = Run(Arm(THREE_WAY, "ellipsoids", 100.0), 2, 1, 0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort_in(tmp_path_factory.mktemp("one_run") / "c")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_curves(monkeypatch)


def task(cohort: Path, out: Path, **given: Any) -> RunTask:
    return RunTask(Inputs(cohort, {}, out), plan_of(), RUN, **{"device": "cpu", **given})


@pytest.fixture(scope="module")
def whole(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return perform(task(cohort, tmp_path_factory.mktemp("one_run") / "whole"))


def test_a_run_scores_its_test_patients_and_counts_what_it_cost(cohort: Path, whole: RunResult) -> None:
    inputs = Inputs(cohort, {}, cohort)
    assert [row.patient for row in whole.rows] == list(fold_of(inputs.opened(), RUN).test)
    assert whole.failures == {}
    cost = whole.cost
    assert (cost.method, cost.generator, cost.ratio, cost.fold, cost.seed) == (
        THREE_WAY,
        "ellipsoids",
        100.0,
        1,
        0,
    )
    assert cost.steps == 2
    assert cost.parameters is not None
    assert cost.parameters > 1000
    assert cost.train_s is not None
    assert cost.train_s > 0.0
    assert cost.predict_s is not None


def test_what_is_finished_is_only_read(
    cohort: Path, tmp_path: Path, whole: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = task(cohort, tmp_path)
    first = perform(one)
    assert first.rows == whole.rows
    assert RunResult.read(one.folder) == first
    assert not (one.folder / MODEL).exists()
    written = (one.folder / RESULT).read_bytes()
    monkeypatch.setattr(one_run, "train", None)
    assert perform(one) == first
    assert (one.folder / RESULT).read_bytes() == written


def test_models_are_kept_when_asked_for(cohort: Path, tmp_path: Path) -> None:
    one = task(cohort, tmp_path, keep_models=True)
    perform(one)
    model = load_segmenter(one.folder / MODEL)
    assert model.training["steps_per_view"] == {"xy": 2, "yz": 2, "xz": 2}
    assert not (one.folder / MODEL / TRAINING).exists()


@pytest.mark.parametrize(
    "where", ["a step", "the result", pytest.param("the scores", marks=pytest.mark.slow)]
)
def test_a_run_that_died_ends_like_one_that_did_not(
    cohort: Path, tmp_path: Path, whole: RunResult, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    place, name = {
        "a step": (ViewTrainer, "step"),
        "the scores": (one_run, "score_run"),
        "the result": (RunResult, "write"),
    }[where]
    kept = getattr(place, name)
    calls = [0]

    def dies(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if where != "a step" or calls[0] == 4:
            raise KeyboardInterrupt
        return kept(*given, **named)

    one = task(cohort, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(place, name, dies)
        with pytest.raises(KeyboardInterrupt):
            perform(one)
    assert RunResult.read(one.folder) is None
    again = perform(one)
    assert (again.rows, again.failures) == (whole.rows, {})
    assert not (one.folder / MODEL).exists()


def test_a_scan_that_failed_is_tried_again(cohort: Path, tmp_path: Path, whole: RunResult) -> None:
    held = cohort_in(tmp_path / "c")
    one = RunTask(Inputs(held, {}, tmp_path / "o"), plan_of(), RUN, device="cpu")
    name = whole.rows[0].patient
    path = held / f"{name}_1.h5"
    content = path.read_bytes()
    path.write_bytes(b"no scan")
    first = perform(one)
    assert list(first.failures) == [f"own: {name}/1"]
    assert [row.patient for row in first.rows] == [row.patient for row in whole.rows[1:]]
    path.write_bytes(content)
    again = perform(one)
    assert again.failures == {}
    assert [(row.patient, row.dice) for row in again.rows] == [(row.patient, row.dice) for row in whole.rows]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"rows": []}', "row", "value", "other"])
def test_a_damaged_result_is_named(whole: RunResult, tmp_path: Path, damage: str) -> None:
    whole.write(tmp_path)
    path = tmp_path / RESULT
    content = json.loads(path.read_text())
    if damage == "row":
        content["rows"][0] = {"method": THREE_WAY}
    elif damage == "value":
        content["rows"][0]["dice"] = 7.0
    elif damage == "other":
        content["cost"] = None
    path.write_text(json.dumps(content) if damage in ("row", "value", "other") else damage)
    with pytest.raises(ReadError, match=r"the result of a run is damaged.*remove the file"):
        RunResult.read(tmp_path)


def test_two_processes_never_do_the_same_run(cohort: Path, tmp_path: Path) -> None:
    one = task(cohort, tmp_path)
    one.folder.mkdir(parents=True)
    with folder_lock(one.folder), pytest.raises(UsageError, match="another run is writing"):
        perform(one)


def test_the_threads_are_those_asked_for_and_given_back(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(*_: Any, **__: Any) -> Any:
        seen.append(torch.get_num_threads())
        raise UsageError("enough")

    monkeypatch.setattr(one_run, "train", look)
    with pytest.raises(UsageError, match="enough"):
        perform(task(cohort, tmp_path, threads=2))
    assert (seen, torch.get_num_threads()) == ([2], 1)


def test_a_task_can_be_sent_to_a_process(cohort: Path, tmp_path: Path) -> None:
    one = task(cohort, tmp_path)
    assert (
        multiprocessing.reduction.ForkingPickler.loads(multiprocessing.reduction.ForkingPickler.dumps(one))
        == one
    )
    assert dataclasses.replace(one, threads=3) != one


def test_memory_is_measured_on_this_system() -> None:
    assert 50.0 < peak_memory_mb() < 1e6
