"""Killed at any moment, disk full: continued, a run ends with the weights of an uninterrupted one."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from segmentation.training.checkpoint import CHECKPOINT, read_state
from segmentation.training.run_folder import TRAINING
from segmentation.views import VIEWS
from standard_space.files import read_mark
from tests.segmentation.training import interrupted
from tests.segmentation.training.test_resume import said, weights

KILLS = 4
EVERY, EVERY_SLOWLY = 20, 4
"""Of all changes of the folder, one in so many is tried; the first sixty by default, all when slow."""


@pytest.fixture(scope="module")
def forks() -> Any:
    """Processes forked from a server that has imported everything: they start in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.segmentation.training.interrupted"])
    process = context.Process(target=int)
    process.start()
    process.join()
    assert process.exitcode == 0
    return context


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interruption") / "whole"
    interrupted.run(folder)
    return folder


def assert_nothing_is_half_written(folder: Path) -> None:
    assert not folder.is_dir() or not (folder / TRAINING).exists() or read_mark(folder) is not None
    for view in VIEWS:
        read_state(folder / TRAINING / view / CHECKPOINT)


def test_killed_at_random_moments(forks: Any, whole: Path, tmp_path: Path) -> None:
    begun = time.perf_counter()
    first = forks.Process(target=interrupted.run, args=(tmp_path / "first",))
    first.start()
    first.join()
    lasts = time.perf_counter() - begun
    rng = random.Random(0)
    folder = tmp_path / "m"
    killed = 0
    for _ in range(KILLS):
        process = forks.Process(target=interrupted.run, args=(folder,))
        process.start()
        process.join(rng.uniform(0.0, 0.7 * lasts))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert_nothing_is_half_written(folder)
    assert killed
    interrupted.run(folder)
    assert weights(folder) == weights(tmp_path / "first") == weights(whole)
    assert said(folder) == said(whole)


def killed_before(forks: Any, folder: Path, operation: int) -> bool:
    """Whether the run was killed; it may have ended before."""
    process = forks.Process(target=interrupted.dies_before, args=(folder, operation))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return bool(process.exitcode)


def changes_then_the_same(forks: Any, whole: Path, tmp_path: Path, operations: range) -> int:
    for operation in operations:
        folder = tmp_path / str(operation)
        if not killed_before(forks, folder, operation):
            return operation
        assert_nothing_is_half_written(folder)
        interrupted.run(folder)
        assert weights(folder) == weights(whole), operation
        assert said(folder) == said(whole), operation
    return operations.stop


@pytest.mark.slow
def test_killed_before_changes_of_the_folder(forks: Any, whole: Path, tmp_path: Path) -> None:
    last = changes_then_the_same(forks, whole, tmp_path, range(1, 60, EVERY))
    assert last == 60  # none ended before it was killed


@pytest.mark.slow
def test_killed_before_changes_until_the_model_is_written(forks: Any, whole: Path, tmp_path: Path) -> None:
    last = changes_then_the_same(forks, whole, tmp_path, range(1, 10_000, EVERY_SLOWLY))
    assert 60 < last < 9_000


def test_a_full_disk_is_told_and_the_run_continues(forks: Any, whole: Path, tmp_path: Path) -> None:
    size = (whole / TRAINING / "xy" / CHECKPOINT).stat().st_size
    folder = tmp_path / "m"
    process = forks.Process(target=interrupted.with_a_full_disk, args=(folder, size - 1))
    process.start()
    process.join()
    assert process.exitcode == interrupted.FULL
    assert not list(folder.rglob(".tmp-*"))
    interrupted.run(folder)
    assert weights(folder) == weights(whole)


@pytest.mark.slow
def test_the_command_killed_and_continued_with_no_other_flag(tmp_path: Path) -> None:
    from tests.simulator.scans import cohort_of, small_scan

    scans = [small_scan("p"), small_scan("q", shift=0.04), small_scan("rr")]
    for scan in scans:
        scan.provenance["image_sha256"] = scan.patient
    cohort_of(tmp_path / "c", *scans)
    flags = ["--steps", "40", "--width", "2", "--batch", "2", "--validation-share", "0.3"]
    flags += ["--checkpoint-minutes", "0.001", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(folder: str, *given: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "cli.main", "train", str(tmp_path / "c"), str(tmp_path / folder)]
        return subprocess.Popen([*words, *given, "-q"], env=environment)

    assert command("whole", *flags).wait() == 0
    process = command("m", *flags)
    state = tmp_path / "m" / TRAINING / "xy" / CHECKPOINT
    while not state.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(random.Random(1).uniform(0.0, 0.5))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert command("m", "--resume").wait() == 0
    assert weights(tmp_path / "m") == weights(tmp_path / "whole")


def test_options_that_only_say_when_to_write_do_not_matter(whole: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(interrupted.OPTIONS, checkpoint_minutes=10.0)
    interrupted.run(tmp_path / "m", options=options)
    assert weights(tmp_path / "m") == weights(whole)
