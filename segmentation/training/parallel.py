"""One view for each of several devices, in processes of their own."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segmentation.device import choose_device
from segmentation.training.distributed import Ranks
from segmentation.training.material import Material, Notes
from segmentation.training.memory import out_of_memory_told
from segmentation.training.options import TrainingOptions
from segmentation.training.run_folder import RunFolder
from standard_space.errors import LungcastError
from standard_space.jobs import run_isolated
from standard_space.progress import Progress


@dataclass(frozen=True)
class _Part:
    """What a process is told: it must be possible to pickle."""

    folder: Path
    options: TrainingOptions
    steps: int
    begun_with: int
    views: tuple[str, ...]
    device: str
    material: Material
    threads: int
    reports: Any


def train_on_devices(
    run: RunFolder,
    material: Material,
    views: Sequence[str],
    devices: Sequence[str],
    notes: Notes,
    progress: Progress,
) -> None:
    """Train views into a run's folder, each in a process; with fewer devices some take several in turn.

    Weights are those of training one view after the other, as no view depends on another.

    Raises
    ------
    LungcastError
        The first that a process raised, after the others have ended.
    """
    with _reported(progress, len(views) * run.steps) as reports:
        parts = [
            _Part(
                run.folder,
                run.options,
                run.steps,
                run.begun_with,
                tuple(views[place :: len(devices)]),
                str(device),
                material,
                torch.get_num_threads(),
                reports,
            )
            for place, device in enumerate(devices)
            if views[place :: len(devices)]
        ]
        failures: list[LungcastError] = []
        for _, result in run_isolated(_train_part, parts, jobs=len(parts)):
            if isinstance(result, LungcastError):
                failures.append(result)
            else:
                for text in result:
                    notes(text)
    if failures:
        raise failures[0]


def _train_part(part: _Part) -> list[str]:
    from segmentation.training.run import train_here

    torch.set_num_threads(part.threads)
    run = RunFolder(part.folder, part.options, part.steps, part.begun_with)
    notes = Notes()

    def report(item: str, done: int, total: int) -> None:
        if part.reports is not None:
            part.reports.put((item.split(" ")[0], item, done))

    with out_of_memory_told(), run.holding(part.views):
        train_here(run, part.views, part.material, notes, choose_device(part.device), Ranks(), report)
    return notes.texts


@contextmanager
def _reported(progress: Progress, total: int) -> Iterator[Any]:
    """Yield a queue whose reports are passed on, the views' steps added up."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        reports = manager.Queue()
        done: dict[str, int] = {}

        def pass_on() -> None:
            while (report := reports.get()) is not None:
                view, item, steps = report
                done[view] = steps
                progress(item, sum(done.values()), total)

        listener = threading.Thread(target=pass_on, daemon=True)
        listener.start()
        try:
            yield reports
        finally:
            reports.put(None)
            listener.join()
