"""What a synthetic scan stores: the voxels in which it differs from its source (DESIGN 4).

Layout, schema 3: attributes as of a scan file, but `lungcast` is "synthetic scan" and `meta` names the source by
patient, scan and content hash, never by path. Datasets: `block_first` (int64, flat index of the first changed
voxel of every block of `BLOCK`), `index_step` (uint32, steps between flat indices within a block),
`changed_signal` (float16) and `changed_infection` (uint8). Indices ascend in C order, so a slab along z is a
contiguous part, read alone.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from standard_space.files import write_bytes

SYNTHETIC_SCHEMA = 3
BLOCK = 32768
COMPRESSION: dict[str, Any] = {"shuffle": True, "fletcher32": True, **hdf5plugin.Zstd(clevel=9)}


@dataclass(frozen=True)
class Difference:
    """Voxels in which a synthetic scan differs from its source.

    Parameters
    ----------
    index : int64 array, shape (n,)
        Flat C-order indices on the standard grid, ascending.
    signal : float16 array, shape (n,)
        Their signal.
    infection : bool array, shape (n,)
        Whether they are infected now.
    """

    index: NDArray[np.int64]
    signal: NDArray[np.float16]
    infection: NDArray[np.bool_]

    def content_sha256(self, source_sha256: str) -> str:
        """Hash of what the scan holds: its source's hash and the difference, free of compression."""
        digest = hashlib.sha256(source_sha256.encode())
        digest.update(np.ascontiguousarray(self.index, "<i8").data)
        digest.update(np.ascontiguousarray(self.signal, "<f2").view(np.uint8).data)
        digest.update(np.packbits(self.infection).data)
        return digest.hexdigest()


def write_synthetic_scan(
    path: str | Path,
    source: dict[str, Any],
    difference: Difference,
    *,
    scan: str,
    day: float,
    infected_voxels: int,
    provenance: dict[str, Any],
) -> str:
    """Write a synthetic scan; returns its content hash.

    The file is put together in memory and written as a whole, so that a full disk is an error of the system, never
    a torn file.

    Parameters
    ----------
    path : str or Path
    source : dict
        The source's metadata (`read_meta`), taken over but for what follows.
    difference : Difference
    scan : str
        The synthetic scan's name.
    day : float
        On the patient's own clock, days.
    infected_voxels : int
        In the whole scan, for manifests.
    provenance : dict
        How it was made.

    Raises
    ------
    OutOfSpaceError
        When the disk is full.
    """
    digest = difference.content_sha256(source["content_sha256"])
    origin = {key: source[key] for key in ("patient", "scan", "content_sha256")}
    kept = {key: value for key, value in source.items() if key not in ("kind", "content_sha256")}
    meta = {
        **kept,
        "scan": scan,
        "day": day,
        "annotated": True,
        "infected_voxels": infected_voxels,
        "provenance": provenance,
        "source": origin,
    }
    index = np.ascontiguousarray(difference.index, np.int64)
    steps = np.diff(index, prepend=index[:1])
    steps[::BLOCK] = 0
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["lungcast"] = "synthetic scan"
        file.attrs["schema"] = SYNTHETIC_SCHEMA
        file.attrs["content_sha256"] = digest
        file.attrs["meta"] = json.dumps(meta, allow_nan=False)
        for name, data in (
            ("block_first", index[::BLOCK]),
            ("index_step", steps.astype(np.uint32)),
            ("changed_signal", np.ascontiguousarray(difference.signal, np.float16)),
            ("changed_infection", difference.infection.astype(np.uint8)),
        ):
            chunked = {"chunks": (min(BLOCK, len(data)),), **COMPRESSION} if len(data) else {}
            file.create_dataset(name, data=data, track_times=False, **chunked)
            # Where data lies would else depend on when Python lets go of the dataset.
            file.flush()
    write_bytes(path, buffer.getbuffer())
    return digest


def read_difference(file: h5py.File, first: int = 0, end: int | None = None) -> Difference:
    """The changed voxels of an open synthetic scan whose flat index lies in first <= index < end.

    Raises
    ------
    OSError, KeyError, ValueError
        When the file is damaged; the callers of this module tell it to the user.
    """
    blocks = file["block_first"][...]
    start = max(0, int(np.searchsorted(blocks, first, side="right")) - 1)
    stop = len(blocks) if end is None else int(np.searchsorted(blocks, end, side="left"))
    if stop <= start:
        return Difference(np.zeros(0, np.int64), np.zeros(0, np.float16), np.zeros(0, np.bool_))
    steps = file["index_step"][start * BLOCK : stop * BLOCK].astype(np.int64)
    walked = np.cumsum(steps)
    sizes = np.diff(np.r_[np.arange(0, len(steps), BLOCK), len(steps)])
    index = walked + np.repeat(blocks[start:stop] - walked[::BLOCK], sizes)
    low = int(np.searchsorted(index, first))
    high = len(index) if end is None else int(np.searchsorted(index, end))
    part = slice(start * BLOCK + low, start * BLOCK + high)
    return Difference(
        index[low:high], file["changed_signal"][part], file["changed_infection"][part].astype(np.bool_)
    )
