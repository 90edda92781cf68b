"""What the viewer shows of one scan at one time, made small enough for a browser."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation.results.quantification import CONSOLIDATION, GGO, kinds
from standard_space.geometry import Geometry
from standard_space.image import write_volume
from standard_space.masks import bounding_box

MARGIN_MM = 15.0
"""Shown around the lungs."""


@dataclass(frozen=True)
class View:
    """The volumes of one scan at one time, on one grid.

    Attributes
    ----------
    geometry : Geometry
        Where the voxels lie.
    hu : int16 (z, y, x)
    consolidation_hu : float
        Cut between GGO and consolidation, HU.
    lungs : uint8 (z, y, x), or None
        0 outside.
    infection : bool (z, y, x), or None
        None where nobody annotated and nothing was predicted.
    probability : float32 (z, y, x), or None
        0 to 1.
    """

    geometry: Geometry
    hu: NDArray[np.int16]
    consolidation_hu: float
    lungs: NDArray[np.uint8] | None = None
    infection: NDArray[np.bool_] | None = None
    probability: NDArray[np.float32] | None = None

    def infected_ml(self) -> dict[str, float | None]:
        """Volumes ``infected_ml``, ``ggo_ml`` and ``consolidation_ml``, ml; None without an annotation."""
        names = ("infected_ml", "ggo_ml", "consolidation_ml")
        if self.infection is None:
            return dict.fromkeys(names)
        voxels = np.bincount(kinds(self.infection, self.hu, self.consolidation_hu).ravel(), minlength=3)
        parts = (voxels[GGO] + voxels[CONSOLIDATION], voxels[GGO], voxels[CONSOLIDATION])
        return {
            name: round(float(part) * self.geometry.voxel_volume_ml, 3)
            for name, part in zip(names, parts, strict=True)
        }

    def place_mm(self) -> tuple[float, float, float] | None:
        """World position, LPS mm, of an infected voxel in the middle of the slice that shows most infection."""
        if self.infection is None or not self.infection.any():
            return None
        z = int(np.argmax(self.infection.sum(axis=(1, 2))))
        places = np.argwhere(self.infection[z])
        y, x = places[np.argmin(((places - places.mean(axis=0)) ** 2).sum(axis=1))]
        px, py, pz = self.geometry.to_world(np.array([x, y, z], np.float64)).tolist()
        return px, py, pz


def reduced(view: View, most: int) -> View:
    """Return a view cut to the lungs and, where it is still larger than `most` voxels along an axis, coarser.

    Whole blocks of voxels become one: the mean of HU and probability; a mask holds a block of which it holds at
    least half, the infection one of which it holds any voxel, so that no lesion is lost from sight. World
    coordinates stay.

    Parameters
    ----------
    view : View
    most : int
        Voxels along each axis.
    """
    whole = _shown(view)
    steps = tuple(max(1, math.ceil((cut.stop - cut.start) / most)) for cut in whole)
    box = tuple(
        slice(cut.start, cut.start + (cut.stop - cut.start) // step * step)
        for cut, step in zip(whole, steps, strict=True)
    )
    start_xyz = np.array([cut.start + (step - 1) / 2 for cut, step in zip(box, steps, strict=True)])[::-1]
    z, y, x = ((cut.stop - cut.start) // step for cut, step in zip(box, steps, strict=True))
    ox, oy, oz = view.geometry.to_world(start_xyz).tolist()
    sx, sy, sz = (spacing * step for spacing, step in zip(view.geometry.spacing_mm, steps[::-1], strict=True))
    geometry = replace(view.geometry, size=(x, y, z), spacing_mm=(sx, sy, sz), origin_mm=(ox, oy, oz))

    def mean(volume: NDArray[Any]) -> NDArray[np.float32]:
        return _blocks(volume[box], steps).mean(axis=(1, 3, 5), dtype=np.float32)

    return View(
        geometry,
        np.round(mean(view.hu)).astype(np.int16),
        view.consolidation_hu,
        None if view.lungs is None else (mean(view.lungs > 0) >= 0.5).astype(np.uint8),
        None
        if view.infection is None
        else np.asarray(_blocks(view.infection[box], steps).any(axis=(1, 3, 5)), np.bool_),
        None if view.probability is None else mean(view.probability),
    )


def nifti_layers(view: View) -> Iterator[tuple[str, bytes]]:
    """Yield the layers of a view as compressed NIfTI: ct, lungs, infection (1 GGO, 2 consolidation), probability.

    Layers that the view does not have are left out. The probability is stored as 0 to 255.
    """
    layers: dict[str, NDArray[Any] | None] = {
        "ct": view.hu,
        "lungs": view.lungs,
        "infection": None
        if view.infection is None
        else kinds(view.infection, view.hu, view.consolidation_hu),
        "probability": None
        if view.probability is None
        else np.round(np.clip(view.probability, 0, 1) * 255).astype(np.uint8),
    }
    with tempfile.TemporaryDirectory() as made:
        for name, volume in layers.items():
            if volume is not None:
                path = Path(made) / f"{name}.nii.gz"
                write_volume(path, volume, view.geometry)
                yield name, path.read_bytes()


def _shown(view: View) -> tuple[slice, slice, slice]:
    """The lungs with a margin; everything where there are none."""
    lungs = None if view.lungs is None else bounding_box(view.lungs > 0)
    around = lungs or tuple(slice(0, size) for size in view.hu.shape)
    cut = []
    for part, size, spacing in zip(around, view.hu.shape, view.geometry.spacing_mm[::-1], strict=True):
        margin = round(MARGIN_MM / spacing)
        cut.append(slice(max(0, part.start - margin), min(size, part.stop + margin)))
    z, y, x = cut
    return z, y, x


def _blocks(volume: NDArray[Any], steps: tuple[int, ...]) -> NDArray[Any]:
    """A volume as blocks: axes (z, inside z, y, inside y, x, inside x)."""
    shape = [part for size, step in zip(volume.shape, steps, strict=True) for part in (size // step, step)]
    return volume.reshape(shape)
