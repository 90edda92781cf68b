"""Killed at any moment, disk full, worker dead, clock turned: run again, it ends with the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from simulator.fits import CohortFits
from standard_space.cohort import MANIFEST, Cohort
from standard_space.errors import OutOfSpaceError
from standard_space.files import LOCK, read_mark
from standard_space.scanfile import is_whole, read_meta
from tests.simulator import interrupted
from tests.simulator.scans import cohort_of, small_scan

KILLS = 50


@pytest.fixture(scope="module")
def forks() -> Any:
    """Processes forked from a server that has imported and compiled everything: they start in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.simulator.interrupted"])
    process = context.Process(target=int)
    process.start()
    process.join()
    assert process.exitcode == 0
    return context


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interruption") / "c"
    cohort_of(folder, small_scan(scan="a"), small_scan(scan="b", day=3.0, shift=0.04), small_scan("q"))
    return folder


@pytest.fixture(scope="module")
def whole(cohort: Path) -> Path:
    folder = cohort.parent / "whole"
    interrupted.augment(cohort, folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK}


def assert_nothing_is_half_written(folder: Path) -> None:
    visible = [path for path in folder.glob("*") if not path.name.startswith(".")]
    for path in visible:
        if path.suffix == ".h5":
            assert is_whole(path), path
        elif path.name == "fits.json":
            CohortFits.load(path)
        elif path.name == MANIFEST:
            for entry in Cohort.open(folder).entries:
                assert read_meta(folder / entry.file)["content_sha256"] == entry.content_sha256
        else:
            assert read_mark(folder) is not None


@pytest.mark.slow
def test_killed_at_fifty_random_moments(forks: Any, cohort: Path, whole: Path, tmp_path: Path) -> None:
    begun = time.perf_counter()
    first = forks.Process(target=interrupted.augment, args=(cohort, tmp_path / "first"))
    first.start()
    first.join()
    lasts = time.perf_counter() - begun
    assert files(tmp_path / "first") == files(whole)
    rng = random.Random(0)
    killed = completed = 0
    folder = tmp_path / "0"
    while killed < KILLS:
        process = forks.Process(target=interrupted.augment, args=(cohort, folder))
        process.start()
        process.join(rng.uniform(0.0, 0.7 * lasts))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if folder.is_dir():
            assert_nothing_is_half_written(folder)
        if process.exitcode == 0:
            assert files(folder) == files(whole)
            completed += 1
            folder = tmp_path / str(completed)
    interrupted.augment(cohort, folder)
    assert files(folder) == files(whole)


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_before_every_change_of_the_folder(forks: Any, tmp_path: Path, every: int) -> None:
    cohort, whole = tmp_path / "c", tmp_path / "whole"
    cohort_of(cohort, small_scan())
    interrupted.augment(cohort, whole)
    operation = 1 - every
    while True:
        operation += every
        folder = tmp_path / str(operation)
        process = forks.Process(target=interrupted.dies_before, args=(cohort, folder, operation))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        if folder.is_dir():
            assert_nothing_is_half_written(folder)
        interrupted.augment(cohort, folder)
        assert files(folder) == files(whole), operation
    assert operation > 3 * len(files(whole))


def test_a_full_disk_is_told_and_leaves_nothing_torn(
    forks: Any, cohort: Path, whole: Path, tmp_path: Path
) -> None:
    smallest = min(path.stat().st_size for path in whole.glob("*.h5"))
    folder = tmp_path / "a"
    process = forks.Process(target=interrupted.with_a_full_disk, args=(cohort, folder, smallest - 1))
    process.start()
    process.join()
    assert process.exitcode == interrupted.FULL
    assert not list(folder.glob("*.h5"))
    assert not list(folder.glob(".tmp-*"))
    interrupted.augment(cohort, folder)
    assert files(folder) == files(whole)


def test_a_disk_that_really_fills_up(cohort: Path, whole: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        ballast = small / "ballast"
        ballast.write_bytes(bytes(2**20 - 16384))  # too little is left for the fits and the first volumes
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("simulator.augmentation_run.require_space", lambda *_: None)
            with pytest.raises(OutOfSpaceError, match="disk is full"):
                interrupted.augment(cohort, small / "a")
        assert_nothing_is_half_written(small / "a")
        ballast.unlink()
        interrupted.augment(cohort, small / "a")
        assert files(small / "a") == files(whole)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_too_little_space_is_told_before_anything_is_made(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=30_000))
    with pytest.raises(OutOfSpaceError, match="not enough free disk"):
        interrupted.augment(cohort, tmp_path / "a")
    assert not list((tmp_path / "a").glob("*.h5"))


def test_a_dead_worker_costs_nothing(cohort: Path, whole: Path, tmp_path: Path) -> None:
    interrupted.augment(cohort, tmp_path / "a", runner=interrupted.runner_whose_worker_dies)
    assert (tmp_path / "died").exists()
    assert files(tmp_path / "a") == files(whole)


def test_the_clock_does_not_matter(
    cohort: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    interrupted.augment(cohort, folder)
    (folder / "p_b-sim1.h5").unlink()
    for number, path in enumerate(sorted(folder.iterdir())):
        moment = (1e7, 4e9)[number % 2]  # 1970 and 2096
        os.utime(path, (moment, moment))
    monkeypatch.setattr(time, "time", iter(range(10**9, 0, -1000)).__next__)
    interrupted.augment(cohort, folder)
    assert files(folder) == files(whole)
