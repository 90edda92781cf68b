"""Fitting a cohort: patient by patient, in as many processes as wished (DESIGN 3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.series_fit import fit_series
from simulator.dynamics.warmup import warm_up
from simulator.fits import CohortFits, StoredSeries
from simulator.pair_fit import stored_fit
from simulator.series import Observation, Pair, observe_entry, pairs
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, LungcastError
from standard_space.jobs import run_isolated
from standard_space.progress import Progress, silent
from standard_space.scanfile import read_meta


def fit_cohort(
    cohort: Cohort,
    *,
    loss: str = "l2",
    intervals: str = "wald",
    joint: bool = False,
    jobs: int = 1,
    progress: Progress = silent,
) -> CohortFits:
    """Fit every patient's series pair by pair, Y_t0 to the first scan included.

    A scan that cannot be used is named in `failures` and leaves the patient's series; one that was never
    annotated is named in `skipped`. A patient whose days do not run forward is named in `failures`.

    Parameters
    ----------
    cohort : Cohort
        Embedded scans.
    loss : {"l2", "poisson"}
        L2 in absolute counts [paper], or the Poisson likelihood.
    intervals : {"wald", "profile"}
        Of every fit, 95 %.
    joint : bool
        Also fit one W to the whole series of every patient with at least two observed pairs.
    jobs : int
        Worker processes; the result does not depend on it.
    """
    groups = [[entry for entry in entries if not entry.synthetic] for entries in cohort.by_patient().values()]
    tasks = [_Task(cohort.folder, entries, loss, intervals, joint) for entries in groups if entries]
    total = sum(len(task.entries) for task in tasks)
    if jobs > 1:
        warm_up()
    found: dict[int, CohortFits] = {}
    done = 0
    if tasks:
        progress(tasks[0].entries[0].patient, 0, total)
    for index, result in run_isolated(_fit_patient, tasks, jobs=jobs):
        task = tasks[index]
        patient = task.entries[0].patient
        if isinstance(result, LungcastError):
            result = CohortFits(grid=0, loss=loss, intervals=intervals, failures={patient: str(result)})
        found[index] = result
        done += len(task.entries)
        progress(patient, done, total)
    whole = CohortFits(grid=0, loss=loss, intervals=intervals)
    for _, part in sorted(found.items()):
        whole.grid = max(whole.grid, part.grid)
        whole.fits += part.fits
        whole.joint += part.joint
        whole.failures |= part.failures
        whole.skipped |= part.skipped
    return whole


@dataclass(frozen=True)
class _Task:
    folder: Path
    entries: list[Entry]
    loss: str
    intervals: str
    joint: bool


def _fit_patient(task: _Task) -> CohortFits:
    result = CohortFits(grid=0, loss=task.loss, intervals=task.intervals)
    cohort = Cohort(task.folder, task.entries)
    observations: list[Observation] = []
    for entry in task.entries:
        if entry.infected_ml is None:
            result.skipped[entry.name] = "it has no infection mask"
            continue
        try:
            observations.append(observe_entry(cohort, entry))
            result.grid = int(read_meta(cohort.path(entry))["grid"])
        except LungcastError as error:
            # Fits are stored and passed on: where the cohort lay is nobody's business.
            result.failures[entry.name] = str(error).replace(f"{task.folder}/", "")
    try:
        found = pairs(observations)
    except DataError as error:  # time that does not run forward spoils one patient, not the cohort
        result.failures[task.entries[0].patient] = str(error)
        return result
    for pair, after in zip(found, observations, strict=True):
        earlier = {o.scan: o.content_sha256 for o in observations}.get(pair.from_scan)
        try:
            result.fits.append(stored_fit(pair, after, earlier, loss=task.loss, intervals=task.intervals))
        except DynamicsError as error:
            result.failures[after.patient + "/" + after.scan] = str(error)
    if task.joint and len(observations) > 2:
        try:
            result.joint.append(_fit_jointly(observations, found, task.loss, task.intervals))
        except DynamicsError as error:
            result.failures[observations[0].patient] = f"no joint fit: {error}"
    return result


def _fit_jointly(
    observations: list[Observation], found: list[Pair], loss: str, intervals: str
) -> StoredSeries:
    fit = fit_series(
        [seen.counts for seen in observations],
        [pair.transitions for pair in found[1:]],
        loss=loss,
        intervals=intervals,
    )
    return StoredSeries(
        patient=observations[0].patient,
        scans=[seen.scan for seen in observations],
        sha256=[seen.content_sha256 for seen in observations],
        fit=fit,
    )
