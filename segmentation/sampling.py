"""Training slices: which scans are in memory, which slices are drawn, and how they are varied.

Scans are cut to the lungs with a margin and kept within a memory budget; when a cohort does not fit, scans
are exchanged in turn, several slices drawn from each, so that training streams at any grid.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from segmentation.model import image_sha256, patient_sha256
from segmentation.signal import REFERENCE_WINDOW, input_air, input_signal
from segmentation.views import normal_axis, plane_axes, stacks
from standard_space.cohort import Cohort
from standard_space.errors import DataError
from standard_space.scan import Scan
from standard_space.window import Window

MARGIN_MM = 40.0
"""Kept around the lungs when a scan is cut."""

LUNG_RIM_MM = 6.0
"""The loss counts the lungs and this rim around them: nothing further out is ever used."""


@dataclass(frozen=True)
class TrainingItem:
    """A scan that can be loaded when needed.

    Parameters
    ----------
    name : str
        For messages.
    synthetic : bool
        Made by the simulator, not acquired.
    load : callable
        Returns the `Scan`.
    annotated : bool
        False when it is known beforehand that the scan has no annotation.
    """

    name: str
    synthetic: bool
    load: Callable[[], Scan]
    annotated: bool = True


def items_of(cohort: Cohort) -> list[TrainingItem]:
    """Return a cohort's scans as training items, in the cohort's order.

    Scans without annotation are among them; training leaves them out and says so.
    """
    return [
        TrainingItem(
            entry.name,
            entry.synthetic,
            functools.partial(cohort.read, entry),
            annotated=entry.infected_ml is not None,
        )
        for entry in cohort.entries
    ]


@dataclass(frozen=True)
class CutScan:
    """A scan cut to the lungs' bounding box and `MARGIN_MM`.

    Attributes
    ----------
    signal : float16 Tensor (z, y, x)
    infection, counted : bool Tensor (z, y, x)
        The annotation, and where the loss counts.
    spacing_mm : tuple of float
        (z, y, x).
    air : float
        Signal of air.
    lung_slices, infected_slices : dict of str to int array
        Slices of each view that meet the lungs, and the infection.
    """

    signal: Tensor
    infection: Tensor
    counted: Tensor
    spacing_mm: tuple[float, float, float]
    air: float
    lung_slices: dict[str, NDArray[np.intp]]
    infected_slices: dict[str, NDArray[np.intp]]

    @property
    def nbytes(self) -> int:
        """Memory of the volumes."""
        return self.signal.numel() * 4


def cut_scan(scan: Scan, views: Sequence[str], input_window: Window | None = REFERENCE_WINDOW) -> CutScan:
    """Cut an annotated scan to its lungs.

    Raises
    ------
    DataError
        The scan has no annotation or no lungs.
    """
    if scan.infection is None:
        raise DataError("the scan has no infection annotation", where=scan.name)
    region = scan.lungs | scan.infection
    if not region.any():
        raise DataError("the scan has no lungs", where=scan.name)
    spacing = scan.grid.spacing_mm
    box = []
    for axis in range(3):
        met = np.flatnonzero(region.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = math.ceil(MARGIN_MM / spacing[axis])
        box.append(slice(max(int(met[0]) - margin, 0), int(met[-1]) + 1 + margin))
    cut = tuple(box)
    region, infection = region[cut], scan.infection[cut]
    return CutScan(
        signal=torch.from_numpy(input_signal(scan, input_window)[cut].astype(np.float16)),
        infection=torch.from_numpy(infection.copy()),
        counted=torch.from_numpy(_with_rim(region, spacing)),
        spacing_mm=spacing,
        air=input_air(scan, input_window),
        lung_slices={view: _slices_meeting(region, view) for view in views},
        infected_slices={view: _slices_meeting(infection, view) for view in views},
    )


class ScanPool:
    """Scans to draw training slices from, within a memory budget.

    When everything fits, each draw is uniform over all scans. Otherwise scans pass through memory in a
    shuffled order, and one is exchanged for the next after every `draws_per_scan` draws.

    Parameters
    ----------
    items : sequence of TrainingItem
    views : sequence of str
        Views whose slices will be drawn.
    seed : int
        Of the shuffled order.
    budget_bytes : int
        For the cut scans; one scan is always kept.
    input_window : Window or None
        What the networks see; see `input_signal`.
    draws_per_scan : int
        Draws between two exchanges.
    note : callable
        Told about scans that are left out.
    """

    def __init__(
        self,
        items: Sequence[TrainingItem],
        views: Sequence[str],
        *,
        seed: int,
        budget_bytes: int,
        input_window: Window | None = REFERENCE_WINDOW,
        draws_per_scan: int = 32,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._items = list(items)
        self._views = tuple(views)
        self._seed = seed
        self._budget = budget_bytes
        self._input_window = input_window
        self._draws_per_scan = draws_per_scan
        self._note = note
        self._unusable: set[int] = set()
        self.grid_size = 0
        """Of the scans; 0 before the first is loaded."""
        self.patients: dict[str, set[str]] = {}
        """Hashes of the patients, and of their images, that were loaded."""
        self._begin()

    def _begin(self) -> None:
        order = np.random.default_rng(self._seed).permutation(len(self._items)).tolist()
        self._waiting = deque(index for index in order if index not in self._unusable)
        self._active: deque[tuple[int, CutScan]] = deque()
        self._draws = 0

    def restart(self) -> None:
        """Go back to the first scans, so that a view's training does not depend on the views before it."""
        if self._waiting:
            self._begin()

    def fill(self) -> None:
        """Load scans up to the memory budget.

        Raises
        ------
        DataError
            No scan of the pool can be used.
        """
        used = sum(cut.nbytes for _, cut in self._active)
        while self._waiting and (used < self._budget or not self._active):
            index = self._waiting.popleft()
            cut = self._load(self._items[index])
            if cut is None:
                self._unusable.add(index)
                continue
            self._active.append((index, cut))
            used += cut.nbytes
        if not self._active:
            raise DataError(
                "no scan to train on: none has an infection annotation and lungs",
                remedy="name infection masks in the manifest",
            )

    def draw(self, rng: np.random.Generator) -> CutScan:
        """Return a scan, loading as needed.

        Raises
        ------
        DataError
            No scan of the pool can be used.
        """
        if not self._active:
            self.fill()
        elif self._waiting and self._draws % self._draws_per_scan == 0:
            self._waiting.append(self._active.popleft()[0])
            self.fill()
        self._draws += 1
        return self._active[int(rng.integers(len(self._active)))][1]

    def _load(self, item: TrainingItem) -> CutScan | None:
        scan = item.load()
        if scan.infection is None or not scan.lungs.any():
            lacking = "infection annotation" if scan.infection is None else "lungs"
            self._note(f"{item.name}: left out of training, it has no {lacking}")
            return None
        if self.grid_size and scan.grid.size != self.grid_size:
            raise DataError(
                "the scans to train on lie on different grids",
                where=item.name,
                got=scan.grid.size,
                expected=self.grid_size,
            )
        self.grid_size = scan.grid.size
        images = self.patients.setdefault(patient_sha256(scan.patient), set())
        images.update(filter(None, [image_sha256(scan)]))
        return cut_scan(scan, self._views, self._input_window)


