"""A study from beginning to end: inputs checked, scans made, runs done here or elsewhere, tables written."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from segmentation.device import choose_device
from segmentation.study.material import Inputs, check_inputs, prepare
from segmentation.study.one_run import RunResult, RunTask, perform
from segmentation.study.plan import Run, StudyPlan
from segmentation.study.report import write_report
from segmentation.study.results_file import write_costs, write_results
from standard_space.cohort import Cohort
from standard_space.errors import LungcastError, OutOfSpaceError
from standard_space.files import LOCK, clear_temporaries, prepare_output_folder, write_json, write_mark
from standard_space.folders import check_apart, is_continued
from standard_space.jobs import core_count, run_isolated
from standard_space.progress import Progress, silent
from standard_space.version import lungcast_version

KIND = "study"
RESULTS, COSTS, ABOUT = "results.csv", "costs.csv", "study.json"
PACKAGES = ("numpy", "numba", "scipy", "SimpleITK", "torch")


@dataclass
class StudyOutcome:
    """What a call did.

    Attributes
    ----------
    done, planned : int
        Runs of the whole study that are finished, and all of them.
    kept : int
        Of those done, how many an earlier call had finished.
    written : list of Path
    failures : dict of str to str
        Sentence by run or scan.
    notes : dict of str to list of str
        By run.
    """

    done: int = 0
    planned: int = 0
    kept: int = 0
    written: list[Path] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


def run_study(
    inputs: Inputs,
    plan: StudyPlan,
    *,
    shard: tuple[int, int] | None = None,
    jobs: int = 1,
    device: str = "auto",
    keep_models: bool = False,
    force: bool = False,
    stage: Callable[[str], Progress] = lambda name: silent,
) -> StudyOutcome:
    """Do the runs of a study that are not done yet, and write what all finished runs say.

    Folds, validation patients and synthetic scans are the same for every method, ratio and seed. A run that fails
    is named and the others complete. Called again with the same inputs and plan the study goes on; finished runs
    are kept.

    Parameters
    ----------
    inputs : Inputs
    plan : StudyPlan
    shard : (int, int), optional
        (i, N): only every N-th run, from the i-th on; other processes do the rest, in the same folder.
    jobs : int
        Runs at once, each with its share of the cores.
    device : str
    keep_models : bool
        Keep every run's weights.
    force : bool
        Replace another study.
    stage : callable
        Gives the progress of a stage by its name.

    Raises
    ------
    UsageError
        Inputs that cannot be studied, or a folder that holds something else.
    OutOfSpaceError
        The disk is full; what is done is whole and kept.
    """
    cohort, tests = inputs.opened(), inputs.test_cohorts()
    check_inputs(cohort, tests, plan)
    check_apart(inputs.out, [inputs.cohort, *inputs.tests.values()])
    asked = _request(cohort, tests, plan, choose_device(device).type)
    is_continued(inputs.out, KIND, asked, what="another study", force=force)
    inputs.out.mkdir(parents=True, exist_ok=True)
    outcome = StudyOutcome()
    # Shards that begin at once wait here for the first, which makes the folder and the synthetic scans.
    with FileLock(inputs.out / LOCK):
        if is_continued(inputs.out, KIND, asked, what="another study", force=force and shard is None):
            clear_temporaries(inputs.out)
        else:
            prepare_output_folder(inputs.out, KIND, force=force, provenance={**asked, "complete": False})
        outcome.failures |= prepare(inputs, plan, jobs=jobs, progress=stage)
    runs = plan.runs()
    threads = max(1, core_count() // jobs)
    mine = runs if shard is None else runs[shard[0] - 1 :: shard[1]]
    tasks = [RunTask(inputs, plan, run, device, threads, keep_models) for run in mine]
    _do(tasks, jobs, outcome, stage("study"))
    results = _collected(inputs, runs, outcome)
    outcome.done, outcome.planned = len(results), len(runs)
    if results:
        outcome.written = _write(inputs.out, asked, list(results.values()), outcome, jobs)
    complete = outcome.done == outcome.planned
    write_mark(inputs.out, KIND, {**asked, "complete": complete, "failed": sorted(outcome.failures)})
    return outcome


def _do(tasks: Sequence[RunTask], jobs: int, outcome: StudyOutcome, progress: Progress) -> None:
    finished = [task for task in tasks if _finished(task)]
    outcome.kept = len(finished)
    todo = [task for task in tasks if task not in finished]
    total = len(tasks)
    progress(todo[0].run.name if todo else "", len(finished), total)
    within = functools.partial(_Within, progress, total) if jobs == 1 else None
    for done, task, result in _results(todo, jobs, within, len(finished)):
        if isinstance(result, OutOfSpaceError):
            raise result
        if isinstance(result, LungcastError):
            outcome.failures[task.run.name] = f"{task.run.name}: {result}"
        progress(task.run.name, done, total)


def _results(
    todo: Sequence[RunTask],
    jobs: int,
    within: Callable[[int, Run], Progress] | None,
    kept: int,
) -> Any:
    """Yield (runs done, task, result) as runs end."""
    if within is None:
        for done, (index, result) in enumerate(run_isolated(perform, todo, jobs=jobs), kept + 1):
            yield done, todo[index], result
        return
    for done, task in enumerate(todo, kept + 1):
        function = functools.partial(perform, progress=within(done - 1, task.run))
        for _, result in run_isolated(function, [task], jobs=1):
            yield done, task, result


@dataclass(frozen=True)
class _Within:
    """Progress inside a run, told as that of the whole study."""

    progress: Progress
    total: int
    before: int
    run: Run

    def __call__(self, item: str, done: int, total: int) -> None:
        self.progress(f"{self.run.name}: {item}", self.before, self.total)


def _finished(task: RunTask) -> bool:
    try:
        known = RunResult.read(task.folder)
    except LungcastError:
        return False
    return known is not None and not known.failures


def _collected(inputs: Inputs, runs: Sequence[Run], outcome: StudyOutcome) -> dict[str, RunResult]:
    """What all finished runs of the study found, of this process or another; what failed is named."""
    found = {}
    for run in runs:
        task = RunTask(inputs, StudyPlan((run.arm.method,), (0.0,)), run)
        try:
            result = RunResult.read(task.folder)
        except LungcastError as error:
            outcome.failures[run.name] = f"{run.name}: {error}"
            continue
        if result is None:
            continue
        found[run.name] = result
        outcome.failures |= {f"{run.name}: {scan}": text for scan, text in result.failures.items()}
        if result.notes:
            outcome.notes[run.name] = result.notes
    return found


def _write(
    out: Path, asked: Mapping[str, Any], results: Sequence[RunResult], outcome: StudyOutcome, jobs: int
) -> list[Path]:
    write_results(out / RESULTS, [row for result in results for row in result.rows])
    write_costs(out / COSTS, [result.cost for result in results])
    notes: dict[str, int] = {}
    for result in results:
        for text in result.notes:
            notes[text] = notes.get(text, 0) + 1
    about = {
        **{key: value for key, value in asked.items() if key not in ("sources", "tests")},
        "patients": len({name.split("/")[0] for name in asked["sources"]}),
        "scans": len(asked["sources"]),
        "tests": {name: len(held) for name, held in asked["tests"].items()},
        "runs_done": outcome.done,
        "runs_planned": outcome.planned,
        "runs_at_once": jobs,
        "threads_of_a_run": sorted({result.threads for result in results}),
        "machine": _machine(),
        "versions": {"lungcast": lungcast_version(), **{name: version(name) for name in PACKAGES}},
        "failures": sorted(outcome.failures),
        "notes": {text: f"{count} of {len(results)} runs" for text, count in sorted(notes.items())},
    }
    write_json(out / ABOUT, about)
    return [out / RESULTS, out / COSTS, out / ABOUT, *write_report(out)]


def _machine() -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    return {"processor": name, "cores": os.cpu_count() or 1, "python": platform.python_version()}


def _request(cohort: Cohort, tests: Mapping[str, Cohort], plan: StudyPlan, device: str) -> dict[str, Any]:
    def contents(held: Cohort) -> dict[str, str]:
        return {entry.name: entry.content_sha256 for entry in held.entries}

    return {
        "lungcast_version": lungcast_version(),
        "operation": "study",
        **plan.to_json(),
        "device": device,
        "sources": contents(cohort),
        "tests": {name: contents(held) for name, held in sorted(tests.items())},
    }
