"""Slices of one series to a regular stack: order and spacing by position, duplicates, gaps and gantry tilt."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from standard_space.dicom.headers import SPLIT_TAGS, Slice
from standard_space.dicom.pixels import digest
from standard_space.errors import DataError, GeometryError
from standard_space.geometry import Geometry
from standard_space.image_file import MAX_VOXELS

SPACING_TOLERANCE_MM = 0.1
SPACING_TOLERANCE_SHARE = 0.02
MIN_SLICES = 4
MAX_TILT_DEGREES = 45.0
STRAIGHT_PIXELS = 0.5
"""Slices that wander sideways by less than this, first to last, are taken as straight."""


@dataclass(frozen=True)
class Stack:
    """Slices in order, on a regular grid.

    Parameters
    ----------
    slices : tuple of Slice
        In the order of the third axis.
    geometry : Geometry
        Of the volume they make, after correction of the tilt.
    starts : float64 array, shape (slices, 2), or None
        Index (y, x), in a slice's own pixels, of the volume's first row and column; None when the slices lie
        straight above each other.
    notes : list of str
        What a user should know.
    """

    slices: tuple[Slice, ...]
    geometry: Geometry
    starts: NDArray[np.float64] | None
    notes: list[str]


def stack(slices: list[Slice], folder: Path) -> Stack:
    """Order the slices of one series.

    Raises
    ------
    DataError
        When slices are too few, doubled, missing or unevenly spaced.
    GeometryError
        When they lie sideways of each other as no gantry tilt explains.
    """
    ordered, notes = _without_duplicates(slices, folder)
    if len(ordered) < MIN_SLICES:
        raise DataError("the series has too few slices to be a chest CT", where=folder, got=len(ordered))
    first = ordered[0]
    rows, columns = first.stored.rows, first.stored.columns
    row, column, normal = _axes(first)
    positions = np.array([s.position for s in ordered])
    spacing_mm = _even_spacing(positions @ normal, folder)
    spacing = (first.spacing[1], first.spacing[0], spacing_mm)
    travel = positions - positions[0]
    # (y, x) of every slice's first pixel, in pixels of the first slice.
    offsets = np.stack([travel @ column / spacing[1], travel @ row / spacing[0]], axis=1)
    origin, size = positions[0], [columns, rows, len(ordered)]
    starts = None
    if np.abs(offsets).max() > STRAIGHT_PIXELS:
        notes.append(_tilt_note(offsets, spacing, folder))
        low, high = np.floor(offsets.min(axis=0) + 1e-6), np.ceil(offsets.max(axis=0) - 1e-6)
        origin = origin + column * (low[0] * spacing[1]) + row * (low[1] * spacing[0])
        size[1] += int(high[0] - low[0])
        size[0] += int(high[1] - low[1])
        starts = low - offsets
    if math.prod(size) > MAX_VOXELS:
        raise DataError("the series holds too many voxels", where=folder, got=f"{math.prod(size):.3g}")
    direction = np.stack([row, column, normal], axis=1).ravel().tolist()
    x, y, z = origin.tolist()
    geometry = Geometry((size[0], size[1], size[2]), spacing, (x, y, z), tuple(direction))
    return Stack(tuple(ordered), geometry, starts, notes)


def _axes(one: Slice) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Unit directions of columns, rows and slices, made exactly perpendicular (headers round)."""
    row = np.array(one.orientation[:3])
    row = row / np.linalg.norm(row)
    column = np.array(one.orientation[3:])
    column = column - row * (row @ column)
    column = column / np.linalg.norm(column)
    return row, column, np.cross(row, column)


def places(slices: list[Slice]) -> NDArray[np.float64]:
    """Positions along the normal of the first slice, mm."""
    normal: NDArray[np.float64] = _axes(slices[0])[2]
    return np.array([s.position for s in slices]) @ normal


def distinct_places(slices: list[Slice]) -> int:
    """How many positions the slices have."""
    return 1 + int((np.diff(np.sort(places(slices))) >= SPACING_TOLERANCE_MM).sum())


def _by_place(slices: list[Slice]) -> list[list[Slice]]:
    """Slices at one position together, in order."""
    place = places(slices)
    order = np.argsort(place, kind="stable")
    starts = np.diff(place[order]) >= SPACING_TOLERANCE_MM
    found: list[list[Slice]] = [[slices[order[0]]]]
    for index, new in zip(order[1:], starts, strict=True):
        if new:
            found.append([])
        found[-1].append(slices[index])
    return found