@dataclass(frozen=True)
class Example:
    """One training slice.

    Attributes
    ----------
    stack : float32 Tensor (slices, H, W)
    infection, counted : float32 Tensor (1, H, W)
        0 or 1: the truth, and where the loss counts.
    """

    stack: Tensor
    infection: Tensor
    counted: Tensor


def draw_example(
    cut: CutScan,
    view: str,
    rng: np.random.Generator,
    *,
    patch: int,
    positive_share: float,
    offsets_mm: Sequence[float],
    vary: bool = True,
) -> Example:
    """Draw one slice of a scan, cut it to a square patch, and vary it.

    With probability `positive_share` the central slice is one that meets the infection (where the scan has
    any) and the patch is placed over an infected voxel; else any slice that meets the lungs, placed anywhere.

    Parameters
    ----------
    patch : int
        Side of the patch, voxels, a multiple of 16; what reaches beyond the cut scan is air and not counted.
    vary : bool
        Flip, rotate, scale and jitter; see `vary_example`.
    """
    infected = cut.infected_slices[view]
    positive = infected.size > 0 and rng.random() < positive_share
    candidates = infected if positive else cut.lung_slices[view]
    index = int(candidates[rng.integers(candidates.size)])
    target = cut.infection.select(normal_axis(view), index)
    counted = cut.counted.select(normal_axis(view), index)
    windows = _place_patch(target if positive else counted, patch, rng)
    rows, columns = windows
    stack = stacks(
        cut.signal, view, [index], cut.spacing_mm, cut.air, offsets_mm=offsets_mm, rows=rows, columns=columns
    )[0].float()
    example = Example(
        _padded(stack, patch, cut.air),
        _padded(target[windows][None].float(), patch, 0.0),
        _padded(counted[windows][None].float(), patch, 0.0),
    )
    if not vary:
        return example
    row_axis, column_axis = plane_axes(view)
    return vary_example(example, rng, cut.air, cut.spacing_mm[row_axis], cut.spacing_mm[column_axis])


