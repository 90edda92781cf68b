"""A real Dask scheduler and two worker processes on loopback, one of them killed midway: the same bytes."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulator.augmentation import AugmentationSettings
from simulator.augmentation_plan import Ratios
from simulator.augmentation_run import augment_cohort, prepare_folder
from simulator.cohort_fit import fit_cohort
from simulator.dynamics.warmup import warm_up
from standard_space.cluster import run_on_dask
from standard_space.cohort import Cohort
from standard_space.errors import DataError, ReadError, UsageError
from standard_space.files import LOCK
from tests.simulator.scans import cohort_of, small_scan

pytestmark = pytest.mark.interop
pytest.importorskip("distributed")

SETTINGS = AugmentationSettings(Ratios(30.0), seed=2)


@dataclass
class Cluster:
    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with open(folder / "log.txt", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments], stdout=log, stderr=log, env=environment
        )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    shared = tmp_path / "scheduler.json"
    where = ("--scheduler-file", str(shared), "--host", "127.0.0.1", "--no-dashboard")
    scheduler = start(tmp_path, "scheduler", "--port", "0", *where)
    workers = [start(tmp_path, "worker", "--nthreads", "1", "--no-nanny", *where) for _ in range(2)]
    try:
        deadline = time.monotonic() + 60
        while not (shared.exists() and shared.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield Cluster(json.loads(shared.read_text())["address"], scheduler, workers)
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    scans = [small_scan(patient, scan, day) for patient in "pqr" for scan, day in (("a", 0.0), ("b", 2.0))]
    return cohort_of(tmp_path_factory.mktemp("cohort") / "c", *scans)


def wait_for_workers(cluster: Cluster) -> None:
    import distributed

    with distributed.Client(cluster.address) as client:
        client.wait_for_workers(2, timeout=60)


def test_a_cluster_that_loses_a_worker_writes_the_same_bytes(
    cluster: Cluster, cohort: Cohort, tmp_path: Path
) -> None:
    fits = fit_cohort(cohort)
    for name in ("one", "dask"):
        prepare_folder(tmp_path / name, cohort, SETTINGS)
    augment_cohort(cohort, tmp_path / "one", fits, SETTINGS)
    wait_for_workers(cluster)
    killed_after = []

    def kill_one(item: str, done: int, total: int) -> None:
        if done >= 1 and not killed_after:
            cluster.workers[0].send_signal(signal.SIGKILL)
            killed_after.append(done)

    runner = functools.partial(run_on_dask, address=cluster.address, warm_up=warm_up)
    outcome = augment_cohort(cohort, tmp_path / "dask", fits, SETTINGS, runner=runner, progress=kill_one)
    assert killed_after == [1]
    assert outcome.failures == {}
    assert len(outcome.entries) == 180
    names = sorted(path.name for path in (tmp_path / "one").iterdir() if path.name != LOCK)
    assert len(names) == 182
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "dask" / name).read_bytes(), name


def work(task: str) -> str:
    if task == "mistake":
        raise ReadError("cannot be read", where="x.nii")
    if task == "defect":
        raise ZeroDivisionError("division by zero")
    return task.upper()


def test_every_task_is_answered_and_mistakes_are_told(cluster: Cluster) -> None:
    wait_for_workers(cluster)
    results = dict(run_on_dask(work, ["a", "mistake", "defect"], address=cluster.address))
    assert results[0] == "A"
    assert isinstance(results[1], ReadError)
    assert isinstance(results[2], DataError)
    assert "unexpected ZeroDivisionError" in str(results[2])


def test_a_scheduler_that_is_not_there_is_told() -> None:
    with pytest.raises(UsageError, match="no Dask scheduler answers"):
        list(run_on_dask(work, ["a"], address="nonsense"))


def test_a_cluster_without_workers_is_told(cluster: Cluster) -> None:
    for worker in cluster.workers:
        worker.kill()
        worker.wait()
    time.sleep(1.0)
    with pytest.raises(UsageError, match="no workers"):
        list(run_on_dask(work, ["a"], address=cluster.address))
