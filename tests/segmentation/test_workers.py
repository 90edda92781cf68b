from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from segmentation.workers import each


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_task_is_done_once_without_gradients(threads: int) -> None:
    seen: list[bool] = []

    def work(task: int) -> int:
        seen.append(torch.is_inference_mode_enabled())
        return task * task

    assert sorted(each(work, range(20), threads)) == [k * k for k in range(20)]
    assert seen == [True] * 20


def test_tasks_compute_alone_and_torch_is_left_as_it_was() -> None:
    inside = set(each(lambda task: torch.get_num_threads(), range(8), 2))
    assert inside == {1}
    assert torch.get_num_threads() == 2
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


def test_two_at_once_leave_torch_as_it_was() -> None:
    both = threading.Barrier(2)

    def use() -> None:
        both.wait()
        list(each(lambda task: torch.ones(50).sum(), range(50), 2))

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.get_num_threads() == 2
    later: list[int] = []
    last = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    last.start()
    last.join()
    assert later == [2]


def test_a_failure_ends_it_and_the_rest_is_not_begun() -> None:
    begun: list[int] = []

    def work(task: int) -> None:
        begun.append(task)
        if task == 0:
            raise ValueError("task 0")
        time.sleep(0.002)

    with pytest.raises(ValueError, match="task"):
        list(each(work, range(1000), 2))
    assert len(begun) < 1000
    assert torch.get_num_threads() == 2
