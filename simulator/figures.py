"""Pictures of scans, fits and progressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulator.dynamics.bins import bin_centres
from simulator.figure_style import (
    BEFORE_COLOUR,
    FITTED_COLOUR,
    INFECTION_COLOUR,
    LUNG_COLOUR,
    OBSERVED_COLOUR,
    TRUTH_COLOUR,
    WINDOW_SIGNAL,
    new_figure,
)
from simulator.fits import StoredFit
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
    signal: NDArray[np.float32] | None = None,
    contours: Sequence[tuple[NDArray[np.bool_], str]] = (),
    filled: tuple[NDArray[np.bool_], str] | None = None,
) -> None:
    """Draw one slice in the scan's window, with masks as contours or as a tint."""
    picture = plane(scan.signal if signal is None else signal, name, index)
    aspect = plane_aspect(scan, name)
    low, high = WINDOW_SIGNAL
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="bilinear")
    if filled is not None:
        mask = plane(filled[0], name, index)
        tint = np.zeros((*mask.shape, 4))
        tint[mask] = [int(filled[1][k : k + 2], 16) / 255 for k in (1, 3, 5)] + [0.45]
        axes.imshow(tint, aspect=aspect, interpolation="nearest")
    for mask, colour in contours:
        outline = plane(mask, name, index)
        if outline.any():
            axes.contour(outline, levels=[0.5], colors=[colour], linewidths=0.9)
    lungs = np.argwhere(plane(scan.lungs, name, index))
    if lungs.size:
        margin = max(2, picture.shape[0] // 16)
        (top, left), (bottom, right) = lungs.min(0) - margin, lungs.max(0) + margin
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


def fit_figure(stored: StoredFit) -> Figure:
    """Signal distribution before, observed and fitted, its residual, and the eight values with their errors."""
    figure, axes = new_figure(12, 4.6, 1, 2, width_ratios=[1.4, 1])
    curve, table = axes[0]
    centres = bin_centres()
    fit = stored.fit
    before_label = "before (Y$_{t0}$)" if stored.from_scan == "t0" else f"before ({stored.from_scan})"
    shown = [fit.observed, fit.fitted]
    if stored.from_scan != "t0":
        shown.append(fit.before)
        curve.fill_between(
            centres, fit.before, color=BEFORE_COLOUR, alpha=0.4, step="mid", label=before_label
        )
    else:
        curve.axvline(centres[0], color=BEFORE_COLOUR, linewidth=4, alpha=0.6, label=before_label)
    curve.step(
        centres, fit.observed, where="mid", color=OBSERVED_COLOUR, label=f"observed ({stored.to_scan})"
    )
    curve.plot(centres, fit.fitted, color=FITTED_COLOUR, linewidth=2, label="fitted")
    curve.plot(centres, fit.observed - fit.fitted, color="#444444", linewidth=0.6, label="residual")
    curve.axvline(0.0, color="black", linestyle=":", linewidth=1)
    curve.set_ylim(top=1.08 * max(float(np.max(values)) for values in shown))
    curve.set_xlabel("signal, (HU - WL) / WW")
    curve.set_ylabel(f"voxels per bin of {centres[1] - centres[0]:.3f}")
    curve.set_title(f"{stored.name}, {stored.transitions / 100:g} days")
    curve.legend(frameon=False)
    lines = [f"{'parameter':<26}{'value':>9}{'s.e.':>9}  {fit.level:.0%} ({fit.interval_method})"]
    for name, value, error, interval in fit.table():
        flag = " *" if name in fit.undetermined or name in fit.at_bound else ""
        lines.append(f"{name:<26}{value if value > 1e-9 else 0.0:>9.4g}{error:>9}  {interval}{flag}")
    for name, label in (
        ("births_per_day", "births, voxels per day"),
        ("ggo_equilibrium", "equilibrium below 0"),
        ("consolidation_equilibrium", "equilibrium above 0"),
    ):
        value, spread, low, high = (fit.derived[f"{name}{end}"] for end in ("", "_se", "_low", "_high"))
        lines.append(f"{label:<26}{value:>9.4g}{spread:>9.2g}  {low:.3g} .. {high:.3g}")
    lines.append(f"{'G_ref, voxels below 0':<26}{fit.parameters.reference_ggo_voxels:>9.0f}")
    lines.append(f"{'reduced chi-square':<26}{fit.goodness['reduced_chi_square']:>9.3g}")
    lines.append(f"{'overlap':<26}{fit.goodness['overlap']:>9.3g}")
    if fit.undetermined or fit.at_bound:
        lines.append("* at a bound or not determined by the data")
    if fit.open_ends:
        lines.append("< > runs to the limit of the model: not closed by the data")
    table.axis("off")
    table.text(0, 0.95, "\n".join(lines), family="monospace", fontsize=8, va="top", transform=table.transAxes)
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


def sources_and_synthetic_figure(examples: Sequence[tuple[Scan, Scan]]) -> Figure:
    """Synthetic scans beside their sources: both plain, then the synthetic one with its infection."""
    figure, axes = new_figure(9.6, 3.2 * len(examples), len(examples), 3)
    for row, (source, synthetic) in enumerate(examples):
        index = best_slices(synthetic)["axial"]
        show_slice(axes[row, 0], source, "axial", index)
        show_slice(axes[row, 1], synthetic, "axial", index)
        infection = None if synthetic.infection is None else (synthetic.infection, INFECTION_COLOUR)
        show_slice(axes[row, 2], synthetic, "axial", index, filled=infection)
        axes[row, 0].set_title(f"{source.name}, day {source.day:g}", fontsize=9)
        axes[row, 1].set_title(f"synthetic, day {synthetic.day:.2f}", fontsize=9)
        axes[row, 2].set_title("its annotation", fontsize=9)
    return figure
