"""Several processes train one run together, or one view each."""

from __future__ import annotations

import csv
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from segmentation.model import ThreeWaySegmenter
from segmentation.training import TrainingOptions, parallel, train
from segmentation.training.distributed import Ranks, joined, rank_here, world_size
from segmentation.training.material import Material
from segmentation.training.run import train_views
from segmentation.training.run_folder import RunFolder
from segmentation.views import VIEWS
from standard_space.errors import DataError, UsageError
from tests.segmentation.toys import toy_items
from tests.segmentation.training import processes
from tests.segmentation.training.test_resume import said, weights


@pytest.fixture(scope="module")
def forks() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.segmentation.training.processes"])
    return context


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def in_two_processes(forks: Any, folder: Path, fixed: bool) -> None:
    port = free_port()
    both = [forks.Process(target=processes.rank_of_two, args=(rank, port, folder, fixed)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(timeout=60)
    assert [process.exitcode for process in both] == [0, 0]


def test_two_processes_learn_what_one_learns(forks: Any, tmp_path: Path) -> None:
    in_two_processes(forks, tmp_path / "two", True)
    processes.trained(tmp_path / "one", True)
    two, one = (ThreeWaySegmenter.load(tmp_path / name) for name in ("two", "one"))
    moved = 0.0
    begun = ThreeWaySegmenter.untrained(32, width=2)
    for view in VIEWS:
        for (name, a), b, start in zip(
            one.networks[view].state_dict().items(),
            two.networks[view].state_dict().values(),
            begun.networks[view].state_dict().values(),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=f"{view} {name}")
            moved = max(moved, float((a.float() - start.float()).abs().max()))
    assert moved > 1e-2
    with open(tmp_path / "two" / "history.csv", encoding="utf-8", newline="") as handle:
        rows = [(row["view"], row["step"], row["kind"]) for row in csv.DictReader(handle)]
    assert len(rows) == len(set(rows)) == 3 * (3 + 2)


@pytest.mark.slow
def test_two_processes_with_batch_statistics_of_their_own_make_one_model(forks: Any, tmp_path: Path) -> None:
    in_two_processes(forks, tmp_path / "two", False)
    again = train(
        toy_items(3)[:2], validation=toy_items(3)[2:], folder=tmp_path / "two", resume=True, device="cpu"
    )
    assert again.training["steps_per_view"] == dict.fromkeys(VIEWS, 3)


@pytest.mark.slow
def test_torchrun_and_the_command(tmp_path: Path) -> None:
    from tests.simulator.scans import cohort_of, small_scan

    cohort_of(tmp_path / "c", small_scan("p"), small_scan("q", shift=0.04))
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    command = ["-m", "cli.main", "train", str(tmp_path / "c"), str(tmp_path / "m"), "--steps", "4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*run, str(free_port()), *command, "--width", "2", "--batch", "4", "--device", "cpu"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained on 2 scans") == 1
    assert ThreeWaySegmenter.load(tmp_path / "m").width == 2


@pytest.mark.slow
def test_a_process_for_each_device_gives_the_same_bits(tmp_path: Path) -> None:
    items, done = toy_items(3), []
    model = train_views(
        items[:2],
        validation=items[2:],
        options=processes.OPTIONS,
        devices=["cpu", "cpu"],
        device="cpu",
        folder=tmp_path / "m",
        progress=lambda item, steps, total: done.append((item[:2], steps, total)),
    )
    assert model is not None
    processes.trained(tmp_path / "one", False)
    assert weights(tmp_path / "m") == weights(tmp_path / "one")
    assert said(tmp_path / "m")["scores"] == said(tmp_path / "one")["scores"]
    assert sorted(steps for _, steps, _ in done) == list(range(1, 10))
    assert {total for _, _, total in done} == {9}
    assert {view for view, _, _ in done} == set(VIEWS)


@pytest.mark.slow
def test_a_failure_in_a_process_of_its_own_is_told() -> None:
    with pytest.raises(DataError, match="different grids"):
        train_views(
            toy_items(2),
            validation=toy_items(4, size=16)[2:],
            options=processes.OPTIONS,
            devices=["cpu", "cpu"],
            device="cpu",
        )


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_out_of_memory_in_a_process_of_its_own_names_the_options(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object) -> None:
        raise error

    monkeypatch.setattr("segmentation.training.run.train_here", fails)
    items = toy_items(1)
    run = RunFolder(tmp_path / "m", processes.OPTIONS, 3)
    material = Material(items, [], [])
    part = parallel._Part(run.folder, run.options, 3, 3, ("xy",), "cpu", material, 1, None)
    with pytest.raises(DataError, match=r"memory.*--batch, --patch or --width.*--memory-mb"):
        parallel._train_part(part)


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert world_size() == 1
    assert rank_here() == 0
    with joined(torch.device("cpu")) as (ranks, device):
        assert (ranks, device) == (Ranks(), torch.device("cpu"))
    assert ranks.shared("x") == "x"
    # Batch systems set one of the names for their own use: no torchrun yet.
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert world_size() == 1


def test_several_processes_need_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def pair(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
        yield Ranks(0, 2), device

    monkeypatch.setattr("segmentation.training.run.joined", pair)
    with pytest.raises(UsageError, match="need a folder"):
        train(toy_items(1), options=TrainingOptions(steps=1), device="cpu")
