"""Pictures of an audit: what was observed beside what was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from simulator.audit import Audit
from simulator.audit_checks import Counts
from simulator.audit_patches import SLICES, Patches
from simulator.audit_record import ObservedRow, VolumeRow
from simulator.dynamics.bins import BIN_WIDTH, bin_centres
from simulator.figure_style import FITTED_COLOUR, OBSERVED_COLOUR, WINDOW_SIGNAL, new_figure, save_figure
from simulator.progression import CONSOLIDATION_HU
from standard_space.window import Window

FLAG_COLOUR = "#CC79A7"
SMOOTHED_BINS = 3
PATCHES_SHOWN = 10
VOLUME_BINS = 12
BANDS = (("p05", "p95", 0.15), ("p25", "p75", 0.35))


def draw_audit(audit: Audit, folder: str | Path) -> list[Path]:
    """Write the figures of an audit into a folder; returns their paths."""
    folder = Path(folder)
    figures = {"signals": signals_figure(audit), "volumes": volumes_figure(audit)}
    if audit.patches:
        figures["patches"] = patches_figure(audit.patches)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        save_figure(figure, paths[-1])
    return paths


def signals_figure(audit: Audit) -> Figure:
    """Signal distributions, observed against synthetic, and percentiles of every scan and volume."""
    figure, axes = new_figure(14, 5, 1, 2, width_ratios=[1.2, 1])
    _densities(axes[0, 0], audit)
    _percentiles(axes[0, 1], audit)
    return figure


def volumes_figure(audit: Audit) -> Figure:
    """Infected volume of every volume over its source's, and beside the observed ones."""
    figure, axes = new_figure(12, 5, 1, 2)
    _growth(axes[0, 0], audit)
    _volumes(axes[0, 1], audit)
    return figure


