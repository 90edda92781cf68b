"""A whole cohort augmented: many processes or machines, interrupted at will, always the same bytes (DESIGN 4).

Nothing here depends on the clock, on the order in which scans are done, or on who does them. A volume that lies in
the folder is taken as done when its voxels match its hash and its recipe is the one asked for; everything else is
made again. The manifest is written last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.augmentation import AugmentationSettings
from simulator.augmentation_plan import VolumePlan, plan_volumes
from simulator.augmentation_source import (
    SourceResult,
    SourceTask,
    augment_source,
    predicted_bytes,
    remove_volumes,
)
from simulator.cohort_fit import fit_cohort
from simulator.dynamics.warmup import warm_up
from simulator.fits import CohortFits
from standard_space.cohort import MANIFEST, Cohort, Entry
from standard_space.errors import LungcastError, OutOfSpaceError, UsageError
from standard_space.files import clear_temporaries, prepare_output_folder, read_mark, write_mark
from standard_space.folders import check_apart, is_continued, require_space
from standard_space.jobs import run_isolated
from standard_space.progress import Progress, silent
from standard_space.version import lungcast_version

Runner = Callable[
    [Callable[[SourceTask], SourceResult], Sequence[SourceTask]],
    Iterator[tuple[int, SourceResult | LungcastError]],
]
"""Runs a function on every task, somewhere; see `run_isolated`."""


@dataclass
class AugmentationOutcome:
    """What a run did.

    `entries` lists all volumes of the folder; `kept` of them an earlier run had made. `failures` and `notes` go by
    source scan; `seconds` sums the time of all workers by stage.
    """

    entries: list[Entry] = field(default_factory=list)
    kept: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Part and number of parts from "1/4".

    Raises
    ------
    UsageError
        When it is not i/N with 1 <= i <= N.
    """
    if text is None:
        return None
    part, slash, parts = text.partition("/")
    if not slash or not part.strip().isdecimal() or not parts.strip().isdecimal():
        raise UsageError("the shard is not i/N", got=repr(text), expected="1/4")
    found = (int(part), int(parts))
    if not 1 <= found[0] <= found[1]:
        raise UsageError("there is no such shard", got=text, expected="1/N to N/N")
    return found


def request(cohort: Cohort, settings: AugmentationSettings) -> dict[str, Any]:
    """What an augmentation of a cohort is known by: its folder's mark carries it."""
    observed = [entry for entry in cohort.entries if not entry.synthetic]
    return {
        "lungcast_version": lungcast_version(),
        "operation": "augment",
        **settings.to_json(),
        "sources": {entry.name: entry.content_sha256 for entry in observed},
        "days": {entry.name: entry.day for entry in observed},
        "planned": {
            entry.name: len(_plans(entry, settings)) for entry in observed if entry.infected_ml is not None
        },
    }


def check_folder(
    folder: str | Path,
    cohort: Cohort,
    settings: AugmentationSettings,
    *,
    shard: tuple[int, int] | None = None,
    force: bool = False,
) -> bool:
    """Find out, touching nothing, whether a folder can take an augmentation; see `is_continued`.

    Raises
    ------
    UsageError
        When the cohort has no observed scan, the folder and the cohort lie in each other, or the folder holds
        something else, or another augmentation, and `force` is not given.
    """
    if all(entry.synthetic for entry in cohort.entries):
        raise UsageError(
            "the cohort has no observed scans",
            where=cohort.folder,
            remedy="name the cohort that was embedded",
        )
    check_apart(folder, [cohort.folder])
    asked = _asked(cohort, settings, shard)
    return is_continued(folder, "augmented", asked, what="another augmentation", force=force)


def prepare_folder(
    folder: str | Path,
    cohort: Cohort,
    settings: AugmentationSettings,
    *,
    shard: tuple[int, int] | None = None,
    force: bool = False,
) -> None:
    """Make the output folder, or take up the same augmentation where it was interrupted; hold its lock.

    Raises
    ------
    UsageError
        See `check_folder`.
    """
    folder = Path(folder)
    asked = _asked(cohort, settings, shard)
    if check_folder(folder, cohort, settings, shard=shard, force=force):
        clear_temporaries(folder)
        # Until it is whole again it is no cohort: what stands in an old manifest may be written anew.
        _mark(folder, asked, _dropped(folder), complete=False)
        (folder / MANIFEST).unlink(missing_ok=True)
    else:
        prepare_output_folder(folder, "augmented", force=force, provenance={**asked, "complete": False})


