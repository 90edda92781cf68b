"""Many independent tasks on a Dask cluster, with the same answers as `run_isolated` gives (extra `dask`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from standard_space.errors import DataError, LungcastError, UsageError
from standard_space.jobs import Result, Task, told
from standard_space.version import lungcast_version

CONNECT_SECONDS = 20


def run_on_dask(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    address: str,
    warm_up: Callable[[], None] | None = None,
) -> Iterator[tuple[int, Result | LungcastError]]:
    """Run a function on every task on the workers of a Dask scheduler, and give results as they come.

    Workers need the same lungcast and see the same folders under the same paths. A worker that dies is replaced by
    the others; a task that several workers died of is given up.

    Parameters
    ----------
    function : callable
        Of a module's top level. What it raises becomes the task's result, as a `LungcastError`.
    tasks : sequence
        Each can be pickled.
    address : str
        Of the scheduler, such as "tcp://node1:8786".
    warm_up : callable, optional
        Run on one worker of every host, one host after the other, before the tasks: it compiles kernels, which two
        processes must not do at the same moment (numba issue 4807).

    Yields
    ------
    index : int
        Of the task.
    result : Result or LungcastError

    Raises
    ------
    UsageError
        When Dask is not installed, no scheduler answers, it has no workers, or they run another lungcast.
    DataError
        When the scheduler is lost on the way.
    """
    with _connected(address) as client:
        if warm_up is not None:
            for worker in _one_of_each_host(client):
                client.run(warm_up, workers=[worker])
        futures = {client.submit(told, function, task, pure=False): index for index, task in enumerate(tasks)}
        import distributed

        for future in distributed.as_completed(futures):
            yield futures[future], _result_of(future, distributed)


def check_cluster(address: str) -> None:
    """Find out before the work whether a Dask cluster can do it.

    Raises
    ------
    UsageError
        See `run_on_dask`.
    """
    with _connected(address):
        pass


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        import distributed
    except ImportError:
        raise UsageError("Dask is not installed", remedy="pip install 'lungcast[dask]'") from None
    # Its loss of a worker is told by us, once, not by stack traces of every layer of its own.
    for name in ("distributed.client", "distributed.scheduler", "distributed.core"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(
            "no Dask scheduler answers there",
            where=address,
            got=type(error).__name__,
            expected="tcp://HOST:PORT",
        ) from None
    with client:
        _check_workers(client, address)
        yield client


def _check_workers(client: Any, address: str) -> None:
    try:
        found = client.run(lungcast_version)
    except Exception as error:  # whatever a worker without lungcast raises when it looks for it
        raise UsageError(
            "a Dask worker cannot run lungcast",
            where=address,
            got=" ".join(str(error).split())[:200],
            remedy="install the same lungcast where the workers run",
        ) from None
    if not found:
        raise UsageError(
            "the Dask scheduler has no workers", where=address, remedy="start some, then run again"
        )
    for worker, version in found.items():
        if version != lungcast_version():
            raise UsageError(
                "a Dask worker runs another lungcast", where=worker, got=version, expected=lungcast_version()
            )


def _one_of_each_host(client: Any) -> list[str]:
    by_host: dict[str, str] = {}
    for worker, about in sorted(client.scheduler_info(n_workers=-1)["workers"].items()):
        by_host.setdefault(about["host"], worker)
    return list(by_host.values())


def _result_of(future: Any, distributed: Any) -> Any:
    try:
        return future.result()
    except distributed.scheduler.KilledWorker:
        return DataError(
            "several Dask workers died at this scan (out of memory, or a crash in a library)",
            remedy="give the workers more memory or fewer threads",
        )
    except (distributed.client.FutureCancelledError, OSError) as error:
        raise DataError(
            "the Dask scheduler was lost",
            got=type(error).__name__,
            remedy="run the same command again: what is done is kept",
        ) from None
