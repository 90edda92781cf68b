"""Tables beside the paper's II to VII: choices, Mueller's method, generators, scans without infection, costs."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from segmentation.methods import THREE_WAY
from segmentation.study.contrast_table import IDENTITY, Line, contrast_table, identity, patients_of, scans_of
from segmentation.study.records import GENERATORS, Configuration, CostRow, Row
from segmentation.study.statistics import estimate, median_of
from segmentation.study.study_results import (
    NOTHING,
    OURS,
    USUAL_RATIO,
    Level,
    StudyResults,
    cohort_name,
)
from segmentation.study.table import Number, Table, estimate_columns, estimate_values, number, with_interval

MUELLER = "mueller"
FOUND_ML = 1.0
"""More than this in a scan without infection counts as a false alarm."""


def table_choices(study: StudyResults) -> Table:
    """S1: slice offsets and aggregation rules of the three-way method instead of its own."""
    name, title = "table_s1_choices", "Table S1: slice offsets and aggregation rules"
    absent = "the three-way method was run with its own offsets and rule only"
    variants = study.variants(THREE_WAY, ("offsets", "rule"))
    usable = {level: found for level, found in variants.items() if study.whole(THREE_WAY, level) is not None}
    level = study.best_level(usable)
    if level is None:
        return Table(name, title, absent=absent)
    whole = study.whole(THREE_WAY, level)
    lines = [] if whole is None else [Line(("the method's own",), whole)]
    for arm in usable[level]:
        words = ", ".join(f"{part} {value}" for part, value in arm.parts.items())
        lines.append(Line((words,), arm, whole, words, f"With {words}, the Dice of {THREE_WAY} changed by"))
    return contrast_table(
        study,
        name,
        f"{title} ({level.label})",
        ("choice",),
        lines,
        notes=["difference: to the method's own"],
        absent=absent,
    )


def table_mueller(study: StudyResults) -> Table:
    """Mueller et al.: preprocessing and augmentation on and off, and the number of folds."""
    name, title = "table_mueller", "Mueller et al.: preprocessing, augmentation and folds"
    absent = "Mueller's method was run in one way only"
    level = study.best_level(study.variants(MUELLER, ("preprocess", "vary"))) or _level_of_most_folds(study)
    if level is None:
        return Table(name, title, absent=absent)
    found = [
        arm
        for arm in study.configurations
        if (arm.method, arm.generator, arm.ratio) == (MUELLER, *level)
        and set(arm.parts) <= {"preprocess", "vary"}
    ]
    main = study.whole(MUELLER, level)
    lines = []
    for arm in sorted(found, key=lambda arm: (arm.folds, len(arm.parts), arm.variant)):
        states = arm.parts.get("preprocess", "on"), arm.parts.get("vary", "on")
        labels = (str(arm.folds), *states)
        whole = study.whole(MUELLER, level, arm.folds)
        if arm != whole:
            words = f"preprocessing {states[0]}, augmentation {states[1]}"
            sentence = f"With {words}, k = {arm.folds}, the Dice of {MUELLER} changed by"
            lines.append(Line(labels, arm, whole, f"k = {arm.folds}, {words}", sentence))
        elif arm == main:
            lines.append(Line(labels, arm))
        else:
            sentence = (
                f"With k = {arm.folds} instead of {study.folds} folds, the Dice of {MUELLER} changed by"
            )
            lines.append(Line(labels, arm, main, f"k = {arm.folds}", sentence))
    notes = [
        f"difference: to the whole method of the same k; of the whole method, to k = {study.folds}",
        "augmentation: the method's own flips, rotations and intensities, on the fly",
    ]
    if any(arm.folds != study.folds for arm in found):
        notes.append("between different k, a scan's scores are averaged over folds before they are paired")
    return contrast_table(
        study,
        name,
        f"{title} ({level.label})",
        ("k", "preprocessing", "augmentation"),
        lines,
        notes=notes,
        absent=absent,
    )


def table_generators(study: StudyResults) -> Table:
    """Where synthetic scans come from: each generator at one ratio against none, and ours against the others."""
    lines: list[Line] = []
    ratios = []
    for method in study.methods:
        base = study.whole(method, NOTHING)
        ratio = _common_ratio(study, method)
        bare = next(iter(_bare(study, method, NOTHING)), None)
        if base is None or ratio is None:
            continue
        arms = {
            generator: whole
            for generator in GENERATORS[1:]
            if (whole := study.whole(method, Level(generator, ratio))) is not None
        }
        if len(arms) + (bare is not None) < 2:
            continue
        ratios.append(f"{method} at {ratio:g} %")
        if bare is not None:
            sentence = f"Without classical augmentation too, the Dice of {method} changed by"
            lines.append(
                Line((method, "nothing", "classical too"), bare, base, f"{method}: nothing", sentence)
            )
        lines.append(Line((method, "classical", REFERENCE), base))
        for generator, arm in arms.items():
            sentence = f"{generator} scans at {ratio:g} % changed the Dice of {method} by"
            labels = (method, generator, "classical")
            lines.append(Line(labels, arm, base, f"{method}: {generator}", sentence))
            for varied in _bare(study, method, Level(generator, ratio)):
                words = f"{generator}, classical off"
                sentence = f"Without classical augmentation, the Dice of {arm.label} changed by"
                lines.append(Line((method, words, generator), varied, arm, f"{method}: {words}", sentence))
        for ours in OURS:
            for other in ("copy-paste", "ellipsoids", "observed"):
                if ours in arms and other in arms:
                    sentence = (
                        f"{ours} instead of {other} scans at {ratio:g} % changed the Dice of {method} by"
                    )
                    lines.append(
                        Line(
                            (method, ours, other),
                            arms[ours],
                            arms[other],
                            f"{method}: {ours} - {other}",
                            sentence,
                        )
                    )
    return contrast_table(
        study,
        "table_generators",
        "Generators of added scans" + (f" ({', '.join(ratios)})" if ratios else ""),
        ("method", "generator", "compared with"),
        lines,
        notes=[
            "classical: the method's own flips, rotations and intensities, on the fly, which all others have too",
            "observed: real scans of the same patients on other days, as many: what a perfect simulator would add",
            "ellipsoids and test phantoms are both calibrated on published statistics of real lesions; lungcast "
            "knows the training scans alone",
        ],
        absent="no method was trained with several generators at one ratio",
    )


def table_negatives(study: StudyResults) -> Table:
    """Infection found in scans that have none, ml."""
    cells: list[tuple[str, ...]] = []
    values: list[tuple[Number, ...]] = []
    for cohort in study.cohorts:
        for arm in study.configurations:
            if arm.folds != study.folds or arm.variant:
                continue
            rows = [row for row in study.rows_of(arm, cohort) if not row.infected]
            if not rows:
                continue
            mean_ml, middle = estimate(rows, _found_ml), median_of(rows, _found_ml)
            worst = max(row.predicted_ml for row in rows)
            alarms = sum(row.predicted_ml > FOUND_ML for row in rows)
            counts = scans_of(rows), patients_of(rows)
            cells.append(
                (
                    *(cohort_name(cohort), arm.method, arm.level),
                    *(str(count) for count in counts),
                    with_interval(mean_ml, 1),
                    *(number(middle.value, 1), number(worst, 1), f"{alarms} of {len(rows)}"),
                )
            )
            values.append(
                (
                    *(cohort, *identity(arm), *counts, len(rows)),
                    *(*estimate_values(mean_ml), *estimate_values(middle), worst, alarms),
                )
            )
    title = "Scans without infection: false-positive volume"
    if not cells:
        return Table("table_negatives", title, absent="every scan that was scored has an infection")
    return Table(
        "table_negatives",
        title,
        (
            *(
                "cohort",
                "method",
                "augmentation",
                "scans",
                "patients",
                "mean, ml [95 %]",
                "median, ml",
                "worst, ml",
            ),
            f"more than {FOUND_ML:g} ml",
        ),
        tuple(cells),
        3,
        ("more than: scores, of all",),
        (
            *("cohort", *IDENTITY, "scans", "patients", "scores", *estimate_columns("mean_ml")),
            *(*estimate_columns("median_ml"), "worst_ml", f"scores_above_{FOUND_ML:g}_ml"),
        ),
        tuple(values),
    )


def table_costs(study: StudyResults) -> Table:
    """Parameters, training time, prediction time and memory of a model of each method."""
    groups: dict[tuple[str, str], list[CostRow]] = {}
    for row in sorted(study.costs, key=lambda row: row.key):
        if not row.variant and row.folds == study.folds:
            groups.setdefault((row.method, row.generator), []).append(row)
    title = "Costs of a model"
    if not groups:
        return Table("table_costs", title, absent="no costs were measured")
    cells: list[tuple[str, ...]] = []
    values: list[tuple[Number, ...]] = []
    for (method, generator), rows in groups.items():
        middle = {name: _median(rows, name) for name in _COSTS}
        millions = None if middle["parameters"] is None else middle["parameters"] / 1e6
        minutes = None if middle["train_s"] is None else middle["train_s"] / 60
        cells.append(
            (
                *(method, generator, str(len(rows)), number(millions, 2), number(middle["steps"], 0)),
                *(number(minutes, 1), number(middle["predict_s"], 2), number(middle["peak_memory_mb"], 0)),
            )
        )
        values.append((method, generator, len(rows), *middle.values()))
    notes = [
        "medians over folds, seeds and ratios; all networks of a model together (the three-way method has three)",
        "training: optimiser steps and drawing of examples, with what on-the-fly, copy-paste and ellipsoids make; "
        "fits and stored synthetic scans, made once for all runs, are not in it",
        "memory: of the run's process, training and prediction, PyTorch itself included",
    ]
    hours = sum(row.train_s for row in study.costs if row.train_s is not None) / 3600
    if hours:
        notes.append(f"training of all {len(study.costs)} models, variants among them: {hours:.1f} h")
    return Table(
        "table_costs",
        title,
        (
            *("method", "generator", "models", "parameters, million", "steps per network", "training, min"),
            *("prediction, s per scan", "peak memory, MB"),
        ),
        tuple(cells),
        2,
        tuple(notes),
        ("method", "generator", "models", *(f"{name}_median" for name in _COSTS)),
        tuple(values),
    )


FURTHER_TABLES: tuple[Callable[[StudyResults], Table], ...] = (
    table_choices,
    table_mueller,
    table_generators,
    table_negatives,
    table_costs,
)
"""All tables of this module."""

REFERENCE = "(reference)"
_COSTS = ("parameters", "steps", "train_s", "predict_s", "peak_memory_mb")


def _level_of_most_folds(study: StudyResults) -> Level | None:
    """Where Mueller's method, as it is, was run with several numbers of folds; None where it was not."""
    levels = Counter(
        Level(arm.generator, arm.ratio)
        for arm in study.configurations
        if arm.method == MUELLER and not arm.variant
    )
    several = [level for level, number_of_k in levels.items() if number_of_k > 1]
    return max(several, key=lambda level: levels[level], default=None)


def _common_ratio(study: StudyResults, method: str) -> float | None:
    """The ratio at which a method has most generators, of equals the nearest to the paper's."""
    ratios = Counter(
        arm.ratio
        for arm in study.configurations
        if arm.method == method and not arm.variant and arm.folds == study.folds and arm.ratio > 0
    )
    return min(ratios, key=lambda ratio: (-ratios[ratio], abs(ratio - USUAL_RATIO), ratio), default=None)


def _bare(study: StudyResults, method: str, level: Level) -> tuple[Configuration, ...]:
    """A method without its own flips, rotations and intensities, where it was run."""
    return study.variants(method, ("vary",)).get(level, ())


def _found_ml(row: Row) -> float:
    return row.predicted_ml


def _median(rows: Sequence[CostRow], name: str) -> float | None:
    known = [getattr(row, name) for row in rows if getattr(row, name) is not None]
    return float(statistics.median(known)) if known else None
