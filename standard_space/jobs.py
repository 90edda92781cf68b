"""Many independent tasks in worker processes: none of them sinks the others."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from standard_space.errors import DataError, LungcastError, UsageError

Task = TypeVar("Task")
Result = TypeVar("Result")


def core_count() -> int:
    """Processor cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def peak_memory_gb() -> float:
    """Peak resident memory of this process, GB; of its own, not of what it was forked from (where /proc is)."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def run_isolated(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    jobs: int = 1,
    alone: bool = False,
    fresh: bool = False,
) -> Iterator[tuple[int, Result | LungcastError]]:
    """Run a function on every task, in this process or in `jobs` others, and give results as they come.

    Workers are started afresh (spawn), share the cores between them, and compile nothing when the caller has run
    the function's kernels once before. A script that calls this with `jobs` above 1, `alone` or `fresh` needs the
    usual ``if __name__ == "__main__":``.

    Parameters
    ----------
    function : callable
        Of a module's top level. What it raises becomes the task's result, as a `LungcastError`.
    tasks : sequence
        Each can be pickled.
    jobs : int
        Processes; 1 runs everything here.
    alone : bool
        Run the tasks one after the other, each in a fresh process with the share of cores that one of `jobs`
        workers gets: to measure what a task takes.
    fresh : bool
        Each task in a process of its own, `jobs` at once.

    Yields
    ------
    index : int
        Of the task.
    result : Result or LungcastError
        A worker that dies (killed for memory, crashed) is a `DataError` of its own task only.

    Raises
    ------
    UsageError
        When `jobs` is below 1.
    """
    if jobs < 1:
        raise UsageError("the number of jobs is below 1", got=jobs)
    threads = max(1, core_count() // jobs)
    if alone:
        for index, task in enumerate(tasks):
            yield index, _in_a_fresh_process(function, task, threads)
        return
    if (jobs == 1 and not fresh) or len(tasks) == 0:
        for index, task in enumerate(tasks):
            yield index, told(function, task)
        return
    yield from _in_processes(function, tasks, min(jobs, len(tasks)), threads, fresh)


def _in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int, threads: int, fresh: bool
) -> Iterator[tuple[int, Result | LungcastError]]:
    waiting = list(range(len(tasks)))[::-1]
    suspects: list[int] = []
    while waiting:
        pool = _pool(jobs, threads, 1 if fresh else None)
        running: dict[Future[Result | LungcastError], int] = {}
        try:
            while waiting or running:
                # No more than one task a worker is handed out, so that a death leaves few suspects.
                while waiting and len(running) < jobs:
                    index = waiting[-1]
                    with _sigint_held_back():
                        running[pool.submit(_in_a_worker, function, tasks[index])] = index
                    waiting.pop()
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            suspects += running.values()
        finally:
            _close(pool)
    # One of the tasks in flight killed its worker; alone, each shows whether it was the one.
    for index in sorted(suspects):
        yield index, _in_a_fresh_process(function, tasks[index], core_count())


def _in_a_fresh_process(
    function: Callable[[Task], Result], task: Task, threads: int
) -> Result | LungcastError:
    pool = _pool(1, threads)
    try:
        with _sigint_held_back():
            future = pool.submit(_in_a_worker, function, task)
        return future.result()
    except BrokenProcessPool:
        return DataError(
            "the worker process died at this scan (out of memory, or a crash in a library)",
            remedy="use fewer --jobs or a smaller --grid",
        )
    finally:
        _close(pool)


def _pool(jobs: int, threads: int, tasks_each: int | None = None) -> ProcessPoolExecutor:
    # Forking a process whose threads hold locks deadlocks it: workers start afresh.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        jobs,
        mp_context=context,
        initializer=_start_worker,
        initargs=(threads,),
        max_tasks_per_child=tasks_each,
    )


def _start_worker(threads: int) -> None:
    _die_with_parent()
    _share_cores(threads)
    if (
        signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    ):  # ignored: started by `nohup` or `&` of a script
        signal.signal(signal.SIGINT, _interrupted)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _sigint_held_back() -> Iterator[None]:
    """Processes that are started inside begin deaf to Ctrl-C: until `_start_worker` they could only die of it.

    A terminal sends Ctrl-C to workers as well. One that dies while it waits for a task prints a traceback, and may
    take the queue's lock along.
    """
    multiprocessing.resource_tracker.ensure_running()  # it lets SIGINT through again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Work:
    """What a signal must know of this worker: whether a task is in hand, and whether Ctrl-C has come."""

    at_hand = False
    called_off = False


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C in a worker ends the task in hand, or the next one; a worker that waits is ended by its parent."""
    _Work.called_off = True
    if _Work.at_hand:
        raise KeyboardInterrupt


def _in_a_worker(function: Callable[[Task], Result], task: Task) -> Result | LungcastError:
    _Work.at_hand = True
    try:
        if _Work.called_off:
            raise KeyboardInterrupt
        return told(function, task)
    finally:
        _Work.at_hand = False


def _close(pool: ProcessPoolExecutor) -> None:
    """End a pool when its workers have ended their tasks; a Ctrl-C meanwhile ends them at once."""
    workers = list((pool._processes or {}).values())  # others of the caller's processes are not ours to kill
    try:
        pool.shutdown(wait=True, cancel_futures=True)
    except KeyboardInterrupt:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join()
        raise


def _die_with_parent() -> None:
    """End this worker when its parent is gone: killed, it can tell nobody, and workers wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _share_cores(threads: int) -> None:
    import numba
    import SimpleITK as sitk

    numba.set_num_threads(min(threads, numba.get_num_threads()))
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def told(function: Callable[[Task], Result], task: Task) -> Result | LungcastError:
    """The result of a task, or what it raised as an error that can be told: nothing is raised from a worker."""
    try:
        return function(task)
    except LungcastError as error:
        return error
    except MemoryError:
        return DataError("out of memory at this scan", remedy="use fewer --jobs or a smaller --grid")
    except OSError as error:
        reason = error.strerror or str(error)
        return DataError(f"the system refused ({reason})", where=error.filename)
    except Exception as error:  # the one place where a defect of ours must not sink the other scans
        text = str(error).splitlines()[0] if str(error) else ""
        return DataError(
            f"an unexpected {type(error).__name__} at this scan ({text})",
            remedy="this is a defect of lungcast: please report it",
        )
