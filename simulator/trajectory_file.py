"""The file of a trajectory: a run's keyframes, seed and dynamics, and the name and hash of its source (DESIGN 4).

Layout, schema 1: attributes `lungcast` ("trajectory"), `schema`, `content_sha256` and `meta` (JSON); a group per
keyframe, named by its transition, with `voxel_step`, `frontier_step` and `gone_step` (differences between flat
indices of the lungs' box, in the engine's order), `bin`, `birth`, `gone_birth` and `region_of_cell`; see
`simulator.dynamics.keyframe`. No path is stored.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.keyframe import Keyframe
from simulator.dynamics.report import RunReport
from standard_space.difference import COMPRESSION
from standard_space.errors import ScanFileError
from standard_space.files import write_bytes

SCHEMA = 1
_CHUNK = 1 << 17
_STEPS = {"voxel": "voxel_step", "frontier": "frontier_step", "gone_voxel": "gone_step"}
_PLAIN = ("bin", "birth", "gone_birth", "region_of_cell")
_TYPES = {"bin": np.uint8, "birth": np.int32, "gone_birth": np.int32, "region_of_cell": np.uint8}


def content_sha256(meta: dict[str, Any], keyframes: list[Keyframe]) -> str:
    """Hash of what a trajectory holds, free of compression and of the version that wrote it."""
    told = {key: value for key, value in meta.items() if key != "lungcast_version"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, allow_nan=False).encode())
    for keyframe in keyframes:
        digest.update(json.dumps([keyframe.transition, keyframe.report.to_json()]).encode())
        for name in (*_STEPS, *_PLAIN):
            array = np.ascontiguousarray(getattr(keyframe, name), _TYPES.get(name, "<i8"))
            digest.update(str(array.size).encode())
            digest.update(array.view(np.uint8).data)
    return digest.hexdigest()


def write_keyframes(path: str | Path, meta: dict[str, Any], keyframes: list[Keyframe]) -> str:
    """Write a trajectory file as a whole; returns its content hash. Same content, same bytes.

    Raises
    ------
    OutOfSpaceError
        When the disk is full.
    """
    digest = content_sha256(meta, keyframes)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["lungcast"] = "trajectory"
        file.attrs["schema"] = SCHEMA
        file.attrs["content_sha256"] = digest
        file.attrs["meta"] = json.dumps(meta, allow_nan=False)
        for keyframe in keyframes:
            group = file.create_group(f"{keyframe.transition:06d}")
            group.attrs["report"] = json.dumps(keyframe.report.to_json())
            for name, stored in _STEPS.items():
                index = getattr(keyframe, name)
                _put(group, stored, np.diff(index, prepend=index[:0].dtype.type(0)))
            for name in _PLAIN:
                _put(group, name, getattr(keyframe, name))
    write_bytes(path, buffer.getbuffer())
    return digest


def _put(group: h5py.Group, name: str, array: NDArray[Any]) -> None:
    packed = {"chunks": (min(_CHUNK, len(array)),), **COMPRESSION} if len(array) else {}
    group.create_dataset(name, data=array, track_times=False, **packed)
    group.file.flush()  # where data lies would else depend on when Python lets go of the dataset


def read_keyframes(path: str | Path) -> tuple[str, dict[str, Any], list[Keyframe]]:
    """Content hash, metadata and keyframes of a trajectory file.

    Raises
    ------
    ScanFileError
        When the file is missing, damaged, altered, foreign, or of another schema version.
    """
    path = Path(path)
    remedy = "write it again with `lungcast augment --trajectories`"
    if not path.is_file():
        raise ScanFileError("no such trajectory file", where=path)
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("lungcast") != "trajectory":
                raise ScanFileError("an HDF5 file, but not a lungcast trajectory", where=path)
            if int(file.attrs["schema"]) != SCHEMA:
                raise ScanFileError(
                    "the trajectory has another schema version",
                    where=path,
                    got=int(file.attrs["schema"]),
                    expected=SCHEMA,
                    remedy=remedy,
                )
            digest, meta = str(file.attrs["content_sha256"]), json.loads(file.attrs["meta"])
            keyframes = [_keyframe(file[name]) for name in sorted(file)]
            found = content_sha256(meta, keyframes)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ScanFileError(
            f"not a readable trajectory file ({str(error).splitlines()[0]})", where=path, remedy=remedy
        ) from None
    if found != digest:
        raise ScanFileError(
            "the trajectory was altered", where=path, got=found[:12], expected=digest[:12], remedy=remedy
        )
    return digest, meta, keyframes


def _keyframe(group: h5py.Group) -> Keyframe:
    walked = {
        name: np.cumsum(group[stored][...], dtype=group[stored].dtype) for name, stored in _STEPS.items()
    }
    return Keyframe(
        transition=int(group.name.rpartition("/")[2]),
        report=RunReport(**json.loads(group.attrs["report"])),
        **walked,
        **{name: group[name][...] for name in _PLAIN},
    )