def _without_duplicates(slices: list[Slice], folder: Path) -> tuple[list[Slice], list[str]]:
    """One slice a position: identical ones are dropped, several acquisitions told apart, others refused."""
    notes: list[str] = []
    kept = []
    dropped = 0
    for same in _by_place(slices):
        if len(same) > 1:
            one = list({_content(s): s for s in reversed(same)}.values())[::-1]
            dropped += len(same) - len(one)
            same = one
        kept.append(same)
    if dropped:
        notes.append(f"{dropped} slices that repeat another exactly were left out")
    if all(len(same) == 1 for same in kept):
        return [same[0] for same in kept], notes
    flat = [s for same in kept for s in same]
    span = float(np.ptp(places(flat)))
    for index in range(len(SPLIT_TAGS)):
        parts: dict[bytes, list[Slice]] = defaultdict(list)
        for one_slice in flat:
            parts[one_slice.splits[index]].append(one_slice)
        if any(distinct_places(part) < len(part) for part in parts.values()):
            continue
        # The key is the last resort: acquisitions of one size are taken in the order of their numbers.
        key = max(parts, key=lambda k: (len(parts[k]), -len(k), [-byte for byte in k]))
        taken = parts[key]
        # Acquisitions that only overlap would each be a part of the chest.
        if np.ptp(places(taken)) < 0.9 * span:
            continue
        notes.append(
            f"the series holds {len(parts)} acquisitions at the same positions; taken: one of {len(taken)} slices"
        )
        order = np.argsort(places(taken), kind="stable")
        return [taken[i] for i in order], notes
    doubled = sum(len(same) > 1 for same in kept)
    raise DataError(
        "different slices lie at the same position, and nothing tells their acquisitions apart",
        where=folder,
        got=f"{doubled} of {len(kept)} positions",
        remedy="keep one acquisition in the folder",
    )


def _content(one: Slice) -> tuple[object, ...]:
    return (
        digest(one.stored, one.frame),
        one.slope,
        one.intercept,
        one.padding,
        tuple(np.round(one.position, 1)),
    )


def _even_spacing(place: NDArray[np.float64], folder: Path) -> float:
    """Mean spacing of ordered positions (mm); refused when slices are missing or unevenly spaced."""
    gaps = np.diff(place)
    median = float(np.median(gaps))
    tolerance = max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE_SHARE * median) + 1e-6
    steps = np.maximum(1, np.round(gaps / median))
    if (np.abs(gaps - steps * median) > steps * tolerance).any():
        raise DataError(
            "the slices are unevenly spaced",
            where=folder,
            got=f"gaps of {gaps.min():.2f} to {gaps.max():.2f} mm",
            remedy="export one reconstruction with even spacing, or resample it",
        )
    if (steps > 1).any():
        wide = np.flatnonzero(steps > 1)
        shown = [f"between {place[i]:.1f} and {place[i + 1]:.1f} mm" for i in wide[:3]]
        more = f" and in {len(wide) - 3} more places" if len(wide) > 3 else ""
        missing = int((steps - 1).sum())
        raise DataError(
            f"{missing} slice{' is' if missing == 1 else 's are'} missing",
            where=folder,
            got=f"gaps {', '.join(shown)}{more}",
            remedy="export the whole series again",
        )
    mean = float(gaps.mean())
    grid = place[0] + mean * np.arange(len(place))
    # Small gaps of one kind may add up: 1.05 mm below the heart and 0.95 mm above would pass each alone.
    drift = float(np.abs(place - grid).max())
    if drift > 0.25 * mean + tolerance:
        raise DataError(
            "the slices are unevenly spaced",
            where=folder,
            got=f"a slice {drift:.2f} mm from its place on an even grid",
            remedy="export one reconstruction with even spacing, or resample it",
        )
    return mean


def _tilt_note(offsets: NDArray[np.float64], spacing: tuple[float, float, float], folder: Path) -> str:
    """Angle of the shear in words; refused when it is not a straight tilt."""
    count = np.arange(len(offsets), dtype=np.float64)
    design = np.stack([count, np.ones_like(count)], axis=1)
    fit, *_ = np.linalg.lstsq(design, offsets, rcond=None)
    if np.abs(offsets - design @ fit).max() > 1.0:
        raise GeometryError(
            "the slices lie sideways of each other, and not along a line as a gantry tilt would put them",
            where=folder,
            remedy="export one reconstruction with one centre",
        )
    sideways_mm = fit[0] * np.array([spacing[1], spacing[0]])
    angle = math.degrees(math.atan2(float(np.linalg.norm(sideways_mm)), spacing[2]))
    if angle > MAX_TILT_DEGREES:
        raise GeometryError(
            "the slices are sheared more than a gantry tilts", where=folder, got=f"{angle:.1f} degrees"
        )
    return f"gantry tilt of {angle:.1f} degrees corrected: slices shifted in plane, the rest padded with air"
