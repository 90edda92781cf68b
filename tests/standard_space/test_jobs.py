"""Isolated tasks: results, mistakes, defects and dead workers, in one process and in several."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import standard_space
from standard_space.errors import DataError, LungcastError, ReadError, UsageError
from standard_space.jobs import peak_memory_gb, run_isolated
from standard_space.warmup import warm_up


def work(task: str) -> str:
    if task == "mistake":
        raise ReadError("cannot be read", where="x.nii", remedy="export again")
    if task == "memory":
        raise MemoryError
    if task == "disk":
        raise OSError(28, "No space left on device", "/somewhere")
    if task == "defect":
        raise ZeroDivisionError("division by zero\nsecond line")
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return task.upper()


TASKS = ["a", "mistake", "b", "memory", "disk", "defect", "c"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_task_is_answered(jobs: int) -> None:
    results = dict(run_isolated(work, TASKS, jobs=jobs))
    assert [results[i] for i in (0, 2, 6)] == ["A", "B", "C"]
    assert isinstance(results[1], ReadError)
    assert str(results[1]) == "x.nii: cannot be read; export again"
    for index, message in ((3, "out of memory"), (4, "No space left"), (5, "unexpected ZeroDivisionError")):
        assert isinstance(results[index], LungcastError)
        assert message in str(results[index])
        assert "\n" not in str(results[index])


def test_a_dead_worker_is_its_own_task_only() -> None:
    results = dict(run_isolated(work, ["a", "die", "b", "c", "die", "d"], jobs=2))
    assert [results[i] for i in (0, 2, 3, 5)] == ["A", "B", "C", "D"]
    for index in (1, 4):
        assert isinstance(results[index], DataError)
        assert "worker process died" in str(results[index])


def test_no_tasks_and_no_jobs() -> None:
    assert list(run_isolated(work, [], jobs=3)) == []
    with pytest.raises(UsageError, match="below 1"):
        list(run_isolated(work, ["a"], jobs=0))


def compiled(_: int) -> list[str]:
    """Kernels of this package that are not compiled after `warm_up` in a fresh process."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(standard_space.__path__, "standard_space.")
        if not module.name.endswith("gdcm_worker")
    ]
    warm_up()
    kernels = {
        f"{m.__name__}.{n}": v for m in modules for n, v in vars(m).items() if isinstance(v, Dispatcher)
    }
    inlined = {"standard_space.lanczos._along_y", "standard_space.lanczos._along_x"}
    return [name for name, kernel in kernels.items() if not kernel.signatures and name not in inlined]


def test_warming_up_compiles_every_kernel() -> None:
    ((_, missing),) = run_isolated(compiled, [0], alone=True)
    assert missing == []


def memory(_: int) -> float:
    return peak_memory_gb()


def test_peak_memory_is_a_process_s_own() -> None:
    ballast = np.ones(60_000_000)  # 0.45 GB that the child must not be charged with
    ((_, peak),) = run_isolated(memory, [0], alone=True)
    assert isinstance(peak, float)
    assert 0.01 < peak < 0.4
    assert peak_memory_gb() > ballast.nbytes / 2**30
