"""What test_interruption runs in processes of its own, forked from one that has compiled every kernel."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from simulator.augmentation import AugmentationSettings
from simulator.augmentation_plan import Ratios
from simulator.augmentation_run import augment_cohort, fits_for, prepare_folder
from simulator.dynamics.warmup import warm_up
from standard_space.cohort import Cohort
from standard_space.errors import OutOfSpaceError
from standard_space.folders import folder_lock
from standard_space.jobs import run_isolated

SETTINGS = AugmentationSettings(Ratios(2.0), seed=5)
FULL = 9  # exit code of `with_a_full_disk`

warm_up()


def augment(cohort: Path, folder: Path, **options: Any) -> None:
    """Fits and volumes, as the command makes them."""
    opened = Cohort.open(cohort)
    with folder_lock(folder):
        prepare_folder(folder, opened, SETTINGS)
        augment_cohort(opened, folder, fits_for(opened, None, folder), SETTINGS, **options)


def dies_before(cohort: Path, folder: Path, operation: int) -> None:
    """Augment, and be killed before the N-th time that something is made visible, removed or flushed."""
    left = [operation]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in ("replace", "unlink", "fsync", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    augment(cohort, folder)


def with_a_full_disk(cohort: Path, folder: Path, largest_bytes: int) -> None:
    """Augment where no file can grow beyond a size, which the system says like a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, resource.RLIM_INFINITY))
    try:
        augment(cohort, folder)
    except OutOfSpaceError:
        os._exit(FULL)


def runner_whose_worker_dies(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
    """Two processes, one of which is killed at its first task."""
    flag = tasks[0].folder.parent / "died"
    return run_isolated(_dies_once, [(function, task, flag) for task in tasks], jobs=2)


def _dies_once(work: tuple[Callable[[Any], Any], Any, Path]) -> Any:
    function, task, flag = work
    try:
        flag.touch(exist_ok=False)
    except FileExistsError:
        return function(task)
    os.kill(os.getpid(), signal.SIGKILL)
    return None
