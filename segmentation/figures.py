"""Pictures of segmentations beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulator.figure_style import FITTED_COLOUR, INFECTION_COLOUR, OBSERVED_COLOUR, TRUTH_COLOUR, new_figure
from simulator.figures import best_slices, show_slice
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


def training_figure(history: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss and Dice of the networks over the optimiser's steps, validation as points; see `model.training`."""
    figure, axes = new_figure(9.6, 3.6, 1, 2)
    curve, dice = axes[0]
    validated = False
    for (view, rows), colour in zip(
        history.items(), (OBSERVED_COLOUR, FITTED_COLOUR, TRUTH_COLOUR), strict=False
    ):
        learned = [row for row in rows if row["kind"] == "training"]
        steps = [row["step"] for row in learned]
        curve.plot(steps, [row["loss"] for row in learned], color=colour, label=view)
        dice.plot(steps, [row["soft_dice"] for row in learned], color=colour, label=view)
        checked = [row for row in rows if row["kind"] == "validation"]
        validated = validated or bool(checked)
        dice.plot(
            [row["step"] for row in checked],
            [row["dice"] for row in checked],
            "o--",
            color=colour,
            markersize=3,
            linewidth=0.8,
        )
    curve.set_ylabel("loss")
    dice.set_ylabel("Dice of slices")
    dice.set_ylim(0, 1)
    dice.set_title(
        "line: soft Dice in training; points: Dice in validation" if validated else "soft Dice in training",
        fontsize=9,
    )
    for panel in (curve, dice):
        panel.set_xlabel("optimiser step")
    curve.legend(title="network", frameon=False)
    return figure
