"""Nothing is ever half-written: temporary file, fsync, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from standard_space.errors import OutOfSpaceError, ReadError, UsageError
from standard_space.version import lungcast_version

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-f]{8}-")


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it is flushed to disk and renamed into place.

    The temporary name keeps the target's suffixes, for writers that go by them, and starts with a dot, so that
    readers of a folder never take it for a result. On an error it is removed and the target stays as it was.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Process numbers repeat between the machines that share a folder.
    temporary = target.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def clear_temporaries(folder: str | Path) -> None:
    """Remove what writers that were killed left in a folder."""
    for path in Path(folder).iterdir():
        if _TEMPORARY.match(path.name):
            path.unlink(missing_ok=True)


def check_output_file(path: str | Path | None) -> None:
    """Find out before the work whether a file can be written there; None is no file.

    Raises
    ------
    UsageError
        When the path is a folder, or its folder cannot be made or written to.
    """
    if path is None:
        return
    path = Path(path)
    if path.is_dir():
        raise UsageError("the output is a folder", where=path, expected="the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path.parent, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UsageError(
            "the output's folder cannot be written to", where=path, remedy="choose another place"
        )


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write bytes atomically.

    Raises
    ------
    OutOfSpaceError
        When the disk, or the user's share of it, is full.
    """
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise OutOfSpaceError(
            "the disk is full", where=Path(path).parent, remedy="free some space and run the command again"
        ) from None


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically, keys in the given order; NaN and infinities are refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_own_json(path: str | Path, kind: str, schema: int, command: str) -> dict[str, Any]:
    """Content of a JSON file that lungcast wrote, marked `"lungcast": kind`.

    Raises
    ------
    ReadError
        When the file is missing, unreadable, foreign, or of another schema version; `command` makes a new one.
    """
    remedy = f"make one with `{command}`"
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReadError(f"no such {kind} file", where=path, remedy=remedy) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ReadError(f"the {kind} file cannot be read ({error})", where=path) from None
    if not isinstance(content, dict) or content.get("lungcast") != kind:
        raise ReadError(f"not a lungcast {kind} file", where=path, remedy=remedy)
    if content.get("schema") != schema:
        raise ReadError(
            f"the {kind} file has another schema version",
            where=path,
            got=content.get("schema"),
            expected=schema,
            remedy=f"run `{command}` again",
        )
    return content


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes; of a folder, over all its visible files' bytes in the order of their hashes.

    A folder's hash is free of file names, which may carry patient identifiers and differ between exports.
    """
    path = Path(path)
    if path.is_dir():
        parts = sorted(sha256_of(file) for file in path.rglob("[!.]*") if file.is_file())
        return hashlib.sha256("".join(parts).encode()).hexdigest()
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_output_folder(folder: str | Path, kind: str, *, force: bool = False) -> None:
    """Find out, touching nothing, whether `prepare_output_folder` would go ahead.

    Raises
    ------
    UsageError
        See `prepare_output_folder`.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError("the output path is a file", where=folder, remedy="name a folder")
    if not _holds_anything(folder):
        return
    if not force:
        raise UsageError(
            "the output folder is not empty",
            where=folder,
            remedy="choose another or pass --force to replace it",
        )
    mark = read_mark(folder)
    if mark is None or mark["lungcast"] != kind:
        what = (
            f"folders that lungcast made (this one has no {MARK})"
            if mark is None
            else f"what the same command made (this one is of the kind {mark['lungcast']}, not {kind})"
        )
        raise UsageError(
            f"--force only empties {what}",
            where=folder,
            remedy="choose another folder or empty this one yourself",
        )


def prepare_output_folder(
    folder: str | Path, kind: str, *, force: bool = False, provenance: dict[str, Any] | None = None
) -> Path:
    """Make an output folder and mark it as lungcast's own.

    Parameters
    ----------
    folder : str or Path
        Made when missing.
    kind : str
        What it will hold; see `write_mark`.
    force : bool
        Empty a folder that lungcast wrote before.
    provenance : dict, optional
        For the mark, where more than the version is known already.

    Raises
    ------
    UsageError
        When the path is a file; when the folder is not empty and `force` is not given; or when `force` would
        empty a folder that lungcast did not make, or made for something else.
    """
    folder = Path(folder)
    check_output_folder(folder, kind, force=force)
    folder.mkdir(parents=True, exist_ok=True)
    started = {"lungcast_version": lungcast_version(), "complete": False}
    if _holds_anything(folder):
        # Lists go before what they list and the mark stays: killed while emptying, this is no whole folder that
        # lacks files, but one that can be emptied again.
        write_mark(folder, kind, started)
    for entry in sorted(folder.iterdir(), key=lambda path: path.suffix not in (".csv", ".json")):
        if entry.name not in (LOCK, MARK):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    write_mark(folder, kind, started if provenance is None else provenance)
    return folder


def _holds_anything(folder: Path) -> bool:
    """Whether a folder holds more than what a run leaves that was killed before it wrote anything."""
    if not folder.is_dir():
        return False
    return any(path.name != LOCK and not _TEMPORARY.match(path.name) for path in folder.iterdir())


LOCK = ".lock"
MARK = "lungcast.json"
"""The file that says what a folder written by lungcast is, with its provenance."""


def write_mark(folder: str | Path, kind: str, provenance: dict[str, Any]) -> None:
    """Say what a folder is: cohort, augmented, export, model, segmentation, crossvalidation, phantom and so on."""
    write_json(Path(folder) / MARK, {"lungcast": kind, "provenance": provenance})


def read_mark(folder: str | Path) -> dict[str, Any] | None:
    """What a folder written by lungcast is, or None when it is not one."""
    path = Path(folder) / MARK
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    whole = (
        isinstance(content, dict) and "lungcast" in content and isinstance(content.get("provenance"), dict)
    )
    return content if whole else None
