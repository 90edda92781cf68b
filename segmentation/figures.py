"""Pictures of segmentations beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulator.figures import (
    FITTED_COLOUR,
    INFECTION_COLOUR,
    OBSERVED_COLOUR,
    TRUTH_COLOUR,
    best_slices,
    new_figure,
    show_slice,
)
from standard_space.scan import Scan


def segmentation_figure(scan: Scan, mask: NDArray[np.bool_], dice: float | None) -> Figure:
    """Three planes of a scan: plain above; below, the found infection as a tint and the truth as a contour."""
    figure, axes = new_figure(10, 6.8, 2, 3)
    shown = mask if scan.infection is None or not scan.infection.any() else scan.infection
    for column, (name, index) in enumerate(best_slices(scan, shown).items()):
        show_slice(axes[0, column], scan, name, index)
        axes[0, column].set_title(name)
        truth = [] if scan.infection is None else [(scan.infection, TRUTH_COLOUR)]
        show_slice(axes[1, column], scan, name, index, contours=truth, filled=(mask, INFECTION_COLOUR))
    score = "" if dice is None else f", Dice {dice:.2f}"
    figure.suptitle(f"{scan.name}: found (orange) and truth (green outline){score}")
    return figure


def training_figure(history: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Mean loss of the three views over the optimiser's steps."""
    figure, axes = new_figure(6.4, 3.6)
    curve = axes[0, 0]
    for (view, points), colour in zip(
        history.items(), (OBSERVED_COLOUR, FITTED_COLOUR, TRUTH_COLOUR), strict=True
    ):
        curve.plot([p["step"] for p in points], [p["loss"] for p in points], color=colour, label=view)
    curve.set_xlabel("optimiser step")
    curve.set_ylabel("loss (cross-entropy + 1 - Dice)")
    curve.legend(title="view", frameon=False)
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