def vary_example(
    example: Example, rng: np.random.Generator, air: float, row_mm: float, column_mm: float
) -> Example:
    """Vary a slice: geometry and intensity.

    - Half of the slices are mirrored along the columns, half along the normal (the slices' order).
    - A third are rotated by up to 15 degrees and scaled by up to 10 %, in millimetres.
    - Signals are scaled by up to 10 %, shifted by up to 0.03, and half of the slices get white noise of up
      to 0.02 (all in units of signal).
    """
    stack, infection, counted = example.stack, example.infection, example.counted
    if rng.random() < 0.5:
        stack, infection, counted = (image.flip(-1) for image in (stack, infection, counted))
    if rng.random() < 0.5:
        stack = stack.flip(0)
    if rng.random() < 1 / 3:
        field = _rotation_field(stack.shape, rng, row_mm, column_mm)
        stack = _resampled(stack - air, field) + air
        infection, counted = ((_resampled(image, field) > 0.5).float() for image in (infection, counted))
    stack = stack * rng.uniform(0.9, 1.1) + rng.uniform(-0.03, 0.03)
    if rng.random() < 0.5:
        noise = rng.standard_normal(stack.shape, np.float32) * np.float32(rng.uniform(0.0, 0.02))
        stack = stack + torch.from_numpy(noise)
    return Example(stack, infection, counted)


def _rotation_field(
    shape: Sequence[int], rng: np.random.Generator, row_mm: float, column_mm: float
) -> Tensor:
    """Return a sampling field (1, H, W, 2) that rotates and scales about the middle, in millimetres."""
    angle, scale = math.radians(rng.uniform(-15.0, 15.0)), rng.uniform(0.9, 1.1)
    height_mm, width_mm = shape[-2] * row_mm, shape[-1] * column_mm
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    # Coordinates of the field run from -1 to 1 along each side, columns first.
    matrix = torch.tensor([[[cos, -sin * height_mm / width_mm, 0.0], [sin * width_mm / height_mm, cos, 0.0]]])
    return functional.affine_grid(matrix, [1, 1, shape[-2], shape[-1]], align_corners=False)


def _resampled(image: Tensor, field: Tensor) -> Tensor:
    return functional.grid_sample(image[None], field, padding_mode="zeros", align_corners=False)[0]


def _place_patch(wanted: Tensor, patch: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Return rows and columns of a patch that holds a random wanted pixel, inside the plane if it can be."""
    pixels = torch.nonzero(wanted)
    anchor = pixels[int(rng.integers(len(pixels)))].tolist()
    windows = []
    for centre, size in zip(anchor, wanted.shape, strict=True):
        lowest, highest = max(centre - patch + 1, 0), min(centre, max(size - patch, 0))
        start = int(rng.integers(min(lowest, highest), highest + 1))
        windows.append(slice(start, min(start + patch, size)))
    return windows[0], windows[1]


def _padded(image: Tensor, patch: int, value: float) -> Tensor:
    bottom, right = patch - image.shape[-2], patch - image.shape[-1]
    if bottom == 0 and right == 0:
        return image
    left, top = right // 2, bottom // 2
    return functional.pad(image, (left, right - left, top, bottom - top), value=value)


def _slices_meeting(mask: NDArray[np.bool_], view: str) -> NDArray[np.intp]:
    return np.flatnonzero(mask.any(axis=plane_axes(view)))


def _with_rim(region: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.bool_]:
    return ndimage.distance_transform_edt(~region, sampling=spacing_mm) <= LUNG_RIM_MM
