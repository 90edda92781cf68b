"""Figures of a study: Dice against ratio, methods, paired differences as forests, and Dice per scanner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segmentation.evaluation.metrics import FAILURE_DICE
from segmentation.study.contrast_table import DICE, infected, scans_of
from segmentation.study.methods_table import Arm, arms
from segmentation.study.paper_tables import swept
from segmentation.study.records import OWN, Row
from segmentation.study.statistics import Estimate, estimate
from segmentation.study.study_results import NOTHING, Level, StudyResults, cohort_name
from segmentation.study.table import Contrast, Table
from simulator.figure_style import (
    FITTED_COLOUR,
    INFECTION_COLOUR,
    LUNG_COLOUR,
    OBSERVED_COLOUR,
    TRUTH_COLOUR,
    new_figure,
)

COHORT_COLOURS = (OBSERVED_COLOUR, INFECTION_COLOUR, TRUTH_COLOUR, "#CC79A7", "#E69F00", LUNG_COLOUR)
"""Of Okabe and Ito, told apart by colour-blind readers too; markers differ as well."""

MARKERS = ("o", "s", "^", "D", "v", "P")
FORESTS = {
    "table_5_ratios": "ratios",
    "table_6_augmentation": "augmentation",
    "table_7_components": "components",
    "table_generators": "generators",
    "table_s1_choices": "choices",
}
"""Tables whose differences are drawn, and the names of their figures."""

_INTERVAL = "line: 95 % interval, patients drawn"


def study_figures(study: StudyResults, tables: Sequence[Table]) -> dict[str, tuple[Figure, str]]:
    """Draw every figure that has something to show.

    Parameters
    ----------
    study : StudyResults
    tables : sequence of Table
        Of `all_tables`.

    Returns
    -------
    dict
        Figure and caption by name.
    """
    found: dict[str, tuple[Figure, str]] = {}
    shown = [arm for arm in arms(study) if infected(arm.rows)]
    if shown:
        found["methods"] = (
            methods_figure(study, shown),
            "Mean Dice of every method, 95 % intervals by patient.",
        )
    for generator in dict.fromkeys(generator for _, generator, _ in swept(study)):
        figure = ratios_figure(study, generator)
        if figure is not None:
            caption = (
                f"Mean Dice against the ratio of synthetic scans ({generator}), 95 % intervals by patient."
            )
            found[f"dice_by_ratio_{generator}"] = figure, caption
    several = any(len(ratios) > 1 for _, _, ratios in swept(study))
    for table in tables:
        if table.name == "table_5_ratios" and not several:  # then table VI has the same differences
            continue
        if table.name in FORESTS and table.contrasts:
            caption = f"{table.title}: paired differences of Dice, 95 % intervals by patient; filled: shown."
            found[FORESTS[table.name]] = forest_figure(table), caption
    scanners = scanners_figure(study, shown)
    if scanners is not None:
        found["scanners"] = (
            scanners,
            "Dice of every scan by scanner; bar: mean with its 95 % interval by patient.",
        )
    return found


def methods_figure(study: StudyResults, shown: Sequence[Arm]) -> Figure:
    """Mean Dice of every method with its interval, without and with the main augmentation; a panel per cohort."""
    cohorts = list(dict.fromkeys(arm.cohort for arm in shown))
    methods = list(dict.fromkeys(arm.configuration.method for arm in shown))
    figure, axes = new_figure(
        2.4 + 3.2 * len(cohorts), 1.6 + 0.42 * len(methods), 1, len(cohorts), sharex=True, sharey=True
    )
    styles = {level.label: style for level, style in zip(study.levels, _LEVEL_STYLES, strict=False)}
    shifts = {label: 0.14 * (2 * place - len(styles) + 1) for place, label in enumerate(styles)}
    for panel, cohort in zip(axes[0], cohorts, strict=True):
        for arm in (arm for arm in shown if arm.cohort == cohort):
            level = arm.configuration.level
            place = methods.index(arm.configuration.method) + shifts[level]
            _across(panel, place, estimate(arm.rows, DICE), **styles[level])
        rows = [row for arm in shown if arm.cohort == cohort for row in infected(arm.rows)]
        panel.set_title(_cohort_title(cohort, rows), fontsize=10)
        panel.set_xlabel("Dice, mean")
        panel.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        panel.set_axisbelow(True)
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(5))
    axes[0, 0].set_yticks(range(len(methods)), methods)
    axes[0, 0].set_ylim(len(methods) - 0.4, -0.6)
    handles = [axes[0, 0].plot([], [], label=label, **style)[0] for label, style in styles.items()]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        title=_INTERVAL,
    )
    return figure


def ratios_figure(study: StudyResults, generator: str) -> Figure | None:
    """Mean Dice against the ratio with bands; a panel per method, a line per cohort; None without a curve."""
    curves: dict[str, dict[str, list[tuple[float, Estimate]]]] = {}
    for method, name, ratios in swept(study):
        if name != generator:
            continue
        levels = [NOTHING, *(Level(generator, ratio) for ratio in ratios)]
        for cohort in study.cohorts:
            points = [
                (level.ratio, estimate(study.rows_of(study.whole(method, level), cohort), DICE))
                for level in levels
            ]
            points = [(ratio, found) for ratio, found in points if found.value is not None]
            if len(points) > 1:
                curves.setdefault(method, {})[cohort] = points
    if not curves:
        return None
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure, axes = new_figure(1.2 + 3.3 * columns, 1.2 + 2.5 * rows, rows, columns, sharex=True, sharey=True)
    drawn: dict[str, Any] = {}
    for panel, (method, lines) in zip(axes.flat, curves.items(), strict=False):
        for cohort, points in lines.items():
            place = study.cohorts.index(cohort)
            drawn.setdefault(cohort, _curve(panel, place, points, cohort_name(cohort)))
        panel.set_title(method, fontsize=10)
        panel.grid(color="#DDDDDD", linewidth=0.6)
        panel.set_axisbelow(True)
    ratios = sorted({ratio for lines in curves.values() for points in lines.values() for ratio, _ in points})
    axes[0, 0].set_xticks(ratios, [f"{ratio:g}" for ratio in ratios], fontsize=8)
    for panel in axes.flat[len(curves) :]:
        panel.axis("off")
    for place, panel in enumerate(axes.flat[: len(curves)]):
        if place + columns >= len(curves):
            panel.set_xlabel("synthetic scans per real one, %")
            panel.tick_params(labelbottom=True)
        if place % columns == 0:
            panel.set_ylabel("Dice, mean")
    figure.legend(
        handles=list(drawn.values()),
        loc="outside lower center",
        ncols=len(drawn),
        frameon=False,
        fontsize=9,
        title="band: 95 % interval, patients drawn",
    )
    return figure


def forest_figure(table: Table) -> Figure:
    """Paired differences of Dice with their intervals; a panel per cohort, filled where a difference is shown."""
    groups: dict[str, list[Contrast]] = {}
    for contrast in table.contrasts:
        groups.setdefault(contrast.cohort, []).append(contrast)
    heights = [len(group) + 1.2 for group in groups.values()]
    figure, axes = new_figure(
        8.2, 1.1 + 0.36 * sum(heights), len(groups), 1, sharex=True, height_ratios=heights
    )
    for panel, (cohort, group) in zip(axes[:, 0], groups.items(), strict=True):
        for place, contrast in enumerate(group):
            found = contrast.difference
            estimated = Estimate(found.scores, found.patients, found.mean, found.low, found.high)
            face = OBSERVED_COLOUR if contrast.shown else "white"
            _across(
                panel,
                place,
                estimated,
                color=OBSERVED_COLOUR,
                marker="o",
                markerfacecolor=face,
                linestyle="none",
            )
        panel.axvline(0.0, color="black", linestyle=":", linewidth=1)
        labels = [f"{contrast.subject} ({contrast.difference.patients})" for contrast in group]
        panel.set_yticks(range(len(group)), labels, fontsize=8)
        panel.set_ylim(len(group) - 0.4, -0.6)
        panel.set_title(cohort_name(cohort), fontsize=10)
        panel.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        panel.set_axisbelow(True)
    axes[-1, 0].set_xlabel("paired difference of Dice")
    figure.supxlabel(
        "in parentheses: patients; filled: shown, by the interval and the corrected p", fontsize=9
    )
    return figure


def scanners_figure(study: StudyResults, shown: Sequence[Arm]) -> Figure | None:
    """Dice of every scan by scanner, a panel per method at its highest level shown; None without scanners."""
    best: dict[str, list[Arm]] = {}
    for arm in shown:
        best.setdefault(arm.configuration.method, []).append(arm)
    panels = {}
    for method, group in best.items():
        top = max((arm.configuration for arm in group), key=lambda found: found.ratio)
        rows = [row for arm in group if arm.configuration == top for row in infected(arm.rows)]
        rows = [row for row in rows if row.scanner is not None and row.dice is not None]
        if rows:
            panels[f"{method}, {top.level}"] = rows
    if not panels:
        return None
    groups = sorted(
        {(row.cohort, row.scanner or "") for rows in panels.values() for row in rows},
        key=lambda pair: (study.cohorts.index(pair[0]), pair[1]),
    )
    columns = min(3, len(panels))
    height = math.ceil(len(panels) / columns)
    width = max(3.0, 0.6 + 0.55 * len(groups))
    figure, axes = new_figure(
        0.8 + width * columns, 1.8 + 2.5 * height, height, columns, sharex=True, sharey=True
    )
    for panel, (title, rows) in zip(axes.flat, panels.items(), strict=False):
        for place, (cohort, scanner) in enumerate(groups):
            chosen = [row for row in rows if (row.cohort, row.scanner) == (cohort, scanner)]
            _scans(panel, place, chosen, study.cohorts.index(cohort))
        panel.axhline(FAILURE_DICE, color="#444444", linestyle=":", linewidth=1)
        panel.set_title(title, fontsize=10)
    for panel in axes.flat[len(panels) :]:
        panel.axis("off")
    labels = [scanner if cohort == OWN else f"{scanner}\n{cohort}" for cohort, scanner in groups]
    for place, panel in enumerate(axes.flat[: len(panels)]):
        panel.set_xticks(range(len(groups)), labels, rotation=45, ha="right", fontsize=8)
        panel.set_xlim(-0.6, len(groups) - 0.4)
        panel.set_ylim(-0.03, 1.03)
        panel.tick_params(labelbottom=place + columns >= len(panels))
        if place % columns == 0:
            panel.set_ylabel("Dice")
    explained = (
        "point: a scan, mean over its models",
        "bar: mean with 95 % interval",
        f"dotted: failure, {FAILURE_DICE:g}",
    )
    figure.supxlabel("; ".join(explained) if columns > 1 else "\n".join(explained), fontsize=9)
    return figure


_LEVEL_STYLES: tuple[dict[str, Any], ...] = (
    {"color": OBSERVED_COLOUR, "marker": "o", "markerfacecolor": "white", "linestyle": "none"},
    {"color": FITTED_COLOUR, "marker": "D", "linestyle": "none"},
)


def _across(panel: Axes, place: float, found: Estimate, **style: Any) -> None:
    if found.value is None:
        return
    if found.low is not None and found.high is not None:
        panel.hlines(place, found.low, found.high, color=style["color"], linewidth=1.6, zorder=2)
    panel.plot([found.value], [place], markersize=6, zorder=3, **style)


def _curve(panel: Axes, place: int, points: Sequence[tuple[float, Estimate]], label: str) -> Any:
    colour, marker = COHORT_COLOURS[place % len(COHORT_COLOURS)], MARKERS[place % len(MARKERS)]
    table = np.array([(ratio, found.value, found.low, found.high) for ratio, found in points], np.float64)
    ratios, values, low, high = table.T
    panel.fill_between(ratios, low, high, color=colour, alpha=0.15, linewidth=0)
    return panel.plot(ratios, values, color=colour, marker=marker, markersize=5, label=label)[0]


def _scans(panel: Axes, place: int, rows: Sequence[Row], cohort: int) -> None:
    scans: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row.dice is not None:
            scans.setdefault((row.patient, row.scan), []).append(row.dice)
    found = estimate(rows, DICE)
    if found.value is None:
        return
    dice = [float(np.mean(scans[scan])) for scan in sorted(scans)]
    shift = np.linspace(-0.22, 0.22, len(dice)) if len(dice) > 1 else np.zeros(1)
    colour = COHORT_COLOURS[cohort % len(COHORT_COLOURS)]
    marker = MARKERS[cohort % len(MARKERS)]
    panel.plot(place + shift, dice, marker, color=colour, markersize=3.5, alpha=0.55, markeredgewidth=0)
    panel.hlines(found.value, place - 0.3, place + 0.3, color="black", linewidth=2)
    if found.low is not None and found.high is not None:
        panel.vlines(place, found.low, found.high, color="black", linewidth=1.2)


def _cohort_title(cohort: str, rows: Sequence[Row]) -> str:
    patients = len({row.patient for row in rows})
    return f"{cohort_name(cohort)}: {scans_of(rows)} scans of {patients} patients"
