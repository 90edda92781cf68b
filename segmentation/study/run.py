"""A study from beginning to end: inputs checked, scans made, runs done here or elsewhere, tables written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock

from segmentation.device import choose_device
from segmentation.evaluation.cohort_scores import without_place
from segmentation.study.material import Inputs, check_inputs, prepare
from segmentation.study.one_run import ERROR, RUNS, RunResult, RunTask, perform
from segmentation.study.plan import Run, StudyPlan
from segmentation.study.report import write_report
from segmentation.study.results_file import write_costs, write_results
from segmentation.study.study_results import ABOUT, COSTS, RESULTS
from standard_space.cohort import Cohort
from standard_space.errors import LungcastError, OutOfSpaceError
from standard_space.files import LOCK, clear_temporaries, prepare_output_folder, write_json, write_mark
from standard_space.folders import check_apart, folder_lock, is_continued
from standard_space.jobs import core_count, run_isolated
from standard_space.progress import Progress, silent
from standard_space.version import lungcast_version

KIND = "study"
PACKAGES = ("numpy", "numba", "scipy", "SimpleITK", "torch", *(("monai",) if find_spec("monai") else ()))


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
    fresh: bool = True,
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
    fresh : bool
        Each run in a process of its own, which measures its memory; else peak memory stays unmeasured.
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
    more = inputs.more_scans()
    check_inputs(cohort, tests, plan, more)
    check_apart(inputs.out, [path for path in (inputs.cohort, *inputs.tests.values(), inputs.more) if path])
    asked = _request(cohort, tests, more, plan, choose_device(device).type)
    is_continued(inputs.out, KIND, asked, what="another study", force=force)
    inputs.out.mkdir(parents=True, exist_ok=True)
    outcome = StudyOutcome()
    # Shards that begin at once wait here for the first, which makes the folder and the synthetic scans.
    with FileLock(inputs.out / LOCK):
        if is_continued(inputs.out, KIND, asked, what="another study", force=force):
            clear_temporaries(inputs.out)
        else:
            _refuse_while_running(inputs.out)
            prepare_output_folder(inputs.out, KIND, force=force, provenance={**asked, "complete": False})
        unmade = prepare(inputs, plan, jobs=jobs, progress=stage)
    runs = plan.runs()
    threads = max(1, core_count() // jobs)
    mine = runs if shard is None else runs[shard[0] - 1 :: shard[1]]
    tasks = [RunTask(inputs, plan, run, device, threads, keep_models, fresh, jobs) for run in mine]
    _do(tasks, jobs, fresh, outcome, stage("study"))
    with FileLock(inputs.out / LOCK):
        results = _collected(inputs.out, runs, outcome)
        outcome.failures |= unmade
        outcome.done, outcome.planned = len(results), len(runs)
        if results:
            outcome.written = _write(
                inputs.out, asked, results, [run.name for run in runs if run.name not in results], outcome
            )
        complete = outcome.done == outcome.planned
        write_mark(inputs.out, KIND, {**asked, "complete": complete, "failed": sorted(outcome.failures)})
    return outcome


def _refuse_while_running(out: Path) -> None:
    """Refuse to replace a study that another process is at."""
    for lock in sorted((out / RUNS).glob(f"*/{LOCK}")):
        with folder_lock(lock.parent):
            pass


def _do(tasks: Sequence[RunTask], jobs: int, fresh: bool, outcome: StudyOutcome, progress: Progress) -> None:
    finished = [task for task in tasks if _finished(task)]
    outcome.kept = len(finished)
    todo = [task for task in tasks if task not in finished]
    progress(todo[0].run.name if todo else "", len(finished), len(tasks))
    done = len(finished)
    for index, result in run_isolated(perform, todo, jobs=jobs, fresh=fresh):
        task, done = todo[index], done + 1
        if isinstance(result, OutOfSpaceError):
            raise result
        if isinstance(result, LungcastError):
            task.folder.mkdir(parents=True, exist_ok=True)
            write_json(task.folder / ERROR, {"error": without_place(result)})
        progress(task.run.name, done, len(tasks))


def _finished(task: RunTask) -> bool:
    try:
        known = RunResult.read(task.folder)
    except LungcastError:
        return False
    return known is not None and not known.failures


def _collected(out: Path, runs: Sequence[Run], outcome: StudyOutcome) -> dict[str, RunResult]:
    """What all finished runs of the study found, of this process or another; what failed is named."""
    found = {}
    for run in runs:
        folder = out / RUNS / run.name
        try:
            result = RunResult.read(folder)
            if result is None and (folder / ERROR).is_file():
                error = json.loads((folder / ERROR).read_text(encoding="utf-8"))["error"]
                outcome.failures[run.name] = f"{run.name}: {error}"
        except (LungcastError, ValueError, KeyError) as error:
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
    out: Path,
    asked: Mapping[str, Any],
    results: Mapping[str, RunResult],
    missing: Sequence[str],
    outcome: StudyOutcome,
) -> list[Path]:
    write_results(out / RESULTS, [row for result in results.values() for row in result.rows])
    write_costs(out / COSTS, [result.cost for result in results.values()])
    notes = Counter(text for result in results.values() for text in result.notes)
    machines = Counter(json.dumps(result.where, sort_keys=True) for result in results.values())
    about = {
        **{key: value for key, value in asked.items() if key not in ("sources", "tests", "more")},
        "patients": len({name.split("/")[0] for name in asked["sources"]}),
        "scans": len(asked["sources"]),
        "more_scans": len(asked["more"]),
        "tests": {name: f"{len(held)} scans" for name, held in asked["tests"].items()},
        "runs_done": outcome.done,
        "runs_planned": outcome.planned,
        "runs_missing": missing,
        "trained_on": {name: result.trained_on for name, result in results.items()},
        "machines": [{**json.loads(text), "runs": count} for text, count in sorted(machines.items())],
        "versions": {"lungcast": lungcast_version(), **{name: version(name) for name in PACKAGES}},
        "failures": [" ".join(text.split()) for _, text in sorted(outcome.failures.items())],
        "notes": [f"{text} ({count} of {len(results)} runs)" for text, count in sorted(notes.items())],
    }
    write_json(out / ABOUT, about)
    return [out / RESULTS, out / COSTS, out / ABOUT, *write_report(out)]


def _request(
    cohort: Cohort, tests: Mapping[str, Cohort], more: Cohort | None, plan: StudyPlan, device: str
) -> dict[str, Any]:
    def contents(held: Cohort) -> dict[str, str]:
        return {entry.name: entry.content_sha256 for entry in held.entries}

    return {
        "lungcast_version": lungcast_version(),
        "operation": "study",
        **plan.to_json(),
        "device": device,
        "sources": contents(cohort),
        "more": {} if more is None else contents(more),
        "tests": {name: contents(held) for name, held in sorted(tests.items())},
    }
