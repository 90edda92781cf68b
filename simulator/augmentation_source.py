"""All volumes of one source scan: the unit of work of an augmentation, done by any worker anywhere (DESIGN 4)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simulator.augmentation import AugmentationSettings, day_of, make_volume, recipe
from simulator.augmentation_plan import VolumePlan, seed_of
from simulator.dynamics.chain import propagate
from simulator.dynamics.engine import RESULTS_REVISION
from simulator.dynamics.parameters import TransitionParameters
from simulator.fits import CohortFits
from simulator.lung_crop import LungCrop, read_lung_crop
from simulator.trajectory import default_keyframes, write_trajectory
from simulator.trajectory_file import read_keyframes
from standard_space.cohort import Cohort, Entry
from standard_space.errors import ScanFileError
from standard_space.grid import StandardGrid
from standard_space.scanfile import is_whole, read_meta
from standard_space.version import lungcast_version

BYTES_PER_VOXEL = 2.5
BYTES_PER_KEYFRAME_VOXEL = 6.0
BYTES_PER_VOLUME = 20_000
"""Room that a changed voxel, an infected one of a keyframe, and metadata take on disk, generously."""


@dataclass(frozen=True)
class SourceTask:
    """All volumes of one source scan."""

    cohort: Path
    entry: Entry
    parameters: TransitionParameters
    plans: list[VolumePlan]
    settings: AugmentationSettings
    folder: Path


@dataclass(frozen=True)
class SourceResult:
    """What became of a `SourceTask`: entries, how many were there before, and seconds by stage."""

    entries: list[Entry]
    kept: int
    seconds: dict[str, float]


def augment_source(task: SourceTask) -> SourceResult:
    """Make all volumes of one source scan that are not there yet; runs in a worker.

    Raises
    ------
    LungcastError
        When the source cannot be read or played on, or the disk is full.
    """
    watch = _Watch()
    settings, crop, kept = task.settings, None, 0
    cohort = Cohort(task.cohort, [task.entry])
    head = cohort.head(task.entry)
    entries = []
    for plan in task.plans:
        path = volume_path(task.folder, task.entry, plan)
        with watch.stage("check"):
            made = _is_made(path, task, plan, head)
        if made:
            kept += 1
        else:
            if crop is None:
                crop = _read(cohort, task.entry, watch)
            with watch.stage("play"):
                volume = make_volume(
                    crop, task.parameters, plan, jump=settings.jump, controls=settings.controls
                )
            with watch.stage("write"):
                volume.write(path, crop.head)
        entries.append(_entry(task.entry, path))
    if settings.trajectories:
        path, seed = trajectory_path(task.folder, task.entry), trajectory_seed(task)
        with watch.stage("check"):
            made = _is_trajectory_made(path, task, seed)
        if not made:
            if crop is None:
                crop = _read(cohort, task.entry, watch)
            with watch.stage("trajectory"):
                write_trajectory(path, crop, task.parameters, seed, settings.jump, settings.controls)
    return SourceResult(entries, kept, watch.seconds)


def _read(cohort: Cohort, entry: Entry, watch: _Watch) -> LungCrop:
    with watch.stage("read and verify"):
        return read_lung_crop(cohort, entry, verify=True)


def trajectory_seed(task: SourceTask) -> int:
    """The engine's seed of a scan's trajectory."""
    return seed_of("trajectory", task.settings.seed, task.entry.patient, task.entry.scan)


def predicted_bytes(tasks: Sequence[SourceTask], fits: CohortFits) -> float:
    """Disk that the volumes will take which are not there yet: the chain foretells how many voxels change."""
    total = 0.0
    for task in tasks:
        counts = fits.of(task.entry).fit.observed
        for plan in task.plans:
            if not volume_path(task.folder, task.entry, plan).exists():
                later = propagate(counts, task.parameters, plan.transitions)
                changed = max(float(counts.sum()), float(later.sum()))
                total += BYTES_PER_VOLUME + BYTES_PER_VOXEL * changed
        if task.settings.trajectories and not trajectory_path(task.folder, task.entry).exists():
            for transition in default_keyframes(task.settings.jump)[1:]:
                later = propagate(counts, task.parameters, transition)
                total += BYTES_PER_VOLUME + BYTES_PER_KEYFRAME_VOXEL * float(later.sum())
    return total


class _Watch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun


def volume_path(folder: Path, entry: Entry, plan: VolumePlan) -> Path:
    """Where a volume of a source scan lies."""
    return folder / f"{entry.patient}_{entry.scan}-sim{plan.number}.h5"


def trajectory_path(folder: Path, entry: Entry) -> Path:
    """Where the trajectory of a source scan lies."""
    return folder / f"{entry.patient}_{entry.scan}-trajectory.h5"


def _is_trajectory_made(path: Path, task: SourceTask, seed: int) -> bool:
    """Whether a trajectory from an earlier run is whole and the very one that is asked for."""
    try:
        _, meta, _ = read_keyframes(path)
    except ScanFileError:
        return False
    wanted = {
        "lungcast_version": lungcast_version(),
        "engine": RESULTS_REVISION,
        "seed": seed,
        "jump": task.settings.jump,
        "controls": task.settings.controls.to_json(),
        "parameters": task.parameters.to_json(),
    }
    same = all(meta.get(key) == value for key, value in wanted.items())
    return same and meta["source"]["content_sha256"] == task.entry.content_sha256


def remove_volumes(folder: Path, entry: Entry, plans: list[VolumePlan]) -> None:
    """Remove what an earlier run made of a source that can no longer be used: it must not pass for a result."""
    for plan in plans:
        volume_path(folder, entry, plan).unlink(missing_ok=True)
    trajectory_path(folder, entry).unlink(missing_ok=True)


def _is_made(path: Path, task: SourceTask, plan: VolumePlan, source: dict[str, Any]) -> bool:
    """Whether a file from an earlier run is whole and the very volume this plan asks for."""
    if not path.is_file() or not is_whole(path):
        return False
    head = read_meta(path)
    wanted = recipe(task.parameters, plan, task.settings.jump, task.settings.controls)
    known = {key: head["provenance"].get(key) for key in wanted}
    # Corrected geometry, day or stage of the source belong into its volumes.
    taken_over = all(head.get(key) == source.get(key) for key in ("stage", "grid", "window", "placement"))
    return (
        known == wanted
        and taken_over
        and head["day"] == day_of(source, plan)
        and head["source"]["content_sha256"] == task.entry.content_sha256
    )


def _entry(source: Entry, path: Path) -> Entry:
    head = read_meta(path)
    voxel_ml = StandardGrid(int(head["grid"])).voxel_volume_ml
    return replace(
        source,
        scan=str(head["scan"]),
        day=float(head["day"]),
        kind="synthetic",
        file=path.name,
        content_sha256=str(head["content_sha256"]),
        infected_ml=round(int(head["infected_voxels"]) * voxel_ml, 4),
    )
