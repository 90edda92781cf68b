"""One training of a study, in a process that can die: train, score, write down, all of it resumable."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segmentation.segmenter import Segmenter
from segmentation.study.material import Inputs, fold_of, material_for
from segmentation.study.plan import Run, StudyPlan
from segmentation.study.records import CostRow, Row
from segmentation.study.scoring import score_run
from segmentation.training.checkpoint import CHECKPOINT, read_state
from segmentation.training.coverage import drawn_said
from segmentation.training.run import train
from segmentation.training.run_folder import TRAINING
from standard_space.errors import DataError, ReadError
from standard_space.files import write_json
from standard_space.folders import folder_lock
from standard_space.jobs import peak_memory_gb
from standard_space.machine import machine
from standard_space.progress import Progress, silent

RUNS, RESULT, ERROR, MODEL = "runs", "result.json", "error.json", "model"


@dataclass(frozen=True)
class RunTask:
    """What a process is told; can be pickled.

    Attributes
    ----------
    inputs : Inputs
    plan : StudyPlan
    run : Run
    device : str
    threads : int
        Of PyTorch.
    keep_models : bool
        Keep the trained weights.
    fresh : bool
        The process does nothing else: its peak memory is that of the run.
    runs_at_once : int
        Of the call, written down with the times.
    """

    inputs: Inputs
    plan: StudyPlan
    run: Run
    device: str = "auto"
    threads: int = 1
    keep_models: bool = False
    fresh: bool = False
    runs_at_once: int = 1

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.inputs.out / RUNS / self.run.name


@dataclass(frozen=True)
class RunResult:
    """What a run found.

    Attributes
    ----------
    rows : list of Row
    cost : CostRow
    notes : list of str
        Of training, for people.
    failures : dict of str to str
        Sentence by scan that could not be scored.
    trained_on : str
        How many scans and synthetic ones.
    where : dict
        Machine, device, threads of PyTorch and runs at once.
    """

    rows: list[Row]
    cost: CostRow
    notes: list[str]
    failures: dict[str, str]
    trained_on: str
    where: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> RunResult | None:
        """Return what a finished run wrote; None before it is finished.

        Raises
        ------
        ReadError
            The file is damaged.
        """
        path = folder / RESULT
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            rows = [Row(**row) for row in content["rows"]]
            names = ("notes", "failures", "trained_on", "where")
            return cls(rows, CostRow(**content["cost"]), *(content[name] for name in names))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, DataError) as error:
            raise ReadError(
                "the result of a run is damaged", where=path, remedy="remove the file and run the study again"
            ) from error

    def write(self, folder: Path) -> None:
        """Write it atomically."""
        write_json(
            folder / RESULT,
            {
                "rows": [dataclasses.asdict(row) for row in self.rows],
                "cost": dataclasses.asdict(self.cost),
                "notes": self.notes,
                "failures": self.failures,
                "trained_on": self.trained_on,
                "where": self.where,
            },
        )


def perform(task: RunTask, progress: Progress = silent) -> RunResult:
    """Do a run, or go on with it; what is finished is only read.

    Raises
    ------
    LungcastError
        It cannot be trained, or another process is at it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(task.threads)
    try:
        with folder_lock(task.folder):
            result = RunResult.read(task.folder)
            if result is None or result.failures:
                result = _performed(task, progress)
            if not result.failures:
                _tidy(task)
            return result
    finally:
        torch.set_num_threads(before)


def _tidy(task: RunTask) -> None:
    """Remove what a finished run does not need any more."""
    (task.folder / ERROR).unlink(missing_ok=True)
    unneeded = task.folder / MODEL / TRAINING if task.keep_models else task.folder / MODEL
    if unneeded.is_dir():
        shutil.rmtree(unneeded)


def _performed(task: RunTask, progress: Progress) -> RunResult:
    run, plan, inputs = task.run, task.plan, task.inputs
    options = plan.options(run.arm, run.seed)
    notes: list[str] = []
    cohort = inputs.opened()
    fold = fold_of(cohort, run)
    taken_up = (task.folder / MODEL).is_dir()
    model = train(
        **material_for(inputs, run, options),
        options=options,
        device=task.device,
        folder=task.folder / MODEL,
        resume=True,
        progress=progress,
        note=notes.append,
    )
    scores = score_run(
        model,
        plan,
        run,
        (cohort, [entry for entry in cohort.entries if entry.patient in fold.test]),
        [entry for entry in cohort.entries if entry.patient in fold.validation and not entry.synthetic],
        inputs.test_cohorts(),
        device=task.device,
        progress=progress,
    )
    cost = CostRow(
        method=run.arm.method,
        generator=run.arm.generator,
        ratio=run.arm.ratio,
        variant=run.arm.variant,
        folds=run.folds,
        fold=run.fold,
        seed=run.seed,
        parameters=model.parameters,
        steps=max(model.training["steps_per_view"].values()),
        train_s=_seconds_of_training(task.folder / MODEL, model),
        predict_s=scores.predict_s,
        # A run that was taken up may have been larger before.
        peak_memory_mb=peak_memory_mb() if task.fresh and not taken_up else None,
    )
    where = {
        **machine(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "device": model.training["device"],
        "threads": task.threads,
        "runs_at_once": task.runs_at_once,
    }
    result = RunResult(
        scores.rows, cost, sorted(set(notes)), scores.failures, drawn_said(model.training), where
    )
    result.write(task.folder)
    return result


def _seconds_of_training(folder: Path, model: Segmenter) -> float:
    """Seconds in the steps of all networks, interruptions left out."""
    states = [read_state(folder / TRAINING / part / CHECKPOINT) for part in model.parts]
    return sum(state.seconds for state in states if state is not None)


def peak_memory_mb() -> float:
    """Return the largest memory of this process so far, MB: of the GPU where one was used, else its own."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_memory_gb() * 1024.0
