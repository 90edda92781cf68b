"""CPU threads that each compute whole slices by themselves.

PyTorch divides every operation among its threads, which then wait for each other after each one; slices need
no such waiting, so on two cores threads of their own are faster, and far faster where something else runs besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


def each(work: Callable[[Task], Result], tasks: Iterable[Task], threads: int) -> Iterator[Result]:
    """Do independent tasks in threads that compute each alone; results as they come.

    Parameters
    ----------
    work : callable
        Done under `torch.inference_mode`.
    tasks : iterable
    threads : int
        As many as PyTorch has, which it is left with. With one, the tasks are done here.

    Raises
    ------
    Exception
        What `work` raises first; the tasks not begun are not done.
    """
    if threads == 1:
        for task in tasks:
            yield _inferring(work, task)
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting = {pool.submit(_inferring, work, task) for task in tasks}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for one in done:
                yield one.result()
    finally:
        pool.shutdown(cancel_futures=True)
        # The workers' setting is also that of threads to come.
        torch.set_num_threads(threads)


def _inferring(work: Callable[[Task], Result], task: Task) -> Result:
    # A setting of the thread, not of the process.
    with torch.inference_mode():
        return work(task)
