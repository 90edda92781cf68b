"""Parts of a scan file without the whole: a slice, a crop, one mask."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from standard_space.difference import Difference, read_difference
from standard_space.errors import ScanFileError, UsageError
from standard_space.geometry import Placement
from standard_space.grid import StandardGrid
from standard_space.scanfile import CHUNK, LAYERS, read_meta, unpack, window_of

Box = tuple[slice, slice, slice]


class ScanReader:
    """An open scan file, read in parts; use `open_scan`.

    Attributes
    ----------
    patient, scan : str
        The manifest's names.
    day : float
        Days on the patient's own clock.
    grid : StandardGrid
    window : Window
    placement : Placement
    annotated : bool
        Whether the scan carries an infection mask.
    head : dict
        All metadata of the file; see `read_meta`.
    """

    def __init__(self, path: Path, head: dict[str, Any], source: ScanReader | None = None) -> None:
        self._path, self._source, self.head = path, source, head
        self.patient, self.scan = str(head["patient"]), str(head["scan"])
        self.day = float(head["day"])
        self.grid = StandardGrid(int(head["grid"]))
        self.window = window_of(head)
        self.placement = Placement.from_json(head["placement"])
        self.annotated = bool(head["annotated"])
        self._file = h5py.File(path, "r")
        self._changed: Difference | None = None

    def __enter__(self) -> ScanReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file (and a synthetic scan's source)."""
        self._file.close()
        if self._source is not None:
            self._source.close()

    def signal(self, box: Box) -> NDArray[np.float32]:
        """Signal of a box.

        Parameters
        ----------
        box : tuple of slice
            Along (z, y, x), steps of 1; `np.s_[100:101, :, :]` is a slice.

        Returns
        -------
        float32 array of the box's shape.
        """
        box = self._checked(box)
        if self._source is None:
            return np.asarray(self._part("signal", box), np.float32)
        signal = self._source.signal(box)
        changed, inside, place = self._changes(box)
        signal.reshape(-1)[place] = changed.signal[inside].astype(np.float32)
        return signal

    def mask(self, layer: str, box: Box) -> NDArray[np.bool_]:
        """One mask ("lungs", "left_lung", "airways", "vessels", "infection") of a box; see `signal`.

        Raises
        ------
        UsageError
            When there is no such layer, or the scan was never annotated.
        """
        if layer not in LAYERS:
            raise UsageError("no such layer", where=self._path, got=layer, expected=", ".join(LAYERS))
        if layer == "infection" and not self.annotated:
            raise UsageError("the scan was never annotated", where=self._path)
        box = self._checked(box)
        if self._source is None:
            return unpack(self._part("masks", box), layer)
        if layer != "infection":
            return self._source.mask(layer, box)
        infection = (
            self._source.mask(layer, box)
            if self._source.annotated
            else np.zeros([s.stop - s.start for s in box], np.bool_)
        )
        changed, inside, place = self._changes(box)
        infection.reshape(-1)[place] = changed.infection[inside]
        return infection

    def packed_masks(self) -> NDArray[np.uint8]:
        """All masks of a scan that is not synthetic, one bit each in the order of `LAYERS` (`unpack`)."""
        return np.asarray(self._part("masks", (...,)))

    def verified_signal(self, box: Box, packed_masks: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Signal of a box of a scan that is not synthetic, after comparing the whole scan with its hash.

        Reads all of the signal, a slab at a time.

        Parameters
        ----------
        box : tuple of slice
            See `signal`.
        packed_masks : uint8 array
            What `packed_masks` has read.

        Raises
        ------
        ScanFileError
            When the voxels are not those of the hash.
        """
        box = self._checked(box)
        digest = hashlib.sha256()
        signal = np.empty([s.stop - s.start for s in box], np.float32)
        for z in range(0, self.grid.size, CHUNK[0]):
            slab = np.ascontiguousarray(self._part("signal", (slice(z, z + CHUNK[0]),)))
            digest.update(slab.view(np.uint8).data)
            first, end = max(z, box[0].start), min(z + CHUNK[0], box[0].stop)
            if first < end:
                signal[first - box[0].start : end - box[0].start] = slab[first - z : end - z, box[1], box[2]]
        digest.update(np.ascontiguousarray(packed_masks).data)
        if digest.hexdigest() != self.head["content_sha256"]:
            raise ScanFileError(
                "the scan file was altered: its voxels do not match its hash",
                where=self._path,
                remedy="put the original back, or embed it and augment again",
            )
        return signal

    def _part(self, name: str, box: tuple[Any, ...]) -> NDArray[Any]:
        with self._readable():
            part: NDArray[Any] = self._file[name][box]
        return part

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError, ValueError) as error:
            raise ScanFileError(
                f"not a readable scan file ({str(error).splitlines()[0]})",
                where=self._path,
                remedy="embed or augment this scan again",
            ) from None

    def _checked(self, box: Box) -> Box:
        bounds = [s.indices(n) for s, n in zip(box, self.grid.shape, strict=True)]
        if any(step != 1 for _, _, step in bounds):
            raise UsageError("a box of a scan has steps of 1", where=self._path, got=box)
        z, y, x = (slice(start, max(start, stop)) for start, stop, _ in bounds)
        return (z, y, x)

    def _changes(self, box: Box) -> tuple[Difference, NDArray[np.intp] | slice, NDArray[np.int64]]:
        """Changed voxels of a synthetic scan in the box's slab, which of them lie in it, and where in it."""
        _, rows, columns = self.grid.shape
        first, end = box[0].start * rows * columns, box[0].stop * rows * columns
        in_full = (box[1].start, box[1].stop, box[2].start, box[2].stop) == (0, rows, 0, columns)
        with self._readable():
            if self._changed is None and in_full:
                changed = read_difference(self._file, first, end)
            else:
                # Other slices need nearly all of it, a few MB, and seldom come alone.
                self._changed = self._changed or read_difference(self._file)
                changed = self._changed.part(first, end)
        if in_full:
            return changed, slice(None), changed.index - first
        # The narrowest axes of a slice are x and y: few voxels are left for the slower arithmetic after them.
        x = changed.index.astype(np.uint32) % np.uint32(columns)
        inside = np.flatnonzero((x >= box[2].start) & (x < box[2].stop))
        z, rest = np.divmod(changed.index[inside], rows * columns)
        y = rest // columns
        kept = (y >= box[1].start) & (y < box[1].stop)
        inside = inside[kept]
        height, width = box[1].stop - box[1].start, box[2].stop - box[2].start
        place = (z[kept] - box[0].start) * height + y[kept] - box[1].start
        return changed, inside, place * width + x[inside] - box[2].start


PathFinder = Callable[[str, str, str], Path]
"""Gives the path of the source scan of (patient, scan, content_sha256)."""


def open_scan(path: str | Path, find_source: PathFinder | None = None) -> ScanReader:
    """Open a scan file to read parts of it; a synthetic scan is laid over its source.

    Parameters
    ----------
    path : str or Path
    find_source : callable, optional
        Gives the source's path for a synthetic scan; `Cohort.open_scan` knows it.

    Returns
    -------
    ScanReader
        A context manager. Handles are not shared between processes: open one in each worker.

    Raises
    ------
    ScanFileError
        When the file is missing, truncated, foreign, of another schema version, or its source is not known.
    """
    path = Path(path)
    head = read_meta(path)
    if head["kind"] == "scan":
        return ScanReader(path, head)
    if find_source is None:
        raise ScanFileError(
            "a synthetic scan is stored as differences from its source",
            where=path,
            remedy="open it together with the cohort that it was made from",
        )
    origin = head["source"]
    source = open_scan(find_source(origin["patient"], origin["scan"], origin["content_sha256"]))
    return ScanReader(path, head, source)
