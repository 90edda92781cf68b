"""Output folders of long runs: apart from their inputs, held by one run, continued only by the same request."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from standard_space.errors import OutOfSpaceError, UsageError
from standard_space.files import LOCK, check_output_folder, read_mark

RUN_STATE = frozenset({"complete", "failed", "dropped", "cases"})
"""What a mark says about how far a run came, not about what was asked for."""


def check_apart(folder: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuse an output folder that holds an input of the run, is one, or lies in one.

    Raises
    ------
    UsageError
    """
    inside = Path(folder).resolve()
    for path in inputs:
        there = Path(path).resolve()
        if there.is_relative_to(inside):
            raise UsageError(
                "the output folder holds what is read", where=folder, got=path, remedy="choose another folder"
            )
        if there.is_dir() and inside.is_relative_to(there):
            raise UsageError(
                "the output folder lies in what is read",
                where=folder,
                got=path,
                remedy="choose another folder",
            )


def is_continued(
    folder: str | Path, kind: str, asked: dict[str, Any], *, what: str, force: bool = False
) -> bool:
    """Find out, touching nothing, whether a folder can take a run.

    Parameters
    ----------
    folder : str or Path
    kind : str
        See `write_mark`.
    asked : dict
        What the run is known by; the folder's mark carries it.
    what : str
        For the message: "another augmentation".
    force : bool

    Returns
    -------
    bool
        Whether it holds the very same run, which is to be continued.

    Raises
    ------
    UsageError
        When it holds something else, or another run, and `force` is not given.
    """
    mark = read_mark(folder)
    if force or mark is None or mark["lungcast"] != kind:
        check_output_folder(folder, kind, force=force)
        return False
    known = mark["provenance"]
    if {key: value for key, value in known.items() if key not in RUN_STATE} == asked:
        return True
    differ = sorted(
        key for key in asked.keys() | known.keys() - RUN_STATE if known.get(key) != asked.get(key)
    )
    raise UsageError(
        f"the output folder holds {what}",
        where=folder,
        got=f"other {', '.join(differ)}",
        remedy="choose another folder or pass --force to replace it",
    )


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Hold a folder for one run; the system lets go of it when the process ends, however it ends.

    The lock is an empty file `.lock` that stays: removing it would let two runs in.

    Raises
    ------
    UsageError
        When another run holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(
            "another run is writing into this folder",
            where=folder,
            remedy="wait until it is done, or choose another folder",
        ) from None
    try:
        yield
    finally:
        lock.release()


def require_space(folder: str | Path, wanted_bytes: float) -> None:
    """Refuse to start what will not fit; the folder need not exist yet.

    Raises
    ------
    OutOfSpaceError
        When less is free than wanted.
    """
    there = Path(folder).absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < wanted_bytes:
        raise OutOfSpaceError(
            "not enough free disk",
            where=folder,
            got=f"{free / 1e9:.2f} GB",
            expected=f"about {wanted_bytes / 1e9:.2f} GB",
            remedy="free some space or choose another place",
        )
