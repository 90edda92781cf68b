"""What a synthetic scan stores: the voxels in which it differs from its source (DESIGN 4).

Layout, schema 3: attributes as of a scan file, but `lungcast` is "synthetic scan" and `meta` names the source by
patient, scan and content hash, never by path. Datasets: `step` (uint16, from one flat index to the next; 0 at the
start of a block), `block_start` (int64, where blocks start in it), `block_first` (int64, their first flat index),
`changed_signal` (float16) and `changed_infection` (bits). Indices ascend in C order, so a slab along z is a
contiguous part, read alone. A block ends after `BLOCK` voxels, or where the next one lies too far for a uint16.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from itertools import pairwise
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

    def part(self, first: int, end: int) -> Difference:
        """What lies at first <= index < end."""
        a, b = (int(bound) for bound in np.searchsorted(self.index, (first, end)))
        return Difference(self.index[a:b], self.signal[a:b], self.infection[a:b])

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
    steps, starts = _in_blocks(np.ascontiguousarray(difference.index, np.int64))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["lungcast"] = "synthetic scan"
        file.attrs["schema"] = SYNTHETIC_SCHEMA
        file.attrs["content_sha256"] = digest
        file.attrs["meta"] = json.dumps(meta, allow_nan=False)
        for name, data in (
            ("block_start", starts),
            ("block_first", difference.index[starts]),
            ("step", steps),
            ("changed_signal", np.ascontiguousarray(difference.signal, np.float16)),
            ("changed_infection", np.packbits(difference.infection)),
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
    starts, firsts = file["block_start"][...], file["block_first"][...]
    count = len(file["step"])
    low = max(0, int(np.searchsorted(firsts, first, side="right")) - 1)
    high = len(firsts) if end is None else int(np.searchsorted(firsts, end, side="left"))
    if high <= low:
        return Difference(np.zeros(0, np.int64), np.zeros(0, np.float16), np.zeros(0, np.bool_))
    ends = np.append(starts, count)
    begin, stop = int(ends[low]), int(ends[high])
    index = np.cumsum(file["step"][begin:stop], dtype=np.int64)
    sizes = np.diff(ends[low : high + 1])
    index += np.repeat(firsts[low:high] - index[ends[low:high] - begin], sizes)
    a = int(np.searchsorted(index, first))
    b = len(index) if end is None else int(np.searchsorted(index, end))
    part = slice(begin + a, begin + b)
    bits = np.unpackbits(file["changed_infection"][part.start // 8 : -(-part.stop // 8)])
    infection = bits[part.start % 8 :][: b - a].astype(np.bool_)
    return Difference(index[a:b], file["changed_signal"][part], infection)


def _in_blocks(index: NDArray[np.int64]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Steps between ascending indices, and where blocks start."""
    steps = np.diff(index, prepend=index[:1])
    far = np.flatnonzero(steps > np.iinfo(np.uint16).max)
    bounds = np.r_[0, far, len(index)]
    starts = [np.arange(a, b, BLOCK) for a, b in pairwise(bounds)]
    where = np.concatenate(starts).astype(np.int64)
    steps[where] = 0
    return steps.astype(np.uint16), where
