"""Pictures of scores: every metric, agreement of volumes, and the worst cases. One group of scans in each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from segmentation.evaluation.metrics import FAILURE_DICE
from segmentation.evaluation.scan_scores import GROUPS, METRICS
from segmentation.evaluation.tables import TITLES
from simulator.figure_style import (
    FITTED_COLOUR,
    INFECTION_COLOUR,
    OBSERVED_COLOUR,
    TRUTH_COLOUR,
    new_figure,
    save_figure,
)
from simulator.figures import best_slices, show_slice
from standard_space.masks import bounding_box
from standard_space.progress import Progress, silent
from standard_space.scan import Scan

LIMITS_SD = 1.96
"""Limits of agreement lie this many standard deviations about the mean difference [Bland and Altman 1986]."""

FEWEST_FOR_LIMITS = 3
WORST_SHOWN = 3
STAGE_COLOURS = ("#0072B2", "#E69F00", "#CC79A7", "#56B4E9", "#999999")

_FIGURE = re.compile(r"[a-z_]+_(metrics|agreement|worst_\d+)\.png")
_LABELS = {
    "dice": "Dice",
    "iou": "IoU",
    "dice_2voxel": "Dice, 2 voxels' tolerance",
    "nsd": "surface Dice",
}

Row = Mapping[str, Any]
FoundOnStandard = Callable[[Row], tuple[Scan, NDArray[np.bool_]]]
"""Gives the scan of a row and its found mask on the standard grid."""


def draw_scores(
    scores: Mapping[str, Any],
    folder: str | Path,
    found: FoundOnStandard,
    *,
    subject: str,
    progress: Progress = silent,
) -> list[Path]:
    """Write the figures of the groups that have scans; returns their paths.

    ``<group>_metrics.png``, ``<group>_agreement.png`` and ``<group>_worst_1.png`` ... Figures of another group or
    case that an earlier run left in the folder are removed.

    Parameters
    ----------
    scores : dict
        Of `evaluate`.
    folder : str or Path
    found : callable
        See `FoundOnStandard`; called for the worst cases only, one at a time.
    subject : str
        What was scored, for titles.
    progress : Progress
        Told of every worst case, which has to be found again.

    Raises
    ------
    LungcastError
        A worst case cannot be read again.
    """
    folder = Path(folder)
    for group in GROUPS:
        for old in folder.glob(f"{group}_*.png"):
            if _FIGURE.fullmatch(old.name):
                old.unlink()
    paths = []
    by_group = {group: [row for row in scores["scans"] if row["group"] == group] for group in GROUPS}
    total, done = sum(min(len(rows), WORST_SHOWN) for rows in by_group.values()), 0
    for group, rows in by_group.items():
        if not rows:
            continue
        title = f"{TITLES[group]}: {len(rows)} scans of {len({row['patient'] for row in rows})} patients"
        figures = {
            "metrics": metrics_figure(rows, f"{title}\n{subject}, {scores['space']} grid", scores),
            "agreement": agreement_figure(rows, f"{title}\n{subject}, {scores['space']} grid"),
        }
        for name, figure in figures.items():
            paths.append(folder / f"{group}_{name}.png")
            save_figure(figure, paths[-1])
        for place, row in enumerate(worst(rows), 1):
            progress(f"{row['patient']}/{row['scan']}", done, total)
            done += 1
            scan, mask = found(row)
            truth = scan.infection if scores.get("target", "infection") == "infection" else scan.lungs
            heading = f"{TITLES[group]}: worst case {place} of {len(rows)}"
            paths.append(folder / f"{group}_worst_{place}.png")
            save_figure(
                case_figure(scan, mask, truth, row, f"{heading}\n{subject}", scores["space"]), paths[-1]
            )
    progress("done", total, total)
    return paths


def worst(rows: Sequence[Row], count: int = WORST_SHOWN) -> list[Row]:
    """The rows of the smallest Dice, worst first."""
    return sorted(rows, key=lambda row: (row["dice"], row["patient"], row["scan"]))[:count]


def metrics_figure(rows: Sequence[Row], title: str, scores: Mapping[str, Any]) -> Figure:
    """Boxes (quartiles; whiskers to the extremes) with a point for every scan, each metric, all and by stage."""
    stages = sorted({row["stage"] for row in rows if row["stage"] is not None})
    groups = [("all", list(rows)), *((stage, [r for r in rows if r["stage"] == stage]) for stage in stages)]
    if len(stages) < 2:
        groups = groups[:1]
    figure, axes = new_figure(13, 6.8, 2, 4)
    for place, metric in zip(axes.flat, METRICS, strict=False):
        _boxes(place, groups, metric, stages)
        label = _LABELS.get(metric, metric)
        if metric == "nsd":
            label += f", {scores['nsd_tolerance_mm']:g} mm"
        place.set_title(label, fontsize=10)
    _legend(axes.flat[len(METRICS)], stages)
    figure.suptitle(title, fontsize=11)
    return figure


def agreement_figure(rows: Sequence[Row], title: str) -> Figure:
    """Bland-Altman: difference of found and true over their mean, for volume and infected share of the lungs."""
    panels = [("ml", "volume, ml", 1.0), ("share", "infected share of the lungs, %", 100.0)]
    panels = [panel for panel in panels if any(row[f"true_{panel[0]}"] is not None for row in rows)]
    figure, axes = new_figure(6.4 * len(panels), 4.8, 1, len(panels))
    for place, (unit, label, scale) in zip(axes[0], panels, strict=True):
        pairs = [(row[f"predicted_{unit}"], row[f"true_{unit}"]) for row in rows]
        numbers = np.array([pair for pair in pairs if None not in pair], np.float64) * scale
        _bland_altman(place, numbers[:, 0], numbers[:, 1])
        place.set_xlabel(f"mean of found and true {label}")
        place.set_ylabel(f"found minus true {label}")
    figure.suptitle(title, fontsize=11)
    return figure


def case_figure(
    scan: Scan,
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None,
    row: Row,
    heading: str,
    space: str,
) -> Figure:
    """Three planes through the truth where the found mask differs most: plain above, both masks below."""
    figure, axes = new_figure(10, 7.2, 2, 3)
    for column, (name, index) in enumerate(best_slices(scan, _worth_seeing(mask, truth)).items()):
        show_slice(axes[0, column], scan, name, index)
        axes[0, column].set_title(name)
        outline = [] if truth is None else [(truth, TRUTH_COLOUR)]
        show_slice(axes[1, column], scan, name, index, contours=outline, filled=(mask, INFECTION_COLOUR))
    figure.suptitle(
        f"{heading}\n{scan.name}: found (orange), truth (green outline); "
        f"{space} grid: Dice {row['dice']:.3f}, true {row['true_ml']:.1f} ml, found {row['predicted_ml']:.1f} ml",
        fontsize=9,
    )
    return figure


def scores_figure(scores: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Dice of every held-out scan for several methods, as points over their median.

    `scores` maps a method's name to the result of `evaluate` or `score_cohort`.
    """
    figure, axes = new_figure(5.2, 3.8)
    plot = axes[0, 0]
    for place, (_method, result) in enumerate(scores.items()):
        dice = [row["dice"] for row in result["scans"] if row["group"] == "held_out"]
        shift = np.linspace(-0.12, 0.12, len(dice)) if len(dice) > 1 else np.zeros(len(dice))
        plot.plot(place + shift, dice, "o", color=OBSERVED_COLOUR, alpha=0.7)
        if dice:
            plot.hlines(np.median(dice), place - 0.25, place + 0.25, color=FITTED_COLOUR, linewidth=2.5)
    plot.set_xticks(range(len(scores)), list(scores))
    plot.set_xlim(-0.5, len(scores) - 0.5)
    plot.set_ylim(0, 1)
    plot.set_ylabel("Dice on the native grid")
    plot.set_title("unseen patients; bar: median", fontsize=9)
    return figure


