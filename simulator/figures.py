"""Pictures of scans, fits and progressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulator.figure_style import (
    FITTED_COLOUR,
    INFECTION_COLOUR,
    LUNG_COLOUR,
    OBSERVED_COLOUR,
    TRUTH_COLOUR,
    WINDOW_SIGNAL,
    new_figure,
)
from standard_space.scan import Scan


def plane(volume: NDArray[Any], name: str, index: int) -> NDArray[Any]:
    """One slice as a radiologist looks at it: patient's right on the left, front or head on top."""
    if name == "axial":
        return volume[index]
    if name == "coronal":
        return volume[::-1, index]
    return volume[::-1, :, index]


def plane_aspect(scan: Scan, name: str) -> float:
    """Height of a pixel over its width."""
    z, y, x = scan.grid.spacing_mm
    return {"axial": y / x, "coronal": z / x, "sagittal": z / y}[name]


def best_slices(scan: Scan, infection: NDArray[np.bool_] | None = None) -> dict[str, int]:
    """The slice of each plane that shows most infection (most lung where there is none)."""
    mask = scan.infection if infection is None else infection
    if mask is None or not mask.any():
        mask = scan.lungs
    totals = {"axial": mask.sum((1, 2)), "coronal": mask.sum((0, 2)), "sagittal": mask.sum((0, 1))}
    return {name: int(np.argmax(total)) for name, total in totals.items()}


def show_slice(
    axes: Axes,
    scan: Scan,
    name: str,
    index: int,
    *,
    contours: Sequence[tuple[NDArray[np.bool_], str]] = (),
    filled: tuple[NDArray[np.bool_], str] | None = None,
) -> None:
    """Draw one slice in the scan's window, with masks as contours or as a tint."""
    show_plane(
        axes,
        plane(scan.signal, name, index),
        plane(scan.lungs, name, index),
        plane_aspect(scan, name),
        contours=[(plane(mask, name, index), colour) for mask, colour in contours],
        filled=None if filled is None else (plane(filled[0], name, index), filled[1]),
    )


def show_plane(
    axes: Axes,
    picture: NDArray[np.float32],
    lungs: NDArray[np.bool_],
    aspect: float,
    *,
    contours: Sequence[tuple[NDArray[np.bool_], str]] = (),
    filled: tuple[NDArray[np.bool_], str] | None = None,
) -> None:
    """Draw a slice, cut to the lungs.

    Parameters
    ----------
    axes : Axes
    picture : float32 array, shape (rows, columns)
        Signal.
    lungs : bool array, shape of `picture`
        What is shown, with a margin; everything where there are none.
    aspect : float
        Height of a pixel over its width.
    contours : sequence of (bool array, colour)
    filled : (bool array, colour), optional
        A tint.
    """
    low, high = WINDOW_SIGNAL
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="bilinear")
    if filled is not None:
        mask, colour = filled
        tint = np.zeros((*mask.shape, 4))
        tint[mask] = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)] + [0.45]
        axes.imshow(tint, aspect=aspect, interpolation="nearest")
    for outline, colour in contours:
        if outline.any():
            axes.contour(outline, levels=[0.5], colors=[colour], linewidths=0.9)
    inside = np.argwhere(lungs)
    if inside.size:
        margin = max(2, picture.shape[0] // 16)
        (top, left), (bottom, right) = inside.min(0) - margin, inside.max(0) + margin
        axes.set_xlim(max(left, 0) - 0.5, min(right, picture.shape[1] - 1) + 0.5)
        axes.set_ylim(min(bottom, picture.shape[0] - 1) + 0.5, max(top, 0) - 0.5)
    axes.set_xticks([])
    axes.set_yticks([])


def scan_figure(scan: Scan) -> Figure:
    """Three planes of a scan, plain above and with lungs and infection below."""
    figure, axes = new_figure(10, 6.6, 2, 3)
    slices = best_slices(scan)
    for column, (name, index) in enumerate(slices.items()):
        show_slice(axes[0, column], scan, name, index)
        axes[0, column].set_title(name)
        infection = None if scan.infection is None else (scan.infection, INFECTION_COLOUR)
        show_slice(axes[1, column], scan, name, index, contours=[(scan.lungs, LUNG_COLOUR)], filled=infection)
    figure.suptitle(
        f"{scan.name}, day {scan.day:g}: window {scan.window.level_hu:g}/{scan.window.width_hu:g} HU"
    )
    return figure


def volumes_figure(rows: Sequence[dict[str, float]], observed: Sequence[tuple[float, float]] = ()) -> Figure:
    """Volumes of a progression over days, with observed (day, infected ml) points."""
    figure, axes = new_figure(6.4, 4.0)
    curve = axes[0, 0]
    days = [row["day"] for row in rows]
    for key, label, colour in (
        ("infected_ml", "infected", "black"),
        ("ggo_ml", "GGO", OBSERVED_COLOUR),
        ("consolidation_ml", "consolidation", FITTED_COLOUR),
    ):
        curve.plot(days, [row[key] for row in rows], marker=".", color=colour, label=label)
    if observed:
        curve.plot(*zip(*observed, strict=True), "s", color=TRUTH_COLOUR, label="observed infected")
    curve.set_xlabel("day")
    curve.set_ylabel("volume, ml")
    curve.set_ylim(bottom=0)
    curve.set_title(f"GGO and consolidation cut at {rows[0]['consolidation_cut_hu']:g} HU", fontsize=9)
    curve.legend(frameon=False)
    return figure