def patches_figure(patches: Sequence[Patches]) -> Figure:
    """Real patches above, synthetic ones below, a column a volume: what the classifier is given, to try by eye."""
    every = max(1, len(patches) // PATCHES_SHOWN)
    shown = list(patches)[::every][:PATCHES_SHOWN]
    figure, axes = new_figure(1.5 * len(shown) + 1.0, 3.6, 2, len(shown))
    low, high = WINDOW_SIGNAL
    for row, kind in enumerate(("real", "synthetic")):
        for column, item in enumerate(shown):
            picture = getattr(item, kind)[0, SLICES // 2].astype(np.float32)
            place = axes[row, column]
            place.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            place.set_xticks([])
            place.set_yticks([])
        axes[row, 0].set_ylabel(kind)
    for column, item in enumerate(shown):
        axes[0, column].set_title(item.volume, fontsize=6)
    return figure


def _densities(axes: Axes, audit: Audit) -> None:
    centres = bin_centres()
    for rows, colour, label in (
        (audit.observed, OBSERVED_COLOUR, "observed"),
        (audit.volumes, FITTED_COLOUR, "synthetic"),
    ):
        found = densities([row.counts for row in rows])
        if not len(found):
            continue
        low, high = np.percentile(found, (5, 95), axis=0)
        axes.fill_between(centres, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(centres, found.mean(0), color=colour, label=f"{label}, {len(found)} scans")
    axes.axvline(0.0, color="black", linestyle=":", linewidth=1, label="0, the model's threshold")
    for number, cut in enumerate(clinical_cuts(audit.observed)):
        label = f"clinical cut, {CONSOLIDATION_HU:g} HU, at every window"
        axes.axvline(cut, color="#777777", linestyle="--", linewidth=1, label="" if number else label)
    axes.set_xlabel("signal, (HU - WL) / WW")
    axes.set_ylabel(f"density, mean of {SMOOTHED_BINS} bins")
    axes.set_ylim(bottom=0)
    axes.set_title("signal of infected voxels: mean, and 5 to 95 % of scans", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def densities(histograms: Sequence[Counts]) -> NDArray[np.float64]:
    """Normalised and smoothed histograms of scans with any infection, shape (scans, 130), per unit of signal."""
    window = np.ones(SMOOTHED_BINS)
    weight = np.convolve(np.ones(bin_centres().size), window, mode="same")
    rows = [
        np.convolve(counts, window, mode="same") / weight / (counts.sum() * BIN_WIDTH)
        for counts in histograms
        if counts.any()
    ]
    return np.array(rows).reshape(len(rows), bin_centres().size)


def clinical_cuts(observed: Sequence[ObservedRow]) -> list[float]:
    """Signal of the clinical cut between GGO and consolidation at every window there is."""
    return sorted({Window(*row.window).signal_of(CONSOLIDATION_HU) for row in observed})


def _percentiles(axes: Axes, audit: Audit) -> None:
    groups = (
        ("observed", OBSERVED_COLOUR, sorted_statistics([row.statistics for row in audit.observed])),
        ("synthetic", FITTED_COLOUR, sorted_statistics([row.signal for row in audit.volumes])),
    )
    start = 0
    ticks, names = [], []
    for label, colour, found in groups:
        if not found:
            continue
        place = start + np.arange(len(found))
        columns = {name: np.array([item[name] for item in found]) for name in found[0]}
        for low, high, alpha in BANDS:
            axes.bar(place, columns[high] - columns[low], 1.0, columns[low], color=colour, alpha=alpha)
        axes.plot(place, columns["p50"], ".", color=colour, markersize=4)
        ticks.append(float(place.mean()))
        names.append(f"{label}, {len(found)} scans")
        start += len(found) + max(1, len(found) // 20)
    axes.axhline(0.0, color="black", linestyle=":", linewidth=1)
    axes.set_xticks(ticks, names)
    axes.set_ylabel("signal")
    axes.set_title("every scan by its median: 5 to 95 %, 25 to 75 %, median", fontsize=10)


def sorted_statistics(rows: Sequence[dict[str, float] | None]) -> list[dict[str, float]]:
    """The statistics of scans with any infection, in the order of their medians."""
    return sorted((row for row in rows if row is not None), key=lambda row: row["p50"])


def _growth(axes: Axes, audit: Audit) -> None:
    sound = [row for row in audit.volumes if not row.flags]
    for rows, colour, marker, label in (
        (sound, FITTED_COLOUR, "o", "synthetic volume"),
        (audit.flagged, FLAG_COLOUR, "x", "flagged"),
    ):
        if rows:
            points = positive(rows)
            axes.plot(points[:, 0], points[:, 1], marker, color=colour, markersize=5, alpha=0.7, label=label)
    shown = positive(audit.volumes)
    if len(shown):
        ends = np.array([shown.min(), shown.max()])
        axes.plot(ends, ends, color="black", linewidth=1, label="no change")
        _log_ml(axes, "x")
        _log_ml(axes, "y")
    axes.set_xlabel("infected volume of the source, ml")
    axes.set_ylabel("infected volume, ml")
    axes.set_title(f"{len(audit.flagged)} of {len(audit.volumes)} volumes flagged", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _log_ml(axes: Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic axis in plain numbers."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def positive(rows: Sequence[VolumeRow]) -> NDArray[np.float64]:
    """Source's and own infected volume, ml, shape (n, 2), of volumes that show on logarithmic axes."""
    points = np.array([(row.source_ml, row.infected_ml) for row in rows]).reshape(len(rows), 2)
    return points[(points > 0).all(1)]


def _volumes(axes: Axes, audit: Audit) -> None:
    both = [
        np.array([row.infected_ml for row in rows if row.infected_ml > 0])
        for rows in (audit.observed, audit.volumes)
    ]
    every = np.concatenate(both)
    if every.size:
        edges = np.geomspace(every.min() / 1.01, every.max() * 1.01, VOLUME_BINS + 1)
        for values, colour, label in zip(
            both, (OBSERVED_COLOUR, FITTED_COLOUR), ("observed", "synthetic"), strict=True
        ):
            if values.size:
                weights = np.full(values.size, 1.0 / values.size)
                axes.hist(
                    values, edges.tolist(), weights=weights, color=colour, alpha=0.5,
                    label=f"{label}, {values.size} scans",
                )  # fmt: skip
        _log_ml(axes, "x")
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("infected volume, ml")
    axes.set_ylabel("share of scans")
    axes.set_title("infected volumes", fontsize=10)
