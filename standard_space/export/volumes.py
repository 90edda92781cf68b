"""Image and labels of a case as they are exported.

A source's volume is read once; its synthetic scans are laid over it one at a time and taken off again, so that a
case costs its changed voxels, one restoring and the writing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from standard_space.difference import Difference, read_difference
from standard_space.errors import ScanFileError
from standard_space.export.settings import ExportSettings
from standard_space.geometry import Placement
from standard_space.grid import StandardGrid
from standard_space.masks import bounding_box
from standard_space.restore import restore_labels, restore_mask, restore_volume
from standard_space.scanfile import is_whole, read_bits
from standard_space.scanreader import open_scan
from standard_space.window import AIR_HU, Window

_EVERYTHING = np.s_[:, :, :]


@dataclass
class Volume:
    """HU and infection of one scan on the standard grid.

    Parameters
    ----------
    hu : float32 array, shape (z, y, x)
        Not rounded.
    infection : bool array, shape (z, y, x), or None
        None when the scan was never annotated.
    native_infection : bool array, shape (z, y, x) native, or None
        The user's own mask; None of synthetic scans and where the scan file holds none.
    window : Window
    placement : Placement
    grid : StandardGrid
    content_sha256 : str
        Of the source.
    """

    hu: NDArray[np.float32]
    infection: NDArray[np.bool_] | None
    native_infection: NDArray[np.bool_] | None
    window: Window
    placement: Placement
    grid: StandardGrid
    content_sha256: str

    @contextmanager
    def changed_to(self, path: Path) -> Iterator[Volume]:
        """The volume as the synthetic scan in `path` has it; as it was when the context ends.

        Raises
        ------
        ScanFileError
            When the file is damaged or is no synthetic scan of this source.
        """
        changed = _checked_difference(path, self.content_sha256)
        infection = np.zeros(self.grid.shape, np.bool_) if self.infection is None else self.infection
        hu_before, infection_before = self.hu.ravel()[changed.index], infection.ravel()[changed.index]
        self.hu.ravel()[changed.index] = self.window.to_hu(changed.signal.astype(np.float32))
        infection.ravel()[changed.index] = changed.infection
        try:
            yield Volume(
                self.hu, infection, None, self.window, self.placement, self.grid, self.content_sha256
            )
        finally:
            self.hu.ravel()[changed.index] = hu_before
            infection.ravel()[changed.index] = infection_before


def read_volume(path: Path, content_sha256: str) -> Volume:
    """Read an observed scan for export.

    Raises
    ------
    ScanFileError
        When its file is missing, damaged, or holds another scan than the hash says.
    """
    with open_scan(path) as reader:
        if reader.head["content_sha256"] != content_sha256:
            raise ScanFileError(
                "the scan file is no longer what the manifest says",
                where=path,
                got=str(reader.head["content_sha256"])[:12],
                expected=content_sha256[:12],
            )
        if not is_whole(path):
            raise ScanFileError(
                "the scan file is damaged or altered: its voxels do not match its hash",
                where=path,
                remedy="put the original back, or embed it again",
            )
        window = reader.window
        hu = reader.signal(_EVERYTHING)
        # As `Window.to_hu` does it, without two more volumes.
        hu *= np.float32(window.width_hu)
        hu += np.float32(window.level_hu)
        infection = reader.mask("infection", _EVERYTHING) if reader.annotated else None
        placement, grid = reader.placement, reader.grid
    with _readable(path), h5py.File(path, "r") as file:
        native = read_bits(file, "native_infection")
    return Volume(hu, infection, native, window, placement, grid, content_sha256)


def export_arrays(
    volume: Volume, settings: ExportSettings
) -> tuple[NDArray[np.int16], NDArray[np.uint8] | None, list[str]]:
    """Image and labels of a case.

    Returns
    -------
    image : int16 array, shape (z, y, x)
        HU on the native or the standard grid, brought back from the standard grid for observed and synthetic scans
        alike; air where the native grid reaches beyond it.
    labels : uint8 array, shape (z, y, x), or None
        Values of `settings.label_values`; None when the scan was never annotated.
    notes : list of str
        What a user should know of this case.
    """
    notes: list[str] = []
    infection: NDArray[np.bool_] | None = volume.infection
    if settings.geometry == "standard":
        image = np.rint(volume.hu).astype(np.int16)
    else:
        restored = restore_volume(volume.hu, volume.placement, fill=AIR_HU)
        image = np.rint(restored, out=restored).astype(np.int16)
        del restored
        if volume.native_infection is not None:
            infection = _inside_the_extent(volume.native_infection, volume, notes)
        elif infection is not None:
            infection = restore_mask(infection, volume.placement)
    if infection is None:
        return image, None, notes
    labels = infection.astype(np.uint8)
    if settings.labels == "ggo-consolidation":
        labels[infection & (image >= settings.consolidation_hu)] = 2
        window = volume.window
        if window.source == "8-bit" and abs(window.signal_of(settings.consolidation_hu)) > 0.5:
            notes.append(
                f"8-bit input: its window {window.level_hu:g}/{window.width_hu:g} does not reach the cut at "
                f"{settings.consolidation_hu:g} HU, so GGO and consolidation are not told apart"
            )
    return image, labels, notes


def _inside_the_extent(infection: NDArray[np.bool_], volume: Volume, notes: list[str]) -> NDArray[np.bool_]:
    """A native mask without what lies beyond the standard extent, where the exported image is air."""
    box = bounding_box(infection)
    if box is None:
        return infection
    ends = np.array(
        [[(s.start, s.stop - 1)[bit >> axis & 1] for axis, s in enumerate(box)] for bit in range(8)]
    )
    world = volume.placement.native.to_world(ends[:, ::-1])
    corners = volume.placement.standard_geometry(volume.grid).to_index(world)
    if corners.min() >= -0.49 and corners.max() <= volume.grid.size - 0.51:
        return infection
    inside = infection & (restore_labels(np.ones(volume.grid.shape, np.uint8), volume.placement) != 0)
    lost = int(infection.sum()) - int(inside.sum())
    if lost:
        notes.append(
            f"{lost} annotated voxels lie beyond the standard extent, where the image is air: left out"
        )
    return inside


def _checked_difference(path: Path, source_sha256: str) -> Difference:
    with _readable(path), h5py.File(path, "r") as file:
        known = str(file.attrs["content_sha256"])
        difference = read_difference(file)
        intact = difference.content_sha256(source_sha256) == known
    if not intact:
        raise ScanFileError(
            "the synthetic scan is damaged or belongs to another source", where=path, remedy="augment again"
        )
    return difference


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, ValueError) as error:
        raise ScanFileError(
            f"not a readable scan file ({str(error).splitlines()[0]})",
            where=path,
            remedy="embed or augment this scan again",
        ) from None