def augment_cohort(
    cohort: Cohort,
    folder: str | Path,
    fits: CohortFits,
    settings: AugmentationSettings,
    *,
    shard: tuple[int, int] | None = None,
    runner: Runner = run_isolated,
    progress: Progress = silent,
) -> AugmentationOutcome:
    """Write the synthetic scans of a cohort into a folder made ready by `prepare_folder`.

    Re-running an interrupted run completes it. A scan that fails is named in the outcome's `failures` and the rest
    completes. Scans that were never annotated are left out (named in `notes`).

    Parameters
    ----------
    cohort : Cohort
    folder : str or Path
    fits : CohortFits
        Of this cohort.
    settings : AugmentationSettings
    shard : (int, int), optional
        (i, N): only every N-th source scan, from the i-th on.
    runner : callable
        `run_isolated` with its `jobs` bound, or `run_on_dask`.
    progress : Progress

    Raises
    ------
    OutOfSpaceError
        Before anything is written when the disk cannot hold the volumes, or when it fills up meanwhile.
    """
    folder = Path(folder)
    outcome = AugmentationOutcome()
    dropped = _dropped(folder)
    tasks = []
    for entry in _part([entry for entry in cohort.entries if not entry.synthetic], shard):
        if entry.infected_ml is None:
            outcome.notes[entry.name] = ["no infection mask: not augmented"]
            continue
        names = {plan: f"{entry.name}-sim{plan.number}" for plan in _plans(entry, settings)}
        plans = [plan for plan, name in names.items() if name not in dropped]
        if not plans and not settings.trajectories:
            continue
        try:
            parameters = fits.of(entry).fit.parameters
        except LungcastError as error:
            outcome.failures[entry.name] = str(error)
            remove_volumes(folder, entry, plans)
            continue
        tasks.append(
            SourceTask(cohort.folder.resolve(), entry, parameters, plans, settings, folder.resolve())
        )
    require_space(folder, predicted_bytes(tasks, fits))
    _run(tasks, runner, outcome, progress)
    failed = dict(sorted(outcome.failures.items()))
    Cohort.write_manifest(folder, outcome.entries)
    _mark(folder, _asked(cohort, settings, shard), dropped, complete=True, failed=sorted(failed))
    outcome.failures = failed
    return outcome


def stored_fits(cohort: Cohort, fits_path: str | Path | None) -> CohortFits | None:
    """The fits of a file, found to be of this cohort; None without a file. Touches nothing.

    Raises
    ------
    ReadError
        When the file is missing, damaged or foreign.
    DataError
        See `CohortFits.check`.
    """
    if fits_path is None:
        return None
    fits = CohortFits.load(fits_path)
    fits.check(cohort)
    return fits


def fits_for(
    cohort: Cohort,
    given: CohortFits | None,
    folder: str | Path,
    *,
    jobs: int = 1,
    progress: Progress = silent,
) -> CohortFits:
    """The given fits, else those the folder holds, else new ones; the folder holds them afterwards.

    Fits in the folder that failed for a scan are made anew: what was unreadable then may be whole now.
    """
    own = Path(folder) / "fits.json"
    fits = given
    if fits is None and own.is_file():
        fits = CohortFits.load(own)
        fits = None if fits.failures else fits
    if fits is None:
        fits = fit_cohort(cohort, jobs=jobs, progress=progress)
    fits.save(own)
    return fits


def _run(tasks: list[SourceTask], runner: Runner, outcome: AugmentationOutcome, progress: Progress) -> None:
    # Compiled once here, before several processes would write Numba's cache at the same moment.
    warm_up()
    if tasks:
        progress(tasks[0].entry.name, 0, len(tasks))
    for done, (index, result) in enumerate(runner(augment_source, tasks), start=1):
        task = tasks[index]
        if isinstance(result, OutOfSpaceError):
            raise OutOfSpaceError(
                "the disk is full",
                where=task.folder,
                got=f"{done - 1} of {len(tasks)} scans done, whole and safe",
                remedy="free some space and run the same command again",
            )
        if isinstance(result, LungcastError):
            outcome.failures[task.entry.name] = str(result)
            remove_volumes(task.folder, task.entry, task.plans)
        else:
            outcome.entries += result.entries
            outcome.kept += result.kept
            for stage, seconds in result.seconds.items():
                outcome.seconds[stage] = outcome.seconds.get(stage, 0.0) + seconds
        progress(task.entry.name, done, len(tasks))


def _asked(cohort: Cohort, settings: AugmentationSettings, shard: tuple[int, int] | None) -> dict[str, Any]:
    asked = request(cohort, settings)
    return asked if shard is None else {**asked, "shard": list(shard)}


def _mark(folder: Path, asked: dict[str, Any], dropped: dict[str, Any], **state: Any) -> None:
    write_mark(folder, "augmented", {**asked, **state, **({"dropped": dropped} if dropped else {})})


def _dropped(folder: Path) -> dict[str, Any]:
    """Volumes that an audit has taken out, by name, with its reasons."""
    mark = read_mark(folder)
    return {} if mark is None else dict(mark["provenance"].get("dropped", {}))


def _part(observed: list[Entry], shard: tuple[int, int] | None) -> list[Entry]:
    return observed if shard is None else observed[shard[0] - 1 :: shard[1]]


def _plans(entry: Entry, settings: AugmentationSettings) -> list[VolumePlan]:
    return plan_volumes(entry.patient, entry.scan, settings.ratios.of(entry), settings.seed)