def _worth_seeing(mask: NDArray[np.bool_], truth: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Where to cut: mistakes within the box of the truth, so that it shows too; without truth, the mask."""
    box = None if truth is None else bounding_box(truth)
    if truth is None or box is None:
        return mask
    wrong = np.zeros_like(truth)
    wrong[box] = mask[box] ^ truth[box]
    return wrong if wrong.any() else truth


def _boxes(axes: Axes, groups: Sequence[tuple[str, list[Row]]], metric: str, stages: Sequence[str]) -> None:
    for place, (_, rows) in enumerate(groups):
        values = [row[metric] for row in rows if row[metric] is not None]
        if not values:
            axes.text(place, 0.5, "not\ndefined", ha="center", va="center", fontsize=8, color="#777777")
            continue
        if len(values) > 2:
            axes.boxplot(
                [values],
                positions=[place],
                widths=0.6,
                whis=(0, 100),
                manage_ticks=False,
                medianprops={"color": FITTED_COLOUR, "linewidth": 2},
                boxprops={"color": "#777777"},
                whiskerprops={"color": "#777777"},
                capprops={"color": "#777777"},
            )
        shift = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
        colours = [_stage_colour(row["stage"], stages) for row in rows if row[metric] is not None]
        axes.scatter(place + shift, values, s=16, c=colours, alpha=0.8, zorder=3, linewidths=0)
    if metric == "dice":
        axes.axhline(FAILURE_DICE, color="#444444", linestyle=":", linewidth=1)
    counts = [sum(row[metric] is not None for row in rows) for _, rows in groups]
    labels = [f"{name}\n({count})" for (name, _), count in zip(groups, counts, strict=True)]
    axes.set_xticks(range(len(groups)), labels, fontsize=8)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_ylim(-0.03, 1.03)


def _stage_colour(stage: str | None, stages: Sequence[str]) -> str:
    return OBSERVED_COLOUR if stage is None else STAGE_COLOURS[stages.index(stage) % len(STAGE_COLOURS)]


def _legend(axes: Axes, stages: Sequence[str]) -> None:
    axes.axis("off")
    for stage in stages:
        axes.plot([], [], "o", color=_stage_colour(stage, stages), label=f"stage {stage}")
    axes.plot([], [], color=FITTED_COLOUR, linewidth=2, label="median")
    axes.plot([], [], color="#777777", label="box: quartiles; whiskers: extremes\n(from three scans on)")
    axes.plot([], [], ":", color="#444444", label=f"Dice {FAILURE_DICE:g}: below it, a failure")
    axes.legend(loc="center", frameon=False, fontsize=9)


def _bland_altman(axes: Axes, found: NDArray[np.float64], true: NDArray[np.float64]) -> None:
    difference = found - true
    axes.scatter((found + true) / 2.0, difference, s=22, color=OBSERVED_COLOUR, alpha=0.8, linewidths=0)
    axes.axhline(0.0, color="black", linestyle=":", linewidth=1)
    mean = float(difference.mean())
    axes.axhline(mean, color=FITTED_COLOUR, linewidth=2, label=f"mean {mean:+.4g}")
    if difference.size >= FEWEST_FOR_LIMITS:
        spread = LIMITS_SD * float(difference.std(ddof=1))
        for limit in (mean - spread, mean + spread):
            axes.axhline(limit, color=FITTED_COLOUR, linestyle="--", linewidth=1)
        axes.plot(
            [],
            [],
            "--",
            color=FITTED_COLOUR,
            label=f"limits of agreement {mean - spread:+.4g} to {mean + spread:+.4g}\n(mean and {LIMITS_SD:g} sd)",
        )
    else:
        axes.plot([], [], " ", label=f"no limits from fewer than {FEWEST_FOR_LIMITS} scans")
    axes.set_xlim(left=0)
    axes.margins(y=0.3)
    axes.legend(frameon=False, fontsize=8, loc="best")
